"""A small GraphQL executor: documents in, plain dicts out.

A node is a dict from field name to value. A value may be a function of the field's arguments (a dict), so that what
is dear is worked out only when asked for. `__typename` decides which fragments apply.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.wandb_server.document import GraphQLError, Selection, Variable, choose, parse

Node = Mapping[str, Any]

# Interfaces that the client's fragments name, and the types behind them.
INTERFACES = {"ArtifactCollection": {"ArtifactSequence", "ArtifactPortfolio"}}


class NotFound(Exception):
    """Answered with HTTP 404, not as a GraphQL error."""


def execute(text: str, name: str | None, variables: Mapping[str, Any], roots: Mapping[str, Node]) -> dict[str, Any]:
    """Return the data of one operation; `roots` has the nodes "query" and "mutation"."""
    document = parse(text)
    operation = choose(document, name)
    given = {**operation.defaults, **{name: value for name, value in variables.items() if value is not None}}
    return _Execution(document.fragments, given).node(roots[operation.kind], operation.selections, operation.kind)


@dataclass
class _Execution:
    """What all levels of one operation share."""

    fragments: dict[str, Selection]
    variables: Mapping[str, Any]

    def node(self, node: Node, selections: list[Selection], where: str) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for selection in self.flat(node, selections):
            if selection.name not in node and selection.name != "__typename":
                kind = node.get("__typename", where)
                raise GraphQLError(f'Cannot query field "{selection.name}" on type "{kind}".')
            value = node.get(selection.name)
            if callable(value):
                value = value(self.fill(selection.arguments))
            done = self.value(value, selection)
            if isinstance(done, dict) and isinstance(answer.get(selection.alias), dict):
                answer[selection.alias] = _merge(answer[selection.alias], done)
            else:
                answer[selection.alias] = done
        return answer

    def value(self, value: Any, selection: Selection) -> Any:
        if not selection.selections or value is None:
            return value
        if isinstance(value, list | tuple):
            return [self.value(item, selection) for item in value]
        return self.node(value, selection.selections, selection.name)

    def flat(self, node: Node, selections: list[Selection]) -> list[Selection]:
        """Return the fields to answer, fragments replaced by what is in them."""
        found = []
        for selection in selections:
            if not self.wanted(selection):
                continue
            if selection.name:
                found.append(selection)
                continue
            if selection.spread and selection.spread not in self.fragments:
                raise GraphQLError(f'Unknown fragment "{selection.spread}".')
            fragment = self.fragments[selection.spread] if selection.spread else selection
            kind = node.get("__typename")
            fits = {fragment.condition} | INTERFACES.get(fragment.condition, set())
            if not fragment.condition or kind is None or kind in fits:
                found += self.flat(node, fragment.selections)
        return found

    def wanted(self, selection: Selection) -> bool:
        for name, arguments in selection.directives:
            condition = bool(self.fill(arguments).get("if"))
            if (name == "include" and not condition) or (name == "skip" and condition):
                return False
        return True

    def fill(self, value: Any) -> Any:
        """Put the variables in; what was given no value is left out of objects."""
        if isinstance(value, Variable):
            return self.variables.get(value.name)
        if isinstance(value, dict):
            filled = {name: self.fill(item) for name, item in value.items()}
            return {name: item for name, item in filled.items() if item is not None}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return value


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return both answers to one field as one (the same field may be asked for twice, with other subfields)."""
    merged = dict(first)
    for name, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if both else value
    return merged
