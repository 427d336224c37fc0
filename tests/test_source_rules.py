"""Nothing in the source runs what a file holds, or writes where a file says: the rules that ruff has not got.

Ruff's own (S102 exec, S301 pickle, S307 eval, S506 unsafe YAML, S602 and S605 shells, S701 templates, S704 markup ...)
are selected in pyproject.toml.
"""

import ast
from collections.abc import Callable, Iterator

import pytest

from tests import ROOT

PACKAGES = ("finetune", "analysis", "benchmarks", "chaos", "notebooks", "scripts")
SOURCES = [ROOT / "agent.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
YAML_READERS = {"load", "load_all", "safe_load", "safe_load_all", "full_load", "full_load_all", "unsafe_load", "parse"}

# Rule -> whether a call breaks it, by the function's dotted name and the source of the keyword arguments.
RULES: dict[str, Callable[[str, dict[str | None, str]], bool]] = {
    "torch.load takes weights_only=True": lambda name, given: (
        name == "torch.load" and given.get("weights_only") != "True"
    ),
    "YAML is read with documents.load_yaml, which is bounded": lambda name, _: (
        name.startswith("yaml.") and name.removeprefix("yaml.") in YAML_READERS
    ),
    "archives are unpacked by finetune.system.archive, which checks the paths": lambda name, _: (
        name.rpartition(".")[2] in ("extract", "extractall", "unpack_archive")
    ),
    "arrays are loaded without pickle": lambda _, given: given.get("allow_pickle", "False") != "False",
    "consoles are SafeConsoles, which show no control characters": lambda name, given: (
        name.rpartition(".")[2] == "Console" or (name.rpartition(".")[2] == "Progress" and "console" not in given)
    ),
    "templates are files, and none is made of text": lambda name, _: name.rpartition(".")[2] == "from_string",
    "nothing is compiled, imported by name or asked on the terminal": lambda name, _: (
        name in ("compile", "__import__", "input")
    ),
}
ALLOWED = {("YAML is read with documents.load_yaml, which is bounded", "finetune/system/documents.py")}
BAD = [
    "torch.load(path)", "torch.load(path, weights_only=False)", "yaml.safe_load(text)", "yaml.parse(text)",
    "yaml.load(text, Loader=LOADER)", "archive.extractall(place)", "shutil.unpack_archive(file)",
    "np.load(file, allow_pickle=True)", "Console()", "rich.progress.Progress()", "environment.from_string(text)",
    "compile(text, '', 'exec')", "__import__(name)", "input()",
]  # fmt: skip
GOOD = """
torch.load(path, weights_only=True); yaml.safe_dump(x); np.load(file); SafeConsole(); Progress(console=console)
re.compile(pattern); documents.load_yaml(text); importlib.import_module(name)
"""


def broken_rules(source: str) -> Iterator[tuple[str, int]]:
    """Yield (rule, line) of each call that breaks a rule."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield from ((rule, node.lineno) for rule, is_broken in RULES.items() if is_broken(name, given))


def test_no_source_breaks_a_rule() -> None:
    """No pickle, no unbounded YAML, no unpacking that trusts names, no console that shows control characters."""
    files = {path.relative_to(ROOT).as_posix(): path.read_text() for path in SOURCES}
    broken = [(rule, file, line) for file, source in files.items() for rule, line in broken_rules(source)]
    assert [f"{file}:{line}: {rule}" for rule, file, line in broken if (rule, file) not in ALLOWED] == []
    assert {(rule, file) for rule, file, _ in broken} >= ALLOWED  # nothing is allowed that is not needed


def test_no_source_imports_a_pickle() -> None:
    """Not even where nothing is called."""
    imports = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} & PICKLES == set()


@pytest.mark.parametrize("code", BAD)
def test_the_rules_find_what_breaks_them(code: str) -> None:
    """One rule each, also deep inside of other code."""
    assert len(list(broken_rules(f"def f():\n    return [g({code})]"))) == 1
    assert list(broken_rules(GOOD)) == []


def test_templates_escape_everything() -> None:
    """No template marks a value as safe, or switches escaping off."""
    templates = [path for package in PACKAGES for path in (ROOT / package).rglob("*.j2")]
    assert len(templates) == 2  # the report and the page of predictions
    for template in templates:
        text = template.read_text()
        assert "safe" not in {word for part in text.split("|")[1:] for word in part.split()[:1]}
        assert "autoescape false" not in text


def test_the_lock_has_hashes_and_no_addresses() -> None:
    """Every package is pinned with hashes, and comes from no named host."""
    for lock in sorted(ROOT.glob("requirements*.lock")):
        entries = lock.read_text().replace("\\\n", " ").splitlines()
        assert len(entries) > 30
        for entry in filter(None, map(str.strip, entries)):
            assert "==" in entry.split(";")[0], entry
            assert entry.count("--hash=sha256:") >= 1, entry
            assert "://" not in entry, entry
            assert not entry.startswith("-"), entry
