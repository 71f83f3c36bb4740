"""Why one tree gets more tokens accepted than another, by what surrounds it: each question with a figure, a table and
sentences from the same numbers. Differences are paired over prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from specdraft.report.course.asked import (
    AT,
    FAR,
    FITTED,
    MIXED,
    Analysis,
    Asked,
    all_budgets,
    at,
    cell,
    over_budgets,
    point,
    range_of,
    verdict,
)
from specdraft.report.course.drawings import curves, dots
from specdraft.report.course.measures import CHAIN, Price, Priced, Setting
from specdraft.report.words import Name
from specdraft.results.intervals import Interval

WIDTHS = (2, 8)
SAMPLED = {CHAIN: "rejection", MIXED: "recursive"}  # shape -> the rule that judges it at temperature 1
PRICES = {"cheap": Price(0.02, 0.001), "middling": Price(0.1, 0.01), "dear": Price(0.3, 0.05)}


def best_budget(asked: Asked) -> Analysis | None:
    """Which budget is worth its cost, at three prices of drafting and verifying."""
    measures, shapes = asked.measures, (CHAIN, MIXED, FITTED)
    pairs = asked.pairs_with(*(at(shape, AT) for shape in shapes))
    if not pairs:
        return None
    prices: dict[str, Priced] = dict(PRICES)
    if all(measures.priced(all_budgets(measures, pair, shapes), None) for pair in pairs):
        prices["measured"] = None
    best = {
        pair: {name: measures.best(all_budgets(measures, pair, shapes), price) for name, price in prices.items()}
        for pair in pairs
    }
    named = {
        pair: {name: asked.texts.names(f"{s.tree} {s.budget}" for s in one.picked) for name, one in found.items()}
        for pair, found in best.items()
    }
    rows = {
        pair: [
            (*named[pair][name], f": {found[name].speed}") if name in found else ("–",)
            for name in (*PRICES, "measured")
        ]
        for pair, found in best.items()
    }
    points = [
        point(asked.label(f"cost.{name}"), shape, setting.budget, measures.speed(setting, price))
        for name, price in prices.items()
        for shape in shapes
        for setting in measures.priced(all_budgets(measures, pairs[0], (shape,)), price)
    ]
    table = pd.DataFrame(points)
    parts: dict[str, object] = {f"{name}_picked": text for name, text in named[pairs[0]].items()}
    parts |= {f"{name}_speed": one.speed for name, one in best[pairs[0]].items()}
    ranges = {f"{name}_range": range_of(best[pair][name].speed.value for pair in pairs) for name in PRICES}
    here = (
        asked.texts.say(
            "cost.measured_answer", picked=named[pairs[0]]["measured"], speed=best[pairs[0]]["measured"].speed
        )
        if "measured" in prices
        else asked.texts.say("cost.unmeasured")
    )
    gains = {name: sum(best[pair][name].speed.low > 1 for pair in pairs) for name in PRICES}
    sentences = [
        asked.texts.say("cost.answer", pair=Name(pairs[0]), **parts),
        here,
        asked.texts.say("cost.all", pairs=len(pairs), **gains, **ranges),
    ]
    spec = curves(table, asked.label("nodes"), asked.label("cost.y"), asked.label("shape"), asked.font, rule=1)
    return asked.made("cost", sentences, {}, spec, rows)


def widths(asked: Asked) -> Analysis | None:
    """How much k of a k-ary tree and the width of a beam matter."""
    measures = asked.measures
    families = {MIXED: "k", "beam": "w"}
    low, high = WIDTHS
    pairs = asked.pairs_with(*(at(_of_width(s, width), b) for s in families for width in WIDTHS for b in (AT, FAR)))
    if not pairs:
        return None
    points: list[dict[str, Any]] = []
    rows: dict[str, list[Interval]] = {}
    for pair in pairs:
        rows[pair] = []
        for shape in families:
            for budget in (AT, FAR):
                settings = {width: Setting(pair, _of_width(shape, width), budget) for width in range(low, high + 1)}
                there = {width: one for width, one in settings.items() if measures.has(one)}
                points += [
                    point(pair, f"{shape}, {budget}", width, measures.ratio(one)) for width, one in there.items()
                ]
                rows[pair].append(measures.difference(settings[high], settings[low]))
    small, large, narrow, broad = rows[pairs[0]]
    texts = asked.texts
    sentences = [
        texts.say("width.answer", pair=Name(pairs[0]), low=low, high=high, few=AT, many=FAR, small=small, large=large,
                  narrow=narrow, broad=broad),
        texts.say("width.all", pairs=len(pairs), low=low, high=high, few=AT, many=FAR,
                  hurts=sum(row[0].high < 0 for row in rows.values()),
                  helps=sum(row[1].low > 0 for row in rows.values())),
    ]  # fmt: skip
    table = pd.DataFrame(points)
    spec = curves(
        table, asked.label("width.x"), asked.label("efficiency"), asked.label("width.series"), asked.font, log=False
    )
    cells = {pair: [cell(one) for one in row] for pair, row in rows.items()}
    return asked.made("width", sentences, {pair: row[0].high < 0 for pair, row in rows.items()}, spec, cells)


def sampling(asked: Asked) -> Analysis | None:
    """The same tree on greedy and on sampled texts."""
    measures = asked.measures
    sampled = [at(shape, AT, rule, 1.0) for shape, rule in SAMPLED.items()]
    pairs = asked.pairs_with(*sampled, *(at(shape, AT) for shape in SAMPLED))
    if not pairs:
        return None
    rows: dict[str, list[Interval]] = {}
    names: dict[Setting, str] = {}
    for pair in pairs:
        rows[pair] = []
        for shape, rule in SAMPLED.items():
            settings = [Setting(pair, shape, AT), Setting(pair, shape, AT, rule, 1.0)]
            for setting, kind in zip(settings, ("greedy", "drawn"), strict=True):
                names[setting] = asked.texts.label(f"sampling.{kind}", shape=shape, rule=rule)
            rows[pair] += [*map(measures.ratio, settings), measures.difference(settings[1], settings[0])]
    greedy, drawn, change, *_, mixed = rows[pairs[0]]
    sentences = [
        asked.texts.say("sampling.answer", pair=Name(pairs[0]), nodes=AT, greedy=greedy, drawn=drawn, change=change,
                        mixed=mixed, verdict=verdict(asked.texts, change)),
        asked.texts.say("sampling.all", pairs=len(pairs), pair=Name(pairs[0]), **_counts(rows.values()), **{
            name: f"{measures.ratio(one, 'loop_share').value:.0%}"
            for name, one in (("greedy_loops", Setting(pairs[0], CHAIN, AT)),
                              ("drawn_loops", Setting(pairs[0], CHAIN, AT, SAMPLED[CHAIN], 1.0)))}),
    ]  # fmt: skip
    table = over_budgets(measures, list(names), names)
    spec = curves(table, asked.label("nodes"), asked.label("efficiency"), asked.label("sampling.series"), asked.font)
    cells = {pair: [cell(one) for one in row] for pair, row in rows.items()}
    return asked.made("sampling", sentences, {}, spec, cells)


def by_category(asked: Asked) -> Analysis | None:
    """The kinds of prompts, at one budget."""
    measures = asked.measures
    shapes = (CHAIN, FITTED)
    pairs = [
        pair
        for pair in asked.pairs_with(*(at(shape, AT) for shape in shapes))
        if len(set(measures.categories[pair])) > 1
    ]
    if not pairs:
        return None
    points, rows, ends, loops = [], {}, {}, {}
    for pair in pairs:
        found = {
            (category, shape): measures.ratio(Setting(pair, shape, AT), category=category)
            for category in dict.fromkeys(measures.categories[pair])
            for shape in shapes
        }
        points += [point(pair, shape, 0, one) | {"row": category} for (category, shape), one in found.items()]
        ranked = sorted((one, category) for (category, shape), one in found.items() if shape == CHAIN)
        ends[pair] = ranked[-1], ranked[0]
        (most, most_in), (least, least_in) = ends[pair]
        chain = Setting(pair, CHAIN, AT)
        loops[pair] = [measures.ratio(chain, "loop_share", category=one).value for one in (most_in, least_in)]
        rows[pair] = [(Name(most_in), f" {most}"), (Name(least_in), f" {least}"), (asked.label(_apart(most, least)),)]
    (most, most_in), (least, least_in) = ends[pairs[0]]
    sentences = [
        asked.texts.say("category.answer", pair=Name(pairs[0]), nodes=AT, most_in=Name(most_in), most=most,
                        least_in=Name(least_in), least=least, verdict=asked.label(_apart(most, least)),
                        most_loops=f"{loops[pairs[0]][0]:.0%}", least_loops=f"{loops[pairs[0]][1]:.0%}"),
        asked.texts.say("category.all", pairs=len(pairs), loops=sum(high > low for high, low in loops.values()),
                        count=sum(most.low > least.high for (most, _), (least, _) in ends.values())),
    ]  # fmt: skip
    spec = dots(pd.DataFrame(points), asked.label("efficiency"), asked.label("shape"), asked.font)
    return asked.made("category", sentences, {pair: high > low for pair, (high, low) in loops.items()}, spec, rows)


def _of_width(shape: str, width: int) -> str:
    """The name of a k-ary tree or beam; without a width it has two."""
    letter = {MIXED: "k", "beam": "w"}[shape]
    return shape if width == WIDTHS[0] else f"{shape}-{letter}{width}"


def _counts(rows: Iterable[Sequence[Interval]]) -> dict[str, int]:
    """How many chains and how many mixed trees yield clearly less, and clearly more."""
    listed = list(rows)
    return {
        "less": sum(row[2].high < 0 for row in listed),
        "more": sum(row[2].low > 0 for row in listed),
        "mixed_less": sum(row[5].high < 0 for row in listed),
        "mixed_more": sum(row[5].low > 0 for row in listed),
    }


def _apart(most: Interval, least: Interval) -> str:
    return "apart" if most.low > least.high else "overlap"
