"""README and docs: every command is right in bash and zsh, every link resolves, and no page is too wide.

The shells split the commands into words, with stand-ins for the programs; the words go through the parsers that the
commands themselves use, in this process. What is cheap is run on drawn images.
"""

import argparse
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import agent
from finetune.errors import UserError
from finetune.sweep import command, sweep_file
from finetune.sweep.agents.training_api import REAL
from finetune.sweep.plan import check_sweep_file
from scripts import configuration_page
from tests import ROOT
from tests.support.images import write_folder

DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
LANGUAGES = {"bash", "text", "yaml", "mermaid"}
SHELLS = ["bash", *(["zsh"] if shutil.which("zsh") else [])]
MAX_WIDTH, MAX_README_WIDTH, MAX_README_LINES = 140, 120, 165
VARIABLES = {"SWEEP", "AGENTS", "BUDGET", "ARGS"}  # of make
MAKE = shutil.which("make") or "make"
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
PROGRAMS = ("python", "make", "wandb", "sha256sum")
ADDRESS = "entity/project/id"  # stands for a sweep on W&B
WITHOUT_PARSER = {"benchmarks.oneoff.report", "scripts.audit"}  # take two numbers, or nothing

# Stands in for a program: notes which command it belongs to, its name and its arguments. make then runs with stand-ins.
STAND_IN = """#!/bin/sh
[ "$2" = "print(1)" ] && { echo 1; exit; }  # the Makefile's question whether Python starts
name=${0##*/}
{ printf '%s\\0' "$NUMBER" "$MAKELEVEL" "$name" "$@"; printf '\\n'; } >> "$RECORD"
[ "$name" = make ] || exit 0
[ "$SHELL_NAME" = bash ] || exit 0
exec "$MAKE_PROGRAM" -f "$MAKEFILE" READY=ready "$@"
"""


class Block(NamedTuple):
    """A fenced block: its page and first line, its language, and its text without the indentation of a list."""

    page: Path
    line: int
    language: str
    text: str


class Command(NamedTuple):
    """A command of a page, and where it stands."""

    place: str
    text: str


class Call(NamedTuple):
    """A program that a command starts: its name, and its arguments as the shell makes them; whether make starts it."""

    place: str
    program: str
    arguments: tuple[str, ...]
    by_make: bool = False


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"( *)```(\w*)$", line)
        if fence and opened is None:
            opened, lines = (number, fence[1], fence[2]), []
        elif fence and opened:
            found.append(Block(page, opened[0], opened[2], "\n".join(lines)))
            opened = None
        elif opened:
            lines.append(line.removeprefix(opened[1]))
    assert opened is None, f"{page.name}: a block is not closed"
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


def prose(page: Path) -> str:
    """Return the page with its blocks empty."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^( *```\w*\n).*?^( *```)$", r"\1\2", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> Iterator[Command]:
    """Yield every command of the blocks for a shell, each once; a line that ends with a backslash goes on."""
    seen = set()
    for block in BLOCKS:
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                text = line.strip()
                if text and not text.startswith("#") and text not in seen:
                    seen.add(text)
                    yield Command(f"{block.page.name}:{block.line}: {text}", text)


def inline_commands() -> Iterator[Call]:
    """Yield the commands in the prose; one with <a placeholder> is only for the eye, one without flags a name."""
    for page in PAGES:
        for text in re.findall(r"`((?:make|python|wandb) [^`<]*)`", prose(page)):
            program, *arguments = shlex.split(text)
            if program == "python" and not any(word.startswith("--") for word in arguments):
                arguments.append("--help")
            yield Call(f"{page.name}: {text}", program, tuple(arguments))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like a checkout, with stand-ins for all programs; photos lie in it and beside it."""
    folder = tmp_path_factory.mktemp("docs") / "checkout"
    for name in ("sweeps", "scripts", "benchmarks"):
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    for name in ("ready", "requirements.lock", "requirements-bench.lock", "Makefile"):
        (folder / name).touch()
    for venv in (".venv", ".venv-bench"):
        (folder / venv / "bin").mkdir(parents=True)
        (folder / venv / "bin" / "activate").touch()
        for program in (*PROGRAMS, "uv", "ruff", "mypy"):
            stand_in = folder / venv / "bin" / program
            stand_in.write_text(STAND_IN)
            stand_in.chmod(0o755)
    os.utime(folder / "requirements.lock", (0, 0))
    (folder.parent / "new").mkdir()
    (folder.parent / "new" / "IMG_1.jpg").touch()
    write_folder(folder / "path/to/images", {"": 12})
    write_folder(folder.parent / "photos", {"": 12})
    return folder


def calls_in_shell(shell: str, lines: list[Command], folder: Path) -> list[Call]:
    """Return what the commands start in this shell; a command that the shell refuses is an assertion error."""
    record = folder / f"record-{shell}"
    record.unlink(missing_ok=True)
    script = [
        f"NUMBER={number}; ( {command.text}\n) || echo 'refused by {shell}: '{shlex.quote(command.place)} >&2"
        for number, command in enumerate(lines)
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    for name in VARIABLES:
        kept.pop(name, None)
    environment = {
        **kept, "PATH": f"{folder / '.venv/bin'}:/usr/bin:/bin", "RECORD": str(record), "SHELL_NAME": shell,
        "MAKE_PROGRAM": MAKE, "MAKEFILE": str(ROOT / "Makefile"),
    }  # fmt: skip
    done = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else []), "-c", "\n".join(["export NUMBER", *script])],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    faults = [line for line in done.stderr.splitlines() if line.startswith(("refused", f"{shell}:")) or "***" in line]
    assert faults == [], done.stderr
    calls = []
    for line in record.read_text().splitlines() if record.exists() else []:
        number, make_level, program, *arguments = line.split("\0")[:-1]
        calls.append(Call(lines[int(number)].place, program, tuple(arguments), bool(make_level)))
    return calls


class ParsedError(Exception):
    """Raised in place of what a command does, once its flags are parsed."""


def fault_of(call: Call, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what is wrong with the words of a call, an empty text if nothing is."""
    checks: dict[str, Callable[[list[str]], None]] = {
        "make": _check_make,
        "wandb": _check_wandb,
        "python": lambda words: _check_python(words, monkeypatch),
    }
    try:
        checks.get(call.program, lambda _: None)(list(call.arguments))
    except (UserError, AssertionError, ImportError) as error:
        return f"{call.place}: {error}"
    return ""


def _check_make(words: list[str]) -> None:
    for word in words:
        name, equals, _ = word.partition("=")
        assert word in TARGETS or (equals and name in VARIABLES), f"make has no {word}"


def _check_wandb(words: list[str]) -> None:
    import click
    from wandb.cli.cli import cli

    assert words[0] in cli.commands, f"wandb has no command {words[0]}"
    try:
        if len(words) > 1:  # else the prose only names it
            cli.commands[words[0]].make_context(words[0], words[1:])
    except click.ClickException as error:
        raise AssertionError(error.format_message()) from error
    if words[0] == "sweep" and words[-1].endswith(".yaml"):
        assert (ROOT / words[-1]).is_file(), f"there is no {words[-1]}"


def _check_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "agent.py":
        _check_agent(words[1:])
    elif words[0] == "-m":
        _check_module(words[1], words[2:], monkeypatch)
    elif (ROOT / words[0]).is_file():
        _check_module(words[0].removesuffix(".py").replace("/", "."), words[1:], monkeypatch)
    else:
        programs = [block.text for block in BLOCKS if block.language == "python"]
        assert any(f"python {words[0]}" in text for text in programs), f"there is no {words[0]}"


def _check_agent(words: list[str]) -> None:
    """Check the flags, and all fields and values of the sweep that they make of the file."""
    if "--help" in words:
        return
    try:
        args = command.parse(words)
    except SystemExit:
        raise AssertionError("wrong flags, see the output") from None
    if args.sweep not in (None, ADDRESS) and not args.sweep.startswith("runs/"):
        check_sweep_file(sweep_file.load(args.sweep, args.settings, args.name))


def _check_module(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the flags of `python -m NAME`."""
    if name == "pytest":
        paths = [word for word in words if word.startswith("tests/")]
        assert [path for path in paths if not (ROOT / path).exists()] == []
        return
    if name == "wandb":
        _check_wandb(words)
        return
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"there is no module {name}"
    if name in WITHOUT_PARSER:
        assert all(word.isdecimal() for word in words), words
        return
    module = importlib.import_module(f"{name}.__main__" if spec.submodule_search_locations else name)
    main = getattr(module.main, "__wrapped__", module.main)
    parse_args = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *args: Any) -> None:
        raise ParsedError(parse_args(parser, *args))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        patch.setattr(sys, "argv", [name, *words])
        if hasattr(module, "parse_flags"):  # of `python -m finetune`, whose config is checked, too
            parse_flags = module.parse_flags

            def flags_only(*args: Any) -> None:
                raise ParsedError(parse_flags(*args))

            patch.setattr(module, "parse_flags", flags_only)
        with pytest.raises((ParsedError, SystemExit)) as caught:
            main(words) if inspect.signature(main).parameters else main()
    is_help = isinstance(caught.value, SystemExit) and caught.value.code == 0
    assert is_help or isinstance(caught.value, ParsedError), "wrong flags, see the output"


def test_every_command_is_right(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shell makes the same words of it, and the parser of what it starts takes them."""
    monkeypatch.chdir(ROOT)
    lines = list(commands())
    assert len(lines) > 80
    calls = calls_in_shell("bash", lines, checkout)
    for shell in SHELLS[1:]:
        assert calls_in_shell(shell, lines, checkout) == [call for call in calls if not call.by_make]
    started = {call.place for call in calls}
    assert [line.text for line in lines if line.place not in started] == [". .venv/bin/activate"]
    faults = {fault_of(call, monkeypatch) for call in [*calls, *inline_commands()]}
    assert "\n".join(sorted(faults - {""})) == ""


@pytest.mark.parametrize(
    "text",
    [
        "make dmo",
        "make agents AGENT=2",
        "make chaos ARGS='--kils 3'",
        "python agent.py sweeps/strategy.yaml",
        "python agent.py sweeps/strategies.yaml --agent-s 2",
        "python agent.py sweeps/strategies.yaml --set epoch=3",
        "python agent.py sweeps/strategies.yaml --set 'strategy=[head,ful]'",
        "python -m finetune --data x --strategy partail",
        "python -m finetune.predict best",
        "python -m finetune.predic best photos/",
        "python -m analysis runs/x --targets 0.9",
        "python -m finetune.data chek photos/",
        "python scripts/configuration_page.py --wite",
        "python other.py x",
        "wandb swep sweeps/strategies.yaml",
        "wandb agent --forwardsignals me/project/id",
    ],
)
def test_a_wrong_command_is_found(text: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One letter is enough: of a target, a variable, a flag, a key, a value, a file or a module."""
    monkeypatch.chdir(ROOT)
    try:
        calls = calls_in_shell("bash", [Command(text, text)], checkout)
    except AssertionError:
        return  # make itself refuses it
    assert any(fault_of(call, monkeypatch) for call in calls)


@pytest.mark.skipif("zsh" not in SHELLS, reason="zsh is not installed")
def test_a_list_without_quotes_is_found_in_zsh(checkout: Path) -> None:
    """To zsh it is a pattern that matches no file."""
    line = Command("page", "python agent.py sweeps/strategies.yaml --set lr=[1e-3,3e-3]")
    with pytest.raises(AssertionError, match="no matches found"):
        calls_in_shell("zsh", [line], checkout)


def test_no_command_has_a_comment_behind_it() -> None:
    """An interactive zsh would pass the comment on as arguments, unless it was told otherwise."""
    assert [line.place for line in commands() if "#" in shlex.split(line.text)] == []


def test_the_first_commands_run_on_a_folder_of_images(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checks of images and the plan of a sweep, as the pages give them."""
    from finetune.data import __main__ as data_command

    monkeypatch.chdir(checkout)
    texts = [line.text for line in commands()]
    for name in ("check", "split", "show"):
        text = next(text for text in texts if text.startswith(f"python -m finetune.data {name} path/to/images"))
        assert data_command.main(shlex.split(text)[3:]) == 0, capsys.readouterr()
    assert (checkout / "path/to/images/splits.csv").is_file()
    (checkout / "path/to/images/splits.csv").unlink()
    text = next(text for text in texts if text.startswith("python agent.py") and "../photos" in text)
    training = REAL._replace(forecast=lambda *_: None)
    assert agent.main([*shlex.split(text)[2:], "--plan"], training) == 0
    assert "30 runs: 30 to do" in capsys.readouterr().out


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page."""
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)}


def test_every_link_and_anchor_resolves() -> None:
    """Files, folders, images and headings of this repository."""
    broken, count = [], 0
    for page in PAGES:
        text = re.sub(r"`[^`\n]*`", "", prose(page))
        for target in re.findall(r"(?:\]\(|src=\")([^)\s\"]+)", text):
            if target.startswith(("https://", "http://")):
                continue
            count += 1
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.name}: {target}")
    assert broken == []
    assert count > 100


def test_pages_fit_a_screen() -> None:
    """README is short; lines are narrow, but for rows of tables."""
    wide = [
        f"{page.name}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > (MAX_README_WIDTH if page.name == "README.md" else MAX_WIDTH) and not line.startswith("|")
    ]
    assert wide == []
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_every_page_opens_with_its_command_and_is_in_the_index() -> None:
    """A block of another language than these would be checked by nobody."""
    assert {block.language for block in BLOCKS} == LANGUAGES
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in sorted(DOCS.glob("*.md")):
        assert re.match(r"# .+\n\n```bash\n", page.read_text(encoding="utf-8")), f"{page.name} opens with no command"
        assert page.name == "index.md" or f"]({page.name})" in index, f"{page.name} is not in the index"
    sweeps = (DOCS / "sweeps.md").read_text(encoding="utf-8")
    for file in sorted((ROOT / "sweeps").glob("*.yaml")):
        assert f"](../sweeps/{file.name})" in sweeps, f"docs/sweeps.md does not list {file.name}"


def test_the_page_of_fields_is_the_one_that_is_generated() -> None:
    """`python scripts/configuration_page.py --write` writes it."""
    assert configuration_page.PAGE.read_text(encoding="utf-8") == configuration_page.configuration_page()
