"""Several studies on one page: nothing of any of them is lost, and each keeps its name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.command_line import Run, one_line
from support.made_studies import write_study

from specdraft.report.document import compose
from specdraft.report.several import compose_several, merged
from specdraft.report.study_files import read_study
from specdraft.report.table import Table
from specdraft.report.words import plain


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("several")
    first = write_study(home / "first", pairs=("zoo", "zoo-tiny"))
    return [first, write_study(home / "[second]", trees=("chain", "wide"), prompts=4, live=True)]


def test_each_study_answers(folders: list[Path]) -> None:
    studies = [read_study(folder) for folder in folders]
    document = compose_several(studies)
    own = {study.name: compose(study, figures=False) for study in studies}
    said = [plain(text) for text in document.answer]
    assert said[1:] == [f"{name}: {plain(text)}" for name, one in own.items() for text in one.answer]
    summary = next(table for table in document.tables if table.name == "all-summary")
    rows = {name: next(table for table in one.tables if table.name == "summary") for name, one in own.items()}
    assert [row[0] for row in summary.rows] == [name for name, table in rows.items() for _ in table.rows]
    for name, table in rows.items():
        at = [summary.columns.index(column) for column in table.columns]
        assert [tuple(row[i] for i in at) for row in summary.rows if row[0] == name] == list(table.rows)
    assert len(document.run) == sum(len(one.run) for one in own.values())
    assert [plain(gap) for gap in document.gaps] == [f"{n}: {plain(gap)}" for n, one in own.items() for gap in one.gaps]
    drawn = document.drawn.datasets["studies"]
    assert list(dict.fromkeys(drawn["line"])) == ["first · zoo", "first · zoo-tiny", "[second] · zoo"]


def test_a_column_that_one_study_lacks_is_empty() -> None:
    a = Table("t", "T", ("x", "y"), [("1", "2")], brief=("x",))
    b = Table("t", "T", ("y", "z"), [("3", "4")], brief=("z",))
    table = merged({"a": a, "b": b})
    assert (table.columns, table.brief) == (("study", "x", "y", "z"), ("study", "x", "z"))
    assert table.rows == [("a", "1", "2", ""), ("b", "", "3", "4")]


def test_from_the_command_line(run: Run, folders: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("report", *folders, "--out", page).code == 0
    html = page.read_text()
    assert "in each of several studies?" in html and html.count("<bdi>[second]</bdi></td>") > 4
    found = re.search(r'id="datasets">(.*?)</script>', html)
    assert found is not None and set(json.loads(found[1])) == {"studies"}
    text = tmp_path / "page.md"
    assert run("report", *folders, "--out", text).code == 0
    assert text.read_text().startswith("# Which draft tree gets the most tokens accepted, in each of several studies?")
    assert not any((folder / "report.html").exists() for folder in folders)  # their own pages are their own


def test_what_cannot_be_written(run: Run, folders: list[Path], tmp_path: Path) -> None:
    assert "needs --out PAGE.html" in one_line(run("report", *folders))
    assert "are the same folder" in one_line(run("report", folders[0], folders[0], "--out", tmp_path / "p.html"))
    assert "ends in .html or .md" in one_line(run("report", *folders, "--out", tmp_path / "p.pdf"))
    assert "--format is for one study" in one_line(run("report", *folders, "--format", "png"))
    assert "holds no results" in one_line(run("report", folders[0], tmp_path, "--out", tmp_path / "p.html"))
    assert list(tmp_path.iterdir()) == []
