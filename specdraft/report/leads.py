"""Who leads in each setting at each budget, by how much, and how sure that is. Intervals are those of the result
files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nan

import pandas as pd

from specdraft.report.cross_fit import Halves
from specdraft.report.study_files import StudyFiles, panel_label, visible
from specdraft.report.words import Name, Text, names, plural, say
from specdraft.results.comparisons import GROUP_KEYS
from specdraft.results.intervals import Interval
from specdraft.trees.shapes import is_reference

CLEAR, OPEN, UNKNOWN, ALONE, EQUAL = "clear", "open", "no interval", "alone", "all equal"
VERDICTS = {
    CLEAR: "clear: the interval of the lead lies above 0",
    OPEN: "open: the interval of the lead holds 0, or each half of the prompts picks another leader",
    UNKNOWN: "no interval is recorded",
    ALONE: "no other shape was measured",
    EQUAL: "all shapes are the same here",
}
LOOKED_AT = ["panel", "competes", "tree", "budget", "combination",
             "block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]  # fmt: skip
DIFFERENCE = ["tree_a", "tree_b", "difference", "difference_lo", "difference_hi"]
NO_DIFFERENCE = Interval(nan, nan, nan)  # none is recorded

Differences = dict[tuple[str, int], pd.DataFrame]  # panel and budget -> `DIFFERENCE` of comparisons.csv


@dataclass(frozen=True)
class Lead:
    """Who leads in one panel at one budget.

    Attributes:
        trees: the leading shape, and those that equal it on every prompt.
        value: its tokens per step, picked on one half of the prompts and measured on the other, both ways; where both
            halves pick this shape, that is what it has on all prompts.
        runner: the best of the others; None where there is none.
        lead: leader minus runner-up, paired and cross-fitted likewise (`comparisons.csv` where both halves pick these
            two).
        hindsight: the reference tree's block efficiency, where it was measured.
        shapes: how many shapes were compared, the reference aside.
        sizes: nodes of the trees that have another size than the budget.
        picked: what each half of the prompts picks; empty where there are no halves.
    """

    panel: str
    budget: int
    trees: tuple[str, ...]
    value: Interval
    runner: str | None
    lead: Interval
    verdict: str
    hindsight: float
    shapes: int
    sizes: Mapping[str, int]
    picked: tuple[str, ...] = ()

    @property
    def agreed(self) -> bool:
        """No half of the prompts picks another shape."""
        return set(self.picked) <= set(self.trees)

    def said(self, tree: str) -> str:
        """A tree's name, with its nodes where these are not the budget."""
        return visible(tree) + (f" ({plural(self.sizes[tree], 'node')})" if tree in self.sizes else "")

    @property
    def tree(self) -> str:
        """The leading shape, the first of equals."""
        return self.trees[0]


def read_differences(study: StudyFiles) -> Differences:
    """The rows of `comparisons.csv` by what two trees must share to be compared."""
    table = study.details.get("comparisons.csv")
    if table is None or table.empty:
        return {}
    differences: Differences = {}
    for values, group in table.groupby(GROUP_KEYS, sort=False, dropna=False):
        keys = dict(zip(GROUP_KEYS, map(str, values), strict=True))
        differences[panel_label(keys, study.varying), int(float(keys["budget"]))] = group[DIFFERENCE]
    return differences


def difference(differences: Differences, panel: str, budget: int, first: str, second: str) -> Interval:
    """`first` minus `second` in block efficiency, as `comparisons.csv` has it, in either order."""
    table = differences.get((panel, budget))
    if table is None:
        return NO_DIFFERENCE
    for a, b, sign in ((first, second, 1), (second, first, -1)):
        rows = table[(table["tree_a"] == a) & (table["tree_b"] == b)]
        if len(rows) == 1:
            value, low, high = Interval.of(rows.iloc[0], "difference")
            return Interval(value, low, high) if sign == 1 else Interval(-value + 0.0, -high + 0.0, -low + 0.0)
    return NO_DIFFERENCE


def leads(rows: pd.DataFrame, panels: list[str], differences: Differences, halves: Halves | None = None) -> list[Lead]:
    """The lead of every panel and budget, in the order of `panels`; `rows` are those of a summary with ratios, and
    `competes`: the budget that each is compared at. Without `halves` leaders are picked and measured on the same
    prompts."""
    order = {panel: index for index, panel in enumerate(panels)}
    leads = []
    for (panel, budget), group in rows[LOOKED_AT].groupby(["panel", "competes"], sort=False):
        lead = _lead(str(panel), int(str(budget).partition(".")[0]), group, differences, halves)
        leads += [lead] if lead is not None else []
    return sorted(leads, key=lambda lead: (order[lead.panel], lead.budget))


def _lead(panel: str, budget: int, group: pd.DataFrame, differences: Differences, halves: Halves | None) -> Lead | None:
    references = group[group["tree"].map(is_reference)]
    fair = (
        group.drop(references.index)
        .drop_duplicates("tree")
        .sort_values("block_efficiency", ascending=False, kind="stable")
    )
    if fair.empty:
        return None
    value = Interval.of(fair.iloc[0], "block_efficiency")
    trees, runner, lead = [str(fair["tree"].iloc[0])], None, NO_DIFFERENCE
    for tree, efficiency in zip(fair["tree"].iloc[1:], fair["block_efficiency"].iloc[1:], strict=True):
        ahead = difference(differences, panel, budget, trees[0], tree)
        if efficiency == value.value and ahead[1:] == (0, 0):
            trees.append(str(tree))
            continue
        runner, lead = str(tree), ahead
        break
    hindsight = float(references["block_efficiency"].iloc[0]) if len(references) else nan
    picked: tuple[str, ...] = ()
    if halves is not None and halves.knows(list(fair["combination"])):
        standing, equals = halves.standing(list(fair["combination"])), len(trees)
        picked = tuple(str(fair["tree"].iloc[place]) for place in standing.leaders)
        value = value if max(standing.leaders) < equals else standing.value
        as_named = max(standing.leaders) < equals and standing.runners == (equals, equals)
        lead = lead if as_named or runner is None else standing.lead
    verdict = _verdict(trees, runner, lead, picked)
    sizes = {str(tree): int(size) for tree, size in zip(fair["tree"], fair["budget"], strict=True) if size != budget}
    return Lead(panel, budget, tuple(trees), value, runner, lead, verdict, hindsight, len(fair), sizes, picked)


def _verdict(trees: list[str], runner: str | None, lead: Interval, picked: tuple[str, ...]) -> str:
    if runner is None:
        return ALONE if len(trees) == 1 else EQUAL
    if not lead.known:
        return UNKNOWN
    return CLEAR if lead.low > 0 and set(picked) <= set(trees) else OPEN


def headlines(leads: Iterable[Lead]) -> dict[str, Lead]:
    """Panel -> the lead at the budget with the most shapes, the largest of these."""
    best: dict[str, Lead] = {}
    for lead in leads:
        before = best.get(lead.panel)
        if before is None or (lead.shapes, lead.budget) > (before.shapes, before.budget):
            best[lead.panel] = lead
    return best


def lead_sentence(lead: Lead) -> Text:
    """One panel's winner, with the lead's interval and what it supports."""
    start = say("{}, {}: ", Name(lead.panel), plural(lead.budget, "node"))
    equals = say("{}{}", names(map(lead.said, lead.trees)), "" if len(lead.trees) == 1 else " (equal)")
    if lead.verdict == ALONE:
        return say("{}{} with {} tokens per pass, the only shape.", start, equals, lead.value)
    if lead.verdict == EQUAL:
        return say("{}{} give the same {} tokens per pass: no winner.", start, equals, lead.value)
    assert lead.runner is not None
    first = say("{}{} is first with {} tokens per pass; its lead over {}", start, equals, lead.value,
                Name(lead.said(lead.runner)))  # fmt: skip
    if lead.verdict == UNKNOWN:
        return say("{} has no interval.", first)
    return say("{} is {}: {}.", first, lead.lead, _how_sure(lead))


def _how_sure(lead: Lead) -> Text:
    if lead.verdict == CLEAR:
        return say("the interval lies above 0")
    if lead.agreed:
        return say("the interval holds 0: no clear winner")
    one, other = lead.picked
    return say("the halves of the prompts pick {} and {}: no clear winner", Name(visible(one)), Name(visible(other)))
