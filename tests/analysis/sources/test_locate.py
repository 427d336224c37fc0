"""What the user means by a sweep: here or on a W&B server, by whatever name, with the server or without."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from analysis.__main__ import main
from analysis.errors import InputError
from analysis.figures.specs import GRIDS
from analysis.figures.style import GRID_DPI, save_figure
from analysis.pipeline import analyze_sweep
from analysis.sources.locate import find_folder
from analysis.sources.run_directories import read_sweep
from analysis.sources.wandb import client
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import WriteError
from finetune.tracking.sweep_address import SweepAddress, parse_sweep_address
from tests import ROOT
from tests.analysis.conftest import leave_figures_blank
from tests.online.runs_on_server import PROJECT, put_run, put_sweep
from tests.support import offline
from tests.support.fabricate import fabricate_pictures, fabricate_run
from tests.support.failing_disk import each_write_failing
from tests.support.wandb_server.server import Server, serve
from tests.support.wandb_server.store import ENTITY


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Serve for all tests here."""
    with serve() as server:
        yield server
        wandb.teardown()


@pytest.fixture
def logged_in(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """Let the client of this process talk to an empty loopback server, in a folder without runs."""
    for name, value in server.environment(tmp_path / "home").items():
        if name.startswith("WANDB") or name in ("HOME", "NETRC"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    with server.store.lock:
        server.store.runs.clear()
        server.store.sweeps.clear()
    return server


def remote_sweep(server: Server, folder: Path, project: str = PROJECT, runs: int = 1) -> str:
    """Put a sweep of finished runs on the server, which are fabricated in `folder`, and return its id."""
    sweep = put_sweep(server, project)
    for seed in range(runs):
        put_run(server, sweep, fabricate_run(folder / sweep, f"run-{seed}", seed=seed), project=project)
    return sweep


def asked(server: Server) -> int:
    """Return how many requests the server has had."""
    return server.counts.total()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1a2b3c4d", SweepAddress(None, None, "1a2b3c4d")),
        ("me/trials/1a2b3c4d", SweepAddress("me", "trials", "1a2b3c4d")),
        ("trials/1a2b3c4d", SweepAddress(None, "trials", "1a2b3c4d")),
        ("runs/1a2b3c4d", None),
        ("reports/1a2b3c4d", None),
        ("../1a2b3c4d", None),
        ("trials/demo", None),
        ("https://wandb.ai/me/trials/sweeps/1a2b3c4d", SweepAddress("me", "trials", "1a2b3c4d")),
        ("https://wandb.ai/me/trials/sweeps/1a2b3c4d/workspace?nw=x&a=b#c", SweepAddress("me", "trials", "1a2b3c4d")),
        ("http://host:8080/wandb/me/my%20trials/sweeps/1a2b3c4d/", SweepAddress("me", "my trials", "1a2b3c4d")),
        ("https://wandb.ai/me/sweeps/sweeps/1a2b3c4d", SweepAddress("me", "sweeps", "1a2b3c4d")),
        ("https://wandb.ai/me/trials/runs/1a2b3c4d", None),
        ("https://wandb.ai/me%2F..%2Fyou/trials/sweeps/1a2b3c4d", None),
        ("https://wandb.ai/sweeps/1a2b3c4d", None),
        ("strategies", None),
        ("me/trials/demo", None),
        ("a/b/c/1a2b3c4d", None),
        ("1A2B3C4D", None),
        ("", None),
    ],
)
def test_the_ways_to_name_a_sweep_of_the_server(text: str, meant: SweepAddress | None) -> None:
    """Its id, entity/project/id, or what stands in the browser."""
    assert parse_sweep_address(text) == meant


def test_every_name_of_it_brings_the_sweep_here(
    logged_in: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And says in a line what was taken from where; the project is that of our sweep files unless it is named."""
    sweep = remote_sweep(logged_in, tmp_path)
    for number, name in enumerate(
        (sweep, f"{ENTITY}/{PROJECT}/{sweep}", f"{logged_in.url}/{ENTITY}/{PROJECT}/sweeps/{sweep}?x=y")
    ):
        root = Path(f"runs{number}")
        assert find_folder(name, root) == root / sweep
        assert [path.name for path in files.find_runs(root / sweep)] == ["run-0"]
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err.splitlines() == [
            f"{root / sweep}: W&B sweep {ENTITY}/{PROJECT}/{sweep} on {logged_in.url}, 1 of its 1 runs fetched now."
        ]


def test_the_project_of_a_bare_id_can_be_set(
    logged_in: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable that W&B's own commands read."""
    sweep = remote_sweep(logged_in, tmp_path, project="other")
    with pytest.raises(InputError, match=f"no sweep {ENTITY}/{PROJECT}/{sweep}"):
        find_folder(sweep)
    monkeypatch.setenv("WANDB_PROJECT", "other")
    assert find_folder(sweep) == Path("runs") / sweep


def test_a_path_never_leads_to_a_request(logged_in: Server, tmp_path: Path) -> None:
    """A folder, a run, a sweep file, and a name below runs/ that no server knows of are taken as they are."""
    sweep = remote_sweep(logged_in, tmp_path)
    find_folder(sweep)
    before = asked(logged_in)
    fabricate_run(Path("runs/baseline"), "a")  # eight letters, as an id has them
    for argument, folder in (
        (f"runs/{sweep}", f"runs/{sweep}"),
        (f"runs/{sweep}/run-0", f"runs/{sweep}/run-0"),
        (f"runs/{sweep}/sweep.yaml", f"runs/{sweep}"),
        ("baseline", "runs/baseline"),
    ):
        assert find_folder(argument) == Path(folder)
    with pytest.raises(InputError, match="no such folder"):
        find_folder("runs/baseline/abcd1234")
    Path("mine/abcd1234").mkdir(parents=True)
    assert parse_sweep_address("mine/abcd1234") is None
    assert asked(logged_in) == before


def test_a_project_and_an_id_are_asked_for(logged_in: Server, tmp_path: Path) -> None:
    """What lies here under the id alone may be another project's."""
    sweep = remote_sweep(logged_in, tmp_path, project="other")
    assert find_folder(f"other/{sweep}") == Path("runs") / sweep
    with pytest.raises(InputError, match=f"no sweep {ENTITY}/{PROJECT}/{sweep}"):
        find_folder(f"{PROJECT}/{sweep}")


def test_it_says_what_was_fetched_now(logged_in: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All, some or nothing."""
    sweep = remote_sweep(logged_in, tmp_path, runs=2)
    find_folder(sweep)
    assert capfd.readouterr().err.endswith(", 2 of its 2 runs fetched now.\n")
    find_folder(sweep)
    assert capfd.readouterr().err.endswith(f"/{sweep} on {logged_in.url}, 2 runs, nothing new.\n")
    put_run(logged_in, sweep, fabricate_run(tmp_path / "more", "run-2", seed=2))
    find_folder(sweep)
    assert capfd.readouterr().err.endswith(", 1 of its 3 runs fetched now, the others were here.\n")


def test_a_wrong_id_gets_no_word_of_logging_in(logged_in: Server) -> None:
    """But the name here that is like it, and the server that its address is on."""
    fabricate_run(Path("runs/baseline"), "a")
    with pytest.raises(InputError) as caught:
        find_folder("basemine")
    assert str(caught.value).splitlines() == [
        f"W&B ({logged_in.url}) has no sweep {ENTITY}/{PROJECT}/basemine, or this account may not see it. "
        "Its page's address, or entity/project/id, names one in another project.",
        f"  No runs of {ENTITY}/{PROJECT}/basemine are on this machine. Did you mean 'baseline'?",
        "  Sweeps below runs/: baseline",
    ]
    with pytest.raises(
        InputError, match=r"another project\. The address is on w\.example: set WANDB_BASE_URL for it\."
    ):
        find_folder("https://w.example/me/trials/sweeps/1a2b3c4d")
    with pytest.raises(InputError) as caught:
        find_folder(f"{logged_in.url}/me/trials/sweeps/1a2b3c4d")
    assert "The address is on" not in str(caught.value)


def test_where_no_run_is_it_says_how_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a sweep, or name one that others have run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Run a sweep first \(make agents .*, or python agent.py sweeps/demo.yaml\)"):
        find_folder(None)
    Path("mine.yaml").write_text("method: grid\n")
    with pytest.raises(InputError, match=r"If it was run on W&B, name that sweep: its id, or nothing for the newest\."):
        find_folder("mine.yaml")


def test_a_name_here_of_a_sweep_there_fetches_what_is_missing(logged_in: Server, tmp_path: Path) -> None:
    """Also where its runs lie in a folder of another name, which says whose they are."""
    sweep = remote_sweep(logged_in, tmp_path)
    find_folder(sweep)
    put_run(logged_in, sweep, fabricate_run(tmp_path / "more", "run-1", seed=1))
    assert len(files.find_runs(find_folder(sweep))) == 2
    Path("runs", sweep).rename("runs/mine")
    put_run(logged_in, sweep, fabricate_run(tmp_path / "more", "run-2", seed=2))
    assert find_folder(f"{ENTITY}/{PROJECT}/{sweep}") == Path("runs/mine")
    assert len(files.find_runs(Path("runs/mine"))) == 3


def test_a_full_disk_is_no_fault_of_the_server_s(logged_in: Server, tmp_path: Path) -> None:
    """Whichever write fails, it is told; what lies here is whole, and the next command brings the rest."""
    sweep = remote_sweep(logged_in, tmp_path, runs=2)
    folder = Path("runs").resolve() / sweep

    def fetch_all() -> int:
        try:
            find_folder(sweep)
        except WriteError as error:
            return int(
                str(error.path.absolute()).startswith(str(folder)) and "can't be written (No space left" in str(error)
            )
        return 0

    folder.parent.mkdir()
    tried = 0
    for ended, told in each_write_failing(folder.parent, fetch_all, step=7):
        assert ended == 1, told
        tried += 1
        assert not list(folder.glob("*/.*")), told
        for run in files.find_runs(folder) if folder.exists() else []:
            files.read_config(run)
            assert files.status(run)[0] in ("finished", "unfinished"), told
    assert tried > 3
    for run in files.find_runs(folder):
        assert files.read_history(run) == files.read_history(tmp_path / sweep / run.name)
        assert files.status(run)[0] == "finished"
    assert len(files.find_runs(folder)) == 2


def test_without_an_argument_the_newest_sweep_is_taken(
    logged_in: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server's if something happened there last, else the one here."""
    older, newer = remote_sweep(logged_in, tmp_path), remote_sweep(logged_in, tmp_path)
    for run in logged_in.runs(sweep=older):
        run.heartbeat -= 50
    put_run(logged_in, None, None, "running")  # a run of no sweep
    assert find_folder(None) == Path("runs") / newer
    find_folder(older)
    assert find_folder(None) == Path("runs") / newer  # to fetch the older one has not made it newer
    mine = fabricate_run(Path("runs/mine"), "a")
    os.utime(mine / keys.SUMMARY, (time.time() + 5, time.time() + 5))
    capfd.readouterr()
    assert find_folder(None) == Path("runs/mine")
    assert capfd.readouterr().err == "The newest sweep is runs/mine.\n"
    for run in logged_in.runs(sweep=older):
        run.heartbeat += 60
    assert find_folder(None) == Path("runs") / older


def test_the_newest_sweep_here_is_brought_up_to_date(logged_in: Server, tmp_path: Path) -> None:
    """If it belongs to the server, in whichever project."""
    sweep = remote_sweep(logged_in, tmp_path, project="other")
    find_folder(f"{ENTITY}/other/{sweep}")
    put_run(logged_in, sweep, fabricate_run(tmp_path / "more", "run-1", seed=1), project="other")
    for run in logged_in.runs("other"):
        run.heartbeat -= 50  # older than what is here
    assert find_folder(None) == Path("runs") / sweep
    assert len(files.find_runs(Path("runs") / sweep)) == 2
    newer = remote_sweep(logged_in, tmp_path, project="other")
    assert find_folder(None) == Path("runs") / newer


def test_without_the_server_what_is_here_serves(
    logged_in: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line of warning where there is something, a message that says how where there is nothing."""
    sweep = remote_sweep(logged_in, tmp_path)
    find_folder(sweep)
    capfd.readouterr()
    monkeypatch.setattr(client, "SHORT_SECONDS", 1)
    logged_in.go_down()
    try:
        for argument in (sweep, None):
            began = time.monotonic()
            assert find_folder(argument) == Path("runs") / sweep
            assert time.monotonic() - began < 15
            warning, *rest = capfd.readouterr().err.splitlines()
            assert warning.startswith(f"W&B ({logged_in.url}) does not answer. Taking")
            assert rest == ([] if argument else [f"The newest sweep is runs/{sweep}."])
        with pytest.raises(InputError) as caught:
            find_folder("me/trials/1a2b3c4d")
    finally:
        logged_in.come_back()
    for part in (f"Try again later, or check WANDB_BASE_URL ({logged_in.url}).", "Or copy its run directories"):
        assert part in str(caught.value)
    assert "wandb login" not in str(caught.value)


@pytest.mark.parametrize("how", ["no login", "offline", "disabled"])
def test_nobody_is_asked_to_log_in(
    logged_in: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    """Without a login, or with W&B switched off, no request is made and no question asked."""
    sweep = remote_sweep(logged_in, tmp_path)
    if how == "no login":
        wandb.teardown()  # the client keeps a login that it has seen
        monkeypatch.delenv("WANDB_API_KEY")
        (tmp_path / "home/netrc").write_text("machine elsewhere\n  login user\n  password " + "x" * 40 + "\n")
    else:
        monkeypatch.setenv("WANDB_MODE", how)
    before = asked(logged_in)
    with pytest.raises(InputError, match="Nobody is logged in" if how == "no login" else f"WANDB_MODE={how}") as caught:
        find_folder(sweep)
    assert ("`wandb login`" in str(caught.value)) == (how == "no login")
    assert ("To fetch it: unset WANDB_MODE." in str(caught.value)) == (how != "no login")
    fabricate_run(Path("runs") / "mine", "a")
    fabricate_run(Path("runs") / sweep, "a")
    os.utime(Path("runs/mine/a") / keys.SUMMARY, (time.time() + 5, time.time() + 5))
    documents.write_json(Path("runs") / sweep / keys.REMOTE, {"entity": ENTITY, "project": PROJECT, "sweep": sweep})
    assert find_folder(sweep) == Path("runs") / sweep
    capfd.readouterr()
    assert find_folder(None) == Path("runs/mine")
    assert capfd.readouterr().err == "The newest sweep is runs/mine.\n"  # who has no account reads nothing of it
    assert asked(logged_in) == before


def test_a_login_of_another_kind_is_found(logged_in: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `wandb login` writes is enough."""
    sweep = remote_sweep(logged_in, tmp_path)
    key = os.environ["WANDB_API_KEY"]
    wandb.teardown()  # the client keeps a login that it has seen
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "home/netrc").write_text(
        f"machine {logged_in.url.removeprefix('http://')}\n  login user\n  password {key}\n"
    )
    assert find_folder(None) == Path("runs") / sweep


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("zzzzzzzz", f"no sweep {ENTITY}/{PROJECT}/zzzzzzzz"),
        (f"{ENTITY}/nowhere/zzzzzzzz", f"no sweep {ENTITY}/nowhere/zzzzzzzz"),
        ("https://wandb.ai/me/trials/runs/1a2b3c4d", "is not the address of a sweep"),
        ("empty", "has no runs yet"),
    ],
)
def test_what_is_no_sweep_there_gets_a_message(logged_in: Server, argument: str, said: str) -> None:
    """It names what was looked for."""
    if argument == "empty":
        argument = put_sweep(logged_in)
    with pytest.raises(InputError, match=said):
        find_folder(argument)
    assert not Path("runs").exists()


def draw_grid(folder: Path, file: Path) -> None:
    """Write the prediction grid of these runs, as a report does."""
    spec = GRIDS["prediction_grid"](analyze_sweep(read_sweep(folder)))
    assert spec is not None
    save_figure(spec.draw(), file, ("png",), GRID_DPI)


def test_the_report_is_that_of_the_machine_that_ran_it(
    logged_in: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the server, on a machine without the data: the same tables to the byte, the same grid to the pixel."""
    pictures = fabricate_pictures(tmp_path / "data", each=12)
    sweep = put_sweep(logged_in)
    original = Path("there") / sweep
    for strategy, test in (("head", 0.6), ("full", 0.7)):
        for seed in range(2):
            answers = [(path, name, ("disc", name)[index % 3 > 0], 0.6) for index, (path, name) in enumerate(pictures)]
            run_dir = fabricate_run(
                original,
                f"{strategy}-{seed}",
                strategy=strategy,
                seed=seed,
                val=test + 0.05,
                test=test + seed / 30,
                seconds=100 / 3,
                predictions=answers,
                pictures=tmp_path / "data",
                provenance={"data_root": str(tmp_path / "data")},
            )
            put_run(logged_in, sweep, run_dir, swept={"strategy": strategy, "seed": seed})
    failed = fabricate_run(original, "head-9", seed=9, state="failed", reason="out of memory", curve=[0.1])
    put_run(logged_in, sweep, failed, "failed", swept={"strategy": "head", "seed": 9})
    (original / keys.SWEEP).write_text("method: grid\n")
    with monkeypatch.context() as patch:
        leave_figures_blank(patch)
        assert main([str(original), "--out", "here"]) == 0
    draw_grid(original, Path("here/grid"))
    shutil.rmtree(tmp_path / "data")
    capfd.readouterr()
    with monkeypatch.context() as patch:
        leave_figures_blank(patch)
        assert main([sweep, "--out", "away"]) == 0
    # No progress bar in a pipe, no word of W&B's client, nothing of its own left behind.
    assert capfd.readouterr().err.splitlines() == [
        f"runs/{sweep}: W&B sweep {ENTITY}/{PROJECT}/{sweep} on {logged_in.url}, 5 of its 5 runs fetched now."
    ]
    assert {path.name for path in Path.cwd().iterdir()} == {"there", "here", "away", "runs"}
    draw_grid(Path("runs") / sweep, Path("away/grid"))
    for name in ("comparison.csv", "comparison.md", "pairs.csv", "recipes.csv", "epochs.csv", "grid.png"):
        assert Path("away", name).read_bytes() == Path("here", name).read_bytes(), name
    assert "images of the prediction grid are missing" not in Path("away/comparison.md").read_text()  # none is missing


def test_the_client_is_loaded_only_for_the_server(tmp_path: Path) -> None:
    """It takes a second, which nobody should wait who is not logged in or names a folder."""
    fabricate_run(tmp_path / "runs/mine", "a")
    code = (
        "import sys; from analysis.sources.locate import find_folder\n"
        "for argument in (None, 'mine', 'runs/mine'): find_folder(argument)\n"
        "assert not {'wandb', 'torch'} & set(sys.modules)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = {**kept, **offline.environment(ROOT), "HOME": str(tmp_path)}
    environment.pop("NETRC", None)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
