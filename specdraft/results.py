"""Result files: what each holds, atomic writes, the journal that a killed sweep resumes from, intervals."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from specdraft.errors import ResultsError
from specdraft.metrics import COUNTS, HELPERS, RATIOS, SECONDS, TIMES, Tally, add_ratios
from specdraft.trees.topology import RankPath

SCHEMA = 1
KEYS = ["combination", "pair", "target", "draft", "dtype", "tree", "budget", "nodes", "depth", "acceptance", "temperature", "top_k",
        "top_p", "max_new_tokens", "prompts", "prompt_id", "category", "repeat", "seed", "engine"]  # fmt: skip
COMBINATION_KEYS = [key for key in KEYS if key not in ("prompt_id", "category", "repeat")]
SUMS = [*COUNTS, *TIMES]
DETAIL_KEYS = ["combination", "pair", "tree", "budget", "acceptance", "temperature", "engine"]
DETAILS = {  # file -> its own columns, after DETAIL_KEYS
    "lengths.csv": ["acceptance_length", "steps"],
    "positions.csv": ["depth", "reached", "accepted"],
    "nodes.csv": ["rank_path", "reached", "accepted", "mean_weight"],
    "steps.csv": ["prompt_id", "repeat", "step", "drafted_tokens", "accepted_tokens", "bonus_tokens", "cut"],
}
TERMS = sorted({term for above, below in RATIOS.values() for term in (*above, below)})
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what a damaged line can raise
BOOTSTRAP_SAMPLES = 2000
FEWEST_TO_RESAMPLE = 8  # prompts in every category; with fewer, resampling within categories covers too little
FILES = ("records.csv", "summary.csv", "by_category.csv", "comparisons.csv", "lengths.csv", "positions.csv", "nodes.csv", "steps.csv",
         "manifest.json", "config.yaml", "failures.jsonl", "journal.jsonl", "report.html", "report.md")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One prompt decoded with one combination, as the journal keeps it."""

    combination: str
    weights: tuple[str, ...]
    prompt_id: str
    category: str
    repeat: int
    tally: Tally
    tie: dict[str, Any] | None = None
    steps: list[list[int]] | None = None

    @property
    def key(self) -> tuple[str, tuple[str, ...], str, int]:
        """What makes a row the same row."""
        return self.combination, self.weights, self.prompt_id, self.repeat

    def to_json(self) -> str:
        """One line."""
        tally: dict[str, Any] = {field.name: getattr(self.tally, field.name) for field in fields(self.tally)}
        tally["lengths"] = sorted(self.tally.lengths.items())
        tally["positions"] = sorted(self.tally.positions.items())
        tally["nodes"] = sorted(self.tally.nodes.items())
        tally |= {name: None if isnan(tally[name]) else tally[name] for name in SECONDS}
        values: dict[str, Any] = {"row": self.combination, "weights": self.weights, "prompt_id": self.prompt_id, "category": self.category}
        values |= {"repeat": self.repeat, "tally": tally}
        values |= {name: value for name in ("tie", "steps") if (value := getattr(self, name)) is not None}
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Row:
        """The inverse of `to_json`."""
        tally = dict(values["tally"])
        tally["lengths"] = Counter({int(a): n for a, n in tally["lengths"]})
        tally["positions"] = {int(d): list(n) for d, n in tally["positions"]}
        tally["nodes"] = {tuple(path): list(n) for path, n in tally["nodes"]}
        tally |= {name: nan if tally[name] is None else tally[name] for name in SECONDS}
        weights = tuple(values["weights"])
        row = (values["row"], weights, values["prompt_id"], values["category"], values["repeat"], Tally(**tally))
        return cls(*row, values.get("tie"), values.get("steps"))


class Journal:
    """An append-only file of finished rows, one JSON line each: what a killed sweep resumes from.

    A line is written and flushed when its prompt is done. A torn last line (a kill in the middle of a
    write) is cut off when the journal is opened again; other lines that cannot be read are passed over.

    Attributes:
        rows: every row, by its key.
        combinations: identifier -> key columns.
        weights: identifier -> the weights that the combination last ran with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[Any, Row] = {}
        self.combinations: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, tuple[str, ...]] = {}
        intact = 0
        for line, end in _lines(path):
            self._read(line)
            intact = end
        try:
            self._handle = path.open("ab")
            self._handle.truncate(intact)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _read(self, line: bytes) -> None:
        try:
            values = json.loads(line)
            if "keys" in values:
                keys, weights = dict(values["keys"]), tuple(values["weights"])
                self.combinations[keys["combination"]], self.weights[keys["combination"]] = keys, weights
            elif (row := Row.from_json(values)).combination in self.combinations:
                self.rows[row.key] = row
        except UNREADABLE:
            return

    def add_combination(self, keys: dict[str, Any], weights: tuple[str, ...]) -> None:
        """Write down what a combination is and which weights it runs with, unless that is there already."""
        name = keys["combination"]
        if (self.combinations.get(name), self.weights.get(name)) != (keys, weights):
            self._append(json.dumps({"keys": keys, "weights": weights}))
            self.combinations[name], self.weights[name] = keys, weights

    def add_row(self, row: Row) -> None:
        """Write down a finished row."""
        self._append(row.to_json())
        self.rows[row.key] = row

    def _append(self, line: str) -> None:
        try:
            self._handle.write(line.encode() + b"\n")
            self._handle.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file; a write that the disk refused was reported when it was made."""
        try:
            self._handle.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Whole lines of a file with the offset after each; nothing for a missing file."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as handle:
        for line in handle:
            end += len(line)
            if line.endswith(b"\n"):
                yield line, end


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a journal; lines that cannot be read are passed over."""
    for line, _ in _lines(path):
        try:
            values = json.loads(line)
            row = None if "keys" in values else Row.from_json(values)
        except UNREADABLE:
            continue
        if row is not None:
            yield row


def cannot_write(path: Path, error: OSError) -> ResultsError:
    """A `ResultsError` that names the file and the reason."""
    return ResultsError(f"{path}: cannot be written: {error.strerror or error}; what was written before is kept")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: readers see the old text or the new one. Raises `ResultsError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def rank_path_text(path: Iterable[int]) -> str:
    """`(0, 1)` -> `0/1`."""
    return "/".join(map(str, path))


def build_tables(rows: Iterable[Row], combinations: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, pd.DataFrame]:
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
        for file, listed in _details(list(group)).items():
            details[file] += [keys | values for values in listed]
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
        "positions.csv": [{"depth": d, "reached": r, "accepted": a} for d, (r, a) in sorted(_add(t.positions for t in tallies).items())],
        "nodes.csv": [{"rank_path": rank_path_text(p), "reached": r, "accepted": a, "mean_weight": a / drafted[p]} for p, (r, a) in nodes],
        "steps.csv": [
            dict(zip(DETAILS["steps.csv"], (row.prompt_id, row.repeat, *step), strict=True)) for row in rows for step in row.steps or []
        ],
    }


def _add(counts: Iterable[Mapping[Any, Sequence[float]]]) -> dict[Any, tuple[float, float]]:
    total: dict[Any, tuple[float, float]] = {}
    for one in counts:
        for key, (reached, accepted) in one.items():
            before = total.get(key, (0, 0))
            total[key] = before[0] + reached, before[1] + accepted
    return total


def records_table(rows: Iterable[Row], combinations: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per combination, prompt and repeat: keys, counts, times and ratios."""
    listed = []
    for row in rows:
        own = {"prompt_id": row.prompt_id, "category": row.category, "repeat": row.repeat}
        keys = {key: own[key] if key in own else combinations[row.combination][key] for key in KEYS}
        listed.append(keys | {name: getattr(row.tally, name) for name in (*SUMS, *HELPERS)})
    return add_ratios(pd.DataFrame(listed, columns=[*KEYS, *SUMS, *HELPERS]))


def summarise(records: pd.DataFrame, keys: list[str], seed: int) -> pd.DataFrame:
    """Sums and ratios of sums per group of records, with 95 % intervals over prompts."""
    sums = [*SUMS, *HELPERS]
    table = add_ratios(records.groupby(keys, sort=False, dropna=False)[sums].sum(min_count=1).reset_index())
    resampler = Resampler(seed)
    number = records.groupby(keys, sort=False, dropna=False).ngroup()
    by_prompt = records.assign(group=number).groupby(["group", "category", "prompt_id"], sort=False)[sums].sum(min_count=1).reset_index()
    bounds = []
    for _, prompts in by_prompt.groupby("group"):
        bounds.append(
            {
                f"{ratio}_{end}": v
                for ratio, pair in intervals(prompts, resampler).items()
                for end, v in zip(("lo", "hi"), pair, strict=True)
            }
        )
    limits = pd.DataFrame(bounds, columns=[f"{ratio}_{end}" for ratio in RATIOS for end in ("lo", "hi")])
    ordered = [*keys, *SUMS, *(name for ratio in RATIOS for name in (ratio, f"{ratio}_lo", f"{ratio}_hi"))]
    return pd.concat([table, limits], axis=1)[ordered]


def intervals(prompts: pd.DataFrame, resampler: Resampler) -> dict[str, tuple[float, float]]:
    """95 % intervals of every ratio of sums over prompts (one row each, with a `category`).

    With at least 8 prompts in every category: the percentile bootstrap, prompts resampled within their
    categories. With fewer: the delta method for a ratio estimate (Cochran 1977, section 6.4), with
    Student's t at one degree of freedom less than there are prompts. One prompt has no interval.
    """
    codes = prompts["category"].astype("category").cat.codes.to_numpy()
    resampled = len(prompts) > 1 and int(np.bincount(codes).min()) >= FEWEST_TO_RESAMPLE
    columns = {name: prompts[name].to_numpy(float) for name in TERMS}
    drawn = dict(zip(TERMS, (resampler.weights(codes) @ np.stack(list(columns.values()), 1)).T, strict=True)) if resampled else {}
    found = {}
    for ratio, (terms, denominator) in RATIOS.items():
        above, below = np.sum([np.nan_to_num(columns[term]) for term in terms], axis=0), columns[denominator]
        if len(prompts) < 2 or not below.sum() > 0:
            found[ratio] = (np.nan, np.nan)
        elif resampled:
            total = drawn[denominator]
            sums = np.sum([drawn[term] for term in terms], axis=0)
            low, high = np.quantile(sums[total > 0] / total[total > 0], [0.025, 0.975])
            found[ratio] = (float(low), float(high))
        else:
            found[ratio] = delta_interval(above, below)
    return found


def delta_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """The delta method's 95 % interval for `sum(above) / sum(below)`, not below 0."""
    count = len(above)
    estimate = above.sum() / below.sum()
    spread = float(np.sqrt(count / (count - 1) * np.sum((above - estimate * below) ** 2)) / below.sum())
    reach = float(stats.t.ppf(0.975, count - 1)) * spread
    return max(0.0, float(estimate) - reach), float(estimate) + reach


class Resampler:
    """Bootstrap weights; groups with the same categories share theirs, so their intervals are comparable."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[bytes, np.ndarray] = {}

    def weights(self, codes: np.ndarray) -> np.ndarray:
        """`[samples, prompts]`: the weight of each prompt when its category (a code) is resampled.

        One draw fewer than there are prompts, scaled back to their number (Rao and Wu 1988): n draws of n would
        make the interval too narrow by a factor `sqrt(1 - 1/n)`. A single prompt keeps its weight.
        """
        key = codes.tobytes()
        if key not in self._made:
            rng = np.random.default_rng(self._seed)
            weights = np.zeros((BOOTSTRAP_SAMPLES, len(codes)))
            for code in np.unique(codes):
                members = np.flatnonzero(codes == code)
                count, draws = len(members), max(1, len(members) - 1)
                weights[:, members] = rng.multinomial(draws, np.full(count, 1 / count), BOOTSTRAP_SAMPLES) * (count / draws)
            self._made[key] = weights
        return self._made[key]


def to_csv(table: pd.DataFrame) -> str:
    """A table as text, six significant digits in its fractions."""
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
