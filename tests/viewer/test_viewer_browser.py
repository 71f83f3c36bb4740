"""The pages in a real browser. Without one these tests are skipped, with SPECDRAFT_CI_BROWSER=1 they fail then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
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
    assert tab.locator("#where").text_content() == "step 1 of 2: 2 of 3 levels accepted"
    assert tab.locator("#tree .node").count() == 8
    assert [tab.locator(f"#tree .node.{state}").count() for state in ("root", "accepted", "rejected", "unused")] == [
        1,
        2,
        5,
        0,
    ]
    assert tab.locator("#tree .node .bonus").count() == 1
    assert tab.locator("#tree .edge.best").count() == len(next(Nasty().steps()).best_path)
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#where").text_content().startswith("step 2 of 2")
    tab.keyboard.press("ArrowRight")
    tab.locator("#step").evaluate("slider => { slider.value = '1'; slider.dispatchEvent(new Event('input')); }")
    assert tab.locator("#where").text_content().startswith("step 1 of 2")
    before = tab.locator("#tree").get_attribute("viewBox")
    tab.keyboard.press("+")
    assert tab.locator("#tree").get_attribute("viewBox") != before
    tab.keyboard.press("0")
    tab.locator("#tree .node.accepted").first.hover()
    rows = dict(
        zip(tab.locator("#tip th").all_text_contents(), tab.locator("#tip td").all_text_contents(), strict=True)
    )
    assert rows["token id"] == "1"
    assert rows["text"] == token_text(NASTY[1], None)
    assert rows["draft probability"] == "0.50000"
    assert rows["log-probability"] == rows["cumulative log-probability"] == "-0.69315"
    assert rows["target probability"] == "0.50000"
    words = tab.locator("#rows tr td:nth-child(3)").all_text_contents()
    assert words == [token_text(NASTY[node], None) for node in range(8)]
    assert tab.locator("script").count() == 2
    assert opened.clean(), (opened.said, opened.asked)
    assert len(tab.pdf()) > 1000


def test_no_step(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.html").write_text(page(Shown({"tree": "t"}, [], "", 3, [], Nasty().word)), encoding="utf-8")
    opened = Opened(browser, tmp_path / "empty.html")
    assert opened.tab.locator("#why").text_content().startswith("No verification step")
    assert opened.clean()


def test_heat(browser: Any, tmp_path: Path) -> None:
    heats = heat_trees(STUDY, "kary", 16)
    (tmp_path / "heat.html").write_text(heat_page(heats), encoding="utf-8")
    opened = Opened(browser, tmp_path / "heat.html")
    tab = opened.tab
    assert tab.locator("#tree .node").count() == 17
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#where").text_content() == f"{heats[1].title}: {heats[1].worth}"
    tab.locator("#tree .node").nth(1).hover()
    assert f"{heats[1].weights[1]:.5f}" in tab.locator("#tip").text_content()
    assert opened.clean(), (opened.said, opened.asked)
