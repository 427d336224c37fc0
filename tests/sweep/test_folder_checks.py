"""A sweep's folder that holds runs already: which of them its runs may stand beside."""

from pathlib import Path

import pytest
import yaml

from finetune.config import Config, to_dict
from finetune.errors import UserError
from finetune.rundir import files
from finetune.sweep import folder_checks, sweep_file
from finetune.sweep.plan import SweepPlan, make_plan


def identify(config: Config) -> tuple[str, str]:
    """Tell weights by what the file holds."""
    path = Path(config.weights)
    return "pictures", path.read_text() if path.is_file() else config.weights


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepPlan:
    """Return the plan of a sweep over two weights, of which each has a run in the folder."""
    monkeypatch.chdir(tmp_path)
    Path("own.pth").write_text("weights")
    parameters = {"weights": {"values": ["own.pth", "DEFAULT"]}, "data": {"value": "demo"}}
    Path("my.yaml").write_text(yaml.safe_dump({"method": "grid", "parameters": parameters}))
    plan = make_plan(sweep_file.load("my.yaml"), None, identify)
    for run in plan.runs:
        run.directory.mkdir(parents=True)
        about = {"data_fingerprint": "pictures", "weights_hash": identify(run.config)[1]}
        files.write_config(run.directory, to_dict(run.config), about)
    return plan


def test_the_same_pictures_and_weights_are_no_others(plan: SweepPlan) -> None:
    """Two weights in one sweep are meant; and a run of an earlier version, which does not tell its weights, is one."""
    folder_checks.require_same_inputs(plan)
    files.write_config(plan.runs[0].directory, to_dict(plan.runs[0].config), {"data_fingerprint": "pictures"})
    folder_checks.require_same_inputs(plan)


def test_a_file_of_weights_that_is_another_now_is_told(plan: SweepPlan) -> None:
    """Damaged, say: all runs would be new ones, and the hours that went into those that are there be lost."""
    Path("own.pth").write_text("weightz")
    with pytest.raises(UserError, match=r"own\.pth has changed, or been damaged, since .* --name other"):
        folder_checks.require_same_inputs(plan)
    again = make_plan(sweep_file.load("my.yaml", ["weights=DEFAULT"]), None, identify)
    folder_checks.require_same_inputs(again)  # which has no use for the file
