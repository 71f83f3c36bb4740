"""A results folder as tables: what is there, what is missing, and in which words to say so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from specdraft.errors import ResultsError
from specdraft.results.comparisons import GROUP_KEYS
from specdraft.results.kept_tables import ABLATION, OFFSETS, RELIABILITY, TableKind
from specdraft.results.metrics import COUNTS, LATENCIES, OVERHEAD, PRUNED, TIMES
from specdraft.results.study_tables import read_csv
from specdraft.results.summary import LATER, RATIOS_WITH_ENDS
from specdraft.results.tables import EARLIER_KEYS

PANEL_KEYS = [key for key in GROUP_KEYS if key != "budget"]  # what two trees must share to be compared
NEEDED = ["combination", "pair", "tree", "budget", "steps", "block_efficiency"]
WHOLE = ("budget", "nodes", "depth", "seed", "max_new_tokens")
NUMERIC = [
    *WHOLE[:3],
    *COUNTS,
    *PRUNED,
    *OVERHEAD,
    *TIMES,
    *RATIOS_WITH_ENDS,
    *LATENCIES,
]
DETAIL_COLUMNS = {
    "lengths.csv": ("acceptance_length", "steps"),
    "sizes.csv": ("drafted_tokens", "steps"),
    "positions.csv": ("depth", "reached", "accepted"),
    "nodes.csv": ("rank_path", "reached", "accepted"),
    "siblings.csv": ("rank", "next_reached", "next_accepted"),
    "by_category.csv": ("category", "block_efficiency", "block_efficiency_lo", "block_efficiency_hi"),
    "comparisons.csv": ("tree_a", "tree_b", "metric", "difference", "difference_lo", "difference_hi"),
}
OPTIONAL = ("siblings.csv", "sizes.csv", "by_category.csv")  # earlier studies have none, or no tree differs
TEXT_COLUMNS = {"rank_path", "category", "tree_a", "tree_b", "metric", "combination"}
EXPECTED = "expected a folder that `specdraft sweep` wrote"
MOST_NAMED = 6
EARLIER_LACK = {*OVERHEAD, *(f"{name}{end}" for name in ("alpha", *LATER) for end in ("", "_lo", "_hi"))}  # studies
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@dataclass
class StudyFiles:
    """One study's result files.

    Attributes:
        summary: `summary.csv` with numbers as numbers, and two columns more: `panel` (its setting, see `panel_label`)
            and `shown` (the tree's name, safe to draw).
        written: the same rows as text, exactly as the file has them.
        panels: the settings in the file's order; trees are only compared within one.
        varying: the setting columns that differ within the study.
        details: file -> table; a file that is missing or damaged is not there.
        notes: what could not be read, and what the manifest says of the prompts, one line each.
    """

    folder: Path
    name: str
    summary: pd.DataFrame
    written: pd.DataFrame
    panels: list[str]
    varying: list[str]
    details: dict[str, pd.DataFrame]
    manifest: dict[str, Any]
    failures: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def about(self, *keys: str) -> Any:
        """A value of the manifest by its path of keys; None where there is none."""
        value: Any = self.manifest
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def visible(text: object) -> str:
    """Text with line ends, control characters and marks of writing direction shown as escapes."""
    return CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), str(text))


def read_study(folder: Path) -> StudyFiles:
    """Read a results folder.

    Raises:
        ResultsError: it is not one, or its `summary.csv` cannot be used.
    """
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; {EXPECTED}")
    if not (folder / "summary.csv").exists():
        raise ResultsError(f"{folder}: holds no results (summary.csv is missing); {EXPECTED}")
    notes: list[str] = []
    written = _read_summary(folder / "summary.csv")
    failures = _read_failures(folder / "failures.jsonl", notes)
    if written.empty and not failures:
        raise ResultsError(f"{folder}: summary.csv has no rows and no failure is recorded; run `specdraft sweep` first")
    summary = _with_numbers(written, folder / "summary.csv", notes)
    varying = _varying(written)
    summary["panel"] = _labels(written, varying)
    summary["shown"] = [visible(tree) for tree in written["tree"]]
    manifest = _read_manifest(folder / "manifest.json", notes)
    notes += _plan_notes(manifest.get("plan_notes"))
    notes += _prompt_notes(manifest.get("prompt_notes"))
    wanted = set(written["combination"])
    details = {
        file: table for file in DETAIL_COLUMNS if (table := _read_detail(folder / file, wanted, notes)) is not None
    }
    for kind in (RELIABILITY, OFFSETS, ABLATION):
        if (kept := _read_kept(kind, folder, notes)) is not None:
            details[kind.file] = kept
    study = manifest.get("study")
    name = visible(study["name"] if isinstance(study, dict) and study.get("name") else folder.resolve().name)
    panels = list(dict.fromkeys(summary["panel"]))
    return StudyFiles(folder, name, summary, written, panels, varying, details, manifest, failures, notes)


def _read_summary(path: Path) -> pd.DataFrame:
    written = read_csv(path, dtype=str, keep_default_na=False)
    if missing := [column for column in NEEDED if column not in written]:
        raise ResultsError(f"{path}: has no column {_named(missing)}; {EXPECTED}")
    return written.assign(**{name: str(usual) for name, usual in EARLIER_KEYS.items() if name not in written})


def _with_numbers(written: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    summary = written.copy()
    for column in [name for name in NUMERIC if name in written]:
        numbers = pd.to_numeric(written[column], errors="coerce")
        strange = numbers.isna() & ~written[column].str.strip().str.lower().isin(["", "nan"])
        if strange.any():
            raise ResultsError(f"{path}: {column}={written.loc[strange, column].iloc[0]!r} is not a number")
        summary[column] = numbers.where(np.isfinite(numbers))
    if summary["budget"].isna().any() or (summary["budget"] < 1).any():
        raise ResultsError(f"{path}: budget has values that are not a number of nodes; {EXPECTED}")
    absent = [name for name in NUMERIC if name not in written]
    for column in absent:
        summary[column] = np.nan
    if lacking := [name for name in absent if name not in EARLIER_LACK]:
        notes.append(f"summary.csv has no column {_named(lacking)}: figures and tables that need it are left out.")
    if foreign := [str(name) for name in written if name not in {*NUMERIC, *GROUP_KEYS, "combination", "tree"}]:
        notes.append(
            f"summary.csv has columns that no specdraft study writes, which are passed over: {_named(foreign)}."
        )
    return summary


def _named(names: list[str]) -> str:
    shown = ", ".join(visible(name) for name in names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown


def _varying(written: pd.DataFrame) -> list[str]:
    """Setting columns to tell panels apart by: models only where one pair's name stands for several."""
    varying = []
    for key in [key for key in PANEL_KEYS if key != "pair" and key in written]:
        within = key in ("target", "draft", "dtype")
        values = written.groupby("pair", sort=False)[key].nunique() if within else pd.Series([written[key].nunique()])
        if (values > 1).any():
            varying.append(key)
    return varying


SHORT = {
    "temperature": "T=",
    "top_k": "top-k ",
    "top_p": "top-p ",
    "max_new_tokens": "tokens ",
    "draft_temperature": "draft T=",
    "seed": "seed ",
    "prompts": "prompts ",
    "pruning": "pruning ",
    "length": "length ",
    "batch": "in batches of ",
    "cache": "cache ",
    "cost_context": "costs at context ",
    "cost_batch": "batch ",
}


AS_TARGET = {"draft_temperature": "target's"}  # what an empty value means


def panel_label(values: dict[str, str], varying: Iterable[str]) -> str:
    """A setting in words: `zoo`, or with what varies `zoo · rejection · T=0.7`."""
    said = (SHORT.get(key, "") + (plain_number(values[key]) or AS_TARGET.get(key, "")) for key in varying)
    return " · ".join(visible(part) for part in (values["pair"], *said))


def settings_without(varying: Iterable[str], rows: pd.DataFrame, but: str) -> list[str]:
    """A panel for each row that holds what differs by tree, budget and the key `but` only."""
    others = [key for key in varying if key != but]
    keys = ["pair", *others]
    every = rows[keys].astype(str).itertuples(index=False, name=None)
    return [panel_label(dict(zip(keys, values, strict=True)), others) for values in every]


def plain_number(text: object) -> str:
    """`1.0` -> `1`: two files need not write one number alike."""
    try:
        return f"{float(str(text)):.6g}"
    except ValueError:
        return str(text)


def _labels(written: pd.DataFrame, varying: list[str]) -> list[str]:
    known: dict[tuple[str, ...], str] = {}
    rows = list(written[["pair", *varying]].itertuples(index=False, name=None))
    for row in rows:
        if row not in known:
            known[row] = panel_label(dict(zip(["pair", *varying], row, strict=True)), varying)
    return [known[row] for row in rows]


def _read_detail(path: Path, combinations: set[str], notes: list[str]) -> pd.DataFrame | None:
    """A detail table, or None with a note."""
    if path.name in OPTIONAL and not path.exists():
        return None
    if not path.exists():
        notes.append(f"{path.name} is missing: what is drawn from it is left out.")
        return None
    columns = DETAIL_COLUMNS[path.name]
    keys = GROUP_KEYS if path.name == "comparisons.csv" else ["combination"]
    try:
        header = list(read_csv(path, nrows=0))
        keys = [key for key in keys if key in header or key not in EARLIER_KEYS]
        if missing := [column for column in (*keys, *columns) if column not in header]:
            raise ResultsError(f"{path}: has no column {_named(missing)}")
        text = {column: str for column in (*keys, *columns) if column in TEXT_COLUMNS or column in GROUP_KEYS}
        table = read_csv(
            path,
            usecols=[*keys, *columns],
            dtype=text,
            keep_default_na=False,
            na_values={c: [""] for c in columns if c not in text},
        )
        for column in columns:
            if len(table) and column not in text and not pd.api.types.is_numeric_dtype(table[column]):
                raise ResultsError(f"{path}: {column} holds text where numbers are expected")
    except ResultsError as error:
        notes.append(f"{str(error).removeprefix(f'{path.parent}/')}: what is drawn from it is left out.")
        return None
    if path.name == "comparisons.csv":
        table = table.assign(**{key: str(usual) for key, usual in EARLIER_KEYS.items() if key not in table})
        return table[table["metric"] == "block_efficiency"]
    return table[table["combination"].isin(combinations)]


def _read_kept(kind: TableKind, folder: Path, notes: list[str]) -> pd.DataFrame | None:
    """A table that not every study has, or None; with a note where it is damaged."""
    if not (folder / kind.file).exists():
        return None
    try:
        return kind.read(folder)
    except ResultsError as error:
        notes.append(f"{str(error).removeprefix(f'{folder}/')}: what is drawn from it is left out.")
        return None


def _read_manifest(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        notes.append("manifest.json is missing: what was run, and on what, is not known.")
        return {}
    except (OSError, ValueError, RecursionError):
        notes.append("manifest.json cannot be read: what was run, and on what, is not known.")
        return {}
    return manifest


def _plan_notes(noted: Any) -> list[str]:
    texts = [text for text in noted if isinstance(text, str)] if isinstance(noted, list) else []
    return [f"Plan: {visible(text)}." for text in texts if text]


def _prompt_notes(noted: Any) -> list[str]:
    texts = [note.get("text") for note in noted if isinstance(note, dict)] if isinstance(noted, list) else []
    return [f"Prompts: {visible(text)}." for text in texts if text]


def _read_failures(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        failures = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not all(isinstance(failure, dict) for failure in failures):
            raise ValueError("not objects")
    except (OSError, ValueError, RecursionError):
        notes.append("failures.jsonl cannot be read: failed combinations are not listed.")
        return []
    return failures
