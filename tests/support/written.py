"""A study's rows as its folder keeps them, one by one: those of the journal and those that were replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specdraft.results.counted import REPLAYED
from specdraft.results.journal import Row, read_rows
from specdraft.results.metrics import Tally
from specdraft.results.parts import Parts, ReplayedRows, to_table


def rows_in(out: Path) -> list[Row]:
    """Every row of a study's folder; those of parts without their details."""
    parts = Parts(out / "parts")
    assert parts.damaged == {}
    return [*_listed(parts.read(parts)), *(read_rows(out / "journal.jsonl") if out.is_dir() else ())]


def replayed_rows(replayed: list[ReplayedRows]) -> list[Row]:
    """What an engine says, row by row."""
    return _listed(to_table(replayed))


def _listed(lines: Any) -> list[Row]:
    rows = []
    for line in lines.to_pylist():
        for place, (prompt_id, category) in enumerate(zip(line["prompt_id"], line["category"], strict=True)):
            counted = Tally(**{name: line[name][place] for name in REPLAYED})
            rows.append(Row(line["combination"], tuple(line["weights"]), prompt_id, category, line["repeat"], counted))
    return rows
