"""A sweep in MLflow's interface, as a person sees it in a browser."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from hfsuite.tracking.sync import sync
from tests import program
from tests.tracking import made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 120_000  # MLflow's page is 10 MB of JavaScript
SETTINGS = [{"x": 0.1, "kind": "plain"}, {"x": 0.2, "kind": "wide"}, {"x": 0.4, "kind": "plain"}]
LOSSES = [[0.9, 0.8, 0.7], [0.8, 0.5, 0.3], [0.9, 0.6, 0.5]]
DATA_OF_CHARTS = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(chart => chart.data.map(trace => (
    trace.type === 'parcoords'
    ? {labels: trace.dimensions.map(each => each.label), values: trace.dimensions.map(each => [...each.values])}
    : {title: chart.closest('[data-testid^="experiment-view-compare-runs-card"]')?.innerText.split('\\n')[0],
       x: trace.x && [...trace.x], y: trace.y && [...trace.y]})))"""

expect.set_options(timeout=PATIENCE_MS)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@pytest.fixture
def links(own_directory: Path) -> Iterator[list[str]]:
    """What `hfsuite ui` prints of a sweep of three trials, while it serves them."""
    directory, _ = made.sweep(
        state="completed", ended_at=made.now(), params={"workers": 2, "space": {"x": "", "kind": ""}}
    )
    for number, (config, losses) in enumerate(zip(SETTINGS, LOSSES, strict=True)):
        reports = [made.report(place, 10 * place, loss, config) for place, loss in enumerate(losses, start=1)]
        made.trial(directory, number, reports, config=config, searched=["x", "kind"])
    sync(directory)
    ui = program.hfsuite("ui", "--port", str(program.free_port()))
    yield re.findall(r"http://\S+#\S+", program.said_until(ui, "Ctrl-C"))
    ui.send_signal(signal.SIGTERM)
    program.output(ui)


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def charts(page: Page) -> list[dict[str, Any]]:
    """What the charts on the page have been given to draw."""
    found: list[dict[str, Any]] = page.evaluate(DATA_OF_CHARTS)
    return found


def test_the_link_shows_the_sweeps_trials_with_what_matters_and_their_curves(links: list[str], page: Page) -> None:
    page.goto(links[0])
    expect(page.get_by_text("3 matching runs")).to_be_visible()
    names = page.get_by_role("grid").get_by_text(re.compile(r"^00\d ·"))
    expect(names).to_have_text(
        ["001 · x=0.2 kind=wide · 0.3", "002 · x=0.4 kind=plain · 0.5", "000 · x=0.1 kind=plain · 0.7"]
    )
    page.wait_for_function(f"() => ({DATA_OF_CHARTS})().filter(each => each.title === 'loss').length >= 3")
    axes = page.locator(".parcoords .dimension")
    expect(axes.locator(".label")).to_have_text(["x", "kind", "best_loss"])
    ends = [float(each) for each in axes.last.locator(".tick").all_text_contents()]
    assert (min(ends), max(ends)) == (0.3, 0.7)
    curves = {(tuple(each["x"]), tuple(each["y"])) for each in charts(page) if each.get("title") == "loss"}
    assert curves == {((10, 20, 30), tuple(losses)) for losses in LOSSES}


def test_its_runs_are_compared(links: list[str], page: Page) -> None:
    page.goto(links[0].replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
    expect(page.get_by_text("3 matching runs")).to_be_visible()
    for column in ("best_loss", "x", "kind", "hfsuite.state"):
        expect(page.get_by_role("columnheader", name=column, exact=True).first).to_be_visible()
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Comparing 3 Runs from 1 Experiment")).to_be_visible()
    page.wait_for_function(f"() => ({DATA_OF_CHARTS})().length >= 1", timeout=PATIENCE_MS)
    (coordinates,) = [each for each in charts(page) if "labels" in each]
    assert coordinates["labels"][:2] == ["kind", "x"]
    assert sorted(coordinates["values"][1]) == [0.1, 0.2, 0.4]
    for best in ("0.3", "0.5", "0.7"):
        expect(page.get_by_text(best, exact=True).first).to_be_attached()
