"""Why one tree gets more tokens accepted than another, by the places of its nodes: each question with a figure, a
table and sentences from the same numbers. Differences are paired over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from specdraft.report.course.asked import (
    AT,
    FAR,
    FITTED,
    MIXED,
    Analysis,
    Asked,
    added_by_nodes,
    at,
    cell,
    over_budgets,
    point,
    range_of,
    verdict,
)
from specdraft.report.course.drawings import curves, dots
from specdraft.report.course.measures import CHAIN, Setting
from specdraft.report.words import Name
from specdraft.results.intervals import Interval
from specdraft.trees.shapes.paths import Paths

BELOW = {"below_first": ((0,), (1,), (0, 0)), "below_second": ((0,), (1,), (1, 0))}
FEW = 2  # nodes: two children of the root


def rank_decay(asked: Asked) -> Analysis | None:
    """What the child of rank r adds: the widest tree of r nodes less that of r - 1."""
    points, rows = [], {}
    for pair in asked.pairs_with(at("wide", 1), at("wide", 2)):
        added = list(added_by_nodes(asked.measures, Setting(pair, "wide", 1), single=True))
        points += [point(pair, "", rank, one) for rank, one in added]
        rows[pair] = [cell(dict(added).get(rank)) for rank in (1, 2, 3, 4, AT)]
    if not points:
        return None
    table = pd.DataFrame(points)
    pair = next(iter(rows))
    of = {int(row["at"]): row for row in points if row["panel"] == pair}
    first, second, last = _interval(of[1]), _interval(of[2]), _interval(of[max(of)])
    falls = {pair: _falls(points, pair) for pair in rows}
    sentences = [
        asked.texts.say("rank.answer", pair=Name(pair), first=first, second=second, rank=max(of), last=last),
        asked.texts.say(
            "rank.all",
            count=sum(falls.values()),
            pairs=len(rows),
            **{
                name: range_of(one["value"] for one in points if one["at"] == rank and one["panel"] in rows)
                for rank, name in ((1, "first"), (2, "second"))
            },
        ),
    ]
    spec = curves(
        table, asked.label("rank.x"), asked.label("rank.y"), asked.label("pair"), asked.font, log=False, rule=0
    )
    return asked.made("rank", sentences, falls, spec, rows)


def depth_or_width(asked: Asked) -> Analysis | None:
    """The same nodes one below the other, side by side, and mixed."""
    measures, shapes = asked.measures, (CHAIN, "wide", MIXED)
    pairs = asked.pairs_with(*(at(shape, AT) for shape in shapes), at(CHAIN, 1))
    if not pairs:
        return None
    rows, leads = {}, {}
    for pair in pairs:
        deep, wide, mixed, far_mixed, far_deep = (
            Setting(pair, shape, budget)
            for shape, budget in ((CHAIN, AT), ("wide", AT), (MIXED, AT), (MIXED, FAR), (CHAIN, FAR))
        )
        leads[pair] = measures.difference(deep, wide), measures.difference(mixed, deep)
        far = measures.difference(far_mixed, far_deep) if measures.has(far_mixed, far_deep) else None
        rows[pair] = [cell(measures.ratio(one)) for one in (deep, wide, mixed)]
        rows[pair] += [cell(one) for one in (*leads[pair], far)]
    over_wide, over_deep = leads[pairs[0]]
    ranked = sorted(pairs, key=lambda pair: measures.ratio(Setting(pair, CHAIN, 1)).value)
    sentences = [
        asked.texts.say("depth.answer", pair=Name(pairs[0]), nodes=AT, deep=over_wide, mixed=over_deep,
                        deep_verdict=verdict(asked.texts, over_wide), verdict=verdict(asked.texts, over_deep)),
        asked.texts.say("depth.all", nodes=AT, best=Name(ranked[-1]), worst=Name(ranked[0]),
                        best_mixed=leads[ranked[-1]][1], worst_mixed=leads[ranked[0]][1], pairs=len(pairs),
                        deep=sum(beside.low > 0 for beside, _ in leads.values()),
                        mixed=sum(beside.low > 0 for _, beside in leads.values())),
    ]  # fmt: skip
    table = over_budgets(measures, [Setting(pair, shape, AT) for pair in pairs for shape in shapes])
    spec = curves(table, asked.label("nodes"), asked.label("efficiency"), asked.label("shape"), asked.font)
    return asked.made("depth", sentences, {}, spec, rows)


def marginal_gain(asked: Asked) -> Analysis | None:
    """Accepted tokens that each further node brings."""
    measures, shapes = asked.measures, (CHAIN, "wide", FITTED)
    pairs = asked.pairs_with(*(at(shape, budget) for shape in shapes for budget in (1, 2)))
    if not pairs:
        return None
    points, rows, found = [], {}, {}
    for pair in pairs:
        for shape in shapes:
            points += [point(pair, shape, at, one) for at, one in added_by_nodes(measures, Setting(pair, shape, 1))]
        found[pair] = dict(added_by_nodes(measures, Setting(pair, FITTED, 1)))
        rows[pair] = [cell(found[pair].get(at)) for at in (1, 2, 4, AT, 2 * AT, FAR)]
    pair = pairs[0]
    last = max(found[pair])
    sentences = [
        asked.texts.say("gain.answer", pair=Name(pair), shape=Name(FITTED), first=found[pair][1],
                        second=found[pair][2], nodes=last, last=found[pair][last]),
        asked.texts.say("gain.all", pairs=len(pairs), first=range_of(of[1].value for of in found.values()),
                        last=range_of(of[max(of)].value for of in found.values()),
                        count=sum(found[pair][max(found[pair])].low > 0 for pair in pairs)),
    ]  # fmt: skip
    table = pd.DataFrame(points)
    spec = curves(table, asked.label("gain.x"), asked.label("gain.y"), asked.label("shape"), asked.font, rule=0)
    return asked.made("gain", sentences, {pair: one[2].high < one[1].low for pair, one in found.items()}, spec, rows)


def below_siblings(asked: Asked) -> Analysis | None:
    """What a third node adds to two first ones: below the first, below the second, beside them."""
    measures = asked.measures
    trees = {name: Paths(paths=[list(path) for path in paths]).label for name, paths in BELOW.items()}
    third = {**{name: at(tree, 3) for name, tree in trees.items()}, "beside": at("wide", 3)}
    pairs = asked.pairs_with(at("wide", FEW), *third.values())
    if not pairs:
        return None
    found = {
        pair: {
            name: measures.difference(of(pair), Setting(pair, "wide", FEW), "acceptance_length")
            for name, of in third.items()
        }
        for pair in pairs
    }
    points = [
        point(pair, "", 0, one) | {"row": asked.label(f"siblings.{name}")}
        for pair, added in found.items()
        for name, one in added.items()
    ]
    sentences = [
        asked.texts.say("siblings.answer", pair=Name(pairs[0]), **found[pairs[0]]),
        asked.texts.say("siblings.all", pairs=len(pairs),
                        first=range_of(one["below_first"].value for one in found.values()),
                        second=range_of(one["below_second"].value for one in found.values()),
                        count=sum(one["below_first"].low > one["below_second"].high for one in found.values())),
    ]  # fmt: skip
    spec = dots(pd.DataFrame(points), asked.label("siblings.x"), asked.label("shape"), asked.font, rule=0)
    return asked.made(
        "siblings",
        sentences,
        {pair: one["below_first"].low > one["below_second"].high for pair, one in found.items()},
        spec,
        {pair: [cell(v) for v in added.values()] for pair, added in found.items()},
    )


def _interval(point: dict[str, Any]) -> Interval:
    return Interval(point["value"], point["low"], point["high"])


def _falls(points: Sequence[dict[str, Any]], pair: str) -> bool:
    """Whether the second rank adds clearly less than the first."""
    first, second = (point for point in points if point["panel"] == pair and point["at"] in (1, 2))
    return bool(second["high"] < first["low"])
