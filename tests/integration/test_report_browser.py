"""The report in a real browser: drawn, silent, offline, without overflow, and usable."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lengthwise.report import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)"
)
UNIT = Path(__file__).parents[1] / "unit"
write_runs = runpy.run_path(str(UNIT / "report_runs.py"))["write_runs"]


def write_reasoning(*args: Any, **options: Any) -> Path:
    """Write an evaluation as the unit tests do."""
    sys.path.insert(0, str(UNIT))  # it imports its neighbour
    try:
        return runpy.run_path(str(UNIT / "report_reasoning.py"))["write_reasoning"](*args, **options)
    finally:
        sys.path.remove(str(UNIT))


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


def open_page(browser: Any, address: str, *, fragment: str = "", **options: Any) -> tuple[Any, list[str]]:
    """Return the drawn page and the list that collects whatever it complains of or asks for."""
    page = browser.new_page(**options)
    noise: list[str] = []
    page.on("console", lambda message: noise.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    page.on("request", lambda request: noise.append(request.url) if request.url != address else None)
    page.goto(address + fragment)
    page.wait_for_selector("#sample-count:not(:empty)")
    return page, noise


def shown(page: Any) -> list[str]:
    """Return the ids of the samples that are shown, in order."""
    return page.eval_on_selector_all(".card:not([hidden]) .card-id", "ids => ids.map((id) => id.textContent)")


def facts(page: Any, run: str, key: str) -> list[float]:
    """Return a number of each shown sample, in order."""
    return page.eval_on_selector_all(
        ".card:not([hidden])",
        f"cards => cards.map((c) => JSON.parse(c.dataset.facts).runs['{run}'].{key})",
    )


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_it_is_silent_and_nothing_overflows(
    browser: Any, address: str, width: int, scheme: str, tmp_path: Path
) -> None:
    page, noise = open_page(browser, address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    charts = page.locator("svg.chart")
    # Two scatters, lengths of all texts, lengths and sections of the build, the loss.
    assert charts.count() == 6
    assert all(charts.nth(i).bounding_box()["width"] > 250 for i in range(6))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = "(s) => s.getBoundingClientRect().width / s.viewBox.baseVal.width * 12"
    assert all(charts.nth(i).evaluate(sizes) >= 10 for i in range(6)), "text of 12 units is too small to read"
    ids = page.eval_on_selector_all("[id]", "all => all.map((e) => e.id)")
    assert len(ids) == len(set(ids))
    assert "is better than base" in page.title()
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert noise == []
    page.close()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a page of twelve runs, two of them with token budgets."""
    root = tmp_path_factory.mktemp("crowded")
    names = [f"model-{i}" for i in range(9)] + ["a-model-whose-name-goes-on-and-on-7b-instruct"]
    folders = [
        write_reasoning(root / name, skill=0.3 + i / 20, tokens=200 * (i + 1), seed=i)
        for i, name in enumerate(names)
    ]
    folders += [
        write_reasoning(root / name, skill=0.6, tokens=0, budgets=(512, 1024, 3600), seed=7, num_items=30)
        for name in ("l1-a", "l1-b")
    ]
    assert main([*map(str, folders), "--output", str(root / "report.html")]) == 0
    return (root / "report.html").as_uri()


@pytest.mark.parametrize("width", [1280, 390])
def test_many_runs_fit(browser: Any, crowded: str, width: int) -> None:
    page, noise = open_page(browser, crowded, viewport={"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if width == 1280:
        cut = "(all) => all.filter((e) => e.parentElement.clientWidth < e.scrollWidth).length"
        assert page.eval_on_selector_all("table.scores, table.scoreboard, table.accounts", cut) == 0
    assert page.locator("#cost svg.chart").bounding_box()["width"] > 250
    assert page.locator("#cost .key li").count() == 12
    assert noise == []
    page.close()


def test_every_chart_has_a_text_for_those_who_cannot_see_it(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address)
    labels = page.eval_on_selector_all(
        "svg.chart", "charts => charts.map((c) => c.getAttribute('aria-label'))"
    )
    assert all(len(label) > 40 for label in labels)
    assert any("30 replies" in label for label in labels)
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
    assert len(shown(page)) == 30
    page.fill("[name=q]", "lbw-007")
    page.wait_for_selector("#sample-count:text-is('1 of 30 shown')")
    page.fill("[name=q]", "no such words anywhere")
    page.wait_for_selector("#sample-none:visible")
    page.click("#sample-tools button")
    page.wait_for_selector("#sample-count:text-is('30 of 30 shown')")
    page.select_option("[name=flag]", "truncated")
    page.wait_for_selector("#sample-count:text-is('4 of 30 shown')")
    page.select_option("[name=run]", "run-1")
    page.wait_for_selector("#sample-none:visible")
    page.select_option("[name=flag]", "")
    page.select_option("[name='slice.language']", "zh")
    page.wait_for_selector("#sample-count:text-is('1 of 30 shown')")
    assert shown(page) == ["lbw-006"]
    page.close()


@pytest.mark.parametrize(
    ("sort", "run", "key", "down"),
    [
        ("worst", "run-2", "score", False),
        ("rose", "run-2", "change", True),
        ("fell", "run-2", "change", False),
        ("longest", "run-1", "length", True),
    ],
)
def test_orders(browser: Any, address: str, sort: str, run: str, key: str, down: bool) -> None:
    page, _ = open_page(browser, address, fragment=f"#samples?run={run}&sort={sort}")
    values = facts(page, run, key)
    assert len(set(values)) > 10
    assert values == sorted(values, reverse=down)
    page.close()


def test_the_largest_difference_comes_first(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address, fragment="#samples?sort=change")
    changes = [abs(v) for v in facts(page, "run-2", "change")]
    assert changes == sorted(changes, reverse=True)
    page.close()


def test_a_number_leads_to_its_samples_and_the_address_can_be_shared(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address)
    page.click(".accounts a[href*='run=run-2&flag=truncated']")
    page.wait_for_selector("#sample-count:text-is('4 of 30 shown')")
    assert page.input_value("[name=flag]") == "truncated"
    page.select_option("[name=sort]", "worst")
    page.wait_for_timeout(300)
    first, link = shown(page), page.url
    assert "flag=truncated" in link and "sort=worst" in link
    again, _ = open_page(browser, address, fragment=link[link.index("#") :])
    assert shown(again) == first
    again.close()
    page.close()


def test_a_slice_leads_to_its_samples(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address)
    page.click(".slices th a:text-is('[0,500)')")
    page.wait_for_selector("#sample-count:text-is('10 of 30 shown')")
    assert page.evaluate("document.getElementById('samples').getBoundingClientRect().top < 200")
    page.close()


def test_a_point_leads_to_its_sample_past_a_filter(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address, fragment="#samples?flag=empty")
    point = page.locator("svg.chart a").first
    target = point.get_attribute("href")
    assert page.locator(f".card{target}").is_hidden()
    point.locator("use").first.click(force=True)
    page.wait_for_selector(f".card{target}[open]:visible")
    assert page.evaluate("document.activeElement.parentElement.id") == target[1:]
    page.close()


def test_the_keyboard_reaches_and_opens_a_sample(browser: Any, address: str) -> None:
    page, _ = open_page(browser, address)
    page.focus("#sample-tools button")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".card[open]").count() == 1
    page.close()


def test_print_is_light_whole_and_without_controls(browser: Any, address: str) -> None:
    page, noise = open_page(browser, address, color_scheme="dark", viewport={"width": 690, "height": 900})
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#sample-tools").is_hidden()
    assert page.locator(".toc").is_hidden()
    assert page.locator(".card:visible").count() == 0
    beyond = "(e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth"
    assert page.evaluate(f"[...document.querySelectorAll('svg.chart, table')].filter({beyond}).length") == 0
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    assert noise == []
    page.close()


def test_it_reads_without_javascript(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator(".verdict").inner_text().startswith("tuned is better than base")
    assert page.locator(".card").count() == 30
    assert page.locator("svg.chart").count() == 6
    context.close()
