"""What a benchmark of tree attention shows, in sentences that are computed from its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from specdraft.attention.geometry import GEOMETRIES
from specdraft.report.words import Name, Text, join, names, plural, say
from specdraft.results.intervals import number

BASE = "sequential"
OF_TREES = ("dense", "grouped", "flex", "merged", "triton", "flashinfer")  # one pass over the keys for all paths
FEWEST_LEAVES, LEAST_CONTEXT = 4, 1024  # from here on a tree should not be slower than its paths one after another
MOST_ROWS, LEAST_BYTES = 64, 256e6  # where our kernel should be near the copy's bandwidth
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
CELL = ["geometry", "batch", "context", "nodes", "shape"]


def with_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """What was timed, with more columns.

    price: times one query at the same place; speedup: over `sequential` in the same cell, nan where that was not timed;
    rows: nodes x heads that share keys; kv_bytes: of keys and values.
    """
    there = rows[rows["median_s"].notna()].copy()
    base = there[there["contestant"] == BASE].set_index(CELL)["median_s"]
    of_cell = base.reindex(pd.MultiIndex.from_frame(there[CELL])).to_numpy()
    heads = [GEOMETRIES[name] for name in there["geometry"]]
    states = [2 * one.kv_heads * one.head_dim * SIZES[dtype] for one, dtype in zip(heads, there["dtype"], strict=True)]
    return there.assign(
        price=there["median_s"] / there["decode_s"],
        speedup=of_cell / there["median_s"],
        rows=there["nodes"] * [one.heads // one.kv_heads for one in heads],
        kv_bytes=states * there["batch"] * (there["context"] + there["nodes"] + 1),
    )


def findings(rows: pd.DataFrame, facts: Mapping[str, Any]) -> Iterator[Text]:
    """The sentences, in order.

    Args:
        rows: as `attention.csv` has them.
        facts: as `attention.json` has them.
    """
    there = with_ratios(rows)
    yield _about(rows, there, facts)
    if left_out := facts.get("cells_left_out"):
        yield say("For {} there was no time (total_s).", plural(left_out, "further cell"))
    yield from _not_measured(rows)
    if there.empty:
        return
    yield from _prices(there)
    yield from _speedups(there)
    yield from _shapes(there)
    yield from _bandwidth(there, facts)


def _about(rows: pd.DataFrame, there: pd.DataFrame, facts: Mapping[str, Any]) -> Text:
    cells = len(rows[CELL].drop_duplicates())
    worst = "" if there.empty else f" (the worst is {there['max_rel_err'].max():.1g} off, as a share of one output)"
    spread = (
        "" if there.empty else f" The quartiles of half of the timings are up to {there['spread'].median():.0%} apart."
    )
    return say(
        "{} on {}, {}: medians of contestants that take turns, each held against a float32 reference before it is "
        "timed{}.{} A large copy moves {} GB/s here.",
        plural(cells, "cell"), facts["where"], facts["dtype"], worst, spread, number(facts["copy_gb_s"]))  # fmt: skip


def _not_measured(rows: pd.DataFrame) -> Iterator[Text]:
    """Who was not timed and why, a sentence a reason."""
    out = rows[rows["median_s"].isna()].fillna({"note": ""})
    for note, some in out.groupby("note", sort=False):
        who = names(list(dict.fromkeys(some["contestant"])))
        yield say("{} in {}: {}.", who, plural(len(some[CELL].drop_duplicates()), "cell"), str(note))


def _prices(there: pd.DataFrame) -> Iterator[Text]:
    """The quickest way for the largest trees, for each geometry at the ends of context."""
    most = there[there["nodes"] == there.groupby("geometry")["nodes"].transform("max")]
    for (geometry, context), some in most.groupby(["geometry", "context"], sort=False):
        if context in (there["context"].min(), there["context"].max()):
            best = some.sort_values("price").iloc[0]
            yield say(
                "{}, context {}: a tree of {} costs at least {} times one query ({}, {}, batch {}), {} of one query a "
                "node.",
                Name(str(geometry)), f"{context:,}", plural(int(best["nodes"]), "node"), number(best["price"]),
                Name(str(best["contestant"])), Name(str(best["shape"])), best["batch"],
                number(best["price"] / best["nodes"]))  # fmt: skip


def _speedups(there: pd.DataFrame) -> Iterator[Text]:
    """Trees against their paths one after another, where a tree should win."""
    branching = there[(there["leaves"] >= FEWEST_LEAVES) & (there["context"] >= LEAST_CONTEXT)]
    branching = branching[branching["speedup"].notna()]
    where = f"trees of {FEWEST_LEAVES} or more leaves at a context of {LEAST_CONTEXT:,} or more"
    for contestant, some in branching[branching["contestant"] != BASE].groupby("contestant", sort=False):
        yield say("{} is quicker than {} in {} of {} cells ({}): {} to {} times as fast.", Name(str(contestant)),
                  Name(BASE), int((some["speedup"] > 1).sum()), len(some), where, number(some["speedup"].min()),
                  number(some["speedup"].max()))  # fmt: skip
    of_trees = branching[branching["contestant"].isin(OF_TREES)]
    if len(of_trees):
        best = of_trees.groupby(CELL, sort=False)["speedup"].max()
        slower = [_cell(dict(zip(CELL, at, strict=True))) for at, value in best.items() if value < 1]  # type: ignore[call-overload]
        end = join(slower, "; ") if slower else say("none")
        yield say("The quickest of {} is {} to {} times as fast as {} there; cells where it is slower: {}.",
                  names(dict.fromkeys(of_trees["contestant"])), number(best.min()), number(best.max()), Name(BASE),
                  end)  # fmt: skip


def _cell(cell: Mapping[str, Any]) -> Text:
    where = f"batch {cell['batch']}, context {cell['context']:,}, {cell['nodes']} nodes"
    return say("{}, {}, {}", Name(str(cell["geometry"])), Name(str(cell["shape"])), where)


def _shapes(there: pd.DataFrame) -> Iterator[Text]:
    """How far time depends on the shape at equal size."""
    keys = ["geometry", "batch", "context", "nodes"]
    for contestant, some in there.groupby("contestant", sort=False):
        of_size = some.groupby(keys)["median_s"].agg(["min", "max", "count"])
        ratios = (of_size["max"] / of_size["min"])[of_size["count"] > 1]
        if len(ratios):
            yield say("{}: trees of equal size and different shapes differ in time by a factor of {} (median over {} "
                      "sizes and places; at most {}).",
                      Name(str(contestant)), number(ratios.median()), len(ratios), number(ratios.max()))  # fmt: skip


def _bandwidth(there: pd.DataFrame, facts: Mapping[str, Any]) -> Iterator[Text]:
    """Our kernel against the copy; said to be unknown where there is no GPU."""
    ours = there[(there["contestant"] == "triton") & (there["device"] == "cuda")]
    if ours.empty:
        yield say("What share of a GPU's bandwidth {} reaches was not measured: no GPU here.", Name("triton"))
        return
    memory_bound = ours[(ours["rows"] <= MOST_ROWS) & (ours["kv_bytes"] >= LEAST_BYTES)]
    if memory_bound.empty:
        yield say(
            "No cell of {} has 256 MB of keys and values and so few queries that memory binds it.", Name("triton")
        )
        return
    yield say("{} moves {} to {} of what a copy moves, where nodes x heads that share keys are at most {} and keys and "
              "values 256 MB or more ({}).",
              Name("triton"), f"{memory_bound['copy_share'].min():.0%}", f"{memory_bound['copy_share'].max():.0%}",
              MOST_ROWS, plural(len(memory_bound), "cell"))  # fmt: skip
