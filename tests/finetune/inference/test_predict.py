"""Predicting with a finished run: its own names, sizes and calibration; upright, in order, and safe to look at."""

import csv
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.inference.prediction_page import PageContent, visible
from finetune.predict import main
from finetune.rundir import keys
from finetune.system import documents
from finetune.training.metrics import scale_log_probabilities
from tests.support.failing_disk import EVERY, WritingCommand, assert_each_write_keeps
from tests.support.html_page import Page


@pytest.fixture
def finished(trained_place: Path, tmp_path: Path) -> Path:
    """Return a copy of the run's directory whose temperature is 2, so that leaving it out would show."""
    shutil.copytree(trained_place / "run", tmp_path / "run")
    summary = documents.read_json(tmp_path / "run" / keys.SUMMARY)
    documents.write_json(tmp_path / "run" / keys.SUMMARY, {**(summary or {}), "temperature": 2.0})
    return tmp_path / "run"


@pytest.fixture
def colours(trained_place: Path) -> Path:
    """Return the folder of images that the run was made with."""
    return trained_place / "pictures"


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_predictions_are_those_of_the_run_at_its_temperature(finished: Path, colours: Path, tmp_path: Path) -> None:
    """The test images get the class that the run itself wrote down, and its probability with logits halved."""
    lone = colours / "train" / "red" / "000.png"
    out = tmp_path / "out.csv"
    assert main([str(finished), str(colours / "test"), str(lone), "--csv", str(out)]) == 0
    rows = read(out)
    assert list(rows[0]) == ["path", "prediction", "confidence"]
    assert rows[-1]["path"] == str(lone)
    expected = {str(colours / row["path"]): row for row in read(finished / keys.PREDICTIONS)}
    assert [row["path"] for row in rows[:-1]] == sorted(expected)
    for row in rows[:-1]:
        own = expected[row["path"]]
        assert row["prediction"] == own["prediction"]
        shares = np.array([[float(value) for name, value in own.items() if name.startswith(keys.PROBABILITY)]])
        softened = np.exp(scale_log_probabilities(np.log(np.maximum(shares, 1e-9)), 2.0)).max()
        assert float(row["confidence"]) == pytest.approx(softened, abs=2e-3)


def test_what_is_not_calibrated_says_so(
    finished: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that lies alone, a summary of an earlier version or of another epoch: temperature 1, and a line."""
    lone = tmp_path / "alone" / "some.pt"
    lone.parent.mkdir()
    shutil.copy(finished / keys.BEST, lone)
    picture = str(colours / "test" / "red" / "000.png")

    def sure(checkpoint: Path) -> str:
        assert main([str(checkpoint), picture]) == 0
        return capsys.readouterr().out.splitlines()[1]

    softened = sure(finished / keys.BEST)
    assert main([str(lone), picture]) == 0
    said = capsys.readouterr()
    assert "not calibrated" in said.err
    assert said.out.splitlines()[1] != softened
    summary = documents.read_json(finished / keys.SUMMARY) or {}
    for changed in ({"temperature": None}, {"best/epoch": 99}):
        documents.write_json(finished / keys.SUMMARY, {**summary, **changed})
        assert main([str(finished), picture]) == 0
        told = capsys.readouterr()
        assert "not calibrated" in told.err
        assert told.out == said.out


def test_the_likeliest_classes_are_told_in_order(
    finished: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as asked for, all where there are fewer, which is said; together they are certain."""
    picture = str(colours / "test" / "red" / "000.png")
    assert main([str(finished), picture, "--top", "2"]) == 0
    head, row = csv.reader(capsys.readouterr().out.splitlines())
    assert head == ["path", "prediction", "confidence", "prediction_2", "confidence_2"]
    assert float(row[2]) > float(row[4])
    assert main([str(finished), picture, "--top", "5"]) == 0
    said = capsys.readouterr()
    head, row = csv.reader(said.out.splitlines())
    assert head[-1] == "confidence_3"
    assert {row[1], row[3], row[5]} == {"blue", "green", "red"}
    assert sum(map(float, row[2::2])) == pytest.approx(1, abs=2e-4)
    assert "there are 3 classes" in said.err


def test_a_turned_picture_is_seen_upright(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What EXIF says is turned back: to the digit the answer on the upright image, unlike that without EXIF."""
    ramp = np.linspace(0, 255, 40 * 32).reshape(32, 40)
    upright = Image.fromarray(np.stack([ramp, 255 - ramp, ramp / 2], axis=2).astype(np.uint8))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright.save(tmp_path / "a.png")
    turned.save(tmp_path / "b.png", exif=exif)
    turned.save(tmp_path / "c.png")
    assert main([str(finished), *(str(tmp_path / f"{name}.png") for name in "abc"), "--top", "3"]) == 0
    a, b, c = (row[1:] for row in list(csv.reader(capsys.readouterr().out.splitlines()))[1:])
    assert a == b
    assert a != c


def test_unreadable_pictures_are_named_and_skipped(
    finished: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are predicted in their order, over several batches; the exit code says that something is missing."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(150):
        colour = ("blue", "green", "red")[number % 3]
        shutil.copy(colours / "test" / colour / "000.png", many / f"{number:03}-{colour}.png")
    for number in (0, 70, 149):
        (many / f"{number:03}-bad.jpg").write_text("no image")
    assert main([str(finished), str(many)]) == 1
    said = capsys.readouterr()
    assert said.err.count("skipped: ") == 3
    assert "070-bad.jpg" in said.err
    rows = list(csv.reader(said.out.splitlines()))[1:]
    assert [Path(path).stem for path, *_ in rows] == sorted(path.stem for path in many.glob("*.png"))
    of_colour = {Path(path).stem[4:]: answer for path, *answer in rows[:3]}
    assert all(answer == of_colour[Path(path).stem[4:]] for path, *answer in rows)


def test_bad_input_is_told(finished: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, no images, no such file, nowhere to write: exit code 2, a message, nothing written."""
    (tmp_path / "empty").mkdir()
    picture = str(colours / "test" / "red" / "000.png")
    for arguments in (
        [str(tmp_path / "empty"), picture],
        [str(finished), "nowhere.jpg"],
        [str(finished), str(tmp_path / "empty")],
        [str(finished), picture, "--html", str(tmp_path / "no" / "page.html")],
        [str(finished), picture, "--csv", str(tmp_path / "empty")],
        [str(finished), picture, "--csv", str(tmp_path / "a"), "--html", str(tmp_path / "a")],
    ):
        assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    with pytest.raises(SystemExit) as refused:
        main([str(finished), picture, "--top", "0"])
    assert refused.value.code == 2


def test_the_page_holds_the_pictures_and_nothing_that_runs(finished: Path, colours: Path, tmp_path: Path) -> None:
    """Names of files are text, whatever they are; all images are in the page, which may load and run nothing."""
    hostile = tmp_path / "<script>alert(1)<" / '" onerror="alert(1).png'
    hostile.parent.mkdir()
    shutil.copy(colours / "test" / "red" / "000.png", hostile)
    turned = tmp_path / "gpj.\u202eexe.png"
    shutil.copy(hostile, turned)
    (tmp_path / "<b>bad.jpg").write_text("no image")
    page = tmp_path / "page.html"
    named = [str(hostile), str(turned), str(tmp_path / "<b>bad.jpg"), str(colours / "test")]
    assert main([str(finished), *named, "--html", str(page)]) == 1
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.tags.count("img") == 2 + 12
    assert parsed.without_alt == 0
    assert not {"script", "b", "a", "link", "iframe"} & set(parsed.tags)
    assert all(address.startswith("data:image/jpeg;base64,") for address in parsed.addresses)
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in text
    assert "&lt;script&gt;alert(1)&lt;" in text
    assert 'onerror="' not in text
    assert "\u202e" not in text
    assert "&lt;b&gt;bad.jpg" in text
    assert "temperature 2.00" in text


def test_the_page_of_many_pictures_keeps_to_its_limit(
    finished: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the least confident ones, these first, and says how many it leaves out; the table has all."""
    page, table = tmp_path / "page.html", tmp_path / "all.csv"
    arguments = [str(finished), str(colours), "--html", str(page), "--csv", str(table), "--html-limit", "30"]
    assert main(arguments) == 0
    rows = read(table)
    assert len(rows) == 42
    text = page.read_text(encoding="utf-8")
    assert Page(text).tags.count("img") == 30
    assert "shows the 30 least confident predictions;</strong> 12 more" in " ".join(text.split())
    ordered = sorted(rows, key=lambda row: float(row["confidence"]))
    assert ordered[0]["path"] in text
    assert ordered[-1]["path"] not in text
    places = [text.index(row["path"]) for row in ordered[:3]]
    assert places == sorted(places) or len({row["confidence"] for row in ordered[:3]}) < 3
    assert str(page) in capsys.readouterr().out


def test_the_least_confident_are_kept_whatever_the_order() -> None:
    """Of equals, the first; counts and means are over all."""
    from finetune.inference.predictor import Prediction

    content = PageContent(3)
    for name, sure in (("a", 0.9), ("b", 0.3), ("c", 0.5), ("d", 0.5), ("e", 0.2), ("f", 0.99)):
        content.add(Prediction(Path(name), [("x", sure)]))
    assert [prediction.path.name for prediction in content.least_confident()] == ["e", "b", "c"]
    assert content.counts == {"x": 6}
    assert content.confidence["x"] == pytest.approx(3.39)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses such names")
def test_names_that_are_no_text_are_shown_escaped(finished: Path, colours: Path, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 neither end the command nor are lost."""
    odd = os.fsencode(tmp_path) + b"/\xff.png"
    shutil.copyfile(os.fsencode(colours / "test" / "red" / "000.png"), odd)
    out, page = tmp_path / "out.csv", tmp_path / "page.html"
    assert main([str(finished), os.fsdecode(odd), "--csv", str(out), "--html", str(page)]) == 0
    assert read(out)[0]["path"].endswith("\\xff.png")
    assert "\\udcff.png" in page.read_text(encoding="utf-8")
    assert visible("a\u202eb\n") == "a\\u202eb\\n"


def test_the_word_best_is_the_best_run_of_the_newest_sweep(
    finished: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said with its reason on stderr; rows on stdout are those of the run named by its path."""
    shutil.copytree(finished, tmp_path / "runs" / "sweep" / "only")
    monkeypatch.chdir(tmp_path)
    picture = str(colours / "test" / "red" / "000.png")
    assert main(["best", picture]) == 0
    said = capsys.readouterr()
    assert "the best run of runs/sweep is only" in said.err
    assert main(["runs/sweep/only", picture]) == 0
    assert capsys.readouterr().out == said.out


def test_predicting_does_not_depend_on_the_threads_that_decode(
    finished: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One or three: the same rows."""
    said = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert main([str(finished), str(colours)]) == 0
            said.append(capsys.readouterr().out)
    finally:
        torch.set_num_threads(before)
    one, three = (list(csv.reader(text.splitlines())) for text in said)
    assert [row[:2] for row in one] == [row[:2] for row in three]


@EVERY
def test_a_full_disk_keeps_earlier_answers(
    every: bool, finished: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page, which comes last, and rows that are the earlier or the complete ones."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("rows.csv", "page.html"):
        (out / name).write_text("earlier")
    arguments = [str(finished), str(colours / "test"), f"--csv={out / 'rows.csv'}", f"--html={out / 'page.html'}"]
    command = WritingCommand(lambda: main(arguments), out, out / "page.html", f"WriteError: {out}/")
    assert_each_write_keeps(command, capsys, every)
