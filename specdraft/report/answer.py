"""The study's answer in a few sentences: which shape gets the most tokens accepted, and what that is worth in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from specdraft.report.cross_fit import best_row
from specdraft.report.findings import Findings, fair
from specdraft.report.leads import ALONE, CLEAR, EQUAL, UNKNOWN, Lead
from specdraft.report.run_facts import doubted_costs
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Strong, Text, join, plural, say
from specdraft.results.intervals import Interval, number

Leader = tuple[str, ...]  # the names of shapes that lead together


class Standing(NamedTuple):
    """The headlines that have a winner or could have: those with a rival that differs.

    Attributes:
        heads: these headlines.
        ranked: leader -> headlines where it came out first.
        clear: leader -> headlines where its lead is clear.
        things: what a headline is of: pairs or settings.
        others: what is said of the other headlines.
    """

    heads: list[Lead]
    ranked: Counter[Leader]
    clear: Counter[Leader]
    things: str
    others: Text

    @property
    def rated(self) -> int:
        """How many headlines have a rival."""
        return len(self.heads)


def answer(findings: Findings) -> list[Text]:
    """The answer, or why there is none."""
    heads = list(findings.headlines.values())
    if not heads:
        why = "no combination has results" if findings.rows.empty else "only hindsight trees were measured"
        return [say("There is no answer: {}.", why)]
    if len(heads) == 1 and heads[0].verdict == ALONE:
        return [_of_the_only_shape(heads[0]), *_in_time(findings)]
    standing = _standing(findings, heads)
    if not standing.heads:
        text = say("{} no shape differs from the others, or none has a rival: there is no winner.", _at(heads))
    elif len(standing.ranked) == 1:
        text = _of_one_leader(standing)
    else:
        text = _of_several_leaders(standing)
    return [join([text, standing.others]), *_in_time(findings)]


def _standing(findings: Findings, heads: list[Lead]) -> Standing:
    rated = [lead for lead in heads if lead.verdict not in (ALONE, EQUAL)]
    one_each = len(findings.study.panels) == findings.rows["pair"].nunique()
    things = "pairs" if one_each else "settings"
    return Standing(
        heads=rated,
        ranked=Counter(map(_leader, rated)),
        clear=Counter(_leader(lead) for lead in rated if lead.verdict == CLEAR),
        things=things,
        others=_of_the_others(heads, things.removesuffix("s")) if rated else (),
    )


def _leader(lead: Lead) -> Leader:
    return tuple(map(lead.said, lead.trees))


def _named(leader: Leader) -> Name:
    return Name(" = ".join(leader))


def _at(heads: Sequence[Lead]) -> Strong:
    budgets = sorted({lead.budget for lead in heads})
    nodes = plural(budgets[0], "draft node") if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]} draft nodes"
    return Strong(f"At {nodes}")


def _gain(heads: Iterable[Lead]) -> str:
    """Tokens per pass of the leaders."""
    values = [lead.value.value for lead in heads]
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def _of_the_others(heads: Sequence[Lead], thing: str) -> Text:
    alone, equal = (sum(lead.verdict == verdict for lead in heads) for verdict in (ALONE, EQUAL))
    texts = [
        say("In {} a single shape was measured, without a rival.", plural(alone, f"more {thing}")) if alone else (),
        say("In {} all shapes are equal.", plural(equal, f"more {thing}")) if equal else (),
    ]
    return join(texts)


def _of_the_only_shape(head: Lead) -> Text:
    return say(
        "{}, {} yields {} tokens per pass of the target (plain decoding: 1). It is the only shape, so there is "
        "no winner.",
        Strong("At " + plural(head.budget, "draft node")),
        Name(visible(head.tree)),
        head.value,
    )


def _of_one_leader(standing: Standing) -> Text:
    rated, clear = standing.rated, standing.clear.total()
    (leader,) = standing.ranked
    where = "" if rated == 1 else f" for all {rated} {standing.things}{' with a rival' if standing.others else ''}"
    if clear == rated:
        return say(
            "{} {} gets the most draft tokens accepted{}: {} tokens per pass of the target where plain decoding "
            "gets 1; its lead is clear at the 95 % level.",
            _at(standing.heads),
            _named(leader),
            where,
            _gain(standing.heads),
        )
    sure = (
        "its lead has no interval"
        if all(lead.verdict == UNKNOWN for lead in standing.heads)
        else f"its lead is clear at the 95 % level in {clear} of {rated}"
        if clear
        else "its lead is not clear at the 95 % level, so there is no proven winner"
    )
    return say(
        "{} {} came out first{}, with {} tokens per pass of the target where plain decoding gets 1; {}.",
        _at(standing.heads),
        _named(leader),
        where,
        _gain(standing.heads),
        sure,
    )


def _of_several_leaders(standing: Standing) -> Text:
    if not standing.clear:
        return say(
            "{} no shape is shown to be the best: {} came out first of {} {}, none with a clear lead. A pass of "
            "the target yields {} tokens there; plain decoding 1.",
            _at(standing.heads),
            _most_often(standing.ranked),
            standing.rated,
            standing.things,
            _gain(standing.heads),
        )
    clear = [lead for lead in standing.heads if lead.verdict == CLEAR]
    several = len(standing.clear) > 1
    return say(
        "{} {}. Clear leads (95 % level): {} of {} {}. A pass of the target yields {} tokens there; plain decoding 1.",
        _at(standing.heads),
        "the best shape depends on the setting" if several else "one shape leads clearly, but not everywhere",
        _most_often(standing.clear),
        standing.rated,
        standing.things,
        _gain(clear),
    )


def _most_often(leaders: Counter[Leader]) -> Text:
    return join((say("{} in {}", _named(leader), count) for leader, count in leaders.most_common(3)), ", ")


def _in_time(findings: Findings) -> list[Text]:
    texts = []
    live = fair(findings.live)
    live = live[live["speedup"].notna()]
    if len(live):
        row, speed = best_row(findings.halves, live, "speedup")
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
    estimated = fair(findings.estimated)
    if len(estimated):
        row, speed = best_row(findings.halves, estimated, "est_speedup")
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
    for line in doubted_costs(findings.study):
        what, why = line.split(":", 1)
        texts.append(say("{}{}.", Strong(what.capitalize() + ":"), why))
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
