"""The notebooks ship executed and run from top to bottom: the walk on a study, the course report on a pair."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "scripts" / "study_walkthrough.ipynb"
CHARTS = 4
COURSE = ROOT / "scripts" / "colab_t4.ipynb"
SMALL = '"prompts.limit=5", "max_new_tokens=8", "cost.measure=off", "certify=false"'


def executed(notebook: Any, folder: Path) -> Any:
    """The notebook with its outputs, none of which is an error."""
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    return notebook


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(notebook: Any) -> list[str]:
    """What cells printed, and the text of the tables that they show."""
    every = [output for cell in code_cells(notebook) for output in cell.outputs]
    outputs = [output for output in every if output.get("name") != "stderr"]  # libraries warn of what a machine lacks
    return [output.get("text") or output.data.get("text/plain") for output in outputs if not is_chart(output)]


def is_chart(output: Any) -> bool:
    return "image/png" in output.get("data", {})


def test_it_ships_executed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = code_cells(notebook)
    assert all(cell.outputs for cell in cells)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for cell in cells for output in cell.outputs} == {"stream", "execute_result"}
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)
    assert sum(is_chart(output) for cell in cells for output in cell.outputs) == CHARTS
    assert NOTEBOOK.stat().st_size < 1_000_000


def test_it_asks_before_it_tells() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    asked = [place for place, cell in enumerate(notebook.cells) if "guess.**" in cell.source]
    assert len(asked) == 4
    assert all(notebook.cells[place + 1].cell_type == "code" for place in asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that run it
def test_it_runs() -> None:
    shipped = nbformat.read(NOTEBOOK, as_version=4)
    notebook = executed(nbformat.read(NOTEBOOK, as_version=4), ROOT)
    assert said(notebook) == said(shipped)
    assert sum(is_chart(output) for cell in code_cells(notebook) for output in cell.outputs) == CHARTS


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_the_course_report_runs_on_a_bundled_pair(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("reproduce_course_report.sh", "course_report.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    notebook = nbformat.read(COURSE, as_version=4)
    (given,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    given.source = re.sub(r"OVERRIDES = \[.*?\]", f"OVERRIDES = [{SMALL}]", given.source).replace('"zoo"', '"zoo-tiny"')
    said = "".join(output.get("text", "") for output in outputs(executed(notebook, tmp_path)))
    assert "estimate: llama2-7b-4bit-160m: weights" in said
    assert (tmp_path / "results" / "course-report" / "course-report.html").stat().st_size > 100_000


def test_the_course_report_ships_executed() -> None:
    notebook = nbformat.read(COURSE, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert sum(bool(cell.outputs) for cell in code) >= len(code) - 2  # all but the parameters and the preparations
    assert COURSE.stat().st_size < 1_000_000
