"""A benchmark of methods (`specdraft bench methods`) as one side of a comparison: a method stands where a study has a
tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.errors import ResultsError
from specdraft.results.study_tables import TEXT, read_csv
from specdraft.results.summary import RATIOS_WITH_ENDS, SUMS
from specdraft.results.tables import COMBINATION_KEYS, EARLIER_KEYS

FILE, SUMMARY = "benchmark_results.json", "summary.csv"
ALL_TEXTS = "all"
FACTS = ("pair", "target", "dtype", "prompts", "max_new_tokens")
NOTE = "a benchmark of methods: the column tree names the method; prompts have no digests there"
USUAL = dict.fromkeys(COMBINATION_KEYS, 0) | dict.fromkeys(set(COMBINATION_KEYS) & TEXT, "") | EARLIER_KEYS


def read_methods(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Its summary with a study's columns, texts that loop among them, and what a study's manifest would say.

    Raises:
        ResultsError: it cannot be read.
    """
    facts = _facts(folder / FILE)
    table = read_csv(folder / SUMMARY)
    numbers = [name for name in (*SUMS, *RATIOS_WITH_ENDS) if name in table]
    if missing := {"method", "texts", "block_efficiency", "speedup"} - set(table):
        raise ResultsError(f"{folder / SUMMARY}: has no column {', '.join(sorted(missing))}")
    table = table[table["texts"] == ALL_TEXTS].reset_index(drop=True)
    keys = {name: facts.get(name, USUAL[name]) for name in FACTS}
    summary = table[numbers].astype(float).reindex(columns=[*SUMS, *RATIOS_WITH_ENDS])
    named = pd.DataFrame(USUAL | keys | {"engine": "live"}, index=table.index).assign(tree=table["method"])
    manifest = {"study": {"name": folder.resolve().name}, "prompts": facts.get("prompt_count")}
    environment = facts.get("environment")
    manifest |= environment if isinstance(environment, dict) else {}
    return pd.concat([named, summary], axis=1), manifest | {"models": facts.get("models")}


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: cannot be read; expected what `specdraft bench methods` wrote") from error
    if not isinstance(facts, dict):
        raise ResultsError(f"{path}: expected what `specdraft bench methods` wrote")
    return facts
