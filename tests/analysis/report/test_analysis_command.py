"""The command end to end: files, exit codes, an HTML page that needs nothing else, JSON that is JSON."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.figures.specs import FIGURES, GRIDS
from analysis.figures.style import DPI, GRID_DPI, save_figure
from analysis.pipeline import build_report
from analysis.sources.run_directories import read_sweep
from tests.analysis.conftest import stop_drawing
from tests.support.fabricate import fabricate_pictures, fabricate_run
from tests.support.html_page import Page

FILES = {
    *("comparison.csv", "comparison.md", "comparison.tex", "recipes.csv", "pairs.csv", "runs.csv", "epochs.csv"),
    *("prediction_grid.png", "prediction_grid_confident_errors.png", "prediction_grid_least_confident.png"),
    "prediction_grid_differences.png",
    "model_card.md",
    "report.html",
    "report.json",
    *(
        f"figures/{name}.{ending}"
        for name in (
            *("accuracy_by_strategy", "differences", "accuracy_against_time", "learning_curves"),
            *("time_to_target", "schedule", "rate_by_strategy", "recall_by_class", "confusion_matrix", "reliability"),
        )
        for ending in ("png", "pdf")
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which runs/tiny has been analysed: two strategies, three seeds, one failed run."""
    place = tmp_path_factory.mktemp("place")
    images = fabricate_pictures(place / "data", each=4)
    predictions = [(path, name, "disc" if index % 3 == 0 else name, 0.9) for index, (path, name) in enumerate(images)]
    worse = [*predictions[:4], (*images[4], "disc", 0.9), *predictions[5:]]
    predictions_of = {"full": predictions, "head": worse}  # 10 and 9 of 12 are correct
    provenance = {"data_root": str(place / "data"), "splits_from": ["val is a stratified 20% of train"]}
    for strategy, test in (("head", 9 / 12), ("full", 10 / 12)):
        for seed in range(3):
            fabricate_run(
                place / "runs/tiny",
                f"{strategy}-{seed}",
                strategy=strategy,
                seed=seed,
                val=test + 0.05,
                test=test,
                predictions=predictions_of[strategy],
                provenance=provenance,
            )
    fabricate_run(place / "runs/tiny", "bad", lr=0.01, state="failed", reason="<script>alert(1)</script>")
    (place / "runs/tiny/sweep.yaml").write_text("# does it work & <how>?\nmethod: grid\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["tiny"]) == 0
    return place / "reports/tiny"


def test_every_file_of_the_report_is_written(place: Path) -> None:
    """And nothing else: no temporary file stays behind."""
    assert {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} == FILES


def test_the_page_needs_nothing_but_itself(place: Path) -> None:
    """One script, its own, known by its hash; every image is inside and has a text alternative; tags are closed."""
    text = (place / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.tags.count("script") == 1
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f"{policy}; script-src 'sha256-{digest}'" in text
    assert page.tags.count("img") == 14
    assert page.without_alt == 0
    links = [address for address in page.addresses if not address.startswith(("data:image/", "#"))]
    assert sorted(links) == sorted(f"../../runs/tiny/{name}-{seed}/" for name in ("head", "full") for seed in range(3))
    assert page.tags.count("h1") == 1


def test_text_from_runs_is_escaped(place: Path) -> None:
    """A reason is shown as text and never runs."""
    text = (place / "report.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "does it work &amp; &lt;how&gt;?" in text


def test_the_page_opens_with_the_answer_and_says_what_is_left_out(place: Path) -> None:
    """Headline before table; failed runs, chance and majority are reported; the demo is called synthetic."""
    text = re.sub(r"\s+", " ", (place / "report.html").read_text())
    headline = text.index("Use full: highest val accuracy, 83.3% on test (3 seeds)")
    assert headline < text.index('<h2 id="comparison-of-arms">Comparison</h2>')
    for part in (
        "synthetic",
        "1 of 7 runs are left out (1 failed).",
        "random guesses 33.3%",
        "val is a stratified 20% of train",
        "python -m analysis",
    ):
        assert part in text


def test_json_says_the_same_as_the_page(place: Path) -> None:
    """Strict JSON with its schema's version; every column is explained; counts are whole."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads((place / "report.json").read_text(), parse_constant=refuse)
    assert content["schema"] == 2
    assert [row["strategy"] for row in content["strategies"]] == ["head", "full"]
    assert set(content["strategies"][0]) == set(content["columns"])
    assert content["answer"]["verdict"] == "not distinguishable"
    verdict = content["verdict"]
    assert (verdict["arms_by"], verdict["tuned"]) == (["strategy"], [])
    assert (verdict["candidate"], verdict["recommended"]) == ("full", "full")
    assert (verdict["margin"], verdict["confidence"]) == (0.02, 0.95)
    assert (verdict["runs_per_arm"], verdict["test_images"]) == (3, 100)
    assert verdict["sentence"] == content["answer"]["headline"]
    (other,) = verdict["differences"]
    assert (other["arm"], other["difference"]) == ("head", pytest.approx(-1 / 12))
    assert other["low"] < other["difference"] < other["high"]
    assert content["best_run"].startswith("full-")
    assert content["left_out"] == [{"run": "bad", "state": "failed", "reason": "<script>alert(1)</script>"}]
    assert content["data"]["synthetic"] is True
    assert content["data"]["chance"] == pytest.approx(1 / 3)
    assert content["data"]["majority_share"] == pytest.approx(1 / 3)
    assert content["strategies"][1]["trainable_parameters"] == 20_001_000


def test_a_second_report_has_equal_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on the time, or on random numbers without a seed."""
    monkeypatch.chdir(place.parents[1])
    again = place.parent / "again"  # as deep, so that links to runs are the same
    with pytest.MonkeyPatch.context() as patch:
        stop_drawing(patch)
        analysis = build_report(read_sweep(Path("runs/tiny")), again)
    for name in ("comparison.csv", "comparison.md", "report.json"):
        assert (again / name).read_bytes() == (place / name).read_bytes(), name
    pages = [re.sub(r'src="data:[^"]*"', "", (folder / "report.html").read_text()) for folder in (place, again)]
    assert pages[0] == pages[1]
    for name, specs, dpi in (("schedule", FIGURES, DPI), ("prediction_grid", GRIDS, GRID_DPI)):
        spec = specs[name](analysis)
        assert spec is not None
        (png,) = save_figure(spec.draw(), again / name, ("png",), dpi)
        assert [path.read_bytes() for path in place.rglob(png.name)] == [png.read_bytes()], name


@pytest.mark.usefixtures("blank_figures")
def test_the_table_and_the_files_are_printed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A pipe gets plain text: no colours, no progress."""
    monkeypatch.chdir(place.parents[1])
    assert main(["runs/tiny", "--out", str(tmp_path / "out"), "--target", "0.5"]) == 0
    out, err = capsys.readouterr()
    assert "| full" in out
    assert "report.html" in out
    assert "\x1b" not in out
    assert err == ""


@pytest.mark.usefixtures("without_drawing")
def test_a_report_is_written_without_images_and_without_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note says what is missing."""
    monkeypatch.chdir(tmp_path)
    gone = [("test/disc/1.png", "disc", "disc", 0.9)]
    fabricate_run(Path("runs/a"), "r", predictions=gone, provenance={"data_root": str(tmp_path / "nowhere")})
    fabricate_run(Path("runs/b"), "r")
    for name, note, drawn in (("a", "1 of the 1 images", True), ("b", "predictions.csv is missing", False)):
        assert main([name]) == 0
        assert note in " ".join(json.loads(Path(f"reports/{name}/report.json").read_text())["notes"])
        assert Path(f"reports/{name}/prediction_grid.png").exists() is drawn
        Page(Path(f"reports/{name}/report.html").read_text())


@pytest.mark.parametrize(
    "arguments",
    [["nowhere"], ["me/trials/ab12"], [], ["failed"], ["good", "--out", "file"], ["good", "--out", "file/below"]],
)
def test_bad_input_ends_with_2_a_message_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """No traceback, no half-written report."""
    monkeypatch.chdir(tmp_path)
    if arguments:
        fabricate_run(Path("runs/good"), "r")
        fabricate_run(Path("runs/failed"), "r", state="failed", reason="x")
        Path("file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("python -m analysis: ")
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", ["80", "0", "nan", "much"])
def test_a_target_is_a_fraction(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """80 is a likely mistake; the message has an example."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--target", target])
    assert ended.value.code == 2
    assert "such as 0.8" in capsys.readouterr().err
