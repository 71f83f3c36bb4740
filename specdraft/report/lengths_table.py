"""Length policies beside chains that always have the same length, and beside the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from specdraft.prediction.length.constant import Constant
from specdraft.prediction.length.oracle import Oracle
from specdraft.report.findings import Findings
from specdraft.report.sized_table import SPEEDS
from specdraft.report.study_files import settings_without, visible
from specdraft.report.table import Table, interval_cell, value_cell
from specdraft.report.words import say
from specdraft.results.intervals import Interval

CONSTANT, ORACLE = Constant.kind, Oracle.kind
COLUMNS = ("setting", "length", "up to", "drafted a step", "tokens per step [95 %]", "constant, as many drafted",
           "drafted in vain, avoided", "tokens/s", "best constant", "oracle", "gap closed")  # fmt: skip


def chains_of(findings: Findings) -> pd.DataFrame | None:
    """The chains of a study with length policies: its rows with `setting`, `policy` (empty of constant lengths),
    `drafted` tokens a step, `speed` and what constant lengths come to; None where every length is a constant."""
    rows = findings.rows
    if "length" not in rows or "engine" not in rows:
        return None
    rows = rows.assign(setting=settings_without(findings.study.varying, rows, "length"))
    rows = rows[rows["tree"] == "chain"]
    constant = rows["length"].str.split("-").str[0] == CONSTANT
    if constant.all():
        return None
    speeds = [row[SPEEDS[str(row["engine"])][0]] for _, row in rows.iterrows()]
    rows = rows.assign(
        policy=rows["length"].where(~constant, ""),
        drafted=rows["drafted_tokens"] / rows["steps"],
        speed=np.array(speeds, dtype=float),
    )
    return pd.concat([_beside_constants(alike) for _, alike in rows.groupby(["setting", "engine"], sort=False)])


def _beside_constants(alike: pd.DataFrame) -> pd.DataFrame:
    """With `equal`, the tokens per step of a constant length that drafts as many tokens, and `needed`, the drafted
    tokens of one that makes as many tokens per step: by straight lines; NaN beyond the longest."""
    constants = alike[alike["policy"] == ""].sort_values("drafted")
    drafted = np.append(0.0, constants["drafted"])  # without a draft a step is a token
    tokens = np.maximum.accumulate(np.append(1.0, constants["block_efficiency"]))
    equal = np.interp(alike["drafted"], drafted, tokens, right=np.nan)
    return alike.assign(equal=equal, needed=np.interp(alike["block_efficiency"], tokens, drafted, right=np.nan))


def lengths_table(findings: Findings) -> Table | None:
    """A row for each policy and budget; None where there is no policy."""
    chains = chains_of(findings)
    if chains is None:
        return None
    listed = [
        _row(one, alike)
        for _, alike in chains.groupby("setting", sort=False)
        for _, one in alike[alike["policy"] != ""].sort_values("budget", kind="stable").iterrows()
    ]
    note = say(
        "Constant, as many drafted: tokens per step of a constant length that drafts as many tokens a step, by "
        "straight lines between this study's constant lengths. Drafted in vain, avoided: of the tokens that a "
        "constant length with as many tokens per step drafts and that are not accepted, the share that the policy "
        "does not draft; the oracle avoids all of them. Tokens/s are estimated from counts and measured costs where "
        "the engine is replay; a chain that is ended between tokens costs what a dynamic tree costs. Gap closed: the "
        "policy's lead over the best constant length up to the same budget, as a share of the oracle's lead; below 0 "
        "it is slower."
    )
    return Table("length_policies", "How long chains are: policies, constants and the oracle", COLUMNS, listed, note)


def _row(one: pd.Series[Any], alike: pd.DataFrame) -> tuple[str, ...]:
    same = alike[alike["engine"] == one["engine"]]
    names = (visible(one["setting"]), visible(one["length"]), f"{one['budget']:g}", f"{one['drafted']:.2f}")
    in_vain = one["needed"] - one["accepted_tokens"] / one["steps"]
    avoided = (one["needed"] - one["drafted"]) / in_vain if in_vain > 0 else np.nan
    within = same[(same["policy"] == "") & (same["nodes"] <= one["budget"])]["speed"].max()
    oracle = same[(same["policy"] == ORACLE) & (same["budget"] == one["budget"])]["speed"].max()
    gap = (one["speed"] - within) / (oracle - within) if oracle > within else np.nan
    tokens_per_step = interval_cell(Interval.of(one, "block_efficiency"))
    equal, *speeds = map(value_cell, (one["equal"], one["speed"], within, oracle))
    shares = (equal, _share(avoided), *speeds, _share(gap))
    return (*names, tokens_per_step, *shares)


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.0%}"
