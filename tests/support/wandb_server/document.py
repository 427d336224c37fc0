"""GraphQL documents: text in, operations and fragments out."""

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

TOKEN = re.compile(
    r'\.\.\.|[{}()\[\]:!=@$|&]|"""(?:.|\n)*?"""|"(?:\\.|[^"\\])*"|[_A-Za-z]\w*|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?'
)
IGNORED = re.compile(r"(?:[\s,]|#[^\n]*)*")


class GraphQLError(Exception):
    """A request that can't be answered; the message goes to the client."""


@dataclass(frozen=True)
class Variable:
    """`$name` in the place of a value."""

    name: str


@dataclass
class Selection:
    """A field, or (with `name` empty) a fragment: its condition and its own selections."""

    name: str = ""
    alias: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    directives: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    selections: list["Selection"] = field(default_factory=list)
    spread: str = ""
    condition: str = ""


@dataclass
class Operation:
    """A query or a mutation."""

    kind: str
    name: str
    defaults: dict[str, Any]
    selections: list[Selection]


@dataclass
class Document:
    """Operations and fragments by name."""

    operations: dict[str, Operation] = field(default_factory=dict)
    fragments: dict[str, Selection] = field(default_factory=dict)


class Parser:
    """Recursive descent over the tokens of one document."""

    def __init__(self, text: str) -> None:
        """Cut the text into tokens.

        Raises:
            GraphQLError: On a character that belongs to none.
        """
        self.tokens: list[str] = []
        self.at = 0
        position = IGNORED.match(text).end()
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                raise GraphQLError(f"Syntax Error: unexpected {text[position : position + 20]!r}")
            self.tokens.append(match.group())
            position = IGNORED.match(text, match.end()).end()

    def peek(self) -> str:
        """Return the next token, or nothing at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        """Return the next token and go on; it has to be the expected one, if given."""
        token = self.peek()
        if not token or (expected and token != expected):
            raise GraphQLError(f"Syntax Error: expected {expected or 'more'!r}, found {token!r}")
        self.at += 1
        return token

    def skip(self, token: str) -> bool:
        """Go past the token if it is the next one, and say so."""
        if self.peek() != token:
            return False
        self.at += 1
        return True

    def document(self) -> Document:
        """Parse all."""
        document = Document()
        while self.peek():
            if self.skip("fragment"):
                name = self.take()
                self.take("on")
                condition = self.take()
                self.directives()
                document.fragments[name] = Selection(condition=condition, selections=self.selections())
            else:
                operation = self.operation()
                document.operations[operation.name] = operation
        return document

    def operation(self) -> Operation:
        """Parse `query Name($a: T = 1) {...}`; a bare `{...}` is a query."""
        kind = self.take() if self.peek() != "{" else "query"
        if kind not in ("query", "mutation"):
            raise GraphQLError(f"Syntax Error: unexpected {kind!r}")
        name = self.take() if self.peek() not in ("(", "{", "@") else ""
        defaults = {}
        if self.skip("("):
            while not self.skip(")"):
                self.take("$")
                variable = self.take()
                self.take(":")
                self.type()
                if self.skip("="):
                    defaults[variable] = self.value()
        self.directives()
        return Operation(kind, name, defaults, self.selections())

    def type(self) -> None:
        """Go past a type."""
        if self.skip("["):
            self.type()
            self.take("]")
        else:
            self.take()
        self.skip("!")

    def selections(self) -> list[Selection]:
        """Parse `{...}`."""
        self.take("{")
        found = []
        while not self.skip("}"):
            found.append(self.selection())
        return found

    def selection(self) -> Selection:
        """Parse a field, a spread or an inline fragment."""
        if self.skip("..."):
            if self.peek() in ("on", "@", "{"):
                condition = self.take() and self.take() if self.peek() == "on" else ""
                return Selection(condition=condition, directives=self.directives(), selections=self.selections())
            return Selection(spread=self.take(), directives=self.directives())
        alias = name = self.take()
        if self.skip(":"):
            name = self.take()
        arguments, directives = self.arguments(), self.directives()
        inner = self.selections() if self.peek() == "{" else []
        return Selection(name, alias, arguments, directives, inner)

    def arguments(self) -> dict[str, Any]:
        """Parse `(a: 1, b: $c)`, if there."""
        found = {}
        if self.skip("("):
            while not self.skip(")"):
                name = self.take()
                self.take(":")
                found[name] = self.value()
        return found

    def directives(self) -> list[tuple[str, dict[str, Any]]]:
        """Parse `@include(if: $x)` and the like, if there."""
        found = []
        while self.skip("@"):
            found.append((self.take(), self.arguments()))
        return found

    def value(self) -> Any:
        """Parse a value; variables stay `Variable`, enum names become strings."""
        if self.skip("$"):
            return Variable(self.take())
        if self.skip("["):
            items = []
            while not self.skip("]"):
                items.append(self.value())
            return items
        if self.skip("{"):
            members = {}
            while not self.skip("}"):
                name = self.take()
                self.take(":")
                members[name] = self.value()
            return members
        token = self.take()
        if token.startswith('"""'):
            return token[3:-3]
        if token[0] in '"-' or token[0].isdigit() or token in ("true", "false", "null"):
            return json.loads(token)
        return token


@lru_cache(maxsize=512)
def parse(text: str) -> Document:
    """Return the parsed document."""
    return Parser(text).document()


def choose(document: Document, name: str | None) -> Operation:
    """Return the named operation, or the only one."""
    if name and name in document.operations:
        return document.operations[name]
    if len(document.operations) != 1:
        raise GraphQLError(f"Unknown operation named {name!r}.")
    return next(iter(document.operations.values()))
