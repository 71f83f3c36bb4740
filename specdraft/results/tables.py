"""From rows to tables: what each result file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_numeric_dtype

from specdraft.results.frames import Frames, frames_of
from specdraft.results.journal import Row
from specdraft.results.metrics import DEPTH_RATES, HELPERS, LATENCY, add_ratios, depth_rates
from specdraft.results.parts import FIELDS
from specdraft.results.summary import SUMS, summarise

SCHEMA = 4
NONE = FIELDS.empty_table()
KEYS = ["combination", "pair", "target", "draft", "drafter", "dtype", "tree", "budget", "nodes", "depth", "pruning",
        "length", "batch", "cache", "acceptance", "temperature", "top_k", "top_p", "max_new_tokens",
        "draft_temperature", "cost_context", "cost_batch", "prompts", "prompt_id", "turn", "category", "repeat", "seed",
        "engine"]  # fmt: skip
# what studies that lack them would say
EARLIER_KEYS: dict[str, str | int] = {"length": "constant", "batch": 1, "cache": "dynamic", "draft_temperature": "",
                                      "cost_context": 128, "cost_batch": 1}  # fmt: skip
COMBINATION_KEYS = [key for key in KEYS if key not in ("prompt_id", "turn", "category", "repeat")]
DETAIL_KEYS = ["combination", "pair", "drafter", "tree", "budget", "pruning", "length", "acceptance", "temperature",
               "draft_temperature", "engine"]  # fmt: skip
DETAILS = {  # file -> its own columns, after DETAIL_KEYS
    "lengths.csv": ["acceptance_length", "steps"],
    "sizes.csv": ["drafted_tokens", "steps"],
    "positions.csv": ["depth", "reached", "accepted", *DEPTH_RATES],
    "nodes.csv": ["rank_path", "reached", "accepted", "mean_weight"],
    "siblings.csv": ["depth", "rank", "reached", "accepted", "next_reached", "next_accepted"],
    "steps.csv": ["prompt_id", "turn", "repeat", "step", "drafted_tokens", "accepted_tokens", "bonus_tokens", "cut"],
}
OPTIONAL = ("sizes.csv", "steps.csv")  # where trees differ, and where somebody asked


def build_tables(
    rows: Sequence[Row], combinations: Mapping[str, Mapping[str, Any]], replayed: pa.Table = NONE
) -> dict[str, pd.DataFrame]:
    """File name -> table, for rows of any number of combinations: of the journal, and those that were replayed."""
    place = {name: index for index, name in enumerate(combinations)}
    frames = frames_of(rows, replayed, place)
    listed = [EARLIER_KEYS | dict(known) for known in combinations.values()]
    keys = _categorical(pd.DataFrame(listed, columns=COMBINATION_KEYS))
    records = records_table(frames.rows, keys)
    summary, by_category = (summarise(records, [*COMBINATION_KEYS, *more]) for more in ([], ["category"]))
    details = {
        "lengths.csv": _summed(frames.lengths, "acceptance_length"),
        "sizes.csv": _summed(frames.sizes, "drafted_tokens"),
        "positions.csv": _depth_table(frames),
        "nodes.csv": _node_table(frames),
        "siblings.csv": _sibling_table(frames.nodes),
        "steps.csv": frames.steps.sort_values(["combination", "repeat"], kind="stable"),
    }
    return {
        "records.csv": records.drop(columns=list(HELPERS)),
        "summary.csv": _plain(summary),
        "by_category.csv": _plain(by_category),
    } | {
        file: _with_keys(table, keys[DETAIL_KEYS])[[*DETAIL_KEYS, *DETAILS[file]]]
        for file, table in details.items()
        if len(table) or file not in OPTIONAL
    }


def records_table(rows: pd.DataFrame, keys: pd.DataFrame) -> pd.DataFrame:
    """One row per combination, prompt and repeat: keys, counts, times and ratios.

    Args:
        rows: see `Frames`.
        keys: a row per combination, in the order of their numbers; texts are categorical.
    """
    ordered = rows.sort_values(["combination", "repeat"], kind="stable")
    return add_ratios(_with_keys(ordered, keys)[[*KEYS, *SUMS, LATENCY, *HELPERS]])


def _categorical(keys: pd.DataFrame) -> pd.DataFrame:
    """Key columns with their texts as categories."""
    return keys.astype({name: "category" for name, kind in keys.dtypes.items() if not is_numeric_dtype(kind)})


def _with_keys(table: pd.DataFrame, keys: pd.DataFrame) -> pd.DataFrame:
    """A table with the key columns of its combinations in place of their numbers."""
    own = keys.take(table["combination"].to_numpy()).reset_index(drop=True)
    return pd.concat([own, table.drop(columns="combination").reset_index(drop=True)], axis=1)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """A small table with its texts as texts."""
    return table.astype({name: "str" for name, kind in table.dtypes.items() if kind == "category"})


def _summed(counts: pd.DataFrame, key: str) -> pd.DataFrame:
    """Counts of each combination, by `key` in its order."""
    return counts.groupby(["combination", key], observed=True).sum().reset_index()


def _depth_table(frames: Frames) -> pd.DataFrame:
    """What each combination's depths came to, with both rates."""
    table = _summed(frames.positions, "depth")
    return depth_rates(table, table["combination"].map(frames.rows.groupby("combination")["steps"].sum()))


def _node_table(frames: Frames) -> pd.DataFrame:
    """What each combination's nodes came to, nodes by depth and rank path."""
    nodes, paths = frames.nodes, frames.nodes["rank_path"].cat.categories
    by_depth = sorted(paths, key=lambda path: (path.count("/"), [*map(int, path.split("/"))]))
    nodes = nodes.assign(rank_path=nodes["rank_path"].cat.reorder_categories(by_depth))
    dynamic = nodes.groupby("combination")["dynamic"].any()
    steps = frames.rows.groupby("combination")["steps"].sum()
    table = _summed(nodes.drop(columns="dynamic"), "rank_path")
    in_any = table["combination"].map(dynamic).astype(bool)  # a dynamic tree could hold any node in any step
    drafted = table["drafted"].where(~in_any, table["combination"].map(steps))
    return table.assign(mean_weight=table["accepted"] / drafted)


def _sibling_table(nodes: pd.DataFrame) -> pd.DataFrame:
    """By depth and child rank: what these nodes came to, and what the level below those that were accepted came to."""
    paths = [[*map(int, path.split("/"))] for path in nodes["rank_path"].cat.categories]
    which = nodes["rank_path"].cat.codes.to_numpy()
    depth, rank, above = (
        np.array(values, dtype=np.int64)[which]
        for values in ([len(path) for path in paths], [path[-1] for path in paths], [path[-2:][0] for path in paths])
    )
    own = nodes[["combination", "reached", "accepted"]].assign(depth=depth, rank=rank, next_reached=nodes["continued"])
    below = nodes[["combination"]].assign(depth=depth - 1, rank=above, next_accepted=nodes["accepted"])[depth > 1]
    keys, counts = ["combination", "depth", "rank"], DETAILS["siblings.csv"][2:]
    both = pd.concat([own.assign(next_accepted=0), below.assign(**dict.fromkeys(counts[:3], 0))])
    return both.groupby(keys)[counts].sum().query("reached > 0").reset_index()
