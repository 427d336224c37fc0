"""What a sweep needs and is not here: fetched, or told in one screen."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from torchvision.models import SqueezeNet1_1_Weights

import agent
from finetune.__main__ import main
from finetune.data import catalog
from finetune.data.catalog import ARCHIVE, CLASSES, FOLDER
from finetune.models import weights
from tests.online.machine import AGENT, Machine, machines_ended
from tests.support.file_server import Served, serving
from tests.support.images import write_folder
from tests.support.wandb_server.server import serve

NETWORK = "squeezenet1_1"
FILE = SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[-1]
SWEEP = {
    "method": "grid",
    "parameters": {
        "backbone": {"value": NETWORK},
        "strategy": {"values": ["head", "scratch"]},
        "epochs": {"value": 1},
        "image_px": {"value": 32},
        "lr": {"value": 0.001},
    },
}


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sweep of the home case, small."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    return folder


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serves real images in the layout of iNaturalist-12K."""
    monkeypatch.setattr(catalog, "COUNTS", {"train": 30, "val": 10})
    colours = {name: (20 * number, 100, 200) for number, name in enumerate(CLASSES)}
    made = write_folder(tmp_path / "made", {"train": 3, "val": 1}, colours)
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as content:
        for path in sorted(made.rglob("*.png")):
            content.write(path, Path(FOLDER) / path.relative_to(made))
    with serving(Served((tmp_path / "made.zip").read_bytes())) as served:
        monkeypatch.setenv("FINETUNE_INATURALIST_URL", served.url)
        yield served


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serves weights; their name does not say their hash, as they are random ones."""
    monkeypatch.setattr(weights, "_digest_in_name", lambda _: None)
    torch.save(torchvision.models.get_model(NETWORK, weights=None).state_dict(), tmp_path / "weights.pth")
    with serving(Served((tmp_path / "weights.pth").read_bytes())) as served:
        monkeypatch.setenv("FINETUNE_WEIGHTS_URL", served.url.rpartition("/")[0])
        yield served


def test_without_network_one_screen_says_all_that_is_missing(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data and weights: from where, to where, and what to do without. Nothing is written."""
    assert agent.main(["small.yaml"]) == 2
    said = capsys.readouterr().err
    for word in (
        "http://127.0.0.1:9/file.zip", str(tmp_path / "data" / ARCHIVE), FILE, str(tmp_path / "torch"), "make data",
        "no connection", "2 files are not on this machine", "3.6 GB", "make demo",
    ):  # fmt: skip
        assert word in said
    assert len(said.splitlines()) < 20
    assert "Traceback" not in said
    assert [path.name for path in work.iterdir()] == ["small.yaml"]


def test_a_plan_fetches_nothing(archive: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what is missing, though it could be had."""
    assert agent.main(["small.yaml", "--plan"]) == 2
    assert "files are not on this machine" in capsys.readouterr().err
    assert archive.asked == []


def test_a_fault_elsewhere_is_told_before_anything_is_fetched(
    archive: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typo in the weights' path does not wait for gigabytes; neither in a sweep nor in a single run."""
    assert agent.main(["small.yaml", "--set", "weights=nowhere.pth"]) == 2
    assert "nowhere.pth" in capsys.readouterr().err
    assert main(["--data", "inaturalist12k", "--backbone", NETWORK, "--weights", "nowhere.pth"]) == 2
    assert "nowhere.pth" in capsys.readouterr().err
    assert archive.asked == []


def test_what_was_fetched_ahead_needs_no_network(
    archive: Served, published: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make data` on one machine; then a run where there is no network, of the same images and weights."""
    assert agent.main(["small.yaml", "--fetch"]) == 0
    assert "all data and weights of its runs" in capsys.readouterr().out
    assert len(archive.asked) == len(published.asked) == 1
    assert (tmp_path / "torch" / "hub" / "checkpoints" / FILE).is_file()
    archive.statuses = published.statuses = [503] * 9
    fields = {"strategy": "head", "backbone": NETWORK, "epochs": "1", "image_px": "32", "lr": "0.001"}
    assert main([word for name, value in fields.items() for word in (f"--{name}", value)]) == 0
    assert len(archive.asked) == len(published.asked) == 1


def test_weights_that_are_not_what_their_name_says_are_refused(
    published: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hash in the file's name is checked, and nothing is left behind."""
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FINETUNE_WEIGHTS_URL", published.url.rpartition("/")[0])
    data = write_folder(tmp_path / "pictures", {"train": 4, "test": 2})
    assert main(["--data", str(data), "--backbone", NETWORK, "--image-px", "32"]) == 2
    assert "arrived damaged, or is another file" in capsys.readouterr().err
    assert not list((tmp_path / "torch").rglob("*.pth*[!k]"))


@pytest.mark.slow
def test_a_sweep_on_a_server_starts_no_run_that_would_lack_its_pictures(tmp_path: Path) -> None:
    """W&B never hands a failed run out again: what is missing is told before, on the same screen."""
    environment = dict.fromkeys(("FINETUNE_INATURALIST_URL", "FINETUNE_WEIGHTS_URL"), "http://127.0.0.1:9")
    environment |= {name: str(tmp_path / "empty") for name in ("FINETUNE_CACHE", "TORCH_HOME", "DATA_ROOT")}
    with serve() as server, machines_ended(server):
        machine = Machine(server, tmp_path / "machine", environment)
        sweep = machine.sweep({"strategy": "head", "epochs": 1}, program=AGENT)
        for flags in ([], ["--fetch"]):
            code, output = machine.run("python", AGENT, sweep, *flags)
            assert code == 2, output
            assert "2 files are not on this machine" in output
        assert server.runs(sweep=sweep) == []
