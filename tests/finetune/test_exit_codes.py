"""What users can get wrong, command by command: an exit code of the few there are, one message, no traceback."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import agent
from analysis import __main__ as analysis
from analysis import wandb_report
from finetune import __main__ as finetune
from finetune import predict, publish
from finetune.data import __main__ as data
from finetune.rundir import keys
from finetune.system.atomic import WriteError
from finetune.system.output import command, result_command
from tests import ROOT
from tests.support import offline
from tests.support.fabricate import fabricate_run
from tests.support.images import write_folder

SWEEP = "method: grid\nparameters: {data: {value: pictures}, strategy: {value: head}}\n"
Main = Callable[[list[str]], int]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each thing that can be wrong, to work in."""
    monkeypatch.chdir(tmp_path)
    files: dict[str, bytes] = {
        "empty.yaml": b"", "latin.yaml": "a: ä".encode("latin-1"), "list.yaml": b"[1]", "deep.yaml": b"[" * 100_000,
        "day.yaml": b"method: grid\nparameters: {lr: {value: 2024-99-99}}", "sweep.yaml": SWEEP.encode(),
        "odd.yaml": b"method: [grid]\nparameters: {lr: {values: 3}}", "parameters.yaml": b"method: grid\nparameters: 3",
        "file.txt": b"x", "latin.csv": "path,label\nä,b\n".encode("latin-1"), "open.csv": b'path,label\n"a,b\n',
        "null.csv": b"path,label\na\0,b\n", "short.csv": b"path,label\n\n\n", "bad.pt": b"x",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "folder.pt").mkdir()
    write_folder(tmp_path / "pictures", {"": 3})
    (tmp_path / os.fsdecode(b"names/\xff")).mkdir(parents=True)
    (tmp_path / os.fsdecode(b"names/\xff/1.png")).touch()
    runs = tmp_path / "runs" / "damaged"
    for name in ("config", "state", "plan", "remote"):
        folder = runs.with_name(name)
        run = fabricate_run(folder, "head-1", strategy="head")
        (folder / keys.SWEEP).write_text(SWEEP)
        if name == "config":
            (run / keys.SUMMARY).unlink()
            (run / keys.CONFIG).write_text("[" * 100_000)
        elif name == "state":
            (run / keys.SUMMARY).unlink()
            (run / keys.STATE).write_text("[]")
        else:
            (folder / {"plan": keys.PLAN, "remote": keys.REMOTE}[name]).write_text('{"runs": 3}' * 2)
    return tmp_path


BAD_INPUT: list[tuple[Main, list[str]]] = [
    *((agent.main, [name]) for name in (
        "nowhere.yaml", "empty.yaml", "latin.yaml", "list.yaml", "deep.yaml", "day.yaml", "odd.yaml", "parameters.yaml",
        "folder", "folder.yaml", "file.txt", "runs/config", "runs/plan", "x" * 300, "a\x1b[2J", "\udcff.yaml",
        "entity/project/abcdefgh", "https://wandb.ai/e/p/sweeps/abcdefgh",
    )),
    *((agent.main, ["sweep.yaml", *more]) for more in (
        ["--set", "lr"], ["--set", "lr=["], ["--set", "lr=2024-99-99"], ["--set", "=1"], ["--set", "data=nowhere"],
        ["--set", "data=a\x1bb"], ["--set", 'data="\\0"'], ["--name", "../x"], ["--set", "weights=bad.pt"],
        ["--set", "data=names"], ["--set", "lr=.inf"], ["--set", "epochs=" + "9" * 5000], ["--set", "data=latin.csv"],
    )),
    *((finetune.main, more) for more in (
        ["--data", "nowhere"], ["--data", "latin.csv"], ["--data", "open.csv"], ["--data", "null.csv"],
        ["--data", "names"],
        ["--data", "short.csv"], ["--data", "folder"], ["--data", "pictures", "--weights", "bad.pt"], ["--x", "1"],
        ["--data", "pictures", "--weights", "folder.pt"], ["--data", "file.txt"], ["--lr", "x"], ["--unfreeze", "[["],
        ["--data", "pictures", "--weights", "none", "--run-dir", "file.txt/x"],
        ["--data", "x" * 5000],
    )),
    *((predict.main, more) for more in (
        ["nowhere", "pictures"], ["bad.pt", "pictures"], ["folder", "pictures"], ["folder.pt", "pictures"],
        ["bad.pt", "nowhere"], ["bad.pt", "folder"], ["bad.pt", "names"], ["bad.pt", "pictures", "--csv", "no/x.csv"],
        ["bad.pt", "pictures", "--csv", "folder"],
    )),
    *((publish.main, more) for more in ([], ["nowhere"], ["folder"], ["file.txt"], ["runs/remote"], ["runs/state"])),
    *((data.main, [*more]) for more in (
        ["check", "nowhere"], ["check", "latin.csv"], ["check", "open.csv"], ["check", "names"], ["check", "null.csv"],
        ["check", "pictures", "--fix-list", "no/x.csv"], ["split", "nowhere"], ["split", "pictures", "--out", "/x.txt"],
        ["split", "pictures", "--without", "latin.csv"], ["split", "pictures", "--without", "folder"],
        ["split", "pictures", "--without", "open.csv"], ["show", "nowhere"], ["show", "pictures", "--out", "no/x.png"],
        ["show", "pictures", "--seed", "x"], ["split", "pictures", "--folds", "3"],
    )),
    *((analysis.main, more) for more in (
        ["nowhere"], ["folder"], ["file.txt"], ["sweep.yaml"], ["runs/config"], ["runs/state"],
        ["x" * 300],
        ["runs/remote", "--out", "file.txt"], ["runs/remote", "--out", "file.txt/x"], ["a\x1b[2J"],
    )),
    *((wandb_report.main, more) for more in (["nowhere"], ["folder"], ["runs/config"], ["runs/remote"], ["a\x1b[2J"])),
]  # fmt: skip


@pytest.mark.parametrize(("main", "arguments"), BAD_INPUT, ids=lambda part: getattr(part, "__module__", None) or "-")
def test_bad_input_is_code_2_and_a_message(
    place: Path, main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is begun, nothing is left half-written, and no character of it reaches a terminal as a command."""
    before = sorted(place.rglob("*"))
    try:
        code = main(arguments)
    except SystemExit as error:  # argparse's
        code = error.code  # type: ignore[assignment]
    said = capsys.readouterr()
    assert code == 2, said
    assert said.err.strip()
    assert "Traceback" not in said.err
    assert "\x1b" not in said.out + said.err
    kept = {path for path in place.rglob("*") if not {"cache", "torch"} & set(path.relative_to(place).parts)}
    assert kept <= set(before)


COMMANDS = ["agent.py", "-m finetune", "-m finetune.predict", "-m finetune.publish", "-m finetune.data check",
            "-m finetune.data split", "-m finetune.data show", "-m analysis", "-m analysis.wandb_report"]  # fmt: skip


def start(words: list[str], folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """Start a command as a user would."""
    words = [str(ROOT / word) if word == "agent.py" else word for word in words]
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **offline.environment(ROOT), **environment},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_plain_locale_is_no_trouble(tmp_path: Path, line: str) -> None:
    """With LC_ALL=C and ASCII for all streams, a name that is no UTF-8 is told in ASCII: code 2, no traceback."""
    words = [*line.split(), os.fsdecode(b"nowhere-\xff-\xc3\xa4"), *(["x"] if "predict" in line else [])]
    if line == "-m finetune":
        words.insert(-1, "--data")
    ended = start(words, tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    out, err = ended.communicate(timeout=120)
    assert ended.returncode == 2, err
    assert b"Traceback" not in err
    assert (out + err).isascii()


# Prints so many lines by all means there are, and exits with this code.
PRINTER = """
import sys
from finetune.system.output import SafeConsole, command, result_command
decorator, lines, code = sys.argv[1:]
def main():
    for _ in range(int(lines)):
        print("a line of some length, so that the buffer is full soon")
        if int(lines) > 1:
            SafeConsole().print("another")
    print("came to the end", file=sys.stderr)
    return int(code)
sys.exit(globals()[decorator](main)())
"""


def closed_output(decorator: str) -> tuple[int, str]:
    """Return exit code and error output of PRINTER, whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-c", PRINTER, decorator, "3000", "1"]
    ended = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(writer)
    return ended.returncode, ended.stderr


def test_nobody_reads_the_output() -> None:
    """`| head` ends a command whose output is its result, without a word; a run goes on, and keeps its exit code."""
    assert closed_output("result_command") == (0, "")
    assert closed_output("command") == (1, "came to the end\n")


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="there is no /dev/full here")
@pytest.mark.parametrize("lines", [1, 500])
def test_the_output_goes_to_a_full_disk(lines: int) -> None:
    """A command does its work and then says what is lost; one whose output is its result ends: exit code 1."""

    def ended(decorator: str) -> tuple[int, str]:
        with open("/dev/full", "w") as full:  # noqa: PTH123  (no file that a path would be of use for)
            words = [sys.executable, "-c", PRINTER, decorator, str(lines), "0"]
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False,
                                  env={**os.environ, "PYTHONUNBUFFERED": ""})  # fmt: skip
        return done.returncode, done.stderr

    lost = "standard output: No space left on device; part of the output is lost. Make room there\n"
    assert ended("command") == (1, f"came to the end\n{lost}")
    code, said = ended("result_command")
    assert code == 1
    # A single line stays in a buffer until all is done.
    assert said.removeprefix("came to the end\n") == "OSError: standard output: No space left on device\n"
    assert ("came to the end" in said) == (lines == 1)


def test_errors_of_the_system_have_a_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A folder for a file is bad input; a full disk is a failure; Ctrl-C is 130; what is a fault of ours is raised."""

    def raising(error: BaseException) -> Callable[[], int]:
        def work() -> int:
            raise error

        return work

    for error, code in (
        (IsADirectoryError(21, "Is a directory", str(tmp_path)), 2),
        (PermissionError(13, "Permission denied", "x"), 2),
        (OSError(28, "No space left on device"), 1),
        (WriteError(30, "Read-only file system", tmp_path / "x", None), 1),
        (KeyboardInterrupt(), 130),
    ):
        assert command(raising(error))() == code
        said = capsys.readouterr().err
        assert said.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        command(raising(ZeroDivisionError()))()
    with pytest.raises(OSError, match="odd"):
        result_command(raising(OSError("odd")))()


SLEEPER = """
import sys, time
from pathlib import Path
from finetune.system.atomic import replacing
from finetune.system.output import command
def main():
    with replacing(Path("table.csv")) as temporary:
        temporary.write_text("half")
        print("begun", flush=True)
        time.sleep(60)
sys.exit(command(main)())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """In the middle of writing: the temporary file goes, the exit code is the signal's, and there is no traceback."""
    process = start(["-c", SLEEPER], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_analysis_can_be_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """At any moment: 128 + the signal's number, and no traceback."""
    folder = tmp_path / "runs" / "s"
    for name in ("head", "full"):
        fabricate_run(folder, f"{name}-1", strategy=name)
    for seconds in (1.0, 2.5, 4.0):
        process = start(["-m", "analysis", "s"], tmp_path)
        time.sleep(seconds)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number, -number), err  # -number: before Python has come to the command
        assert b"Traceback" not in err or process.returncode == -number
        assert not list(tmp_path.rglob("*.tmp"))
