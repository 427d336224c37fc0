"""A finished sweep beside the plain loop: time and accuracies."""

from pathlib import Path
from typing import Any

import pytest

from analysis.sources.run_directories import read_sweep
from benchmarks import plain, synthetic_images, whole_sweep
from finetune.config import Config, parse_config
from finetune.resolve import resolve
from finetune.run.run import run
from finetune.sweep.forecast.report import FORECAST
from finetune.system import documents
from tests.support.fabricate import fabricate_run


def test_a_sweep_is_compared_with_the_plain_loop(tmp_path: Path) -> None:
    """4 runs of head at 100 s and 2 of full at 300 s, against 60 s in all; untrained strategies are left out."""
    for seed in (0, 1):
        for lr, val in ((0.001, 0.8), (0.003, 0.7)):
            fabricate_run(tmp_path, f"head-{lr}-{seed}", lr=lr, val=val, seed=seed, test=0.8 + seed / 10, seconds=10.0)
        fabricate_run(tmp_path, f"full-{seed}", strategy="full", seed=seed, test=0.9, seconds=20.0)
        fabricate_run(tmp_path, f"scratch-{seed}", strategy="scratch", seed=seed, test=0.1)
    epoch = {"seconds/train": 40.0, "seconds/val": 10.0, "seconds/loader": 3.0}
    results = {
        "head-0.001-1": {"epochs": [epoch] * 2, "test/accuracy": 0.88},
        "full-0": {"epochs": [epoch] * 6, "test/accuracy": 0.92},
    }
    rows = whole_sweep.compare(read_sweep(tmp_path), results)
    assert rows[["strategy", "runs", "seeds"]].values.tolist() == [["head", 4, 1], ["full", 2, 1]]
    assert rows[["plain_test", "here_test"]].values.tolist() == [[0.88, pytest.approx(0.9)], [0.92, 0.9]]
    assert rows["grid_runs"].tolist() == [4, 2]
    lines = whole_sweep.describe(rows, 60.0)
    assert "|head|4|88.0%|90.0%|1.7min|10s|" in [line.replace(" ", "") for line in lines]
    assert lines[-1].startswith("All 6 runs: plain loop 17 min, here 60 s: 16.7 times as fast.")


def test_the_plain_loop_also_makes_the_runs_that_a_race_left_out(tmp_path: Path) -> None:
    """Two rates, and the further seeds of one: 4 of 6 runs, 100 s each."""
    for lr, seed in ((0.001, 0), (0.003, 0), (0.003, 1), (0.003, 2)):
        fabricate_run(tmp_path, f"head-{lr}-{seed}", lr=lr, seed=seed)
    result = {"epochs": [{"seconds/train": 80.0, "seconds/val": 20.0}], "test/accuracy": 0.8}
    rows = whole_sweep.compare(read_sweep(tmp_path), {"head-0.003-0": result})
    assert whole_sweep.describe(rows, 100.0)[-1].startswith(
        "All 6 runs: plain loop 10 min, here 1.7 min for the 4 that the race needed: 6.0 times as fast; "
        "4.0 times for the same 4."
    )


def test_the_plain_loop_trains_what_val_chose_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command, beside a real run; called again, it trains nothing and prints the same table."""
    images = synthetic_images.draw_folder(tmp_path / "drawn", {"train": 8, "val": 4, "test": 4})
    folder, trained, train = tmp_path / "sweep", [], plain.train
    fields = {"backbone": "resnet18", "weights": "none", "image_px": 32, "batch_size": 4, "epochs": 1, "device": "cpu"}
    config = parse_config({**fields, "data": str(images), "strategy": "head"}, "the test")
    run(resolve(config), folder / "head-0")

    def spy(config: Config) -> dict[str, Any]:
        trained.append(config.strategy)
        return train(config)

    monkeypatch.setattr(plain, "train", spy)
    printed = []
    for _ in range(2):
        assert whole_sweep.main([str(folder), "--out", str(tmp_path / "out"), "--threads", "1"]) == 0
        printed.append(capsys.readouterr().out)
    assert trained == ["head"]
    assert printed[0] == printed[1]
    assert "|head|1|" in printed[0].replace(" ", "")
    documents.write_json(folder / FORECAST, {"took": {"wall_seconds": 5400.0, "run_seconds": {"head-0": 60.0}}})
    assert whole_sweep.main([str(folder), "--out", str(tmp_path / "out"), "--threads", "1"]) == 0
    assert ", here 1.5 h: " in capsys.readouterr().out  # the wall time that its one agent noted
    assert whole_sweep.main([str(tmp_path / "nowhere")]) == 2
