"""The report in a real browser: drawn, silent, offline, without overflow, and usable."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lengthwise.report import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)"
)
write_runs = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "report_runs.py"))["write_runs"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("outputs")
    made = write_runs(root)
    assert main([str(made["base"]), str(made["tuned"]), "--output", str(root / "report.html")]) == 0
    return (root / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def open_page(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    """Return the drawn page and the list that collects whatever it complains of or asks for."""
    page = browser.new_page(**options)
    noise: list[str] = []
    page.on("console", lambda message: noise.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    page.on("request", lambda request: noise.append(request.url) if request.url != address else None)
    page.goto(address)
    page.wait_for_selector(".main-svg")
    return page, noise


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_it_is_drawn_in_silence_and_without_overflow(
    browser: Any, address: str, width: int, scheme: str, tmp_path: Path
) -> None:
    page, noise = open_page(browser, address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    places = page.locator(".chart")
    assert places.count() == 5
    assert all(places.nth(i).locator(".main-svg").count() > 0 for i in range(places.count()))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "is better than base" in page.title()
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert noise == []
    page.close()


def test_no_text_of_a_model_acts_in_the_page(browser: Any, address: str) -> None:
    page, noise = open_page(browser, address)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    page.wait_for_timeout(200)
    assert page.title() != "owned"
    assert page.locator("#samples img").count() == 0
    assert page.locator("#sample-4 .text").nth(1).inner_text().startswith("<script>")
    assert noise == []
    page.close()


def test_search_filter_and_sort(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address)
    shown = page.locator(".card:visible")
    assert shown.count() == 30
    page.fill("#sample-search", "lbw-007")
    page.wait_for_selector("#sample-count:text-is('1 of 30 shown')")
    page.fill("#sample-search", "no such words anywhere")
    page.wait_for_selector("#sample-none:visible")
    page.fill("#sample-search", "")
    page.wait_for_selector("#sample-none", state="hidden")
    page.select_option("#sample-mark", "run-2:truncated")
    assert shown.count() == 4
    page.select_option("#sample-mark", "")
    page.select_option("#sample-sort", "distance")
    assert page.locator(".card").first.get_attribute("id") == "sample-6"
    page.select_option("#sample-sort", "rose")
    changes = page.eval_on_selector_all(".card", "cards => cards.map((c) => Number(c.dataset.change))")
    assert changes == sorted(changes, reverse=True)
    page.close()


def test_a_count_leads_to_its_samples(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address)
    page.click('.accounts a[data-mark="run-2:truncated"]')
    assert page.locator(".card:visible").count() == 4
    assert page.input_value("#sample-mark") == "run-2:truncated"
    page.close()


def test_a_point_leads_to_its_sample(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address, viewport={"width": 1280, "height": 900})
    point = page.locator("#chart-scatter-words .trace.scatter").nth(1).locator(".point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#chart-scatter-words .hoverlayer .hovertext")
    assert "click to read" in page.locator("#chart-scatter-words .hoverlayer").text_content()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".card[open]")
    page.close()


def test_the_scheme_may_change_while_it_is_read_and_print_is_light(browser: Any, address: str) -> None:
    page, noise = open_page(browser, address, color_scheme="light")
    colour = "getComputedStyle(document.querySelector('#chart-intervals-0 .legendtext')).fill"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    # The page's policy forbids evaluated strings, so the wait is here.
    for _ in range(50):
        if page.evaluate(colour) != light:
            break
        page.wait_for_timeout(100)
    assert page.evaluate(colour) != light
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    assert noise == []
    page.close()


def test_it_reads_without_javascript(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator(".verdict").inner_text().startswith("tuned is better than base")
    assert page.locator(".card").count() == 30
    context.close()
