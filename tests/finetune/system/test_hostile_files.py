"""Files from elsewhere: nothing in them runs, nothing is written beside its place, and reading them has bounds."""

import contextlib
import json
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from analysis.__main__ import main as analyse
from analysis.sources.predictions import read_predictions
from analysis.sources.wandb import remote_run
from finetune.config import parse_config
from finetune.data import thumbnails
from finetune.errors import CorruptFileError, UserError
from finetune.models.weights_file import read_weights
from finetune.predict import main as predict
from finetune.run.checkpoint import load_checkpoint
from finetune.rundir import files, keys
from finetune.sweep import sweep_file
from finetune.system import documents
from finetune.system.archive import unpack
from finetune.system.tables import MAX_TABLE_BYTES, read_table
from tests.analysis.conftest import leave_figures_blank
from tests.support.fabricate import fabricate_run

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
BAD_YAML = {
    "object": "!!python/object/apply:os.system ['touch {mark}']",
    "name": "a: !!python/name:os.system",
    "laughs": LAUGHS,
    "merge": "a: &a {k: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*{p}'] * 50)}]}}\n"
                                       for i, p in enumerate(["a", *(f"m{i}" for i in range(6))])),
    "deep": "[" * 200_000,
    "deep block": "- " * 20_000 + "x",
    "deep mapping": "? " * 20_000 + "x",
    "itself": "a: &a [*a]",
    "day": "a: 2024-99-99",
    "digits": f"a: {'9' * 5_000}",
    "tag": "a: !!timestamp x",
    "null byte": "a: \0",
    "surrogate": "a: '\ud800'",
    "keys": "? [a]\n: b",
}  # fmt: skip


class Touch:
    """An object whose loading would leave a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once something from a file was run."""
    return tmp_path / "it-ran"


def write_hostile(path: Path, mark: Path, kind: str) -> None:
    """Write a file that would run something if it were unpickled."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Touch(mark)))
    elif kind == "torch":
        torch.save({"format": 1, "model": Touch(mark)}, path)
    else:
        torch.save({"format": 1, "state_dict": Touch(mark)}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch"])
def test_a_checkpoint_runs_nothing(tmp_path: Path, mark: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint, or weights, that would run something is refused, with a message and exit code 2."""
    file = tmp_path / "best.pt"
    write_hostile(file, mark, kind)
    with pytest.raises(UserError, match="can't be read"):
        load_checkpoint(file)
    with pytest.raises(UserError, match="can't be read"):
        read_weights(file)
    (tmp_path / "a.png").write_bytes(b"x")
    assert predict([str(file), str(tmp_path / "a.png")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not mark.exists()


def test_the_hostile_files_would_run_elsewhere(tmp_path: Path, mark: Path) -> None:
    """What the test above shows is worth something: read carelessly, they leave the file."""
    write_hostile(tmp_path / "best.pt", mark, "torch")
    torch.load(tmp_path / "best.pt", weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("content", [
    {},
    {"format": 1},
    {"format": 1, "model": {}, "preprocessing": {}, "config": {}, "classes": []},
    {"format": 1, "model": {}, "run_id": "x", "history": [], "preprocessing": {}, "config": {}, "classes": []},
    {"format": 1, "model": {}, "run_id": "x", "history": [], "classes": ["a"], "preprocessing": {"x": 1},
     "config": {"backbone": "../../x", "dropout": 0.1}},
    [1, 2],
    torch.zeros(2),
])  # fmt: skip
def test_a_checkpoint_with_other_content_is_bad_input(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain values that are no network of ours: a message, exit code 2, no traceback."""
    torch.save(content, tmp_path / "best.pt")
    (tmp_path / "a.png").write_bytes(b"x")
    assert predict([str(tmp_path / "best.pt"), str(tmp_path / "a.png")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(("UserError: ", "CorruptFileError: "))
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_is_plain_and_bounded(tmp_path: Path, mark: Path, name: str) -> None:
    """Whatever the text, there is one kind of error; a config, a sweep file and a setting say so as bad input."""
    text = BAD_YAML[name].replace("{mark}", str(mark))
    with pytest.raises(yaml.YAMLError):
        documents.load_yaml(text)
    (tmp_path / keys.CONFIG).write_text(text, errors="surrogatepass")
    with pytest.raises(CorruptFileError, match="damaged"):
        files.read_config(tmp_path)
    (tmp_path / "sweep.yaml").write_text(text, errors="surrogatepass")
    with pytest.raises(UserError, match=r"is not YAML|can't be read"):
        sweep_file.load(str(tmp_path / "sweep.yaml"))
    with pytest.raises(UserError):
        parse_config({"unfreeze": text}, "a test")
    assert not mark.exists()


def test_a_number_of_any_length_takes_no_time() -> None:
    """PyYAML would take an hour for one in sixties; a time of day is one, and is read."""
    began = time.process_time()
    for number in ("1:" * 4_000_000 + "1", "-" + "9:" * 4_000_000 + "9.5"):
        with pytest.raises(yaml.YAMLError, match="a number of"):
            documents.load_yaml(f"lr: {number}")
    assert time.process_time() - began < 20
    assert documents.load_yaml("a: 1:30:00\nb: '" + "1:" * 99 + "'") == {"a": 5400, "b": "1:" * 99}


def test_yaml_with_a_few_aliases_is_read() -> None:
    """Anchors and merges are a part of YAML that sweep files use."""
    assert documents.load_yaml("a: &a {k: 1}\nb: {<<: *a, l: 2}\nc: [*a, *a]")["b"] == {"k": 1, "l": 2}


def finished_sweep(folder: Path) -> Path:
    """Two finished runs, whose report can be made."""
    answers = [(f"test/{name}/{number}.jpg", name, "disc", 0.7) for name in ("disc", "square") for number in range(4)]
    fabricate_run(folder, "head-1", strategy="head", predictions=answers)
    fabricate_run(folder, "full-1", strategy="full", predictions=answers)
    return folder


@pytest.mark.parametrize("name", sorted(BAD_YAML))
def test_a_hostile_config_costs_its_run_alone(tmp_path: Path, name: str, mark: Path) -> None:
    """The other runs are compared; the damaged one is left out, with its reason. (200,000 brackets used to be a
    segmentation fault of the whole analysis.)"""
    folder = finished_sweep(tmp_path / "runs" / "s")
    bad = folder / "bad-1"
    bad.mkdir()
    (bad / keys.CONFIG).write_text(BAD_YAML[name].replace("{mark}", str(mark)), errors="surrogatepass")
    from analysis.sources.run_directories import read_sweep

    sweep = read_sweep(folder)
    assert sweep.left_out["run"].tolist() == ["bad-1"]
    assert "can't be read" in sweep.left_out["reason"].iloc[0]
    assert not mark.exists()


HISTORY = {
    "a long line": b'{"epoch": 1, "x": "' + b"y" * (3 * 2**20) + b'"}\n',
    "no newline": b"z" * (5 * 2**20),
    "deep": b"[" * 100_000 + b"\n",
    "numbers": b"1\n2\n[3]\nnull\n",
    "no text": bytes(range(256)) + b"\n",
    "digits": b'{"epoch": ' + b"9" * 5000 + b"}\n",
    "infinite": b'{"epoch": Infinity, "val/accuracy": NaN}\n',
}


@pytest.mark.parametrize("name", HISTORY)
def test_a_hostile_history_loses_its_own_lines_alone(tmp_path: Path, name: str) -> None:
    """Lines before and after one that is too long, too deep or no row are read."""
    good = b'{"epoch": 1, "val/accuracy": 0.5}\n'
    (tmp_path / keys.HISTORY).write_bytes(good + HISTORY[name].rstrip(b"\n") + b"\n" + good.replace(b"1", b"2"))
    rows, _ = files.read_history(tmp_path)
    assert [row["epoch"] for row in rows if row.get("epoch") in (1, 2)] == [1, 2]


def test_a_history_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file far larger than any run writes is not taken into memory; that it went on is counted."""
    monkeypatch.setattr(files, "MAX_HISTORY_BYTES", 10_000)
    (tmp_path / keys.HISTORY).write_text('{"epoch": 1}\n' * 5_000)
    rows, torn = files.read_history(tmp_path)
    assert 0 < len(rows) < 1_000
    assert torn == 1


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "\xff", "[" * 100_000, '{"a": ' * 50_000, "9" * 5_000])
def test_json_is_an_object_or_damaged(tmp_path: Path, text: str) -> None:
    """State, summary and notes: one kind of error, which every command tells as bad input."""
    (tmp_path / keys.STATE).write_text(text, encoding="latin-1")
    with pytest.raises(CorruptFileError, match=keys.STATE):
        documents.read_json(tmp_path / keys.STATE)


def test_json_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is too large is damaged, not read."""
    monkeypatch.setattr(documents, "MAX_JSON_BYTES", 100)
    (tmp_path / keys.STATE).write_text(json.dumps({"a": "b" * 200}))
    with pytest.raises(CorruptFileError, match="larger"):
        documents.read_json(tmp_path / keys.STATE)


TABLES = {
    "wide": b"path,label,prediction," + b",".join(b"probability/%d" % n for n in range(60_000)) + b"\n",
    "long cell": b'path,label,prediction\n"' + b"x" * 300_000 + b'",a,b\n',
    "open quote": b'path,label,prediction\na,"b,c\n',
    "no text": b"path,label,prediction\n\xff\xfe,\xff,\xff\n",
    "nothing": b"",
    "other rows": b"path,label,prediction\na\n",
    "null": b"path,label,prediction\na\0b,c,d\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_hostile_tables_are_told(tmp_path: Path, name: str) -> None:
    """A table of predictions that is none: the analysis and the mirror get an error that they tell, or plain text."""
    (tmp_path / keys.PREDICTIONS).write_bytes(TABLES[name])
    for read in (lambda: read_predictions(tmp_path), lambda: read_table(tmp_path / keys.PREDICTIONS)):
        with contextlib.suppress(UserError):
            read()


def test_a_table_too_large_is_not_read(tmp_path: Path) -> None:
    """What has more bytes than any run writes would take all memory."""
    with (tmp_path / keys.PREDICTIONS).open("wb") as file:
        file.truncate(MAX_TABLE_BYTES + 1)  # takes no room on the disk
    for read in (lambda: read_predictions(tmp_path), lambda: read_table(tmp_path / keys.PREDICTIONS)):
        with pytest.raises(UserError, match="larger"):
            read()


@pytest.mark.parametrize("name", [
    "../x", "/etc/x", "a/b", "..", ".", "", ".hidden", "a\0b", "a\nb", "a" * 200, "con", "NUL.txt", "COM1", "lpt9.x",
    "a\\b", "C:x", "a.", "wandb.json", "sweep.yaml", "plan.json", "trials", 3, None, "ä", "\u202e",
])  # fmt: skip
def test_a_servers_word_is_no_directory_unless_it_is_harmless(name: object) -> None:
    """Neither the id of a W&B run nor its own name may lead out of the folder, or hide what lies in it."""
    assert not remote_run.is_safe(name)
    run = remote_run.RemoteRun(name, "p", "finished", {"provenance": {"run_id": name}}, {}, 0, 0.0, None)  # type: ignore[arg-type]
    assert run.directory is None


def zipped(path: Path, members: dict[str, bytes], **about: int) -> Path:
    """Write a zip file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = about.get("mode", 0o100644) << 16
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("name", ["../x", "/x", "d/../../x", "d\\..\\x", "C:/x", "d/a/../../../x"])
def test_a_zip_file_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    """A member that leads out of its folder: all of the file is refused, and nothing is left."""
    archive = zipped(tmp_path / "a.zip", {"d/good.jpg": b"x", name: b"x"})
    with pytest.raises(zipfile.BadZipFile):
        unpack(archive, tmp_path / "out" / "data", "d")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "out"]


def test_links_and_bombs_in_a_zip_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A symbolic link, a ratio that no images have, more members than a data set: nothing is unpacked."""
    link = zipped(tmp_path / "link.zip", {"d/x": b"/etc"}, mode=0o120777)
    bomb = zipped(tmp_path / "bomb.zip", {"d/x": bytes(300 * 2**20)})
    many = zipped(tmp_path / "many.zip", {f"d/{number}": b"x" for number in range(50)})
    monkeypatch.setattr("finetune.system.archive.MAX_MEMBERS", 40)
    for archive, why in ((link, "link"), (bomb, "times"), (many, "more than")):
        with pytest.raises(zipfile.BadZipFile, match=why):
            unpack(archive, tmp_path / "out" / "data", "d")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_file_that_is_damaged_within_is_told_however_it_is_packed(tmp_path: Path, kind: int) -> None:
    """What is packed breaks off, or has another checksum: nothing is left of it, and no thumbnail is shown."""
    with zipfile.ZipFile(tmp_path / keys.THUMBNAILS, "w", kind) as archive:
        archive.writestr("d/x.jpg", bytes(range(256)) * 4)
    content = bytearray((tmp_path / keys.THUMBNAILS).read_bytes())
    start = 30 + len("d/x.jpg")  # where the header ends
    content[start : start + 16] = bytes(16)
    (tmp_path / keys.THUMBNAILS).write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="is no complete ZIP archive"):
        unpack(tmp_path / keys.THUMBNAILS, tmp_path / "out" / "data", "d")
    assert not list((tmp_path / "out").iterdir())
    assert thumbnails.read_thumbnails(tmp_path) == {}


def test_a_zip_file_that_lies_about_sizes_is_damaged(tmp_path: Path) -> None:
    """The directory says ten bytes, the member unpacks to a million: no more than ten are written, and it is told."""
    archive = zipped(tmp_path / "a.zip", {"d/x": bytes(10**6)})
    content = bytearray(archive.read_bytes())
    directory = content.rindex(b"PK\1\2")
    content[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile):
        unpack(archive, tmp_path / "out" / "data", "d")
    assert not list((tmp_path / "out").iterdir())


def test_thumbnails_from_elsewhere_are_small_or_not_read(tmp_path: Path) -> None:
    """Entries that unpack to much, are no JPEG, or lead elsewhere: nothing is written, none is shown."""
    from tests.support.images import bomb_png

    zipped(tmp_path / keys.THUMBNAILS, {
        "a.jpg": bytes(50 * 2**20), "b.jpg": bomb_png(), "../../c.jpg": b"x", "d.jpg/../e.jpg": b"", "f.txt": b"x",
    })  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    assert thumbnails.read_thumbnails(tmp_path) == {}
    assert sorted(tmp_path.rglob("*")) == before
    assert thumbnails.open_thumbnail_source(tmp_path, "../x.jpg") is None


def test_a_link_in_a_run_directory_shows_nothing_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep file or a log that is a link to a private file is neither put into a report nor sent."""
    from types import SimpleNamespace

    from finetune.tracking import wandb_run

    private = tmp_path / "private"
    private.write_text("machine api.wandb.ai password 0123456789abcdef\n")
    folder = finished_sweep(tmp_path / "runs" / "s")
    (folder / keys.SWEEP).symlink_to(private)
    (folder / "head-1" / keys.LOG).symlink_to(private)
    leave_figures_blank(monkeypatch)
    assert analyse([str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "0123456789abcdef" not in (tmp_path / "out" / "report.html").read_text()
    sent: list[str] = []
    (tmp_path / "wandb").mkdir()
    run: Any = SimpleNamespace(dir=str(tmp_path / "wandb"), save=lambda path, **_: sent.append(Path(path).name))
    wandb_run._send_files(run, folder / "head-1")
    assert keys.CONFIG in sent
    assert keys.LOG not in sent


def test_arrays_are_read_without_objects(tmp_path: Path, mark: Path) -> None:
    """NumPy refuses pickled objects where nothing else is asked of it, which is how it is used here."""
    np.save(tmp_path / "a.npy", np.array([Touch(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "a.npy")
    assert not mark.exists()


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes there")
def test_names_that_can_not_be_written_down_are_refused(tmp_path: Path) -> None:
    """A class or image with a newline, an escape sequence or bytes that are no UTF-8 in its name is told by it."""
    from finetune.data.layout import read_layout

    for number, name in enumerate([b"a\nb", b"\x1b[2J", b"\xff\xfe", "\u202egpj".encode()]):
        for place in (b"cat", name):
            root = tmp_path / f"data{number}{place != name}"
            folder = os.fsencode(root) + b"/" + place
            Path(os.fsdecode(folder)).mkdir(parents=True)
            for picture in (b"1.png", name + b".png"):
                Path(os.fsdecode(folder + b"/" + picture)).touch()
            with pytest.raises(UserError, match="rename it") as caught:
                read_layout(root)
            assert str(caught.value).isprintable()
