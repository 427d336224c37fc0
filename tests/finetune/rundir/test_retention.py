"""Which weights stay of a finished run: what `keep` says, which changes no result and no name."""

from pathlib import Path

import pytest

from finetune.config import parse_config
from finetune.errors import ConfigError
from finetune.predict import main as predict
from finetune.resolve import resolve, run_id
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import files, keys, retention
from finetune.rundir.claim import RunTakenError, hold_claim
from finetune.rundir.retention import checkpoints_left
from finetune.sweep.command import parse
from finetune.system.atomic import delete
from tests.support.small_runs import small


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("best_last", {"best.pt", "last.pt"}),
        ("best", {"best.pt"}),
        ("none", set()),
        ("every", {"best.pt", "last.pt", "epoch-0001.pt", "epoch-0002.pt"}),
    ],
)
def test_a_finished_run_keeps_the_weights_it_is_asked_to(
    keep: str, left: set[str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All else is there in any case; without weights `predict` says why it can do nothing."""
    config = small(pictures, strategy="head", epochs=2, keep=keep)
    run(config, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").glob("*.pt")} == left
    assert checkpoints_left(config) == len(left)
    assert files.status(tmp_path / "run") == ("finished", "")
    assert (tmp_path / "run" / keys.PREDICTIONS).is_file()
    for number in (1, 2) if keep == "every" else ():
        assert len(load_checkpoint(tmp_path / "run" / f"epoch-{number:04d}.pt")["history"]) == number
    code = predict([str(tmp_path / "run"), str(pictures)])
    assert code == (2 if keep == "none" else 0)
    assert ("its weights were not kept" in capsys.readouterr().err) == (keep == "none")


def test_a_run_is_the_same_whatever_it_keeps() -> None:
    """Its name does not tell, so a sweep that is asked again to keep less runs nothing twice."""
    configs = [resolve(parse_config({"keep": keep}, "here")) for keep in ("best_last", "best", "none", "every")]
    assert len({run_id(config, "data", "weights") for config in configs}) == 1


def test_what_is_not_kept_can_not_be_sent() -> None:
    """Found before anything starts."""
    with pytest.raises(ConfigError, match=r"no best\.pt to send"):
        parse_config({"keep": "none", "upload_best": True}, "here")


def test_the_flag_of_an_agent_is_short_for_a_setting() -> None:
    """--set, which can say more, has the last word."""
    assert parse(["s.yaml", "--keep", "best"]).settings == ["keep=best"]
    assert parse(["s.yaml", "--keep", "best", "--set", "keep=none"]).settings[-1] == "keep=none"


def test_who_has_lost_a_run_deletes_nothing_of_it(tmp_path: Path) -> None:
    """The checkpoints are the new owner's, who needs them."""
    for name in (keys.BEST, keys.LAST, keys.PREVIOUS):
        (tmp_path / name).touch()
    with pytest.raises(RunTakenError), hold_claim(tmp_path):  # noqa: PT012
        (tmp_path / "claim-2.json").write_text("{}")
        with pytest.raises(RunTakenError):
            delete(tmp_path / keys.PREVIOUS)
        retention.delete_unretained_checkpoints(tmp_path, "none")
    assert {path.name for path in tmp_path.glob("*.pt")} == {keys.BEST, keys.LAST, keys.PREVIOUS}
    delete(tmp_path / keys.PREVIOUS)
    delete(tmp_path / keys.PREVIOUS)  # it need not be there
    assert not (tmp_path / keys.PREVIOUS).exists()
