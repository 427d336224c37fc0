"""Nothing in a sweep file is accepted and then ignored: each key of W&B's schema is honoured or refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import agent
from finetune.config import parse_config
from finetune.errors import ConfigError, UserError
from finetune.sweep import search, sweep_file
from finetune.sweep.plan import make_plan
from finetune.sweep.sweep_keys import KEYS, REFUSED
from tests import ROOT
from tests.support.agent_processes import CODE

GRID: dict[str, Any] = {"method": "grid", "parameters": {"lr": {"values": [0.001, 0.003]}}}
METRIC = {"name": "best/val_accuracy", "goal": "maximize"}
BAYES: dict[str, Any] = {"method": "bayes", "metric": METRIC, "run_cap": 4}
# A valid value of each key that is not in GRID; of a section, the whole section.
EXAMPLES: dict[str, Any] = {
    "apiVersion": "1", "kind": "sweep", "description": "a question", "name": "my sweep", "entity": "me",
    "project": "here", "program": "agent.py", "run_cap": 3, "metric": METRIC,
    "command": ["${env}", "${interpreter}", "${program}", "${args}"], "controller": {"type": "cloud"},
    "metrics": [METRIC, {"name": "val/loss", "goal": "minimize"}], "scheduler": {"engine": "wandb"}, "job": "a job",
    "image_uri": "an/image", "early_terminate": {"type": "hyperband", "min_iter": 2},
}  # fmt: skip
SECTIONS: dict[str, dict[str, Any]] = {
    "metric.target": {"metric": {**METRIC, "target": 0.9}},
    "metric.impute": {"metric": {**METRIC, "impute": "best"}},
    "metric.impute_while_running": {"metric": {**METRIC, "impute_while_running": "best"}},
    "early_terminate.max_iter": {"early_terminate": {"type": "hyperband", "max_iter": 9, "s": 2}},
    "early_terminate.s": {"early_terminate": {"type": "hyperband", "max_iter": 9, "s": 2}},
    "early_terminate.eta": {"early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2}},
    "early_terminate.strict": {"early_terminate": {"type": "hyperband", "min_iter": 2, "strict": True}},
}


def check(spec: Any, folder: Path) -> int:
    """Check a sweep file with this content, as `make sweep` does."""
    text = spec if isinstance(spec, str | bytes) else yaml.safe_dump(spec)
    (folder / "my.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return agent.main([str(folder / "my.yaml"), "--check"], CODE)


def schema_keys() -> set[str]:
    """The keys of the engine's own schema."""
    schema = json.loads((Path(search._engine().__file__).parent / "config" / "schema.json").read_text())
    sections = {"metric": "metric", "early_terminate": "hyperband_stopping"}
    inner = {f"{key}.{name}" for key, part in sections.items() for name in schema["definitions"][part]["properties"]}
    return set(schema["properties"]) | inner


def test_the_table_has_every_key_of_the_schema() -> None:
    assert set(KEYS) == schema_keys()


def test_the_page_has_the_same_table() -> None:
    page = (ROOT / "docs" / "sweeps.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert {name: texts for name, *texts in rows if name in KEYS} == {name: [*key] for name, key in KEYS.items()}


@pytest.mark.parametrize("key", KEYS)
def test_each_key_is_honoured_or_refused(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused one by its name, with what to write instead."""
    added = SECTIONS.get(key) or {key.partition(".")[0]: EXAMPLES.get(key.partition(".")[0])}
    spec = {**GRID, "metric": METRIC, **{name: value for name, value in added.items() if value is not None}}
    code, told = check(spec, tmp_path), capsys.readouterr().err
    assert (code, f"{key}: " in told) == ((2, True) if KEYS[key].here == REFUSED else (0, False)), told


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "max_iter": 9, "s": 2}}, "min_iter counts bands"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 2, "eta": 3}}, "there is no band"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}}, "must be above 1"),
        ({"command": ["${env}", "python3", "${program}", "--epochs=5", "${args}"]}, "fixed flags as parameters"),
        ({"command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]}, "leave it out"),
        ({"command": ["${interpreter}", "${program}"]}, "leave it out"),
        ({"program": "train.py"}, "write program: agent.py"),
        ({"controller": {"type": "local"}}, "local controller"),
        ({"parameters": {"lr": {"parameters": {"a": {"value": 1}}}}}, "one level up"),
        ({"parameters": {"weight_decay": {"values": [0, {"min": 0.0, "max": 1.0}]}}}, "list values"),
        ({"parameters": {"erasing": {"min": 0, "max": 1}}, "method": "random"}, "write min: 0.0 and max: 1.0"),
    ],
)
def test_what_runs_could_not_honour_is_refused(
    added: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values are checked, not only keys."""
    assert check({**GRID, "metric": METRIC, **added}, tmp_path) == 2
    assert told in capsys.readouterr().err


def test_the_bands_of_hyperband_are_told_and_are_the_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {**GRID["parameters"], "epochs": {"value": 20}}
    spec = {**GRID, "parameters": parameters, "metric": METRIC}
    for section, bands in (({"min_iter": 2, "eta": 2}, "2, 4, 8, 16"), ({"max_iter": 18, "s": 2}, "2, 6")):
        assert check({**spec, "early_terminate": {"type": "hyperband", **section}}, tmp_path) == 0
        assert f"hyperband compares runs after {bands} of 20 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_sweep_files_are_read_whatever_their_encoding_and_line_ends(encoding: str, tmp_path: Path) -> None:
    """As editors and PowerShell write them."""
    text = "method: grid\r\nparameters:\r\n  data: {value: Käfer}\r\n  lr: {values: [0.1, 0.2]}\r\n"
    assert check(text.encode(encoding), tmp_path) == 0
    assert sweep_file.load(str(tmp_path / "my.yaml")).spec["parameters"]["data"] == {"value": "Käfer"}


def test_a_file_in_another_encoding_is_refused_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("method: grid # Käfer\n".encode("latin-1"), tmp_path) == 2
    assert "save it as UTF-8" in capsys.readouterr().err


def test_a_key_that_is_given_twice_is_refused_with_both_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """YAML lets the last one win, at any depth."""
    text = "method: grid\nparameters:\n  lr: {value: 0.1}\n  seed:\n    value: 1\n    value: 2\n  lr: {value: 0.2}\n"
    assert check(text, tmp_path) == 2
    told = capsys.readouterr().err
    assert "lr: given in lines 3 and 7" in told
    assert "value: given in lines 5 and 6" in told


def test_on_and_off_are_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML 1.1 reads them as true and false; a parameter of that name has to be quoted."""
    assert check("method: grid\nparameters: {cache: {values: [on, off, auto]}}\n", tmp_path) == 0
    assert parse_config({"cache": False}, "a test").cache == "off"
    assert parse_config({"cache": "True"}, "a test").cache == "on"
    assert check("method: grid\nparameters: {on: {values: [1, 2]}}\n", tmp_path) == 2
    assert "put it in quotes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "parameter"),
    [
        ("data=2024_05_01", {"value": "2024_05_01"}),
        ("data=a, b", {"value": "a, b"}),
        ("data=[2024_05_01, b]", {"values": ["2024_05_01", "b"]}),
        ("weights=1e5", {"value": "1e5"}),
        ("lr=1e-3,3e-3", {"values": ["1e-3", "3e-3"]}),
        ("seed=0,1", {"values": [0, 1]}),
        ("strategy=head,full", {"values": ["head", "full"]}),
        ("unfreeze=[[0, 0.5]]", {"value": [[0, 0.5]]}),
    ],
)
def test_settings_are_read_by_the_type_of_their_field(setting: str, parameter: dict[str, Any]) -> None:
    """Texts as they are; a comma makes a list, as zsh takes brackets for a pattern."""
    assert sweep_file._parse_settings([setting]) == {setting.partition("=")[0]: parameter}


def test_a_number_where_a_text_is_meant_is_told() -> None:
    with pytest.raises(ConfigError, match="20240501 is no text: put it in quotes"):
        parse_config(yaml.safe_load("data: 2024_05_01"), "a test")


def plan_of(spec: dict[str, Any], folder: Path) -> Any:
    """Plan a sweep with this content."""
    (folder / "my.yaml").write_text(yaml.safe_dump(spec))
    return make_plan(sweep_file.load(str(folder / "my.yaml")), None, lambda _: ("data", "weights"))


@pytest.mark.parametrize("method", ["random", "grid"])
def test_points_that_collapse_do_not_use_up_the_cap(method: str, tmp_path: Path) -> None:
    """Of a head, the share does not matter; a space that has too few runs ends the draws."""
    values = {"strategy": {"values": ["full", "head"]}, "block_decay": {"values": [0.7, 0.8, 0.9]}}
    plan = plan_of({"method": method, "run_cap": 4, "parameters": values}, tmp_path)
    assert len(plan.runs) == 4
    assert plan.collapsed
    assert len(plan_of({"method": method, "run_cap": 6, "parameters": values}, tmp_path).runs) == 4


def test_draws_from_a_distribution_without_bounds_are_valid(tmp_path: Path) -> None:
    """A negative weight decay is passed over; one bounded parameter of which no value is valid is still a fault."""
    normal = {"weight_decay": {"distribution": "normal", "mu": 0.0, "sigma": 0.1}}
    plan = plan_of({"method": "random", "run_cap": 5, "parameters": normal}, tmp_path)
    assert len(plan.runs) == 5
    with pytest.raises(ConfigError, match="lr: "):
        plan_of({"method": "random", "run_cap": 5, "parameters": {"lr": {"min": -1.0, "max": 1.0}}}, tmp_path)


@pytest.mark.parametrize(("low", "high", "step"), [(0.25, 0.3, 0.1), (0.1, 0.35, 0.2), (0.0, 0.55, 0.2)])
def test_rounded_proposals_stay_within_their_bounds(low: float, high: float, step: float) -> None:
    """W&B's engine rounds to multiples of the step, also beyond."""
    swept = {"dropout": {"distribution": "q_uniform", "min": low, "max": high, "q": step}}
    for number in range(8):
        spec = {**BAYES, "parameters": swept}
        assert low <= search.propose_point(spec, "s", number, [])["dropout"] <= high
        assert low <= search.draw_point({**spec, "method": "random"}, "s", number)["dropout"] <= high


def test_a_failing_engine_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises."""
    monkeypatch.setattr(search._engine(), "next_runs", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"search engine can't use this sweep \(ZeroDivisionError"):
        search.propose_point({**BAYES, "parameters": {}}, "s", 0, [])
