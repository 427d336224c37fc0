"""The report in a real browser: it opens without errors or requests, sorts, filters and enlarges."""

from collections.abc import Iterator

import pytest

from analysis.pipeline import build_report
from analysis.sources.run_directories import read_sweep
from tests.analysis.conftest import stop_drawing
from tests.support.browser import CHROMIUM, Browser, browser
from tests.support.fabricate import fabricate_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)")
SCORES = {"scratch": 0.3, "head": 0.6, "full": 0.9}
NAMES = "Array.from(document.querySelectorAll('#comparison tbody th'), cell => cell.textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return the open report of a sweep of three strategies."""
    place = tmp_path_factory.mktemp("page")
    for strategy, score in SCORES.items():
        predictions = [(f"{n}.png", "disc", "disc" if n < 20 * score else "square", 0.8) for n in range(20)]
        for seed in range(2):
            name = f"{strategy}-{seed}"
            fabricate_run(
                place / "sweep", name, strategy=strategy, seed=seed, val=score, test=score, predictions=predictions,
                seconds=100 + 100 * (strategy == "full"),
            )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        stop_drawing(patch)
        build_report(read_sweep(place / "sweep"), place / "report")
    with browser(place / "profile") as opened:
        opened.open(place / "report" / "report.html")
        yield opened


def test_it_opens_without_errors_or_requests(page: Browser) -> None:
    """Nothing but the file is loaded; nothing is thrown, logged or refused."""
    requests = [request["request"]["url"] for request in page.of("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("data:")] == [page.run("location.href")]
    assert page.of("Runtime.exceptionThrown") == []
    assert [entry["entry"]["text"] for entry in page.of("Log.entryAdded")] == []
    assert page.run("document.documentElement.className") == "scripted"
    assert page.run("Array.from(document.images).every(image => image.complete && image.naturalWidth > 0)")


def test_a_heading_sorts_by_number_both_ways(page: Browser) -> None:
    """By the numbers behind the text, and says so to those who do not see the arrow."""
    test = "document.querySelectorAll('#comparison th button')[2]"
    assert page.run(f"{test}.textContent") == "Test"
    page.run(f"{test}.click()")
    assert page.run(NAMES) == ["scratch", "head", "full"]
    assert page.run(f"{test}.closest('th').getAttribute('aria-sort')") == "ascending"
    page.run(f"{test}.click()")
    assert page.run(NAMES) == ["full", "head", "scratch"]
    assert page.run(f"{test}.closest('th').getAttribute('aria-sort')") == "descending"


def test_words_filter_rows(page: Browser) -> None:
    """Every word has to be in the row; the number of rows is shown."""
    field = "document.querySelector('.filter[data-table=runs] input')"
    page.run(f"{field}.value = 'head 0'; {field}.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#runs tbody tr:not([hidden])').length") == 2
    page.run(f"{field}.value = 'head-1'; {field}.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelector('.filter[data-table=runs] output').textContent") == "1 of 6"


def test_an_image_is_enlarged_and_closed(page: Browser) -> None:
    """In a dialog that the keyboard reaches, with its text alternative."""
    page.run("document.querySelector('.figures .enlarge').click()")
    assert page.run("document.getElementById('enlarged').open")
    assert page.run("document.querySelector('#enlarged img').alt").startswith("Dots with intervals")
    page.run("document.querySelector('#enlarged button').click()")
    assert not page.run("document.getElementById('enlarged').open")


def test_a_phone_shows_the_answer_first_and_scrolls_in_one_direction(page: Browser) -> None:
    """At 390 pixels nothing is wider than the screen; headline and card are on the first one."""
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("document.querySelector('.card').getBoundingClientRect().bottom") <= 844
