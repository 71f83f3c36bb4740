"""The notebook ships executed, and runs from top to bottom on the reference study to the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "scripts" / "study_walkthrough.ipynb"
CHARTS = 4


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(notebook: Any) -> list[str]:
    """What cells printed, and the text of the tables that they show."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
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
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}}).execute()
    assert said(notebook) == said(shipped)
    assert sum(is_chart(output) for cell in code_cells(notebook) for output in cell.outputs) == CHARTS
