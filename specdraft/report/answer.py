"""The study's answer in a few sentences: which shape gets the most tokens accepted, and what that is worth in time."""

from __future__ import annotations

from collections import Counter
from math import isnan
from typing import NamedTuple

from specdraft.report.findings import Findings, fair
from specdraft.report.leads import ALONE, CLEAR, EQUAL, UNKNOWN, Lead
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Strong, Text, join, plural, say
from specdraft.results.intervals import Interval, number


class Standing(NamedTuple):
    """The headlines, counted.

    Attributes:
        at: "At 16 draft nodes", of all headlines.
        gain: tokens per pass of the leaders, in words.
        ranked: leading shape -> headlines where it has a rival.
        clear: leading shape -> headlines where its lead is clear.
        things: what a headline is of: pairs or settings.
    """

    at: Strong
    gain: str
    ranked: Counter[str]
    clear: Counter[str]
    things: str

    @property
    def rated(self) -> int:
        """How many headlines have a rival."""
        return self.ranked.total()


def answer(findings: Findings) -> list[Text]:
    """The answer, or why there is none."""
    heads = list(findings.headlines.values())
    if not heads:
        why = "no combination has results" if findings.rows.empty else "only hindsight trees were measured"
        return [say("There is no answer: {}.", why)]
    if len(heads) == 1 and heads[0].verdict == ALONE:
        return [_of_the_only_shape(heads[0]), *_in_time(findings)]
    standing = _standing(findings, heads)
    if not standing.ranked:
        text = say("{} no shape differs from the others, or none has a rival: there is no winner.", standing.at)
    elif len(standing.ranked) == 1:
        text = _of_one_leader(standing, heads)
    else:
        text = _of_several_leaders(standing)
    return [text, *_in_time(findings)]


def _standing(findings: Findings, heads: list[Lead]) -> Standing:
    low, high = min(lead.value.value for lead in heads), max(lead.value.value for lead in heads)
    budgets = sorted({lead.budget for lead in heads})
    nodes = plural(budgets[0], "draft node") if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]} draft nodes"
    return Standing(
        at=Strong(f"At {nodes}"),
        gain=number(low) if number(low) == number(high) else f"{number(low)} to {number(high)}",
        ranked=Counter(lead.tree for lead in heads if lead.verdict not in (ALONE, EQUAL)),
        clear=Counter(lead.tree for lead in heads if lead.verdict == CLEAR),
        things="pairs" if len(heads) == findings.rows["pair"].nunique() else "settings",
    )


def _of_the_only_shape(head: Lead) -> Text:
    return say(
        "{}, {} yields {} tokens per pass of the target (plain decoding: 1). It is the only shape, so there is "
        "no winner.",
        Strong("At " + plural(head.budget, "draft node")),
        Name(visible(head.tree)),
        head.value,
    )


def _of_one_leader(standing: Standing, heads: list[Lead]) -> Text:
    rated, clear = standing.rated, standing.clear.total()
    tree = Name(visible(next(iter(standing.ranked))))
    where = "" if rated == 1 else f" for all {rated} {standing.things}"
    if clear == rated:
        return say(
            "{} {} gets the most draft tokens accepted{}: {} tokens per pass of the target where plain decoding "
            "gets 1; its lead is clear at the 95 % level.",
            standing.at,
            tree,
            where,
            standing.gain,
        )
    unknown = all(lead.verdict in (UNKNOWN, ALONE, EQUAL) for lead in heads)
    sure = (
        "its lead has no interval"
        if unknown
        else f"its lead is clear at the 95 % level in {clear} of {rated}"
        if clear
        else "its lead is not clear at the 95 % level, so there is no proven winner"
    )
    return say(
        "{} {} came out first{}, with {} tokens per pass of the target where plain decoding gets 1; {}.",
        standing.at,
        tree,
        where,
        standing.gain,
        sure,
    )


def _of_several_leaders(standing: Standing) -> Text:
    if not standing.clear:
        return say(
            "{} no shape is shown to be the best: {} came out first of {} {}, none with a clear lead. A pass of "
            "the target yields {} tokens there; plain decoding 1.",
            standing.at,
            _most_often(standing.ranked),
            standing.rated,
            standing.things,
            standing.gain,
        )
    several = len(standing.clear) > 1
    return say(
        "{} {}. Clear leads (95 % level): {} of {} {}. A pass of the target yields {} tokens there; plain decoding 1.",
        standing.at,
        "the best shape depends on the setting" if several else "one shape leads clearly, but not everywhere",
        _most_often(standing.clear),
        standing.rated,
        standing.things,
        standing.gain,
    )


def _most_often(leaders: Counter[str]) -> Text:
    return join((say("{} in {}", Name(visible(tree)), count) for tree, count in leaders.most_common(3)), ", ")


def _in_time(findings: Findings) -> list[Text]:
    texts = []
    live = fair(findings.live).sort_values("speedup", ascending=False)
    if len(live) and not isnan(live["speedup"].iloc[0]):
        row = live.iloc[0]
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
    estimated = fair(findings.estimated).sort_values("est_speedup", ascending=False)
    if len(estimated):
        row = estimated.iloc[0]
        speed = Interval.of(row, "est_speedup")
        texts.append(
            say(
                "{} the highest estimated speed-up is {} ({} with {}, {}): {}. More tokens per pass is not "
                "always faster: bigger trees cost more to draft and check.",
                Strong("Time, an estimate:"),
                speed,
                Name(visible(row["tree"])),
                plural(int(row["budget"]), "node"),
                Name(row["panel"]),
                against_one(speed),
            )
        )
    return texts


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
