"""From a sweep file to a comparison with figures: the commands as a user types them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.support import offline

SWEEP = """
program: agent.py
method: grid
metric: {name: best/val_accuracy, goal: maximize}
parameters:
  data: {value: PICTURES}
  backbone: {value: squeezenet1_1}
  weights: {value: none}
  image_px: {value: 24}
  epochs: {value: 2}
  batch_size: {value: 8}
  strategy: {values: [head, partial, full]}
  lr: {values: [1e-3, 3e-3]}
"""


def run_command(folder: Path, *arguments: str) -> str:
    """Run a command of the project in `folder` and return its output."""
    environment = {**offline.environment(ROOT), "PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_sweep_then_analysis_then_prediction(pictures: Path, tmp_path: Path) -> None:
    """Six runs by two agents, a second call with nothing to do, the report's files, and a prediction by one run."""
    (tmp_path / "small.yaml").write_text(SWEEP.replace("PICTURES", str(pictures)))
    agent = [str(ROOT / "agent.py"), "small.yaml", "--agents", "2"]
    run_command(tmp_path, *agent)
    runs = sorted((tmp_path / "runs" / "small").glob("*/summary.json"))
    assert len(runs) == 6
    before = [path.stat().st_mtime_ns for path in runs]
    run_command(tmp_path, *agent)
    assert [path.stat().st_mtime_ns for path in runs] == before

    run_command(tmp_path, "-m", "analysis", "runs/small")
    report = tmp_path / "reports" / "small"
    with (report / "comparison.csv").open() as file:
        rows = {row["strategy"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"head", "partial", "scratch"}  # without weights, training everything is from scratch
    for strategy, row in rows.items():
        summaries = [json.loads(path.read_text()) for path in runs if path.parent.name.startswith(strategy)]
        chosen = max(summaries, key=lambda summary: (summary["best/val_accuracy"], -summary["best/val_loss"]))
        assert float(row["test_accuracy_mean"]) == chosen["test/accuracy"]
    for name in ("comparison.md", "report.html", "report.json", "prediction_grid.png"):
        assert (report / name).stat().st_size > 500
    assert {path.suffix for path in (report / "figures").iterdir()} == {".png", ".pdf"}

    out = run_command(tmp_path, "-m", "finetune.predict", str(runs[0].parent), str(pictures / "test" / "red"))
    assert len(out.splitlines()) == 1 + 4
