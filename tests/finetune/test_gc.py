"""Making room: what goes in which order, and what never does."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from finetune.cache import entry_writer, store
from finetune.errors import UserError
from finetune.gc import main, parse_size
from finetune.rundir import files, keys
from finetune.rundir.claim import hold_claim
from finetune.system import documents
from finetune.system.tables import write_table
from tests.finetune.cache.test_store import make

KILO = 1000
RESULTS = ("config.yaml", "summary.json", "history.jsonl", "predictions.csv")


def made_run(runs: Path, name: str, val: float | None, **fields: Any) -> Path:
    """Make a run directory with 1 kB in each checkpoint; unfinished where `val` is None."""
    folder = runs / "sweep" / name
    folder.mkdir(parents=True)
    files.write_config(folder, {"strategy": name.split("-")[0], "lr": 0.1, "seed": 0, **fields}, {"run_id": name})
    files.write_history(folder, [{"epoch": 1, "val/accuracy": val or 0.1}])
    write_table(folder / keys.PREDICTIONS, ["path"], [["a.png"]])
    for file in (keys.BEST, keys.LAST):
        (folder / file).write_bytes(bytes(KILO))
    if val is not None:
        documents.write_json(folder / keys.SUMMARY, {"best/val_accuracy": val, "best/val_loss": 1 - val})
    return folder


def weights_of(runs: Path) -> set[str]:
    """Return the checkpoints that are there, such as `head-a/best.pt`."""
    return {f"{path.parent.name}/{path.name}" for path in runs.rglob("*.pt")}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two seeds of one recipe, a better recipe of the strategy, another strategy, and runs that are not finished."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    made_run(runs, "head-seed0", 0.5)
    made_run(runs, "head-seed1", 0.6, seed=1)
    made_run(runs, "head-other", 0.7, lr=0.2)
    made_run(runs, "full-a", 0.2)
    made_run(runs, "full-killed", None, seed=1)
    files.write_state(made_run(runs, "full-failed", None, seed=2), "failed", "no luck")
    return runs


ALL = {
    f"{run}/{file}"
    for run in ("head-seed0", "head-seed1", "head-other", "full-a", "full-killed", "full-failed")
    for file in ("best.pt", "last.pt")
}
LAST_OF_FINISHED = {f"{run}/last.pt" for run in ("head-seed0", "head-seed1", "head-other", "full-a")}


def taken(runs: Path) -> int:
    """Return what runs and caches take, in bytes."""
    return sum(path.stat().st_size for path in runs.rglob("*") if path.is_file()) + store.used_bytes()


def test_last_checkpoints_of_finished_runs_go_before_best_ones(runs: Path) -> None:
    """And no more than is asked for; then the seeds that another one outdoes, then the recipes."""
    assert main(["--budget", str(taken(runs))]) == 0
    assert weights_of(runs) == ALL
    assert main(["--budget", str(taken(runs) - KILO - 1)]) == 0
    gone = ALL - weights_of(runs)
    assert len(gone) == 2
    assert gone <= LAST_OF_FINISHED
    assert main(["--budget", str(taken(runs) - 2 * KILO - 1)]) == 0
    assert ALL - weights_of(runs) == LAST_OF_FINISHED | {"head-seed0/best.pt"}
    assert main(["--budget", str(taken(runs) - 1)]) == 0
    assert ALL - weights_of(runs) == LAST_OF_FINISHED | {"head-seed0/best.pt", "head-seed1/best.pt"}


def test_runs_from_other_weights_are_of_another_recipe(runs: Path) -> None:
    """A sweep may compare weights, which have no effect on a run but by their content; a later field may be absent."""
    config = {"strategy": "head", "lr": 0.2, "weights": "b", "balance": "none", "data": "elsewhere"}
    other = made_run(runs, "head-weights-b", 0.65)
    files.write_config(other, config, {"weights_hash": "hash of b"})
    assert main(["--budget", str(taken(runs) - 7 * KILO)]) == 0  # five of last.pt, and two of best.pt
    assert {name for name in ALL - weights_of(runs) if "best" in name} == {"head-seed0/best.pt", "head-seed1/best.pt"}
    assert (other / keys.BEST).exists()


def test_a_file_that_vanishes_meanwhile_does_not_end_it(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live run, or another process that makes room, renames and deletes files while they are counted."""
    victim = runs / "sweep" / "head-seed0" / "last.pt.damaged-1"
    victim.touch()
    is_file = Path.is_file

    def look_and_lose(path: Path) -> bool:
        found = is_file(path)
        if path == victim:
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", look_and_lose)
    assert main([]) == 0
    assert weights_of(runs) == ALL


def test_results_and_what_is_still_of_use_stay_whatever_the_budget(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best of each strategy, all that an unfinished or failed run goes on from, and every result."""
    assert main(["--budget", "0"]) == 1
    assert "more than the budget" in capsys.readouterr().err
    kept = {"head-other/best.pt", "full-a/best.pt"}
    unfinished = {f"full-{run}/{file}.pt" for run in ("killed", "failed") for file in ("best", "last")}
    assert weights_of(runs) == kept | unfinished
    for folder in files.find_runs(runs / "sweep"):
        names = {path.name for path in folder.iterdir()}
        assert names >= set(RESULTS) - ({keys.SUMMARY} if folder.name.startswith("full-") else set())
    assert (runs / "sweep" / "full-a" / keys.SUMMARY).exists()


def test_what_a_report_names_stays(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As its best run, by its path, or anywhere else."""
    (tmp_path / "reports" / "sweep").mkdir(parents=True)
    content = {"best_run": "head-seed0", "claims": [{"evidence": ["runs/sweep/head-seed1"]}]}
    (tmp_path / "reports" / "sweep" / "report.json").write_text(json.dumps(content))
    assert main(["--budget", "0"]) == 1
    assert weights_of(runs) >= {f"head-seed{seed}/{file}.pt" for seed in (0, 1) for file in ("best", "last")}
    assert "keeps all of 2 runs named in a report: head-seed0, head-seed1" in capsys.readouterr().out


def test_a_report_that_can_not_be_read_stops_it(runs: Path, tmp_path: Path) -> None:
    """What it names is not known, so nothing goes."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "report.json").write_text("{")
    assert main(["--budget", "0"]) == 2
    assert weights_of(runs) == ALL


def test_files_of_a_live_run_stay(runs: Path) -> None:
    """Even where it has a summary already: it is about to end."""
    temporary = runs / "sweep" / "head-seed0" / ".best.pt.0123abcd.tmp"
    with hold_claim(runs / "sweep" / "head-seed0"):
        temporary.touch()
        os.utime(temporary, (1, 1))
        assert main(["--budget", "0"]) == 1
        assert {"head-seed0/best.pt", "head-seed0/last.pt"} <= weights_of(runs)
        assert temporary.exists()
    assert main(["--budget", "0"]) == 1
    assert not {"head-seed0/best.pt", "head-seed0/last.pt"} & weights_of(runs)
    assert not temporary.exists()


def test_without_a_budget_only_what_is_of_no_use_goes(runs: Path) -> None:
    """Files set aside as damaged, and half-written ones that nobody can be writing any more."""
    folder = runs / "sweep" / "head-seed0"
    useless = [folder / "last.pt.damaged-1", folder / ".last.pt.0123abcd.tmp", folder / ".claim-0123abcd"]
    useless.append(runs / "sweep" / ".plan.json.0123abcd.tmp")
    for path in useless:
        path.touch()
        os.utime(path, (1, 1))
    young, foreign = folder / ".best.pt.0123abcd.tmp", folder / ".wandb-x.lock"
    young.touch()
    foreign.touch()
    os.utime(foreign, (1, 1))
    assert main([]) == 0
    assert not any(path.exists() for path in useless)
    assert young.exists()
    assert foreign.exists()
    assert weights_of(runs) == ALL


@pytest.mark.parametrize(
    ("keep", "stay"), [("none", set()), ("best", {"best.pt"}), ("best_last", {"best.pt", "last.pt"})]
)
def test_weights_that_a_run_was_to_delete_go_without_a_budget(runs: Path, keep: str, stay: set[str]) -> None:
    """It was killed between its summary and that. What is named in a report stays, and so do unfinished runs."""
    reports = runs.parent / "reports"
    reports.mkdir()
    (reports / "report.json").write_text(json.dumps({"best_run": "head-named"}))
    made_run(runs, "head-ended", 0.5, keep=keep)
    made_run(runs, "head-named", 0.9, keep=keep)
    made_run(runs, "head-under-way", None, keep=keep)
    others = ALL | {f"head-{run}/{file}" for run in ("named", "under-way") for file in ("best.pt", "last.pt")}
    assert main(["runs"]) == 0
    assert weights_of(runs) == others | {f"head-ended/{file}" for file in stay}


def test_what_goes_is_counted_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that a run was to delete are those of a finished run, too."""
    made_run(runs, "head-ended", 0.5, keep="none")
    main(["runs", "--budget", "1", "--dry-run"])
    output = capsys.readouterr().out
    assert output.count("head-ended/last.pt") == output.count("head-ended/best.pt") == 1


def test_caches_go_before_weights_and_the_longest_unused_first(runs: Path) -> None:
    """One that was just used stays: somebody is reading it."""
    fresh, old, older = make("numbers-1", KILO, 60), make("numbers-2", KILO, 4000), make("numbers-3", KILO, 5000)
    assert main(["--budget", str(taken(runs) - 1)]) == 0
    assert [path.exists() for path in (fresh, old, older)] == [True, True, False]
    assert main(["--budget", "0"]) == 1
    assert [path.exists() for path in (fresh, old, older)] == [True, False, False]


def test_a_dry_run_deletes_nothing_and_says_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Line by line."""
    make("numbers-1", KILO, 4000)
    before = {path: path.stat().st_mtime for path in runs.rglob("*")}
    assert main(["--budget", "0", "--dry-run"]) == 1
    said = capsys.readouterr().out.replace("would free", "frees").splitlines()[:-1]
    assert {path: path.stat().st_mtime for path in runs.rglob("*")} == before
    assert store.find_entry("numbers-1") is not None
    used = time.time() - 4000  # finding it has counted as using it
    os.utime(store.entries_folder() / "numbers-1" / entry_writer.ABOUT, (used, used))
    assert main(["--budget", "0"]) == 1
    assert capsys.readouterr().out.splitlines()[:-1] == said


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("10GB", 1e10), ("1.5 gb", 1.5e9), ("500M", 5e8), ("7b", 7), ("3kB", 3000)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: float) -> None:
    """Units of 1000."""
    assert parse_size(text) == size


def test_bad_input_deletes_nothing(runs: Path) -> None:
    """A size that is none, a folder that is not there."""
    for bad in ("much", "-1GB", "1 parsec", ""):
        with pytest.raises(UserError, match="no size"):
            parse_size(bad)
    assert main(["--budget", "much"]) == 2
    assert main(["nowhere"]) == 2
    assert weights_of(runs) == ALL


def test_a_broken_summary_keeps_its_run_s_weights(runs: Path) -> None:
    """Its results may have to be made again from them."""
    (runs / "sweep" / "head-seed0" / keys.SUMMARY).write_text("{")
    assert main(["--budget", "0"]) == 1
    assert {"head-seed0/best.pt", "head-seed0/last.pt"} <= weights_of(runs)
    shutil.rmtree(runs / "sweep" / "head-seed0")
