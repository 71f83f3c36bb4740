"""From rows to tables: what each result file holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from specdraft.results.files import rank_path_text
from specdraft.results.journal import Row
from specdraft.results.metrics import HELPERS, add_ratios
from specdraft.results.summary import SUMS, summarise
from specdraft.trees.topology import RankPath

SCHEMA = 2
KEYS = ["combination", "pair", "target", "draft", "drafter", "dtype", "tree", "budget", "nodes", "depth", "acceptance",
        "temperature", "top_k", "top_p", "max_new_tokens", "prompts", "prompt_id", "category", "repeat", "seed",
        "engine"]  # fmt: skip
COMBINATION_KEYS = [key for key in KEYS if key not in ("prompt_id", "category", "repeat")]
DETAIL_KEYS = ["combination", "pair", "drafter", "tree", "budget", "acceptance", "temperature", "engine"]
DETAILS = {  # file -> its own columns, after DETAIL_KEYS
    "lengths.csv": ["acceptance_length", "steps"],
    "positions.csv": ["depth", "reached", "accepted"],
    "nodes.csv": ["rank_path", "reached", "accepted", "mean_weight"],
    "steps.csv": ["prompt_id", "repeat", "step", "drafted_tokens", "accepted_tokens", "bonus_tokens", "cut"],
}


def build_tables(
    rows: Iterable[Row], combinations: Mapping[str, Mapping[str, Any]], seed: int
) -> dict[str, pd.DataFrame]:
    """File name -> table, for rows of any number of combinations."""
    place = {name: index for index, name in enumerate(combinations)}
    rows = sorted(rows, key=lambda row: (place[row.combination], row.repeat))
    records = records_table(rows, combinations)
    tables = {
        "records.csv": records.drop(columns=list(HELPERS)),
        "summary.csv": summarise(records, COMBINATION_KEYS, seed),
        "by_category.csv": summarise(records, [*COMBINATION_KEYS, "category"], seed),
    }
    details: dict[str, list[dict[str, Any]]] = {file: [] for file in DETAILS}
    for name, group in groupby(rows, key=lambda row: row.combination):
        keys = {key: combinations[name][key] for key in DETAIL_KEYS}
        for file, entries in _details(list(group)).items():
            details[file] += [keys | values for values in entries]
    for file, columns in DETAILS.items():
        if details[file] or file != "steps.csv":
            tables[file] = pd.DataFrame(details[file], columns=[*DETAIL_KEYS, *columns])
    return tables


def _details(rows: list[Row]) -> dict[str, list[dict[str, Any]]]:
    """The detail tables' rows of one combination."""
    tallies = [row.tally for row in rows]
    drafted: Counter[RankPath] = Counter()  # steps whose tree holds the node: fitted trees differ between prompts
    known = {path for tally in tallies for path in tally.nodes}
    for tally in tallies:  # a dynamic tree could hold any node in any step
        drafted.update(dict.fromkeys(known if tally.dynamic else tally.nodes, tally.steps))
    lengths = sum((t.lengths for t in tallies), Counter[int]())
    nodes = sorted(_add(t.nodes for t in tallies).items(), key=lambda item: (len(item[0]), item[0]))
    return {
        "lengths.csv": [{"acceptance_length": a, "steps": n} for a, n in sorted(lengths.items())],
        "positions.csv": [
            {"depth": d, "reached": r, "accepted": a}
            for d, (r, a) in sorted(_add(t.positions for t in tallies).items())
        ],
        "nodes.csv": [
            {"rank_path": rank_path_text(p), "reached": r, "accepted": a, "mean_weight": a / drafted[p]}
            for p, (r, a) in nodes
        ],
        "steps.csv": [
            dict(zip(DETAILS["steps.csv"], (row.prompt_id, row.repeat, *step), strict=True))
            for row in rows
            for step in row.steps or []
        ],
    }


def _add(counts: Iterable[Mapping[Any, Sequence[float]]]) -> dict[Any, tuple[float, float]]:
    total: dict[Any, tuple[float, float]] = {}
    for part in counts:
        for key, (reached, accepted) in part.items():
            before = total.get(key, (0, 0))
            total[key] = before[0] + reached, before[1] + accepted
    return total


def records_table(rows: Iterable[Row], combinations: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per combination, prompt and repeat: keys, counts, times and ratios."""
    records = []
    for row in rows:
        row_keys = {"prompt_id": row.prompt_id, "category": row.category, "repeat": row.repeat}
        keys = {key: row_keys[key] if key in row_keys else combinations[row.combination][key] for key in KEYS}
        records.append(keys | {name: getattr(row.tally, name) for name in (*SUMS, *HELPERS)})
    return add_ratios(pd.DataFrame(records, columns=[*KEYS, *SUMS, *HELPERS]))
