"""What strategies would train, table beforehand: the same as a run tells of itself afterwards."""

from pathlib import Path
from typing import get_args

import pytest

from finetune.config import Strategy, parse_config
from finetune.models.unfreeze_table import unfreeze_table
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents
from tests.support.small_runs import small


def test_a_run_trains_what_was_told(pictures: Path, tmp_path: Path) -> None:
    """Shares of each epoch and the parameters of the last one are those in its history and summary."""
    config = small(pictures, strategy="gradual", epochs=3, unfreeze=[(0, 0.0), (1, 0.5), (2, 0.8)])
    run(config, tmp_path / "run")
    table = unfreeze_table(config, ["gradual"], classes=3)
    history, _ = files.read_history(tmp_path / "run")
    summary = documents.read_json(tmp_path / "run" / keys.SUMMARY)
    assert summary is not None
    assert [row["epoch"] for row in table] == [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["trainable_share"] for row in table] == pytest.approx([row["trainable_share"] for row in history])
    assert table[-1]["trainable_parameters"] == summary["trainable_parameters"]
    assert table[-1]["parameter_share"] == summary["trainable_parameters"] / summary["total_parameters"]
    frozen = 1 - sum(row["flop_share"] for row in table) / 3
    assert frozen == pytest.approx(summary["frozen/flop_share"])


def test_every_strategy_has_a_row_an_epoch() -> None:
    """Head trains none of the blocks, full and scratch all of them; no weights are asked for."""
    config = parse_config({"backbone": "resnet18", "weights": "nowhere.pt", "epochs": 4, "image_px": 48}, "a test")
    rows = unfreeze_table(config, get_args(Strategy), classes=10)
    by_strategy = {name: [row for row in rows if row["strategy"] == name] for name in get_args(Strategy)}
    assert {len(found) for found in by_strategy.values()} == {4}
    assert {row["trainable_share"] for row in by_strategy["head"]} == {0.0}
    assert {row["trainable_parameters"] for row in by_strategy["head"]} == {512 * 10 + 10}
    for name in ("full", "scratch"):
        assert {(row["trainable_share"], row["parameter_share"], row["flop_share"]) for row in by_strategy[name]} == {
            (1.0, 1.0, 1.0)
        }
    assert by_strategy["gradual"][0]["trainable_share"] < by_strategy["gradual"][-1]["trainable_share"]
