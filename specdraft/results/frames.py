"""Rows as tables of numbers, those of the journal and those of parts alike: what every result file is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from specdraft.prompts import turn_of_name
from specdraft.results.counted import REPLAYED
from specdraft.results.files import rank_path_text
from specdraft.results.journal import Row
from specdraft.results.metrics import COUNTS, HELPERS, LATENCY, OVERHEAD, PRUNED, TIMES
from specdraft.results.parts import NODE_COUNTS
from specdraft.trees.topology import RankPath

NUMBERS = [*COUNTS, *PRUNED, *OVERHEAD, *TIMES, LATENCY, *HELPERS]
WHOLE = [*COUNTS, *PRUNED, *OVERHEAD, "looped_tokens", "judged_tokens", "reached", "accepted", "continued"]
TEXTS = ["prompt_id", "category", "rank_path"]
STEP = ["step", "drafted_tokens", "accepted_tokens", "bonus_tokens", "cut"]


class Frames(NamedTuple):
    """Rows with their details; `combination` is a number, the place among all combinations.

    Attributes:
        rows: `combination`, `repeat`, `prompt_id`, `turn`, `category`, and every number.
        lengths: `combination`, `acceptance_length`, `steps`.
        sizes: `combination`, `drafted_tokens`, `steps`; of trees that differ from step to step.
        positions: `combination`, `depth`, `reached`, `accepted`.
        nodes: `combination`, `rank_path`, `dynamic`, and every number of `NodeCounts`.
        steps: `combination`, `prompt_id`, `turn`, `repeat`, and what `steps.csv` says of a step.
    """

    rows: pd.DataFrame
    lengths: pd.DataFrame
    sizes: pd.DataFrame
    positions: pd.DataFrame
    nodes: pd.DataFrame
    steps: pd.DataFrame


def frames_of(rows: Sequence[Row], replayed: pa.Table, place: Mapping[str, int]) -> Frames:
    """Rows of the journal and lines of parts, together; columns of texts are categorical.

    Args:
        rows: of the journal.
        replayed: see `parts`.
        place: combination -> its number.
    """
    both = zip(_frames_of_rows(rows, place), _frames_of_parts(replayed, place), strict=True)
    frames = (
        journal if parts.empty else parts if journal.empty else pd.concat([journal, parts]) for journal, parts in both
    )
    return Frames(*map(_typed, frames))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Counts as whole numbers where all of them are, as under greedy decoding; texts as categories in alphabetical
    order, which is the order in which prompts are resampled."""
    columns: dict[str, Any] = {}
    for name in frame.columns.intersection(WHOLE):
        values = frame[name].to_numpy()
        columns[name] = values.astype(np.int64) if (values == np.floor(values)).all() else values
    for name in frame.columns.intersection(TEXTS):
        texts = pd.Categorical(frame[name])
        columns[name] = texts.reorder_categories(sorted(texts.categories))
    if "prompt_id" in columns:
        columns |= _by_turn(columns["prompt_id"])
    return frame.assign(**columns).reset_index(drop=True)


def _by_turn(names: pd.Categorical) -> dict[str, Any]:
    """`prompt_id` and `turn` of what turns are called."""
    turns = [turn_of_name(name) for name in names.categories]
    ids = sorted({turn.prompt_id for turn in turns})
    codes = np.array([ids.index(turn.prompt_id) for turn in turns], dtype=np.int64)
    numbers = np.array([turn.turn for turn in turns], dtype=np.int64)
    return {"prompt_id": pd.Categorical.from_codes(codes[names.codes], pd.Index(ids)), "turn": numbers[names.codes]}


def _frames_of_rows(rows: Sequence[Row], place: Mapping[str, int]) -> Frames:
    numbers, lengths, sizes, positions, nodes, steps = [], [], [], [], [], []
    for row in rows:
        which, counted = place[row.combination], row.tally
        numbers.append((which, row.repeat, row.prompt_id, row.category, *(getattr(counted, n) for n in NUMBERS)))
        lengths += [(which, accepted, n) for accepted, n in counted.lengths.items()]
        sizes += [(which, drafted, n) for drafted, n in counted.sizes.items()]
        positions += [(which, depth, *both) for depth, both in counted.positions.items()]
        below = _tried_below(counted.nodes)
        nodes += [
            (which, rank_path_text(path), counted.steps, *both, below.get(path, 0), counted.dynamic)
            for path, both in counted.nodes.items()
        ]
        steps += [(which, row.prompt_id, row.repeat, *step) for step in row.steps or []]
    listed: tuple[list[Any], ...] = (numbers, lengths, sizes, positions, nodes, steps)
    return Frames(*(pd.DataFrame(lines, columns=columns) for lines, columns in zip(listed, COLUMNS, strict=True)))


def _tried_below(nodes: Mapping[RankPath, Sequence[float]]) -> dict[RankPath, float]:
    """Rank path -> steps that tried children of it: as many as tried the child that was tried most often."""
    below: dict[RankPath, float] = {}
    for path, (reached, _) in nodes.items():
        below[path[:-1]] = max(below.get(path[:-1], 0), reached)
    return below


COLUMNS = (
    ["combination", "repeat", "prompt_id", "category", *NUMBERS],
    ["combination", "acceptance_length", "steps"],
    ["combination", "drafted_tokens", "steps"],
    ["combination", "depth", "reached", "accepted"],
    ["combination", "rank_path", *NODE_COUNTS, "dynamic"],
    ["combination", "prompt_id", "repeat", *STEP],
)


class _Lists:
    """Lists of a part's lines, laid end to end.

    Args:
        table: the lines.
        name: one of the lists.
        which: `[lines]` each line's combination.

    Attributes:
        line: `[entries]` the line that each entry is of.
        index: `[entries]` its place in the line's list.
    """

    def __init__(self, table: pa.Table, name: str, which: np.ndarray) -> None:
        self._table = table
        long = pc.list_value_length(table[name]).to_numpy()
        self.line = np.repeat(np.arange(len(table)), long)
        self.index = np.arange(len(self.line)) - np.repeat(np.cumsum(long) - long, long)
        self.combination = which[self.line]

    def of_line(self, name: str) -> np.ndarray:
        """`[entries]` a number of the entry's line."""
        values: np.ndarray = self._table[name].to_numpy()[self.line]
        return values

    def numbers(self, name: str) -> np.ndarray:
        """`[entries]` of another list."""
        values: np.ndarray = pc.list_flatten(self._table[name]).to_numpy()
        return values

    def texts(self, name: str) -> pd.Categorical:
        """`[entries]` of a list of texts."""
        coded = pc.dictionary_encode(pc.list_flatten(self._table[name])).combine_chunks()
        return pd.Categorical.from_codes(coded.indices.to_numpy(), coded.dictionary.to_pylist())


def _frames_of_parts(table: pa.Table, place: Mapping[str, int]) -> Frames:
    which = np.array([place[name] for name in table["combination"].to_pylist()], dtype=np.int64)
    prompts, lengths, sizes, depths, nodes = (
        _Lists(table, name, which) for name in ("prompt_id", "lengths", "sizes", "reached", "node_path")
    )
    rows: dict[str, Any] = {"combination": prompts.combination, "repeat": prompts.of_line("repeat")}
    rows |= {name: prompts.texts(name) for name in ("prompt_id", "category")}
    rows |= {name: prompts.numbers(name) if name in REPLAYED else np.nan for name in NUMBERS}
    rows |= dict.fromkeys(OVERHEAD, 0)
    by_length = {"acceptance_length": lengths.index, "steps": lengths.numbers("lengths")}
    by_size = {"drafted_tokens": sizes.index, "steps": sizes.numbers("sizes")}
    by_depth = {"depth": depths.index + 1} | {name: depths.numbers(name) for name in ("reached", "accepted")}
    by_node: dict[str, Any] = {"rank_path": nodes.texts("node_path")}
    by_node |= {name: nodes.numbers(f"node_{name}") for name in NODE_COUNTS}
    by_node |= {"dynamic": nodes.of_line("dynamic")}
    return Frames(
        pd.DataFrame(rows, columns=COLUMNS[0]),
        pd.DataFrame({"combination": lengths.combination} | by_length).query("steps > 0"),
        pd.DataFrame({"combination": sizes.combination} | by_size).query("steps > 0"),
        pd.DataFrame({"combination": depths.combination} | by_depth).query("reached > 0"),
        pd.DataFrame({"combination": nodes.combination} | by_node),
        _steps_of_parts(table, which, prompts),
    )


def _steps_of_parts(table: pa.Table, which: np.ndarray, prompts: _Lists) -> pd.DataFrame:
    steps = _Lists(table, "step_prompt", which)
    drafted, accepted, cut = (steps.numbers(f"step_{name}").astype(np.int64) for name in ("drafted", "accepted", "cut"))
    first = np.searchsorted(prompts.line, steps.line)  # the entry of each line's first prompt
    entry = first + steps.numbers("step_prompt").astype(np.int64)
    listed = {
        "combination": steps.combination,
        "prompt_id": prompts.texts("prompt_id")[entry],
        "repeat": steps.of_line("repeat"),
        "step": np.arange(len(entry)) - np.searchsorted(entry, entry),
    }
    return pd.DataFrame(listed | dict(zip(STEP[1:], (drafted, accepted, 1 - cut, cut), strict=True)))
