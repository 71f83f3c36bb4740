"""The tables of what is predicted: what each feature adds, and what such methods promise beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from specdraft.report.findings import Findings, fair
from specdraft.report.run_facts import memory_facts
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.table import Table, interval_cell, value_cell
from specdraft.report.words import Name, plural, say
from specdraft.results.intervals import Interval
from specdraft.results.kept_tables import ABLATION

ABLATION_COLUMNS = ("texts", "prompts", "added", "log loss [95 %]", "gained [95 %]", "AUROC", "calibration error", "it")
PROMISED_COLUMNS = ("promised", "setting", "measured here", "by")
SPEED, SHARE, MEMORY = (
    "2 to 3 times faster",
    "40 to 60 % of drafted tokens accepted",
    "alignment and predictor for 10 % more memory",
)
OF_TREES = ("drafter", "tree", "pruning")


def ablation_table(study: StudyFiles) -> Table | None:
    """What each group of features adds to a predictor; None where nobody worked it out."""
    table = study.details.get(ABLATION.file)
    if table is None or table.empty:
        return None
    note = say(
        "Scores of conditional acceptance (of nodes whose parent was accepted), on prompts that were not fitted on. A "
        "row reads the features of the rows above it and one group more; what it gains is paired with the row above. A "
        "group adds, or harms, where the interval of the log loss that it gains lies below, or above, 0. {} is the "
        "first model that is fitted, on the drafter's probabilities; {} is what an alignment tells.",
        Name("fitted"),
        Name("extra"),
    )
    rows = [_ablation_row(row) for _, row in table.iterrows()]
    return Table("ablation", "What each feature adds to a predictor of acceptance", ABLATION_COLUMNS, rows, note)


def _ablation_row(row: pd.Series[Any]) -> tuple[str, ...]:
    loss, gained = (Interval.of(row, name) for name in ("log_loss", "gained_log_loss"))
    drafter = "" if row["drafter"] == "model" else f" with {row['drafter']}"
    texts = _setting(f"{row['pair']}{drafter}", row["temperature"])
    gain = "–" if pd.isna(gained.value) else interval_cell(gained, "+.4f")
    scores = (interval_cell(loss, ".4f"), gain, value_cell(row["auroc"], 3))
    error, said = value_cell(row["ece_debiased"], 3), visible(row["says"]) or "–"
    return (texts, str(int(row["prompts"])), visible(row["added"]), *scores, error, said)


def promises_table(findings: Findings) -> Table | None:
    """What systems of alignment, predictor and pruning promise, beside what the study holds of it; None where it used
    none of these."""
    best = list(_best(findings))
    if not best:
        return None
    rows = [(SPEED, one.setting, one.times, one.tree) for one in best]
    rows += [(SHARE, one.setting, one.shares, one.tree) for one in best]
    rows += [(MEMORY, visible(one.pair), one.held, visible(one.what)) for one in memory_facts(findings.study)]
    note = say(
        "Of each setting the tree with fitted scores, pruning or an aligned drafter that is fastest: where nothing was "
        "timed by estimates, where there are none by tokens per step. The share of accepted tokens says more of the "
        "number of nodes than of the method."
    )
    return Table("promises", "What is promised, and what was measured", PROMISED_COLUMNS, rows, note)


class _Best(NamedTuple):
    """The fastest of a setting's trees that use what is promised.

    Attributes:
        times: how fast it is, at its best budget; `shares`: of accepted tokens, at each budget.
    """

    setting: str
    tree: str
    times: str
    shares: str


def _best(findings: Findings) -> Iterator[_Best]:
    rows = fair(findings.rows)
    rows = rows.assign(**{name: "" for name in ("drafter", "pruning", "temperature") if name not in rows})
    used = rows["tree"].str.contains("-calibrated|-predictor") | rows["drafter"].str.startswith("aligned")
    rows = rows[used | ~rows["pruning"].isin(["", "none"])]
    for (pair, temperature), some in rows.groupby(["pair", "temperature"], sort=False):
        first = some.sort_values(_ratio(some), ascending=False, kind="stable").iloc[0]
        alike = some[(some[list(OF_TREES)] == first[list(OF_TREES)]).all(axis=1)].drop_duplicates("budget")
        yield _Best(_setting(pair, temperature), _tree(first), _times(first, alike, _ratio(some)), _shares(alike))


def _ratio(rows: pd.DataFrame) -> str:
    """What says how fast these are."""
    return next((name for name in ("speedup", "est_speedup") if rows[name].notna().any()), "block_efficiency")


def _times(first: pd.Series[Any], alike: pd.DataFrame, ratio: str) -> str:
    most = alike.sort_values("block_efficiency", ascending=False, kind="stable").iloc[0]
    tokens = f"{Interval.of(most, 'block_efficiency')} tokens per step with {plural(int(most['budget']), 'node')}"
    if ratio == "block_efficiency":
        return tokens
    estimated = " (estimated)" if ratio == "est_speedup" else ""
    return f"{Interval.of(first, ratio)}{estimated} with {plural(int(first['budget']), 'node')}; {tokens}"


def _shares(alike: pd.DataFrame) -> str:
    rows = alike[alike["acceptance_rate"].notna()].sort_values("budget")
    shares = zip(rows["acceptance_rate"], rows["budget"], strict=True)
    return ", ".join(f"{share:.0%} of {plural(int(budget), 'node')}" for share, budget in shares) or "–"


def _setting(pair: object, temperature: Any) -> str:
    return visible(pair) + (f" · T={float(temperature):g}" if float(temperature or 0) else "")


def _tree(row: pd.Series[Any]) -> str:
    drafter = "" if row["drafter"] in ("", "model") else f", drafter {visible(row['drafter'])}"
    pruning = "" if row["pruning"] in ("", "none") else f", pruning {visible(row['pruning'])}"
    return f"{row['shown']}{drafter}{pruning}"
