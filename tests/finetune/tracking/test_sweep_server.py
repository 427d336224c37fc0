"""What names a sweep on a W&B server, and whether there is one to talk to: without a request."""

from pathlib import Path

import pytest

from finetune.errors import UserError
from finetune.sweep import choose, sweep_file
from finetune.tracking import sweep_server
from finetune.tracking.sweep_address import SweepAddress, parse_sweep_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("abcd1234", SweepAddress(None, None, "abcd1234")),
        ("me/pets/abcd1234", SweepAddress("me", "pets", "abcd1234")),
        ("https://wandb.ai/me/pets/sweeps/abcd1234", SweepAddress("me", "pets", "abcd1234")),
        ("http://127.0.0.1:8080/me/pets/sweeps/abcd1234?nw=x#y", SweepAddress("me", "pets", "abcd1234")),
        ("sweeps/strategies.yaml", None),
        ("runs/strategies", None),
        ("ABCD1234", None),
        ("pets/abcd1234", SweepAddress(None, "pets", "abcd1234")),
        ("runs/abcd1234", None),
        ("https://wandb.ai/me/pets/runs/abcd1234", None),
    ],
)
def test_what_names_a_sweep(text: str, address: SweepAddress | None) -> None:
    """An id, a path of three parts, an address; a file's name does not."""
    assert parse_sweep_address(text) == address


def test_the_login_is_found_where_w_and_b_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The key in the environment, or the host's line in netrc; WANDB_MODE switches it off."""
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    assert sweep_server.reason_offline() == "you are not logged in to W&B (wandb login)"
    netrc.write_text(f"machine elsewhere login user password {'x' * 40}\n")
    netrc.chmod(0o600)
    assert sweep_server.reason_offline() is not None
    netrc.write_text(f"machine 127.0.0.1 login user password {'x' * 40}\n")
    assert sweep_server.reason_offline() is None
    netrc.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert sweep_server.reason_offline() is None
    for mode in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode)
        assert sweep_server.reason_offline() == f"WANDB_MODE is {mode}"


def test_a_sweep_on_a_server_can_not_be_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--set, --folds and --name belong to sweep files."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--set, --folds, --keep and --name change nothing"):
        choose.choose_sweep("abcd1234", ["lr=1"], None)


def test_a_file_of_that_name_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight letters can be a file's name too."""
    monkeypatch.chdir(tmp_path)
    Path("abcd1234").write_text("method: grid\nparameters: {lr: {value: 0.1}}\n")
    sweep = choose.choose_sweep("abcd1234", [], None)
    assert isinstance(sweep, sweep_file.SweepFile)
