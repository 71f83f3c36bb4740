"""The pages in a real browser. Without one these tests are skipped, with SPECDRAFT_CI_BROWSER=1 they fail then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.viewing import NASTY, STUDY, Nasty

from specdraft.trees.tokens import token_text
from specdraft.viewer.heat import heat_page, heat_trees
from specdraft.viewer.page import page
from specdraft.viewer.steps import Shown

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def missing(what: str) -> None:
    if os.environ.get("SPECDRAFT_CI_BROWSER") == "1":
        pytest.fail(f"{what}, and SPECDRAFT_CI_BROWSER=1 wants the browser tests")
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing("no browser is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.tab = browser.new_page(viewport={"width": 1200, "height": 850}, **options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.as_uri())
        self.address = path.as_uri()

    def clean(self) -> bool:
        return self.said == [] and self.asked == [self.address]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_steps(browser: Any, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "steps.html").write_text(page(Nasty().shown()), encoding="utf-8")
    opened = Opened(browser, tmp_path / "steps.html", color_scheme=scheme)
    tab = opened.tab
    assert tab.locator(".where").text_content() == "step 1 of 2: 2 of 3 levels accepted"
    assert tab.locator(".tree .node").count() == 8
    assert [tab.locator(f".tree .node.{state}").count() for state in ("root", "accepted", "rejected", "unused")] == [
        1,
        2,
        5,
        0,
    ]
    assert tab.locator(".tree .node .bonus").count() == 1
    assert tab.locator(".tree .edge.best").count() == len(next(Nasty().steps()).best_path)
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".where").text_content().startswith("step 2 of 2")
    tab.keyboard.press("ArrowRight")
    tab.locator("#step").evaluate("slider => { slider.value = '1'; slider.dispatchEvent(new Event('input')); }")
    assert tab.locator(".where").text_content().startswith("step 1 of 2")
    before = tab.locator(".tree").get_attribute("viewBox")
    tab.keyboard.press("+")
    assert tab.locator(".tree").get_attribute("viewBox") != before
    tab.keyboard.press("0")
    tab.locator(".tree .node.accepted").first.hover()
    rows = dict(
        zip(tab.locator("#tip th").all_text_contents(), tab.locator("#tip td").all_text_contents(), strict=True)
    )
    assert rows["token id"] == "1"
    assert rows["text"] == token_text(NASTY[1], None)
    assert rows["draft probability"] == "0.50000"
    assert rows["log-probability"] == rows["cumulative log-probability"] == "-0.69315"
    assert rows["target probability"] == "0.50000"
    words = tab.locator(".rows tr td:nth-child(3)").all_text_contents()
    assert words == [token_text(NASTY[node], None) for node in range(8)]
    assert tab.locator("script").count() == 2
    assert opened.clean(), (opened.said, opened.asked)
    assert len(tab.pdf()) > 1000


def nasty_page(path: Path, *shown: Shown) -> Path:
    path.write_text(page(*shown), encoding="utf-8")
    return path


def test_phases(browser: Any, tmp_path: Path) -> None:
    """Each phase shows what it finds out, and nothing of the next."""
    opened = Opened(browser, nasty_page(tmp_path / "p.html", Nasty().shown()))
    tab = opened.tab
    counts = []
    for key in "1234":
        tab.keyboard.press(key)
        texts = [tab.locator(".tree").text_content().count(mark) for mark in ("target 0", "\u2713", "\u25c6")]
        counts.append([tab.locator(".node.proposed").count(), *texts, tab.locator(".story li:not(.later)").count()])
    assert counts == [[7, 0, 0, 0, 1], [7, 7, 0, 0, 2], [0, 7, 2, 0, 3], [0, 7, 2, 1, 4]]
    assert tab.locator(".why").text_content().startswith("bonus: the target's own next token")
    assert tab.locator("[data-phase='3']").get_attribute("aria-pressed") == "true"
    assert tab.locator(".count").text_content() == "3.00 tokens per pass so far"
    tab.locator("[data-phase='0']").click()
    assert tab.locator(".count").text_content() == ""  # no pass is over yet
    assert tab.locator(".text .here.later").count() == 3
    tab.keyboard.press(",")
    assert tab.locator(".where").text_content().startswith("step 1 of 2")
    for _ in range(4):
        tab.keyboard.press(".")
    assert tab.locator(".where").text_content().startswith("step 2 of 2")
    assert tab.locator(".why").text_content().startswith("draft: ")
    assert opened.clean(), opened.said


def test_play(browser: Any, tmp_path: Path) -> None:
    path = nasty_page(tmp_path / "p.html", Nasty().shown())
    tab = Opened(browser, path).tab
    tab.clock.install()
    tab.reload()
    tab.keyboard.press("p")
    assert tab.locator("#play").text_content().endswith("pause")
    assert tab.locator(".why").text_content().startswith("draft: ")
    tab.clock.run_for(1500)
    assert tab.locator(".why").text_content().startswith("verify: ")
    tab.clock.run_for(15_000)
    assert tab.locator("#play").text_content().endswith("play")
    assert tab.locator(".where").text_content().startswith("step 2 of 2")
    tab.locator("#play").click()  # from the end: over again
    assert tab.locator(".where").text_content().startswith("step 1 of 2")
    tab.keyboard.press("ArrowRight")  # whoever steps by hand stops it
    assert tab.locator("#play").text_content().endswith("play")


def test_nothing_moves_by_itself_where_that_is_not_wanted(browser: Any, tmp_path: Path) -> None:
    tab = Opened(browser, nasty_page(tmp_path / "p.html", Nasty().shown()), reduced_motion="reduce").tab
    tab.clock.install()
    tab.reload()
    assert tab.locator("#play").text_content() == "next phase"
    tab.locator("#play").click()
    tab.clock.run_for(10_000)
    assert tab.locator(".why").text_content().startswith("draft: ")


def test_two_trees_in_step(browser: Any, tmp_path: Path) -> None:
    """One steps 3 + 3 tokens, the other 1 + 1 + 4: the stops are where one of them starts."""
    whole = Nasty().shown()
    small = [replace(whole.steps[0], accepted=[], bonus=1), replace(whole.steps[0], accepted=[], bonus=4)]
    other = replace(
        whole, steps=[*small, replace(whole.steps[0], accepted=[], bonus=9), whole.steps[1]], about={"tree": "b"}
    )
    opened = Opened(browser, nasty_page(tmp_path / "p.html", whole, other))
    tab, seen = opened.tab, []
    for _ in range(4):
        seen.append([text.split(" of ")[0] for text in tab.locator(".where").all_text_contents()])
        tab.keyboard.press("ArrowRight")
    assert seen == [["step 1", "step 1"], ["step 1", "step 2"], ["step 1", "step 3"], ["step 2", "step 4"]]
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("1")  # the first tree's step began earlier: it stays finished
    assert [text.split(":")[0] for text in tab.locator(".why").all_text_contents()] == ["bonus", "draft"]
    boxes = [tab.locator(".tree").nth(place).bounding_box() for place in (0, 1)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert opened.clean(), opened.said


def test_a_narrow_page_has_root_and_leaves_in_view(browser: Any, tmp_path: Path) -> None:
    path = nasty_page(tmp_path / "p.html", Nasty().shown())
    tab = browser.new_page(viewport={"width": 390, "height": 850})
    tab.goto(path.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    stage = tab.locator(".tree").bounding_box()
    boxes = [tab.locator("g.node").nth(node).bounding_box() for node in range(8)]
    assert all(stage["x"] <= box["x"] and box["x"] + box["width"] <= stage["x"] + stage["width"] for box in boxes)
    assert [round((box["x"] - boxes[0]["x"]) / 24) for box in boxes] == [0, 1, 1, 1, 2, 2, 3, 3]
    assert all(box["width"] >= 150 for box in boxes)  # not shrunk
    tab.set_viewport_size({"width": 1200, "height": 850})
    tops = "[...document.querySelectorAll('g.node')].slice(0, 2).map(node => node.getBoundingClientRect().y)"
    tab.wait_for_function(f"() => {{ const [root, child] = {tops}; return root > child; }}")  # amid its children again


def test_no_step(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.html").write_text(page(Shown({"tree": "t"}, [], "", 3, [], Nasty().word)), encoding="utf-8")
    opened = Opened(browser, tmp_path / "empty.html")
    assert opened.tab.locator(".where").text_content().startswith("No verification step")
    assert not opened.tab.locator("#play").is_visible()
    assert opened.clean()


def test_heat(browser: Any, tmp_path: Path) -> None:
    heats = heat_trees(STUDY, "kary", 16)
    (tmp_path / "heat.html").write_text(heat_page(heats), encoding="utf-8")
    opened = Opened(browser, tmp_path / "heat.html")
    tab = opened.tab
    assert tab.locator(".tree .node").count() == 17
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#where").text_content() == f"{heats[1].title}: {heats[1].worth}"
    tab.locator(".tree .node").nth(1).hover()
    assert f"{heats[1].weights[1]:.5f}" in tab.locator("#tip").text_content()
    assert opened.clean(), (opened.said, opened.asked)
