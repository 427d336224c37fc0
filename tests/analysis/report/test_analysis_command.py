"""The command end to end: files, exit codes, an HTML page that needs nothing else, JSON that is JSON."""

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.pipeline import build_report
from analysis.sources.run_directories import read_sweep
from tests.support.fabricate import fabricate_pictures, fabricate_run

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
            *("accuracy_by_strategy", "accuracy_against_time", "accuracy_against_parameters", "learning_curves"),
            *("time_to_target", "schedule", "rate_by_strategy", "recall_by_class", "confusion_matrix", "reliability"),
        )
        for ending in ("png", "pdf")
    ),
}


class Page(html.parser.HTMLParser):
    """What a test asks of a page: its tags, the pictures without words, every address, and that all is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.without_alt = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        self.without_alt += tag == "img" and not given.get("alt")
        self.addresses += [str(given[name]) for name in ("src", "href") if name in given]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which runs/tiny has been analysed: two strategies, three seeds, one failed run."""
    place = tmp_path_factory.mktemp("place")
    pictures = fabricate_pictures(place / "data", each=4)
    answers = [(path, name, "disc" if index % 3 == 0 else name, 0.9) for index, (path, name) in enumerate(pictures)]
    answers_of = {"full": answers, "head": [*answers[:4], (*pictures[4], "disc", 0.9), *answers[5:]]}  # 10, 9 of 12
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
                predictions=answers_of[strategy],
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
    """One script, its own, known by its hash; every picture is inside and has words; tags are closed in order."""
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


def test_what_runs_said_is_escaped(place: Path) -> None:
    """A reason is shown as text and never runs."""
    text = (place / "report.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "does it work &amp; &lt;how&gt;?" in text


def test_the_page_opens_with_the_answer_and_says_what_is_left_out(place: Path) -> None:
    """Headline before table; failed runs, chance and majority are told; the demo is called synthetic."""
    text = re.sub(r"\s+", " ", (place / "report.html").read_text())
    headline = text.index("full and head are not distinguishable with 3 seeds")
    assert headline < text.index("<h2>Comparison</h2>")
    for part in (
        "synthetic",
        "1 of 7 runs are left out (1 failed).",
        "Guessing would get 33.3%",
        "val is a stratified 20% of train",
        "python -m analysis",
    ):
        assert part in text


def test_json_says_the_same_as_the_page(place: Path) -> None:
    """Strict JSON with its schema's version; every column is explained; counts are whole."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads((place / "report.json").read_text(), parse_constant=refuse)
    assert content["schema"] == 1
    assert [row["strategy"] for row in content["strategies"]] == ["head", "full"]
    assert set(content["strategies"][0]) == set(content["columns"])
    assert content["answer"]["verdict"] == "not distinguishable"
    assert content["left_out"] == [{"run": "bad", "state": "failed", "reason": "<script>alert(1)</script>"}]
    assert content["data"]["synthetic"] is True
    assert content["data"]["chance"] == pytest.approx(1 / 3)
    assert content["data"]["majority_share"] == pytest.approx(1 / 3)
    assert content["strategies"][1]["trainable_parameters"] == 20_001_000


def test_a_second_report_is_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on the time, or on chance that is not seeded."""
    monkeypatch.chdir(place.parents[1])
    sweep = read_sweep(Path("runs/tiny"))
    again = place.parent / "again"  # as deep, so that links to runs are the same
    build_report(sweep, again, 0.8)
    for name in ("comparison.csv", "comparison.md", "report.json", "report.html", "prediction_grid.png"):
        assert (again / name).read_bytes() == (place / name).read_bytes(), name


def test_the_table_and_the_files_are_printed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A pipe gets plain text: no colours, no progress."""
    monkeypatch.chdir(place.parents[1])
    monkeypatch.setattr("analysis.pipeline.plans", lambda *_: [])  # drawn often enough
    assert main(["runs/tiny", "--out", str(tmp_path / "out"), "--target", "0.5"]) == 0
    out, err = capsys.readouterr()
    assert "| full" in out
    assert "Epochs to 50% val" in out
    assert "report.html" in out
    assert "\x1b" not in out
    assert err == ""


def test_pictures_that_are_gone_cost_the_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the report is written, and a note says what is missing; so without predictions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.pipeline.plans", lambda *_: [])
    gone = [("test/disc/1.png", "disc", "disc", 0.9)]
    fabricate_run(Path("runs/a"), "r", predictions=gone, provenance={"data_root": str(tmp_path / "nowhere")})
    fabricate_run(Path("runs/b"), "r")
    for name, said, drawn in (("a", "0 of 1 pictures", True), ("b", "predictions.csv is missing", False)):
        assert main([name]) == 0
        assert said in " ".join(json.loads(Path(f"reports/{name}/report.json").read_text())["notes"])
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
    """80 is a likely slip; the message shows what is meant."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--target", target])
    assert ended.value.code == 2
    assert "such as 0.8" in capsys.readouterr().err
