"""The page of a report in a browser, from disk: it draws, answers to pointer and keys, in any light and at any width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import ssl_dc
from helpers.browser import chromium
from helpers.command_line import HANGS
from ssl_dc.reporting.palette import BACKGROUND

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

TOOLTIP = "#vg-tooltip-element.visible"


class Opened(NamedTuple):
    page: Page
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def made(finished_run: ssl_dc.Run) -> ssl_dc.ReportPage:
    return ssl_dc.report(finished_run, projection="pca", progress=False)


@pytest.fixture(scope="module")
def file(made: ssl_dc.ReportPage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def opened(browser: Browser, file: Path) -> Opened:
    return open_page(browser, file)


def open_page(browser: Browser, file: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
    """The page, drawn, in a context without a network; with what the console said and what was asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)  # type: ignore[arg-type]
    context.set_default_timeout(1000 * HANGS)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn=yes]")
    return Opened(page, complaints, requests)


def chart_named(page: Page, title: str) -> Locator:
    return page.locator("figure", has=page.get_by_text(title, exact=True)).locator(".chart")


def test_every_chart_is_drawn_without_a_complaint_and_without_a_network(
    opened: Opened, made: ssl_dc.ReportPage, file: Path
) -> None:
    points = [chart.locator(".role-mark > path[aria-label]").count() for chart in opened.page.locator(".chart").all()]
    assert len(points) == len(made.charts) >= 14
    assert min(points) > 0
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}


def test_the_pointer_shows_the_image_of_a_point(opened: Opened) -> None:
    chart = chart_named(opened.page, "PCA, gated route")
    chart.hover()
    tooltip = opened.page.locator(TOOLTIP)
    assert "of the dense cost" in tooltip.inner_text()
    assert tooltip.locator("img").evaluate("image => image.naturalWidth") == 8  # the size of the digits
    opened.page.mouse.move(0, 0)
    tooltip.wait_for(state="hidden")


@pytest.mark.parametrize("title", ["Loss", "PCA, dense route", "Cost by layer", "Gates by layer and class"])
def test_the_keys_go_from_point_to_point(opened: Opened, title: str) -> None:
    page = opened.page
    chart, said, tooltip = chart_named(page, title), page.locator("#said"), page.locator(TOOLTIP)
    labels = [point.get_attribute("aria-label") for point in chart.locator(".role-mark > path[aria-label]").all()]
    chart.focus()
    for key, number in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("End", len(labels) - 1), ("Home", 0)):
        page.keyboard.press(key)
        assert said.inner_text() == f"{labels[number]} ({number + 1} of {len(labels)})".replace("\n", " ")
        assert tooltip.inner_text().split() == str(labels[number]).split()
    page.keyboard.press("Escape")
    tooltip.wait_for(state="hidden")


def test_the_tab_key_reaches_each_chart_and_shows_where_it_is(opened: Opened) -> None:
    page = opened.page
    page.locator("h1").click()
    page.keyboard.press("Tab")
    reached = []
    for _ in range(400):
        page.keyboard.press("Tab")
        found = page.evaluate("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        if found[0].startswith("chart-"):
            reached.append(found[0])
            assert found[1] == "solid"
        if len(reached) == page.locator(".chart").count():
            break
    assert reached == [chart.get_attribute("id") for chart in page.locator(".chart").all()]


def test_each_chart_is_named_described_and_given_in_numbers(opened: Opened) -> None:
    page = opened.page
    for figure in page.locator("figure").all():
        chart = figure.locator(".chart")
        assert chart.get_attribute("role") == "application"  # so that screen readers leave it the arrow keys
        assert page.locator(f"#{chart.get_attribute('aria-labelledby')}").inner_text()
        summary, keys = (chart.get_attribute("aria-describedby") or "").split()
        assert len(page.locator(f"#{summary}").inner_text()) > 20
        assert "arrow keys" in page.locator(f"#{keys}").inner_text()
        figure.locator("summary").click()
        assert figure.locator("tbody tr").first.is_visible()
        figure.locator("summary").click()
    assert page.locator("main img:not([alt])").count() == 0
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_light_or_dark_as_the_reader_has_it(browser: Browser, file: Path, scheme: str) -> None:
    page = open_page(browser, file, scheme=scheme).page
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == rgb(BACKGROUND[scheme])
    ink = page.evaluate("getComputedStyle(document.body).color")
    fills = page.locator(".chart svg text").evaluate_all("texts => [...new Set(texts.map(t => getComputedStyle(t).fill))]")
    assert fills == [ink]
    page.context.close()


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[start : start + 2], 16)) for start in (1, 3, 5))})"


def test_a_narrow_window_cuts_nothing_off(browser: Browser, file: Path) -> None:
    page = open_page(browser, file, width=360).page
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for box in (chart.bounding_box() for chart in page.locator(".chart svg").all()):
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    chart_named(page, "PCA, dense route").hover()
    tooltip = page.locator(TOOLTIP).bounding_box()
    assert tooltip is not None
    assert 0 <= tooltip["x"] < tooltip["x"] + tooltip["width"] <= 360
    page.context.close()


def test_a_wider_window_draws_the_charts_anew(browser: Browser, file: Path) -> None:
    page = open_page(browser, file, width=360).page
    svg = page.locator(".chart svg").first
    narrow = (svg.bounding_box() or {})["width"]
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function(
        "before => document.querySelector('.chart svg').getBoundingClientRect().width > before", arg=narrow
    )
    page.context.close()


def test_a_notebook_draws_the_page_in_its_frame(browser: Browser, made: ssl_dc.ReportPage, tmp_path: Path) -> None:
    (tmp_path / "notebook.html").write_text(f"<!doctype html><meta charset=utf-8>{made._repr_html_()}", encoding="utf-8")
    page = browser.new_page()
    page.set_default_timeout(1000 * HANGS)
    page.goto((tmp_path / "notebook.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("html[data-drawn=yes]").wait_for()
    assert frame.locator(".chart svg").count() == len(made.charts)
    page.close()


def test_a_page_that_follows_a_training_loads_itself_again_until_it_is_told_not_to(
    browser: Browser, tmp_path: Path
) -> None:
    file = ssl_dc.ReportPage("follows", "now", [], refresh_seconds=30).save(tmp_path / "live.html")
    page = browser.new_page()
    page.set_default_timeout(1000 * HANGS)
    page.clock.install()
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))
    page.goto(file.as_uri())
    page.clock.fast_forward("00:29")
    assert len(loads) == 1
    with page.expect_event("load"):
        page.clock.fast_forward("00:02")
    page.get_by_role("button").click()
    assert page.get_by_role("button").get_attribute("aria-pressed") == "true"
    page.clock.fast_forward("10:00")
    page.evaluate("0")  # an answer of the page comes after any load that it has begun
    assert len(loads) == 2
    page.close()
