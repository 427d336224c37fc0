"""Run directories become frames: everything that is there, nothing that is not, and a reason for what is left out."""

from pathlib import Path

import pytest

from analysis.errors import InputError
from analysis.sources.locate import find_folder
from analysis.sources.predictions import read_predictions
from analysis.sources.run_directories import read_sweep
from finetune.rundir import files, keys
from tests.support.fabricate import fabricate_run, tear_history, write_predictions


def test_a_run_is_one_row_with_config_origin_and_summary(tmp_path: Path) -> None:
    """The row holds the fields, where the run comes from, and what it reached, with types."""
    fabricate_run(tmp_path, "head-1", lr=0.003, seed=2, val=0.7, test=0.6, predictions=[("a.png", "disc", "disc", 0.9)])
    row = read_sweep(tmp_path).runs.iloc[0]
    assert (row["run"], row["state"], row["strategy"], row["lr"], row["seed"]) == (
        "head-1",
        "finished",
        "head",
        0.003,
        2,
    )
    assert (row["best/val_accuracy"], row["test/accuracy"]) == (0.7, 0.6)
    assert row["provenance/splits/test"] == 100
    assert row["provenance/versions/torch"] == "2"


def test_epochs_are_one_row_a_run_and_epoch(tmp_path: Path) -> None:
    """Every epoch of every run is there once, as numbers, whatever its state."""
    fabricate_run(tmp_path, "a", curve=[0.1, 0.2])
    fabricate_run(tmp_path, "b", curve=[0.3], state="failed", reason="out of memory")
    files.append_history(tmp_path / "a", {"epoch": 2, "val/accuracy": 0.25})  # written again after a resume
    epochs = read_sweep(tmp_path).epochs
    assert list(zip(epochs["run"], epochs["epoch"], epochs["val/accuracy"], strict=True)) == [
        ("a", 1, 0.1),
        ("a", 2, 0.25),
        ("b", 1, 0.3),
    ]


def test_runs_that_did_not_finish_are_kept_apart_with_their_reason(tmp_path: Path) -> None:
    """A failed, a killed and an unfinished run are rows with state and reason, and do not count."""
    fabricate_run(tmp_path, "a")
    fabricate_run(tmp_path, "b", state="failed", reason="loss is not finite\nat step 3")
    fabricate_run(tmp_path, "c", state="killed", reason="SIGTERM")
    fabricate_run(tmp_path, "d", state="unfinished")
    sweep = read_sweep(tmp_path)
    assert list(sweep.finished["run"]) == ["a"]
    left_out = sweep.left_out
    assert list(left_out["state"]) == ["failed", "killed", "unfinished"]
    assert left_out["reason"].iloc[0] == "loss is not finite at step 3"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (keys.CONFIG, "a: [", "config.yaml"),
        (keys.CONFIG, "", "config.yaml"),
        (keys.SUMMARY, "{", "can't be read"),
        (keys.SUMMARY, '{"test/accuracy": NaN, "best/val_accuracy": 0.5}', "test/accuracy"),
        (keys.SUMMARY, '{"test/accuracy": 0.5}', "best/val_accuracy"),
    ],
)
def test_a_damaged_run_is_named_and_left_out(tmp_path: Path, file: str, content: str, said: str) -> None:
    """One broken file costs one run, and the reason names the file or the key."""
    fabricate_run(tmp_path, "good")
    (fabricate_run(tmp_path, "broken", seed=1) / file).write_text(content)
    sweep = read_sweep(tmp_path)
    assert list(sweep.finished["run"]) == ["good"]
    assert sweep.left_out["state"].tolist() == ["damaged"]
    assert said in sweep.left_out["reason"].iloc[0]


def test_a_torn_line_is_dropped_and_said(tmp_path: Path) -> None:
    """The whole lines before it stay, and a note names the run."""
    tear_history(fabricate_run(tmp_path, "a", curve=[0.1, 0.2]))
    sweep = read_sweep(tmp_path)
    assert list(sweep.epochs["epoch"]) == [1, 2]
    assert sweep.notes == ("a: 1 torn line of history.jsonl dropped.",)


def test_missing_epochs_are_said(tmp_path: Path) -> None:
    """A curve that ends before its run did, as after an incomplete copy, does not pass for whole."""
    fabricate_run(tmp_path, "a", curve=[0.1, 0.2])
    fabricate_run(tmp_path, "b", seed=1, curve=[0.1, 0.2, 0.3], summary={"epochs": 4})
    assert read_sweep(tmp_path).notes == ("history.jsonl lacks epochs of 1 run: b (3 of 4).",)


def test_a_config_can_not_pass_for_more_than_a_config(tmp_path: Path) -> None:
    """A field named like a column of ours, from somebody else's server, moves neither the run nor its state."""
    run_dir = fabricate_run(tmp_path, "a")
    config = files.read_config(run_dir)
    origin = config.pop("provenance")
    files.write_config(run_dir, {**config, "run": "b", "path": "/etc", "state": "failed", "test/accuracy": 1}, origin)
    row = read_sweep(tmp_path).finished.iloc[0]
    assert (row["run"], row["path"], row["test/accuracy"]) == ("a", str(run_dir), 0.8)


def test_runs_on_different_data_are_refused(tmp_path: Path) -> None:
    """The error names the runs of either data set and says how to mend it."""
    fabricate_run(tmp_path, "a")
    fabricate_run(tmp_path, "b", seed=1, provenance={"data_fingerprint": "bbbb"})
    with pytest.raises(InputError) as caught:
        read_sweep(tmp_path)
    for part in ("different data", "data aaaa (demo): 1 run: a", "data bbbb (demo): 1 run: b", "--name", "--mix-data"):
        assert part in str(caught.value)


def test_a_failed_run_on_other_data_does_not_stop_the_analysis(tmp_path: Path) -> None:
    """What is left out anyway can't spoil a comparison."""
    fabricate_run(tmp_path, "a")
    fabricate_run(tmp_path, "b", state="failed", provenance={"data_fingerprint": "bbbb"})
    assert len(read_sweep(tmp_path).finished) == 1


def test_no_finished_run_is_an_error_that_counts_the_others(tmp_path: Path) -> None:
    """The message says what became of the runs and shows a reason."""
    fabricate_run(tmp_path, "a", state="failed", reason="out of memory")
    fabricate_run(tmp_path, "b", state="unfinished")
    with pytest.raises(InputError, match=r"1 failed, 1 unfinished.*\n.*out of memory"):
        read_sweep(tmp_path)


def test_a_run_made_twice_counts_once(tmp_path: Path) -> None:
    """A copy of a run is not another seed."""
    fabricate_run(tmp_path, "a", seed=0)
    fabricate_run(tmp_path, "b", seed=0, device="cpu")  # where it ran is no part of the recipe
    sweep = read_sweep(tmp_path)
    assert list(sweep.finished["run"]) == ["a"]
    assert "b" in sweep.notes[0]


def test_unlike_devices_are_said(tmp_path: Path) -> None:
    """Times of a CPU and a GPU in one table would mislead in silence."""
    fabricate_run(tmp_path, "a")
    fabricate_run(tmp_path, "b", seed=1, provenance={"device": "NVIDIA H200"})
    assert read_sweep(tmp_path).notes == (
        "Times were measured on different devices and do not compare: NVIDIA H200, cpu.",
    )


def test_missing_provenance_is_no_fault(tmp_path: Path) -> None:
    """A run from elsewhere may know little of its origin."""
    run_dir = fabricate_run(tmp_path, "a")
    config = files.read_config(run_dir)
    del config["provenance"]
    files.write_config(run_dir, config, {})
    assert len(read_sweep(tmp_path).finished) == 1


def test_predictions_are_text_with_the_predictions_own_probability(tmp_path: Path) -> None:
    """Classes named NA and 007 stay what they are; confidence is the probability of what was predicted."""
    write_predictions(tmp_path, [("x.png", "NA", "007", 0.75), ("y.png", "007", "007", 0.5)])
    answers = read_predictions(tmp_path)
    assert answers["label"].tolist() == ["NA", "007"]
    assert answers["confidence"].tolist() == [0.75, 0.5]
    assert answers["correct"].tolist() == [False, True]


@pytest.mark.parametrize("content", [None, "", "path,label\na,b\n", "path,label,prediction\n", b"\xff\xfe\x00"])
def test_unusable_predictions_are_an_error_that_names_the_file(tmp_path: Path, content: str | bytes | None) -> None:
    """Missing, empty, without a column, without rows, not text: always InputError with the path."""
    if content is not None:
        (tmp_path / keys.PREDICTIONS).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"predictions\.csv"):
        read_predictions(tmp_path)


def test_a_sweep_is_found_by_folder_name_file_or_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to name it leads to the same folder."""
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    fabricate_run(runs / "demo", "a")
    Path("sweeps").mkdir()
    for name in ("sweeps/demo.yaml", "runs/demo/sweep.yaml"):
        Path(name).write_text("method: grid\n")
    for argument in ("runs/demo", "demo", "sweeps/demo.yaml", "runs/demo/sweep.yaml", "me/trials/demo", None):
        assert find_folder(argument) == runs / "demo"
    assert find_folder("runs/demo/a") == runs / "demo" / "a"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("me/trials/ab12cd34", "W&B"),
        ("dmeo", "Did you mean 'demo'"),
        ("runs", "Name one of them: runs/demo"),
        ("empty", "no run that has started"),
        ("sweeps/other.yaml", "python agent.py sweeps/other.yaml"),
        ("notes.txt", "neither a folder of runs nor a sweep file"),
    ],
)
def test_what_is_no_sweep_gets_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, said: str
) -> None:
    """The message says what was looked for and names what there is."""
    monkeypatch.chdir(tmp_path)
    fabricate_run(Path("runs/demo"), "a")
    for folder in ("empty", "sweeps"):
        Path(folder).mkdir()
    for file in ("sweeps/other.yaml", "notes.txt"):
        Path(file).touch()
    with pytest.raises(InputError) as caught:
        find_folder(argument)
    assert said in str(caught.value)


def test_no_runs_at_all_is_a_message(tmp_path: Path) -> None:
    """A fresh clone has no runs/ yet."""
    with pytest.raises(InputError, match="holds no runs yet"):
        find_folder(None, tmp_path / "runs")
