"""The tables of methods side by side: a row a turn, a row a method, a row a method and category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import isfinite, nan
from typing import Any, NamedTuple

import pandas as pd

from specdraft.bench.methods import Measured, typical
from specdraft.results.frames import NUMBERS
from specdraft.results.metrics import COUNTS, MOST_LOOPING, TIMES
from specdraft.results.summary import summarise

RATIOS = ("tokens_per_s", "speedup", "acceptance_rate", "acceptance_length", "block_efficiency", "loop_share")
TURNS = ["method", "round", "prompt_id", "category", *COUNTS, *TIMES, "plain_s", "loop_share"]
ALL, LOOP_FREE = "all", f"loop_share <= {MOST_LOOPING}"
FIGURES = [*COUNTS, *TIMES, *(f"{ratio}{end}" for ratio in RATIOS for end in ("", "_lo", "_hi"))]


class Kind(StrEnum):
    """Whose a method is."""

    PLAIN = "plain"
    OURS = "specdraft"
    PEER = "transformers"


class Named(NamedTuple):
    """A method as tables name it."""

    method: str
    kind: Kind
    drafter: str = ""
    tree: str = ""
    nodes: float = nan


class MethodTables(NamedTuple):
    """What is written.

    Attributes:
        turns: one row per method, round and prompt, in the order in which they were decoded.
        summary: one row per method and set of prompts (all; those without loops), with 95 % intervals over prompts, of
            each prompt's median round. `timing_width`: see `Rounds.widths`; `reason`: why there are no figures.
        by_category: one row per method, set of prompts and category.
    """

    turns: pd.DataFrame
    summary: pd.DataFrame
    by_category: pd.DataFrame


def method_tables(
    measured: Sequence[Measured], named: Sequence[Named], reasons: Mapping[str, str], widths: Mapping[str, float]
) -> MethodTables:
    """The tables of all methods, those without figures too.

    Args:
        measured: every turn.
        named: the methods, in their order; plain decoding is the first.
        reasons: method -> why it has no figures.
        widths: method -> what timing alone leaves of its speed-up.
    """
    records, names = _records(typical(measured)), pd.DataFrame(named)
    looping = records[(records["method"] == named[0].method) & (records["loop_share"] > MOST_LOOPING)]["prompt_id"]
    sets = {ALL: records, LOOP_FREE: records[~records["prompt_id"].isin(looping)]}
    summary, by_category = (
        pd.concat([_summary(part, name, keys) for name, part in sets.items() if len(part)], ignore_index=True)
        for keys in (["method"], ["method", "category"])
    )
    summary = names.merge(summary, "left", "method")
    known = [widths.get(name, nan) for name in summary["method"]]
    why = [reasons.get(name, "") for name in summary["method"]]
    summary = summary.assign(timing_width=[width if isfinite(width) else nan for width in known], reason=why)
    by_category = names[["method", "kind"]].merge(by_category, "inner", "method")
    return MethodTables(_records(measured)[TURNS], summary, by_category)


def _records(measured: Any) -> pd.DataFrame:
    """A row a turn, with all that a summary is made of."""
    rows = [
        (one.method, one.round, one.prompt.prompt_id, one.prompt.category, nan, *(_of(one, name) for name in NUMBERS))
        for one in measured
    ]
    table = pd.DataFrame(rows, columns=["method", "round", "prompt_id", "category", "depth", *NUMBERS])
    return table.assign(loop_share=table["looped_tokens"] / table["new_tokens"])


def _of(one: Measured, name: str) -> float:
    return float(getattr(one.tally, name))


def _summary(records: pd.DataFrame, texts: str, keys: list[str]) -> pd.DataFrame:
    """Sums, ratios and intervals of one set of prompts."""
    table = summarise(records, [*keys, "depth"])
    prompts = records.groupby(keys, sort=False)["prompt_id"].nunique().rename("prompts").reset_index()
    return table.merge(prompts, on=keys).assign(texts=texts)[[*keys, "texts", "prompts", *FIGURES]]
