"""File systems that are full in earnest, of a few MB in memory: what the system itself says, from real processes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from analysis.__main__ import main as analyse
from finetune.run.checkpoint import load_checkpoint
from finetune.rundir import files, keys
from tests.finetune.run.test_disk_full import FLAGS, assert_same, results
from tests.online.machine import PROGRAM, ROOT, Machine, machines_ended
from tests.online.runs_on_server import put_run, put_sweep
from tests.support.fabricate import fabricate_run
from tests.support.failing_disk import contents
from tests.support.images import write_folder
from tests.support.wandb_server.server import serve

pytestmark = pytest.mark.slow

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A function that mounts a small file system, or gives that one another size; it is unmounted in any case."""
    place = tmp_path / "small"
    place.mkdir()

    def give(size: str) -> Path:
        again = ",remount" if place.is_mount() else ""
        words = ["mount", "-t", "tmpfs", "-o", f"{size}{again}", "tmpfs", str(place)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"nothing can be mounted here: {error}")
        if done.returncode:
            assert not again, done.stderr
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        return place

    try:
        yield give
    finally:
        if place.is_mount():
            # Lazily: a process that a failed test has left there would keep it.
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        assert not place.is_mount()


def command(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the project in `folder` to its end."""
    everything = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]), **environment}
    return subprocess.run([sys.executable, *words], cwd=folder, env=everything, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip


def flags_of(undisturbed: Path) -> list[str]:
    """Return the config of the undisturbed run, as flags."""
    return [f"--data={undisturbed.parent / 'pictures'}", *(f"--{name}={value}" for name, value in FLAGS.items())]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small run with room enough; its images and caches lie beside it."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    write_folder(run_dir.parent / "pictures", {"train": 10, "test": 4})
    flags = [*flags_of(run_dir), f"--run-dir={run_dir}"]
    done = command(run_dir.parent, "-m", "finetune", *flags, FINETUNE_CACHE=str(run_dir.parent))
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.mark.parametrize(
    ("size", "named"),
    [
        ("size=64m,nr_inodes=1", "run"),
        ("size=64m,nr_inodes=2", "claim-1.json"),
        ("size=64m,nr_inodes=6", ""),
        ("size=4m", "last.pt"),
        ("size=8m", "best.pt"),
        ("size=10m", "last.pt"),  # the second one
    ],
)
def test_a_run_goes_on_once_there_is_room(
    size: str, named: str, mount: Mount, undisturbed: Path, tmp_path: Path
) -> None:
    """One message with the file and the need, exit code 1, what was written is whole; then the undisturbed results."""
    train = partial(command, tmp_path, "-m", "finetune", *flags_of(undisturbed), FINETUNE_CACHE=str(undisturbed.parent))
    place = mount(size)
    run_dir = place / "run"
    ended = train(f"--run-dir={run_dir}")
    assert ended.returncode == 1, ended.stderr
    message = (
        r"WriteError: (\S+) can't be written \(No space left on device; (\S+ .?B needed, )?.* free\): make room there"
    )
    told = re.fullmatch(message, ended.stderr.strip())
    assert told is not None, ended.stderr
    assert Path(told[1]).name == (named or Path(told[1]).name), ended.stderr
    assert told[1].startswith(str(place))
    assert bool(told[2]) == told[1].endswith(".pt")
    assert not list(place.rglob(".*"))
    for name in (keys.LAST, keys.BEST):
        if (run_dir / name).exists():
            load_checkpoint(run_dir / name)
    assert len(files.read_history(run_dir)[0]) == (size == "size=10m")
    is_saved = (run_dir / keys.LAST).exists()
    assert is_saved == (size in ("size=8m", "size=10m"))
    mount("size=64m,nr_inodes=1000")
    again = train(f"--run-dir={run_dir}")
    assert again.returncode == 0, again.stderr
    assert ("resumes after epoch 1" in again.stdout) == is_saved, again.stdout
    assert_same(results(run_dir), results(undisturbed))


@pytest.mark.parametrize("inodes", [1, 3, 5, 8, 12, 20])
def test_a_sweep_goes_on_once_there_is_room(inodes: int, mount: Mount, tmp_path: Path) -> None:
    """Whatever an agent and its runs can't write: exit code 1 and messages, no traceback, no process left."""
    place = mount(f"size=64m,nr_inodes={inodes}")
    sweep = tmp_path / "seeds.yaml"
    sweep.write_text("method: grid\nparameters:\n  seed: {values: [0, 1]}\n  epochs: {value: 2}\n"
                     "  strategy: {value: head}\n  data: {value: demo}\n")  # fmt: skip
    ended = command(place, PROGRAM, str(sweep), "--agents", "2")
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "Traceback" not in said
    assert "can't be written (No space left on device" in said
    mount("size=64m,nr_inodes=1000")
    again = command(place, PROGRAM, str(sweep), "--retry-failed")
    assert again.returncode == 0, again.stdout + again.stderr
    runs = files.find_runs(place / "runs/seeds")
    assert [files.status(run)[0] for run in runs] == ["finished"] * 2
    assert [len(files.read_history(run)[0]) for run in runs] == [2, 2]
    assert not list(place.rglob(".*"))


@pytest.mark.parametrize("size", ["size=32k", "size=512k", "size=64m,nr_inodes=9"])
def test_a_report_is_whole_once_there_is_room(
    size: str, mount: Mount, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Side by side or not: one message, exit code 1, nothing half-written."""
    for strategy in ("head", "full"):
        fabricate_run(tmp_path / "runs", f"{strategy}-0", strategy=strategy, predictions=[("a", "x", "y", 0.9)])
    assert analyse([str(tmp_path / "runs"), "--out", str(tmp_path / "undisturbed")]) == 0
    capsys.readouterr()
    out = mount(size) / "out"
    arguments = [str(tmp_path / "runs"), "--out", str(out)]
    assert analyse(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith(f"python -m analysis: {out}/")
    assert "can't be written (No space left on device" in said
    assert not list(out.rglob(".*"))
    assert not (out / "report.html").exists()
    mount("size=64m,nr_inodes=1000")
    assert analyse(arguments) == 0, capsys.readouterr().err
    assert contents(out).keys() == contents(tmp_path / "undisturbed").keys()


def test_a_copy_for_a_server_that_has_no_room_does_no_harm(mount: Mount, tmp_path: Path) -> None:
    """W&B's client can keep nothing on this machine: the run is finished all the same, and sent later."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nseed: {value: 0}\nepochs: {value: 3}\nstrategy: {value: head}\n")
    place = mount("size=64k,nr_inodes=4")
    with serve() as server, machines_ended(server):
        machine = Machine(server, tmp_path / "machine", {"FINETUNE_WANDB_WAIT": "5"})
        sweep = machine.sweep({"seed": [0], "strategy": "head", "epochs": 3})
        handed = {"WANDB_SWEEP_ID": sweep, "WANDB_RUN_ID": "aaaa0000", "WANDB_ENTITY": "tester",
                  "WANDB_PROJECT": "finetune-sweeps", "WANDB_SWEEP_PARAM_PATH": parameters}  # fmt: skip
        code, output = machine.run("python", PROGRAM, "--seed=0", **handed, TMPDIR=place)
        assert code == 0, output
        assert f"make publish SWEEP=runs/{sweep}" in output
        assert "Traceback" not in output
        (run,) = machine.runs(sweep)
        assert files.status(run)[0] == "finished"
        assert len(files.read_history(run)[0]) == 3
        code, output = machine.run("python", "-m", "finetune.publish", f"runs/{sweep}")
        assert code == 0, output
        (sent,) = (run for run in server.runs(sweep=sweep) if run.state == "finished")
        assert [row["epoch"] for row in sent.history if "epoch" in row] == [1, 2, 3]


@pytest.mark.parametrize("size", ["size=16k", "size=64k", "size=1m,nr_inodes=12"])
def test_a_sweep_is_fetched_once_there_is_room(size: str, mount: Mount, tmp_path: Path) -> None:
    """W&B's own client downloads, in a process of its own: a message and exit code 1; then all of the sweep's runs."""
    place = mount(size)
    with serve() as server, machines_ended(server):
        sweep = put_sweep(server)
        for seed in range(4):
            answers = [(f"{number}.png", "disc", "disc", 0.9) for number in range(200)]
            run_dir = fabricate_run(tmp_path / "sent", f"head-{seed}", seed=seed, predictions=answers)
            put_run(server, sweep, run_dir, swept={"seed": seed})
        machine = Machine(server, tmp_path / "machine")
        words = ("-m", "analysis", f"tester/finetune-sweeps/{sweep}")
        (machine.folder / "runs").symlink_to(place)
        code, output = machine.run("python", *words)
        assert code == 1, output
        assert "No space left on device" in output
        assert "Traceback" not in output
        assert not (machine.folder / "reports").exists()
        mount("size=64m,nr_inodes=1000")
        code, output = machine.run("python", *words)
        assert code == 0, output
        assert len(machine.runs(sweep)) == 4
        assert "4 finished runs" in output
