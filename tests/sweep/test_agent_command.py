"""The command line of agent.py: bad input ends with a message and exit code 2, and nothing is written."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.rundir import files
from finetune.sweep import search
from finetune.sweep.agents.training_api import REAL
from finetune.sweep.trials import record_trial
from tests import ROOT
from tests.support.agent_in_process import InProcess
from tests.support.agent_processes import write_sweep
from tests.support.images import write_folder, write_picture

AGENT = ROOT / "agent.py"


def agent(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run agent.py in `folder`; return exit code and what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, str(AGENT), *arguments], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stderr


def test_agent_py_itself_ends_with_exit_code_2(tmp_path: Path) -> None:
    """As a program of its own, from another working directory."""
    (tmp_path / "my.yaml").write_text("method: grid\nparameters: {lr: {values: [-1]}}\n")
    code, errors = agent(tmp_path, "my.yaml")
    assert code == 2
    assert errors == "ConfigError: 1 fault in my.yaml\n  lr: -1: Input should be greater than 0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("method: [grid\n", [], "my.yaml is not YAML"),
        ("", [], "my.yaml is empty"),
        ("- 1\n", [], "my.yaml holds a list"),
        ("method: grid\n", [], "my.yaml has no `parameters`"),
        ("method: grid\nparameters: {bach_size: {value: 8}}\n", [], "Did you mean 'batch_size'?"),
        ("method: grid\nparameters: {strategy: {value: partal}}\n", [], "Did you mean 'partial'?"),
        ("method: grid\nparameters: {lr: {values: [-1]}}\n", [], "lr: -1"),
        ("method: grid\nparameters: {lr: {value: 1}}\n", ["--set", "epochs=0"], "epochs: 0"),
        ("method: grid\nparameters: {lr: {value: 1}}\n", ["--agents", "0"], "0 is not at least 1"),
        ("method: grid\nparameters: {lr: {value: 1}}\n", ["--name", "../x"], "--name"),
        ("method: grid\nparameters: {lr: {value: 1}}\n", ["--folds", "1"], "1 is not a number of folds"),
        ("method: grid\nparameters: {lr: {value: 1}}\n", ["--folds", "x"], "cross-validation takes 2 to 100"),
        ("method: grid\nparameters: {folds: {value: 3}}\n", [], "give fold, from 0 to 2"),
        ("method: random\nrun_cap: 2\nparameters: {lr: {value: 1}}\n", ["--folds", "3"], "would draw a fold"),
    ],
)
def test_bad_input_gets_a_message_and_exit_code_2(
    tmp_path: Path, text: str, arguments: list[str], message: str
) -> None:
    """No traceback, nothing written."""
    (tmp_path / "my.yaml").write_text(text)
    place = InProcess(tmp_path)
    code, output = place.run("my.yaml", *arguments)
    assert code == 2
    assert message in output
    assert "Traceback" not in output
    assert place.written() == ["my.yaml"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("sweeps/strategys.yaml", "no such sweep file"),
        ("entity/project/ab12cd34", "is a sweep on a W&B server, but WANDB_MODE is disabled"),
        (".", "without sweep.yaml"),
    ],
)
def test_a_sweep_that_is_not_there_gets_a_message_and_exit_code_2(tmp_path: Path, argument: str, message: str) -> None:
    """Whether it looks like a file, a folder or a sweep on a server."""
    code, output = InProcess(tmp_path).run(argument)
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def _one_picture(folder: Path) -> dict[str, Any]:
    write_folder(folder / "pictures", {"": 5})
    write_picture(folder / "pictures/alone/0.png", (0, 0, 0), seed=0)
    return {"data": "pictures"}


def _no_classes(folder: Path) -> dict[str, Any]:
    write_picture(folder / "pictures/0.png", (0, 0, 0), seed=0)
    return {"data": "pictures"}


def _other_architecture(folder: Path) -> dict[str, Any]:
    import torch

    write_folder(folder / "pictures", {"": 5})
    torch.save({"conv.weight": torch.zeros(3)}, folder / "other.pth")
    return {"data": "pictures", "weights": "other.pth"}


@pytest.mark.parametrize(
    ("make", "message"),
    [(_one_picture, "alone"), (_no_classes, "class"), (_other_architecture, "other.pth")],
)
def test_data_and_weights_that_do_not_fit_get_a_message_and_exit_code_2(
    tmp_path: Path, make: Callable[[Path], dict[str, Any]], message: str
) -> None:
    """The real checks, before anything is started or written."""
    from finetune.run import preflight  # noqa: F401  (imported once here, not in each agent)

    values = {"backbone": "resnet18", "image_px": 32, "weights": "none", **make(tmp_path)}
    spec = {"method": "grid", "parameters": {name: {"value": value} for name, value in values.items()}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(spec))
    place = InProcess(tmp_path, REAL)
    before = place.written()
    code, output = place.run("my.yaml")
    assert code == 2, output
    assert message in output
    assert "Traceback" not in output
    assert place.written() == before


def test_folds_are_short_for_two_settings(tmp_path: Path) -> None:
    """Every recipe on each of them; a setting beside it may choose some."""
    write_sweep(tmp_path, seeds=2)
    place = InProcess(tmp_path)
    assert "6 runs: 6 to do" in place.run("seeds.yaml", "--folds", "3", "--plan")[1]
    code, output = place.run("seeds.yaml", "--folds", "3", "--set", "fold=[0,2]")
    assert code == 0, output
    configs = [files.read_config(run) for run in place.runs()]
    assert {(config["folds"], config["fold"], config["seed"]) for config in configs} == {
        (3, fold, seed) for fold in (0, 2) for seed in (0, 1)
    }


BAYES: dict[str, Any] = {
    "method": "bayes",
    "run_cap": 3,
    "metric": {"name": "best/val_accuracy", "goal": "maximize"},
    "parameters": {"data": {"value": "demo"}, "epochs": {"value": 1}, "lr": {"min": 0.001, "max": 0.01}},
}


def test_a_failing_search_engine_ends_the_search_and_not_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises: the run that is known is trained; the fault is told at once and at the end."""
    place = InProcess(tmp_path)
    (tmp_path / "seeds.yaml").write_text(yaml.safe_dump(BAYES))
    record_trial(tmp_path / "runs/seeds", 0, {"data": "demo", "epochs": 1, "lr": 0.002})
    monkeypatch.setattr(search._engine(), "next_runs", lambda *_, **__: [][1])
    code, output = place.run("seeds.yaml")
    assert (code, place.states()) == (1, ["finished"]), output
    assert output.count("(IndexError: list index out of range): no further run is proposed") == 2


def test_damaged_trials_do_not_end_an_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, another kind of JSON, another space: each is passed over, and others are proposed."""
    place = InProcess(tmp_path)
    (tmp_path / "seeds.yaml").write_text(yaml.safe_dump(BAYES))
    for number, content in enumerate(["{", "[1]", "null", '{"lr": "x"}', '{"lr": 7.0, "data": "demo", "epochs": 1}']):
        trial = tmp_path / "runs/seeds/trials" / f"{number:05d}.json"
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.write_text(content)

    def propose(spec: object, name: str, number: int, observed: object) -> dict[str, object]:  # noqa: ARG001
        return {"data": "demo", "epochs": 1, "lr": 0.001 * (number - 3)}

    monkeypatch.setattr(search, "propose_point", propose)
    code, output = place.run("seeds.yaml")
    assert (code, place.states()) == (0, ["finished"] * 3), output


def test_sweep_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    """Two files called seeds.yaml in two folders; the one that has come first goes on."""
    place = InProcess(tmp_path)
    (tmp_path / "other").mkdir()
    write_sweep(tmp_path, seeds=2)
    write_sweep(tmp_path / "other", seeds=2, lr={"value": 0.007})
    assert place.run("seeds.yaml", "--count", "1")[0] == 0
    code, output = place.run("other/seeds.yaml")
    assert code == 2
    assert "another sweep file of this name" in output
    assert "--name other" in output
    assert place.run("runs/seeds")[0] == 0
    assert place.run("seeds.yaml")[0] == 0
    assert place.states() == ["finished"] * 2


def test_finished_runs_that_another_number_of_epochs_can_not_use_are_named(tmp_path: Path) -> None:
    """With a way to start from them; in the plan, too."""
    place = InProcess(tmp_path)
    write_sweep(tmp_path, seeds=2, epochs=1)
    assert place.run("seeds.yaml")[0] == 0
    write_sweep(tmp_path, seeds=2, epochs=2)
    for arguments in (["--plan"], []):
        code, output = place.run("seeds.yaml", *arguments)
        assert code == 0
        assert "2 finished runs in runs/seeds can't be used for this sweep, such as " in output
        assert "with epochs 1: another recipe is trained from its beginning" in output
