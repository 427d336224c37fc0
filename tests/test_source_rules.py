"""Nothing in the source runs what a file holds, or writes where a file says: looked for in the syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

SOURCES = sorted([ROOT / "agent.py", *(path for part in ("finetune", "analysis", "benchmarks", "notebooks", "scripts")
                                       for path in (ROOT / part).rglob("*.py"))])  # fmt: skip
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "LOADER"}
# Why text may go into the page unescaped.
MARKUP = {
    "analysis/report/html.py": "the page's own script, a file here whose hash the page allows",
    "finetune/inference/prediction_page.py": "the page's own style, a file here whose hash the page allows",
}


def faults(tree: ast.AST, file: str) -> Iterator[str]:
    """Yield what is forbidden, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            for name in {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & set(names):
                yield f"{file}:{node.lineno} imports {name}"
        if isinstance(node, ast.Call):
            for fault in _of_call(node, file):
                yield f"{file}:{node.lineno} {fault}"


def _of_call(node: ast.Call, file: str) -> Iterator[str]:
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if (
        name in ("yaml.load", "yaml.load_all", "yaml.parse")
        and given.get("Loader", "").rpartition(".")[2] not in SAFE_LOADERS
    ):
        yield f"{name} without a safe loader"
    if name in ("yaml.unsafe_load", "yaml.full_load", "yaml.safe_load") or name == "yaml.safe_load_all":
        yield f"{name}: use plain_yaml.load, which is bounded"
    if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "input"):
        yield name
    if given.get("shell", "False") != "False":
        yield f"{name} through a shell"
    if last in ("extract", "extractall", "unpack_archive"):
        yield f"{name}: unpack by finetune.system.archive, which looks where to"
    if given.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if last == "Environment" and given.get("autoescape") != "True":
        yield "a template environment without autoescape=True"
    if last in ("Markup", "from_string") and file not in MARKUP:
        yield f"{name} puts text into a page unescaped"
    if last == "Console" or (last == "Progress" and "console" not in given):
        yield f"{name}: finetune.system.output.SafeConsole shows no control characters"


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_runs_what_it_reads(file: Path) -> None:
    """No pickle, no eval, no shell, no unbounded YAML, no unpacking that trusts names, no unescaped page."""
    assert list(faults(ast.parse(file.read_text()), file.relative_to(ROOT).as_posix())) == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, yaml.SafeLoader)",
        "yaml.safe_load(text)",
        "yaml.full_load(text)",
        "eval(text)",
        "exec(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "archive.extractall(place)",
        "shutil.unpack_archive(file)",
        "np.load(file, allow_pickle=True)",
        "jinja2.Environment(loader=x)",
        "Environment(autoescape=False)",
        "Markup(text)",
        "import pickle",
        "from pickle import loads",
        "Console()",
        "Progress()",
    ],
)
def test_the_rules_bite(code: str) -> None:
    """Each of them finds what it is for."""
    assert list(faults(ast.parse(code), "a.py"))


def test_templates_escape_everything() -> None:
    """No template marks a value as safe, or switches escaping off."""
    templates = [*(ROOT / "analysis").rglob("*.j2"), *(ROOT / "finetune").rglob("*.j2")]
    assert templates
    for template in templates:
        text = template.read_text()
        assert "safe" not in {word for part in text.split("|")[1:] for word in part.split()[:1]}
        assert "autoescape false" not in text
    assert set(MARKUP) == {
        path.relative_to(ROOT).as_posix() for path in SOURCES if "Markup(" in path.read_text()
    }  # no leave without a use


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
