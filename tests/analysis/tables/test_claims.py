"""The claims that the suite was built to check, against sweeps whose numbers are known."""

from pathlib import Path

import pytest

from analysis.errors import InputError
from analysis.tables.claims import Claim, check_claims, read_claims
from analysis.tables.comparison import chosen_runs, compare
from tests import ROOT
from tests.support.fabricate import fabricate_run, read_arms

STUDENT = read_claims((ROOT / "sweeps/strategies.yaml").read_text())


def claims_of(folder: Path, **more: object) -> tuple[dict[str, Claim], str]:
    """Return the claims about a sweep of scratch, partial and full with three seeds of 100 images each."""
    for strategy, wrong, seconds in (("scratch", 60, 100), ("partial", 12, 60), ("full", 12, 100)):
        for seed in range(3):
            answers = [(f"{n}.png", "disc", "square" if n < wrong else "disc", 0.9) for n in range(100)]
            fabricate_run(
                folder, f"{strategy}-{seed}", strategy=strategy, seed=seed, val=0.9, test=1 - wrong / 100,
                predictions=answers, seconds=seconds, curve=[0.5, 0.9 if seed else 0.7, 0.9, 0.9, 0.9, 0.9],
                epochs=6, summary={"computed_gflops": 900.0} if strategy == "partial" else None, **more,
            )  # fmt: skip
    sweep = read_arms(folder)
    comparison = compare(sweep)
    found = check_claims(STUDENT, comparison, chosen_runs(sweep, comparison), sweep.epochs)
    return {claim.said: claim for claim in found.checked}, found.setting


def partial_by_epoch(folder: Path, *curves: list[float]) -> Claim:
    """Return the claim on epoch 5 of a sweep of partial, a run with each of these curves."""
    for seed, curve in enumerate(curves):
        fabricate_run(folder, f"partial-{seed}", strategy="partial", seed=seed, epochs=len(curve), curve=curve)
    sweep = read_arms(folder)
    comparison = compare(sweep)
    claims = check_claims(STUDENT, comparison, chosen_runs(sweep, comparison), sweep.epochs)
    return next(claim for claim in claims.checked if "epoch 5" in claim.said)


def test_each_claim_has_what_was_found(tmp_path: Path) -> None:
    """88% and 40% with intervals that hold the claim, 48 points apart, all by epoch 5, 55% and 70% and 40% saved."""
    claims, setting = claims_of(tmp_path)
    partial = claims["partial: test accuracy"]
    assert (partial.claimed, partial.found, partial.verdict) == ("87.6%", "88.0%", "inside the interval")
    assert claims["scratch: test accuracy"].found == "40.0%"
    apart = claims["partial minus scratch"]
    assert (apart.claimed, apart.found, apart.verdict) == ("48.0 points", "48.0 points", "inside the interval")
    by_epoch = claims["partial: 80% val accuracy by epoch 5"]
    assert (by_epoch.found, by_epoch.verdict) == ("3 of 3 runs", "holds")
    saved = "partial: compute saved against full"
    assert claims[f"{saved}, counted FLOPs"].found == "55%"  # fabricated: partial costs 0.45 of full
    assert claims[f"{saved}, FLOPs with the cache"].found == "70%"
    assert claims[f"{saved}, measured time"].found == "40%"
    assert claims[f"{saved}, measured time"].verdict == "about as claimed"
    assert "neither confirms nor refutes" in setting


def test_the_claims_own_setting_is_not_set_apart(tmp_path: Path) -> None:
    """On the photos and with the network that they are about, nothing is taken back."""
    assert claims_of(tmp_path, data="inaturalist12k", backbone="efficientnet_v2_s")[1] == ""


def test_what_a_sweep_does_not_have_is_said(tmp_path: Path) -> None:
    """No partial, no scratch: every claim is listed, none is judged."""
    for seed in range(3):
        fabricate_run(tmp_path, f"head-{seed}", seed=seed)
    sweep = read_arms(tmp_path)
    comparison = compare(sweep)
    claims = check_claims(STUDENT, comparison, chosen_runs(sweep, comparison), sweep.epochs)
    assert {claim.verdict for claim in claims.checked} == {"not in this sweep"}
    assert {claim.found for claim in claims.checked} == {"–"}


@pytest.mark.parametrize(("fifth", "verdict"), [(0.9, "holds"), (0.2, "does not hold")])
def test_epochs_after_the_fifth_do_not_count(tmp_path: Path, fifth: float, verdict: str) -> None:
    """80% in epoch 6 is not by epoch 5."""
    assert partial_by_epoch(tmp_path, *[[0.1, 0.2, 0.2, 0.2, fifth, 0.9]] * 2).verdict == verdict


def test_a_curve_is_not_read_beyond_its_end(tmp_path: Path) -> None:
    """Runs of 3 epochs neither confirm nor refute 80% by epoch 5; reached in epoch 2, it is reached by epoch 5."""
    short = partial_by_epoch(tmp_path / "short", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (short.found, short.interval, short.verdict) == ("–", "–", "not known: runs ended before epoch 5")
    mixed = partial_by_epoch(tmp_path / "mixed", [0.1, 0.9, 0.9], [0.1, 0.2, 0.3])
    assert (mixed.found, mixed.verdict) == ("1 of 2 runs", "holds for some runs")


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"data": "inaturalist12k", "backbone": "resnet50"}, "resnet50 on inaturalist12k"),
        ({"data": "/home/me/clothes", "backbone": "efficientnet_v2_s"}, "efficientnet_v2_s on clothes"),
    ],
)
def test_another_setting_is_named(tmp_path: Path, config: dict[str, str], setting: str) -> None:
    """By what differs: the backbone, or the data, of which the report shows the folder's name only."""
    text = claims_of(tmp_path, **config)[1]
    assert f"this sweep about {setting}: " in text


def test_only_a_sweep_that_names_claims_has_them(tmp_path: Path) -> None:
    """The report of any other sweep says nothing of a report on other photos."""
    assert read_claims("method: grid\n") is None
    assert read_claims(None) is None
    fabricate_run(tmp_path, "head")
    sweep = read_arms(tmp_path)
    comparison = compare(sweep)
    assert check_claims(None, comparison, chosen_runs(sweep, comparison), sweep.epochs).checked == ()


@pytest.mark.parametrize(
    "content", ["claims: 3", "claims: [{arm: head}]", "claims: [7]", "[", "claims: [{difference: 1}]"]
)
def test_a_faulty_file_of_claims_is_named(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is not there."""
    monkeypatch.setattr("analysis.tables.claims.SWEEPS", tmp_path)
    (tmp_path / "mine.yaml").write_text(content)
    for name in ("mine.yaml", "missing.yaml"):
        with pytest.raises(InputError, match=name):
            read_claims(f"# Claims: {name}\nmethod: grid\n")
