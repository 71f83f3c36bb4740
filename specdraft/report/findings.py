"""What a study says: who leads at each budget, by how much, and how sure that is. Intervals are those of the result
files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan

import pandas as pd

from specdraft.report.study_files import StudyFiles, panel_label, visible
from specdraft.report.words import Name, Strong, Text, join, names, plural, say
from specdraft.results.comparisons import GROUP_KEYS
from specdraft.results.intervals import Interval, number
from specdraft.trees.shapes import is_reference

CLEAR, OPEN, UNKNOWN, ALONE, EQUAL = "clear", "open", "no interval", "alone", "all equal"
VERDICTS = {
    CLEAR: "clear: the interval of the lead lies above 0",
    OPEN: "open: the interval of the lead holds 0",
    UNKNOWN: "no interval is recorded",
    ALONE: "no other shape was measured",
    EQUAL: "all shapes are the same here",
}
MOST_LOOPING = 0.3
FEWEST_PROMPTS = 20


@dataclass(frozen=True)
class Lead:
    """Who leads in one panel at one budget.

    Attributes:
        trees: the leading shape, and those that equal it on every prompt.
        runner: the best of the others; None where there is none.
        lead: leader minus runner-up, paired (`comparisons.csv`).
        hindsight: the reference tree's block efficiency, where it was measured.
        shapes: how many shapes were compared, the reference aside.
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

    @property
    def tree(self) -> str:
        """The leading shape, the first of equals."""
        return self.trees[0]


class Findings:
    """What the report says about a study."""

    def __init__(self, study: StudyFiles) -> None:
        self.study = study
        self.rows = study.summary[study.summary["block_efficiency"].notna()]
        self._differences = self._read_differences()

    def _read_differences(self) -> dict[tuple[str, int], pd.DataFrame]:
        table = self.study.details.get("comparisons.csv")
        found: dict[tuple[str, int], pd.DataFrame] = {}
        if table is None or table.empty:
            return found
        for values, group in table.groupby(GROUP_KEYS, sort=False, dropna=False):
            keys = dict(zip(GROUP_KEYS, map(str, values), strict=True))
            found[panel_label(keys, self.study.varying), int(float(keys["budget"]))] = group
        return found

    def difference(self, panel: str, budget: int, first: str, second: str) -> Interval:
        """`first` minus `second` in block efficiency, as `comparisons.csv` has it, in either order."""
        table = self._differences.get((panel, budget))
        if table is None:
            return Interval(nan, nan, nan)
        for a, b, sign in ((first, second, 1), (second, first, -1)):
            rows = table[(table["tree_a"] == a) & (table["tree_b"] == b)]
            if len(rows) == 1:
                value, low, high = (float(rows[c].iloc[0]) for c in ("difference", "difference_lo", "difference_hi"))
                return Interval(value, low, high) if sign == 1 else Interval(-value + 0.0, -high + 0.0, -low + 0.0)
        return Interval(nan, nan, nan)

    @cached_property
    def leads(self) -> list[Lead]:
        """Every panel and budget, in the file's order of panels."""
        order = {panel: index for index, panel in enumerate(self.study.panels)}
        found = []
        for (panel, budget), group in self.rows.groupby(["panel", "budget"], sort=False):
            lead = self._lead(str(panel), int(str(budget).partition(".")[0]), group)
            found += [lead] if lead is not None else []
        return sorted(found, key=lambda lead: (order[lead.panel], lead.budget))

    def _lead(self, panel: str, budget: int, group: pd.DataFrame) -> Lead | None:
        hindsight = group[[is_reference(tree) for tree in group["tree"]]]
        fair = (
            group.drop(hindsight.index)
            .drop_duplicates("tree")
            .sort_values("block_efficiency", ascending=False, kind="stable")
        )
        if fair.empty:
            return None
        reference = float(hindsight["block_efficiency"].iloc[0]) if len(hindsight) else nan
        top = fair.iloc[0]
        trees, runner, lead = [str(top["tree"])], None, Interval(nan, nan, nan)
        for tree, value in zip(fair["tree"].iloc[1:], fair["block_efficiency"].iloc[1:], strict=True):
            difference = self.difference(panel, budget, trees[0], tree)
            if value == top["block_efficiency"] and difference[1:] == (0, 0):
                trees.append(str(tree))
                continue
            runner, lead = str(tree), difference
            break
        verdict = _verdict(trees, runner, lead)
        return Lead(
            panel,
            budget,
            tuple(trees),
            Interval.of(top, "block_efficiency"),
            runner,
            lead,
            verdict,
            reference,
            len(fair),
        )

    @cached_property
    def headlines(self) -> dict[str, Lead]:
        """Panel -> the lead at the budget with the most shapes, the largest of these."""
        best: dict[str, Lead] = {}
        for lead in self.leads:
            before = best.get(lead.panel)
            if before is None or (lead.shapes, lead.budget) > (before.shapes, before.budget):
                best[lead.panel] = lead
        return best

    @cached_property
    def prompts(self) -> int | None:
        """How many prompts, as the manifest says."""
        count = self.study.about("prompts")
        return count if isinstance(count, int) else None

    @cached_property
    def live(self) -> pd.DataFrame:
        """Rows with measured times."""
        return self.rows[self.rows["wall_s"].notna()]

    @cached_property
    def estimated(self) -> pd.DataFrame:
        """Rows with estimated times."""
        return self.rows[self.rows["est_speedup"].notna()]

    def answer(self) -> list[Text]:
        """The study's answer, a few sentences."""
        heads = list(self.headlines.values())
        if not heads:
            return [
                say(
                    "There is no answer: {}.",
                    "no combination has results" if self.rows.empty else "only hindsight trees were measured",
                )
            ]
        return [self._in_one_sentence(heads), *self._in_time()]

    def _in_one_sentence(self, heads: list[Lead]) -> Text:
        if len(heads) == 1 and heads[0].verdict == ALONE:
            head = heads[0]
            more = "At " + plural(head.budget, "draft node")
            return say(
                "{}, {} yields {} tokens per pass of the target (plain decoding: 1). It is the only shape, so "
                "there is no winner.",
                Strong(more),
                Name(visible(head.tree)),
                head.value,
            )
        ranked = Counter(lead.tree for lead in heads if lead.verdict not in (ALONE, EQUAL))
        low, high = min(lead.value.value for lead in heads), max(lead.value.value for lead in heads)
        budgets = sorted({lead.budget for lead in heads})
        at = Strong(
            "At "
            + (plural(budgets[0], "draft node") if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]} draft nodes")
        )
        gain = number(low) if number(low) == number(high) else f"{number(low)} to {number(high)}"
        if not ranked:
            return say("{} no shape differs from the others, or none has a rival: there is no winner.", at)
        rated = sum(ranked.values())
        clear = Counter(lead.tree for lead in heads if lead.verdict == CLEAR)
        things = "pairs" if len(heads) == self.rows["pair"].nunique() else "settings"
        if len(ranked) == 1:
            tree = Name(visible(next(iter(ranked))))
            where = "" if rated == 1 else f" for all {rated} {things}"
            if clear.total() == rated:
                return say(
                    "{} {} gets the most draft tokens accepted{}: {} tokens per pass of the target where plain "
                    "decoding gets 1; "
                    "its lead is clear at the 95 % level.",
                    at,
                    tree,
                    where,
                    gain,
                )
            unknown = all(lead.verdict in (UNKNOWN, ALONE, EQUAL) for lead in heads)
            sure = (
                "its lead has no interval"
                if unknown
                else f"its lead is clear at the 95 % level in {clear.total()} of {rated}"
                if clear
                else "its lead is not clear at the 95 % level, so there is no proven winner"
            )
            return say(
                "{} {} came out first{}, with {} tokens per pass of the target where plain decoding gets 1; {}.",
                at,
                tree,
                where,
                gain,
                sure,
            )
        if not clear:
            firsts = join((say("{} in {}", Name(visible(tree)), count) for tree, count in ranked.most_common(3)), ", ")
            return say(
                "{} no shape is shown to be the best: {} came out first of {} {}, none with a clear lead. A pass "
                "of the target yields {} "
                "tokens there; plain decoding 1.",
                at,
                firsts,
                rated,
                things,
                gain,
            )
        firsts = join((say("{} in {}", Name(visible(tree)), count) for tree, count in clear.most_common(3)), ", ")
        start = (
            "the best shape depends on the setting" if len(clear) > 1 else "one shape leads clearly, but not everywhere"
        )
        return say(
            "{} {}. Clear leads (95 % level): {} of {} {}. A pass of the target yields {} tokens there; plain "
            "decoding 1.",
            at,
            start,
            firsts,
            rated,
            things,
            gain,
        )

    def _in_time(self) -> list[Text]:
        texts = []
        if len(self.live):
            fastest = self.live[~self.live["tree"].map(is_reference)].sort_values("speedup", ascending=False)
            if len(fastest) and not isnan(fastest["speedup"].iloc[0]):
                row = fastest.iloc[0]
                speed = Interval.of(row, "speedup")
                texts.append(
                    say(
                        "{} the fastest combination was {} with {} ({}): {} times the speed of plain decoding; {}.",
                        Strong("Measured time:"),
                        Name(visible(row["tree"])),
                        plural(int(row["budget"]), "node"),
                        Name(row["panel"]),
                        speed,
                        against_one(speed),
                    )
                )
        if len(self.estimated):
            best = self.estimated[~self.estimated["tree"].map(is_reference)].sort_values("est_speedup", ascending=False)
            if len(best):
                row = best.iloc[0]
                speed = Interval.of(row, "est_speedup")
                texts.append(
                    say(
                        "{} the highest estimated speed-up is {} ({} with {}, {}): {}. More tokens per pass is "
                        "not always faster: "
                        "bigger trees cost more to draft and check.",
                        Strong("Time, an estimate:"),
                        speed,
                        Name(visible(row["tree"])),
                        plural(int(row["budget"]), "node"),
                        Name(row["panel"]),
                        against_one(speed),
                    )
                )
        return texts

    def confidence(self) -> tuple[str, list[Text]]:
        """One word, and the reasons for it."""
        contested = [lead for lead in self.headlines.values() if lead.verdict in (CLEAR, OPEN, UNKNOWN)]
        clear = sum(lead.verdict == CLEAR for lead in contested)
        unknown = sum(lead.verdict == UNKNOWN for lead in contested)
        word = (
            "None: there are no results"
            if not self.headlines
            else "Nothing to compare"
            if not contested
            else "Unknown: no intervals"
            if unknown == len(contested)
            else "High: every lead named here is clear at the 95 % level"
            if clear == len(contested)
            else "Low: no lead named here is clear at the 95 % level"
            if clear == 0
            else "Mixed: some leads are clear at the 95 % level, others are not"
        )
        if word.startswith("High") and self.prompts is not None and self.prompts < FEWEST_PROMPTS:
            word = "Fair: every lead is clear at the 95 % level, but on few prompts"
        return word, self._reasons()

    def _reasons(self) -> list[Text]:
        reasons = []
        everywhere = Counter(lead.verdict for lead in self.leads)
        rated = everywhere[CLEAR] + everywhere[OPEN]
        if rated:
            reasons.append(
                say(
                    "In {} of {} comparisons (setting and budget) the 95 % interval of the leader's lead over "
                    "the runner-up lies above 0. "
                    "Both are scored on the same prompts, so what differs between prompts cancels.",
                    everywhere[CLEAR],
                    rated,
                )
            )
        if everywhere[UNKNOWN]:
            reasons.append(
                say(
                    "{} no interval of the lead: with one prompt, or without comparisons.csv, nothing says how "
                    "far it would carry over.",
                    plural(everywhere[UNKNOWN], "comparison has", "comparisons have"),
                )
            )
        if self.prompts == 1:
            reasons.append(
                say("There is one prompt, so no interval can be given: these numbers describe that prompt only.")
            )
        elif self.prompts is not None:
            few = (
                f" That is few: expect other prompts to differ ({FEWEST_PROMPTS} or more are better)."
                if self.prompts < FEWEST_PROMPTS
                else ""
            )
            reasons.append(say("{} give the intervals.{}", plural(self.prompts, "prompt"), few))
        loops = self.rows["loop_share"].max()
        if loops > MOST_LOOPING:
            reasons.append(
                say("Up to {} of the text repeats itself: part of the acceptance measures loops.", f"{loops:.0%}")
            )
        if self.study.failures:
            reasons.append(
                say(
                    "{} failed and {} missing here.",
                    plural(len(self.study.failures), "combination"),
                    "is" if len(self.study.failures) == 1 else "are",
                )
            )
        if len(self.estimated):
            reasons.append(
                say("Token counts are replayed from recorded texts (exact under greedy decoding); times are estimates.")
            )
        return reasons

    def gaps(self) -> Iterable[Text]:
        """What the study lacks, in words."""
        if self.rows.empty:
            yield say(
                "No combination has results; {} recorded below.",
                plural(len(self.study.failures), "failure is", "failures are"),
            )
            return
        if self.rows["block_efficiency_lo"].isna().all():
            yield say("No intervals: {}.", "a single prompt has none" if self.prompts == 1 else "summary.csv has none")
        if self.rows["tree"].nunique() == 1:
            yield say("A single shape ({}) was measured: nothing can win.", Name(visible(self.rows["tree"].iloc[0])))
        if self.rows["budget"].nunique() == 1:
            yield say(
                "A single budget ({}) was measured: how results grow with the budget cannot be seen.",
                plural(int(self.rows["budget"].iloc[0]), "node"),
            )
        if len(missing := self.study.summary[self.study.summary["block_efficiency"].isna()]):
            yield say("{} took no step, so that its ratios are empty.", plural(len(missing), "combination"))
        if self.rows.duplicated(["panel", "tree", "budget"]).any():
            yield say(
                "Some rows share all their key columns (they differ in a setting that has no column); figures "
                "show the first of each."
            )
        yield from (say("{}", note) for note in self.study.notes)


def _verdict(trees: list[str], runner: str | None, lead: Interval) -> str:
    if runner is None:
        return ALONE if len(trees) == 1 else EQUAL
    if not lead.known:
        return UNKNOWN
    return CLEAR if lead.low > 0 else OPEN


def against_one(speed: Interval) -> str:
    """What an interval of a speed-up supports."""
    if not speed.known:
        return "there is no interval, so nothing says whether it is a gain"
    if speed.low > 1:
        return "its interval lies above 1, a gain"
    return (
        "its interval lies below 1, a loss"
        if speed.high < 1
        else "its interval holds 1, so neither a gain nor a loss is shown"
    )


def lead_sentence(lead: Lead) -> Text:
    """One panel's winner, with the lead's interval and what it supports."""
    start = say("{}, {}: ", Name(lead.panel), plural(lead.budget, "node"))
    equals = say("{}{}", names(map(visible, lead.trees)), "" if len(lead.trees) == 1 else " (equal)")
    if lead.verdict == ALONE:
        return say("{}{} with {} tokens per pass, the only shape.", start, equals, lead.value)
    if lead.verdict == EQUAL:
        return say("{}{} give the same {} tokens per pass: no winner.", start, equals, lead.value)
    assert lead.runner is not None
    runner = Name(visible(lead.runner))
    if lead.verdict == UNKNOWN:
        return say(
            "{}{} is first with {} tokens per pass; its lead over {} has no interval.",
            start,
            equals,
            lead.value,
            runner,
        )
    sure = "the interval lies above 0" if lead.verdict == CLEAR else "the interval holds 0: no clear winner"
    return say(
        "{}{} is first with {} tokens per pass; its lead over {} is {}: {}.",
        start,
        equals,
        lead.value,
        runner,
        lead.lead,
        sure,
    )
