"""The report in a real browser (Debian's chromium): drawn, silent, offline, sortable. Skipped where there is none,
but not in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.made_studies import write_study
from support.viewing import Nasty

from specdraft.report.document import compose
from specdraft.report.drill import CategoryRow, Drill, PromptRow
from specdraft.report.page import html_page
from specdraft.report.study_files import read_study, visible
from specdraft.report.words import say
from specdraft.report.writing import write_report
from specdraft.viewer.page import page as steps_page

LIGHTS = ["light", pytest.param("dark", marks=pytest.mark.slow)]
DRAWN = "body[data-drawn=yes]"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = ("<script>window.broken = 1</script>", "<img src=x onerror=broken=1>", 'a"b', "line\nbreak", "שלום", "🌳")

if BROWSER is None and os.environ.get("SPECDRAFT_CI_BROWSER") != "1":
    pytest.skip("no chromium here: the report is not tried in a browser", allow_module_level=True)

sync_api = (
    pytest.importorskip("playwright.sync_api")
    if os.environ.get("SPECDRAFT_CI_BROWSER") != "1"
    else __import__("playwright.sync_api").sync_api
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    assert BROWSER is not None, "SPECDRAFT_CI_BROWSER=1, but there is no chromium"
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trees = ("chain", "wide", "hindsight", *(f"kary-k{k}" for k in range(2, 20)), *NASTY)
    folder = write_study(
        tmp_path_factory.mktemp("browser") / "study", pairs=("zoo", NASTY[0]), trees=trees, budgets=(2, 4, 8)
    )
    write_report(folder, formats=("html",))
    return folder / "report.html"


@pytest.fixture
def heard() -> list[str]:
    """What the page said and asked for, the page itself aside."""
    return []


@pytest.fixture
def opened(browser: Any, report: Path, heard: list[str], request: pytest.FixtureRequest) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=getattr(request, "param", "light"))
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on(
        "request", lambda asked: heard.append(asked.url) if not asked.url.startswith(("file:///", "data:")) else None
    )
    page.on(
        "request",
        lambda asked: (
            heard.append(asked.url) if asked.url.startswith("file:") and not asked.url.endswith(".html") else None
        ),
    )
    page.goto(report.as_uri())
    page.wait_for_selector(DRAWN, timeout=60_000)
    yield page
    page.close()


@pytest.mark.parametrize("opened", LIGHTS, indirect=True)
def test_drawn_silent_and_offline(opened: Any, heard: list[str]) -> None:
    assert heard == []
    charts = opened.query_selector_all(".chart")
    assert len(charts) >= 8 and all(chart.query_selector("svg.marks") for chart in charts)
    assert opened.evaluate(
        "[...document.querySelectorAll('.chart svg.marks')].every((svg) => svg.querySelectorAll('path').length > 5)"
    )
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_names_are_text(opened: Any) -> None:
    assert opened.evaluate("window.broken") is None
    assert opened.query_selector("img") is None
    shown = set(
        opened.eval_on_selector_all("#figure-heat .role-axis-label text", "all => all.map((text) => text.textContent)")
    )
    assert {visible(name) for name in NASTY} <= shown


def test_first_screen(opened: Any) -> None:
    for title in ("Question", "Answer", "Confidence"):
        box = opened.get_by_role("heading", name=title, exact=True).bounding_box()
        assert box["y"] < 700


def column(opened: Any, name: str) -> list[str]:
    heads = opened.eval_on_selector_all("#table-summary th", "all => all.map((head) => head.textContent)")
    place = heads.index(name) + 1
    return list(
        opened.eval_on_selector_all(
            f"#table-summary td:nth-child({place})", "all => all.map((cell) => cell.title || cell.textContent)"
        )
    )


def test_sorting_finding_and_pages(opened: Any, report: Path) -> None:
    written = pd.read_csv(report.parent / "summary.csv")
    ordered = sorted(written["block_efficiency"])
    head = opened.locator("#table-summary th button", has_text="block_efficiency").first
    head.click()
    assert [float(text) for text in column(opened, "block_efficiency")] == ordered[:50]
    head.click()
    assert [float(text) for text in column(opened, "block_efficiency")] == ordered[::-1][:50]
    opened.locator("#table-summary .pages button[title='next page']").click()
    assert [float(text) for text in column(opened, "block_efficiency")] == ordered[::-1][50:100]
    search, said = opened.locator("#table-summary input[type=search]"), opened.locator("#table-summary .pages")
    search.fill("kary-k7")
    assert set(column(opened, "tree")) == {"kary-k7"}
    assert "6 of " in said.text_content()
    search.fill("ZOO kary-k7")  # of two pairs, both words in a row of one
    assert set(column(opened, "tree")) == {"kary-k7"} and "3 of " in said.text_content()
    search.fill("zoo nowhere")
    assert "no match" in said.text_content() and opened.locator("#table-summary tbody td.nothing").count() == 1
    search.fill("")
    assert opened.locator("#table-summary tbody tr").count() == 50


def test_numbers_are_short_and_whole_where_pointed_at(opened: Any, report: Path) -> None:
    written = pd.read_csv(report.parent / "summary.csv", dtype=str)
    cells = opened.locator("#table-summary td.number[title]")
    whole = cells.evaluate_all("all => all.map((cell) => [cell.title, cell.textContent])")
    assert whole and all(len(shown.replace(".", "").lstrip("-0")) <= 3 and shown != full for full, shown in whole)
    assert set(column(opened, "block_efficiency")) <= set(written["block_efficiency"])
    assert cells.first.evaluate("cell => getComputedStyle(cell).textAlign") == "right"


def test_first_columns_stay_and_nothing_is_cut(opened: Any) -> None:
    cut = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth)"
    opened.set_viewport_size({"width": 1440, "height": 900})
    assert opened.evaluate(f"{cut}.map((box) => box.parentElement.id)") == []
    opened.locator("#table-summary input.all").check()
    scroll, cell = opened.locator("#table-summary .scroll"), opened.locator("#table-summary tbody td").nth(1)
    before = cell.bounding_box()["x"]
    scroll.evaluate("box => { box.scrollLeft = 400; }")
    assert scroll.evaluate("box => box.scrollLeft") == 400 and cell.bounding_box()["x"] == before
    opened.set_viewport_size({"width": 390, "height": 800})
    opened.wait_for_function("document.documentElement.scrollWidth <= 390")
    assert opened.locator("#table-summary td.frozen").first.is_visible()


def test_copying(opened: Any, report: Path) -> None:
    opened.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    opened.locator("#table-winners .copy").click()
    opened.wait_for_function("window.copied")
    lines = opened.evaluate("window.copied").split("\n")
    assert (
        lines[0].startswith("setting\tnodes\tfirst")
        and len({line.count("\t") for line in lines}) == 1
        and len(lines) == 7
    )
    opened.evaluate("window.copied = ''")
    opened.locator("#table-summary .copy").click()
    opened.wait_for_function("window.copied")
    head, *rows = (line.split("\t") for line in opened.evaluate("window.copied").split("\n"))
    written = pd.read_csv(report.parent / "summary.csv", dtype=str)
    assert sorted(row[head.index("block_efficiency_lo")] for row in rows) == sorted(written["block_efficiency_lo"])


def test_a_legend_singles_out_in_all_figures(opened: Any) -> None:
    def faint(figure: str) -> int:
        return int(opened.locator(f"#figure-{figure} .mark-symbol path[opacity='0.08']").count())

    figures = ("acceptance-length", "depth")
    opened.select_option("#controls select[name=metric]", figures[0])
    assert list(map(faint, figures)) == [0, 0]
    opened.locator("#figure-acceptance-length .role-legend-symbol path").first.click()
    opened.wait_for_function("location.hash.includes('shape=')")
    opened.wait_for_selector(DRAWN)
    assert all(map(faint, figures))


def names_in(opened: Any, figure: str) -> set[str]:
    marks = f"#figure-{figure} .mark-symbol path"
    said = opened.eval_on_selector_all(marks, "all => all.map((mark) => mark.__data__?.datum?.panel ?? '')")
    return set(said) - {""}


def test_controls_choose_what_is_drawn_and_listed(opened: Any, heard: list[str]) -> None:
    controls = opened.eval_on_selector_all("#controls select", "all => all.map((one) => one.name)")
    assert controls == ["pair", "metric", "budget", "shape"]  # one drafter, one setting, no categories
    assert names_in(opened, "acceptance-length") == {"zoo", NASTY[0]}
    opened.select_option("#controls select[name=pair]", "zoo")
    opened.wait_for_selector(DRAWN)
    assert opened.evaluate("location.hash") == "#pair=zoo"
    assert names_in(opened, "acceptance-length") == {"zoo"} and set(column(opened, "pair")) == {"zoo"}
    opened.select_option("#controls select[name=budget]", "4")
    opened.wait_for_selector(DRAWN)
    assert opened.evaluate("location.hash") == "#pair=zoo&budget=4"
    assert set(column(opened, "budget")) == {"4"} and opened.locator("#table-winners tbody tr").count() == 1
    assert opened.locator("#figure-acceptance-rate").is_hidden()
    opened.select_option("#controls select[name=metric]", "acceptance-rate")
    assert (
        opened.locator("#figure-acceptance-rate").is_visible()
        and opened.locator("#figure-acceptance-length").is_hidden()
    )
    assert heard == []


def test_the_address_opens_the_same_view(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(f"{report.as_uri()}#metric=acceptance-length&shape=chain&pair=zoo&budget=nonsense")
    page.wait_for_selector(DRAWN, timeout=60_000)
    chosen = page.eval_on_selector_all("#controls select", "all => all.map((one) => one.value)")
    assert chosen == ["zoo", "acceptance-length", "", "chain"]
    for figure in ("acceptance-length", "depth"):
        assert page.locator(f"#figure-{figure} .mark-symbol path[opacity='0.08']").count() > 0
    page.get_by_role("button", name="show all").click()
    page.wait_for_function("!location.hash.includes('=')")
    assert page.eval_on_selector_all("#controls select", "all => all.map((one) => one.value)")[0] == ""
    page.close()


def test_a_number_leads_to_its_steps(browser: Any, tmp_path: Path) -> None:
    """Closed until it is asked for, in a frame of its own, silent and offline; the address opens it again."""
    rows = [
        PromptRow("a/1", 2.0, 12, 11, "typical"),
        PromptRow(NASTY[0], 3.0, 8, 16, "best"),
        PromptRow("c", 1.0, 9, 0),
    ]
    pages = {"a/1": steps_page(Nasty().shown()), NASTY[0]: steps_page(Nasty().shown())}
    shown = Drill("zoo", "0a", say("It yields {}.", "2"), [CategoryRow(NASTY[1], "2.0", rows)], pages)
    folder = write_study(tmp_path / "study")
    document = replace(compose(read_study(folder)), drills=[shown])
    (tmp_path / "report.html").write_text(html_page(document), encoding="utf-8")
    opened, heard = browser.new_page(), []
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.on("request", lambda asked: heard.append(asked.url) if not asked.url.endswith("report.html") else None)
    opened.goto((tmp_path / "report.html").as_uri())
    opened.wait_for_selector(DRAWN)
    assert opened.locator("iframe").count() == 0 and opened.locator("#prompts .open").count() == 4
    opened.get_by_role("button", name="the typical prompt").click()
    frame = opened.frame_locator("#prompts iframe")
    assert frame.locator(".where").first.text_content().startswith("step 1 of 2")
    assert opened.locator("#prompts [aria-expanded=true]").count() == 2
    opened.get_by_role("button", name="the best prompt").click()
    opened.wait_for_function("location.hash.includes('script')")
    frame.locator(".node").first.wait_for()
    opened.goto("about:blank")
    opened.go_back()
    opened.frame_locator("#prompts iframe").locator(".node").first.wait_for()
    assert opened.locator("#prompts [aria-expanded=true]").first.text_content().startswith("the best prompt")
    opened.locator("#prompts [aria-expanded=true]").first.click()
    assert opened.locator("iframe").count() == 0 and "steps" not in opened.evaluate("location.hash")
    assert [text for text in heard if "about:" not in text] == []
    opened.close()


@pytest.mark.parametrize("opened", LIGHTS, indirect=True)
def test_nothing_serious_for_keyboards_and_screen_readers(opened: Any) -> None:
    """axe-core's rules, whole page, a table's cells and all."""
    name = "axe_playwright_python.sync_playwright"
    axe = import_module(name) if os.environ.get("SPECDRAFT_CI_BROWSER") == "1" else pytest.importorskip(name)
    found = axe.Axe().run(opened).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []


def test_printed(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.locator("nav").is_visible() and not opened.locator("#table-summary .tools").is_visible()
    assert opened.pdf(format="A4")[:4] == b"%PDF"


def test_dark_text_can_be_read(browser: Any, report: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    page.wait_for_selector(DRAWN)
    axis = page.evaluate("getComputedStyle(document.querySelector('#figure-heat .role-axis-label text')).fill")
    assert axis == page.evaluate("getComputedStyle(document.body).color") == "rgb(236, 236, 236)"
    page.close()
