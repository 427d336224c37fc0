"""Arms: what each sweep file of the project compares, and that its question gets the answer that was put in."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.__main__ import main
from analysis.errors import InputError
from analysis.pipeline import analyze_sweep
from analysis.report.json_document import verdict_record
from analysis.report.sentences import describe_verdict
from analysis.sources.run_directories import read_sweep
from analysis.tables.analysis import Analysis, Options
from tests import ROOT
from tests.support.fabricate import fabricate_run

IMAGES = 200
# Sweep file -> what makes arms, and the arm that is best here.
ANSWERS = {
    "augmentation": (["strategy", "augment"], "partial, strong"),
    "backbones": (["backbone"], "timm/vit_small_patch14_dinov2"),
    "data_size": (["strategy"], "gradual"),
    "demo": (["strategy"], "partial"),
    "shortcut_picture_size": (["strategy", "start_px"], "full, start_px 128"),
    "shortcut_precision": (["strategy", "precision"], "gradual, bf16"),
    "shortcut_views": (["strategy", "views"], "partial, views 4"),
    "strategies": (["strategy"], "gradual"),
    "unfreeze_schedules": (["strategy", "unfreeze"], "partial, 33%"),
}


def points(name: str) -> list[dict[str, Any]]:
    """Return the points of a sweep file's grid."""
    parameters = yaml.safe_load((ROOT / f"sweeps/{name}.yaml").read_text())["parameters"]
    values = [
        [(field, value) for value in spec.get("values", [spec.get("value")])] for field, spec in parameters.items()
    ]
    return [dict(point) for point in itertools.product(*values)]


def fabricate(folder: Path, runs: list[dict[str, Any]], best: str, fields: list[str]) -> None:
    """Write a run for each point; those of the best arm name 10% of the images wrongly, all others 30%."""
    for number, point in enumerate(runs):
        run_dir = fabricate_run(folder, f"r{number}", **{**point, "data": "demo"})
        config = yaml.safe_load((run_dir / "config.yaml").read_text())
        is_best = arm_text(config, fields) == best
        missed = (20 if is_best else 60) + config["seed"]
        answers = [(f"{n}.png", "disc", "square" if n < missed else "disc", 0.9) for n in range(IMAGES)]
        accuracy = 1 - missed / IMAGES
        for file in sorted(run_dir.iterdir()):
            file.unlink()
        run_dir.rmdir()
        fabricate_run(
            folder, f"r{number}", val=accuracy, test=accuracy, predictions=answers,
            provenance={"splits": {"train": 300 * point.get("train_share", 1), "val": 60, "test": IMAGES}},
            **{**point, "data": "demo"},
        )  # fmt: skip


def arm_text(config: dict[str, Any], fields: list[str]) -> str:
    """Return what an arm is expected to be called."""
    texts = []
    for field in fields:
        value = config[field]
        if field == "unfreeze":
            value = ", ".join(f"{share:.0%}" + (f" from epoch {epoch + 1}" if epoch else "") for epoch, share in value)
        texts.append(f"{field} {'none' if value is None else value}" if field in ("start_px", "views") else str(value))
    return ", ".join(texts)


def analysis_of(folder: Path, **options: Any) -> Analysis:
    return analyze_sweep(read_sweep(folder), Options(**options))


def test_every_sweep_file_is_here() -> None:
    """A new one needs an answer, too. The random search has a test of its own."""
    assert {path.stem for path in (ROOT / "sweeps").glob("*.yaml")} == {*ANSWERS, "learning_rates"}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_sweep_file_gets_the_answer_to_its_question(name: str, tmp_path: Path) -> None:
    """A recipe that is 20 points better than all others is found, named and significant."""
    fields, best = ANSWERS[name]
    fabricate(tmp_path / name, points(name), best, fields)
    analysis = analysis_of(tmp_path / name)
    record = verdict_record(analysis)
    assert record["arms_by"] == fields
    assert (record["candidate"], record["recommended"]) == (best, best)
    assert all(other["p_holm"] < 0.05 and other["difference"] < -0.15 for other in record["differences"])
    headline = describe_verdict(analysis.comparison, analysis.verdict).headline
    assert headline.startswith(f"Use {best}: ")
    assert analysis.best["recipe"] == analysis.comparison.row(best)["key"]


def test_a_random_search_says_what_its_single_runs_can_tell(tmp_path: Path) -> None:
    """One seed a recipe: no test; but which arm gives the better recipe after as many tries."""
    for strategy, low in (("partial", 0.5), ("full", 0.6)):
        for number in range(6):
            fabricate_run(
                tmp_path, f"{strategy}-{number}", strategy=strategy, lr=0.001 * (number + 1), val=low + number / 20
            )
    analysis = analysis_of(tmp_path)
    record = verdict_record(analysis)
    assert (record["arms_by"], record["tuned"], record["candidate"]) == (["strategy"], ["lr"], "full")
    text = describe_verdict(analysis.comparison, analysis.verdict)
    assert text.headline.startswith("No verdict yet: full is ahead on val")
    # Of 0.5, 0.55, ... 0.75, three of six: (0.6 + 3 * 0.65 + 6 * 0.7 + 10 * 0.75) / 20 (Dodge et al.).
    assert (
        "The best of 3 recipes has 71.2% val accuracy on average with partial and 81.2% with full" in text.sentences[-1]
    )


def test_other_fields_make_arms_on_request(tmp_path: Path) -> None:
    """--by augment: val chooses the strategy for each augmentation; --tuned augment: the other way round."""
    fields, best = ANSWERS["augmentation"]
    fabricate(tmp_path, points("augmentation"), best, fields)
    by_augment = verdict_record(analysis_of(tmp_path, by=("augment",)))
    assert (by_augment["arms_by"], by_augment["tuned"]) == (["augment"], ["strategy"])
    assert by_augment["candidate"] == "strong"
    assert {other["arm"] for other in by_augment["differences"]} == {"none", "light", "standard"}
    assert verdict_record(analysis_of(tmp_path, by=("augment", "augment")))["arms_by"] == ["augment"]
    tuned = verdict_record(analysis_of(tmp_path, tuned=("augment",)))
    assert (tuned["arms_by"], tuned["tuned"]) == (["strategy"], ["augment"])
    assert tuned["candidate"] == "partial"


@pytest.mark.parametrize("flag", ["--by", "--tuned"])
def test_an_unknown_field_is_refused_with_a_suggestion(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    monkeypatch.chdir(tmp_path)
    fabricate_run(tmp_path / "runs", "r")
    assert main(["runs", flag, "augmnt"]) == 2
    assert f"{flag} augmnt: no such field. Did you mean 'augment'?" in capsys.readouterr().err
    assert not (tmp_path / "reports").exists()
    with pytest.raises(InputError):
        analysis_of(tmp_path / "runs", by=("nothing",))
