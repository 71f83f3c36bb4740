"""`specdraft compare` from the command line: the table, the page, the file; and what it says to a wrong folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from support.command_line import Run, one_line
from support.sides import made_side, write_side

from specdraft.results.side_by_side import METRICS, VERDICTS

TREES = {"chain": 0.3, "kary": 0.4, "wide": 0.2}
Folders = tuple[Path, Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    a = write_side(made_side("before", TREES), tmp_path / "one")
    b = write_side(made_side("[after]", {"chain": 0.35, "kary": 0.3, "beam": 0.3}, live=False), tmp_path / "two")
    return a, b


def test_what_is_printed_and_written(run: Run, folders: Folders, tmp_path: Path) -> None:
    said = run("compare", *folders, "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, ""), said
    assert "a: before\nb: [after]" in said.out
    assert re.search(r"metric +better +worse +new +gone +by chance", said.out)
    assert re.search(r"block_efficiency +1 +1 +1 +1 +0", said.out)
    assert re.search(r"chain +4 +2\.\d\d +2\.\d\d +\+0\.2\d+ \[0\.\d+, 0\.\d+\] +better", said.out)
    page, table = (tmp_path / "out" / name for name in ("comparison.html", "comparison.csv"))
    assert said.out.endswith(f"{page}\n{table}\n")
    rows = pd.read_csv(table)
    assert set(rows["verdict"]) <= set(VERDICTS) and set(rows["metric"]) == set(METRICS[:3])
    assert rows.duplicated(["tree", "budget", "metric"]).sum() == 0 and len(rows) == 4 * 3


def test_the_page(run: Run, folders: Folders, tmp_path: Path) -> None:
    """Every table that a figure names is there, and every row of the file."""
    assert run("compare", *folders, "--out", tmp_path).code == 0
    html = (tmp_path / "comparison.html").read_text()
    held = {name: json.loads(re.search(rf'id="{name}">(.*?)</script>', html)[1]) for name in ("datasets", "specs")}  # type: ignore[index]
    assert set(re.findall(r'"name": "(block_efficiency[\w-]*)"', json.dumps(held["specs"]))) <= set(held["datasets"])
    assert all("datasets" not in spec for spec in held["specs"].values())
    assert held["datasets"]["block_efficiency"]["verdict"] == ["better", "worse"]
    assert "What changed from one study to the other?" in html and "<code><bdi>[after]</bdi></code>" in html
    assert html.count("within noise") and html.count("<td><bdi>gone</bdi></td>") == 3


def test_for_programs(run: Run, folders: Folders, tmp_path: Path) -> None:
    said = run("compare", *folders, "--out", tmp_path, "--json")
    told = json.loads(said.out)
    assert (said.code, told["common"], told["shared_prompts"]) == (0, 2, 20)
    assert told["counts"]["block_efficiency"] == dict(zip(VERDICTS, (1, 1, 0, 0, 1, 1), strict=True))
    assert len(told["rows"]) == 12 and told["rows"][0]["how"] == "paired"


def test_other_keys(run: Run, folders: Folders, tmp_path: Path) -> None:
    other = write_side(made_side("other", TREES, dtype="bfloat16"), tmp_path / "other")
    line = one_line(run("compare", folders[0], other, "--out", tmp_path))
    assert "have no combination in common (dtype: same and bfloat16); --across dtype" in line
    assert run("compare", folders[0], other, "--across", "dtype", "--out", tmp_path).code == 0
    assert "did you mean 'dtype'" in one_line(run("compare", folders[0], other, "--across", "dtyp"))


def test_wrong_folders(run: Run, folders: Folders, tmp_path: Path) -> None:
    a, b = folders
    assert "no such folder" in one_line(run("compare", a, tmp_path / "none"))
    assert "holds no study" in one_line(run("compare", a, tmp_path))
    assert "are the same folder" in one_line(run("compare", a, a.parent / "one"))
    (b / "summary.csv").write_text('pair,"tree\n')
    out = tmp_path / "out"
    assert "summary.csv: cannot be read as a table" in one_line(run("compare", a, b, "--out", out))
    assert not out.exists()
