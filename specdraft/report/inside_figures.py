"""Figures of what happens inside the trees: acceptance by depth and by child rank, accepted tokens per step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.canvas import (
    CHAIN,
    MOST_DETAIL_PANELS,
    MOST_DETAIL_SHAPES,
    MOST_SPOKEN,
    Canvas,
    facet,
    spread,
    width,
)
from specdraft.report.findings import Lead
from specdraft.report.study_files import visible
from specdraft.report.words import Name, join, plural, say
from specdraft.results.metrics import depth_rates
from specdraft.trees.shapes import is_reference

FEWEST_REACHED = 20  # steps; rates over fewer are noise
MOST_LENGTH = 12


class InsideFigures(Canvas):
    """Draws the inner workings at the headline budget."""

    def _chosen(self) -> list[tuple[Lead, list[str]]]:
        """Panels and shapes whose inner workings are drawn: leader, runner-up, chain and the reference at the
        headline budget."""
        chosen = []
        heads = self.findings.headlines
        contested = [panel for panel in self.panels if panel in heads and heads[panel].shapes > 1]
        pairs = dict(zip(self.rows["panel"], self.rows["pair"], strict=True))
        for panel in spread(contested or [panel for panel in self.panels if panel in heads], pairs, MOST_DETAIL_PANELS):
            lead = heads[panel]
            there = self.rows[(self.rows["panel"] == panel) & (self.rows["budget"] == lead.budget)]
            ranked = [
                tree
                for tree in there.sort_values("block_efficiency", ascending=False)["tree"]
                if not is_reference(tree)
            ]
            first = [lead.tree, *([lead.runner] if lead.runner else []), *([CHAIN] if CHAIN in ranked else [])]
            trees = list(dict.fromkeys([*first, *ranked]))[:MOST_DETAIL_SHAPES]
            chosen.append((lead, [tree for tree in trees if tree in self.trees]))
        return chosen

    def _detail(self, file: str, chosen: Iterable[tuple[Lead, list[str]]]) -> pd.DataFrame:
        """A detail table's rows of the chosen combinations, with `panel`, `shown` and `all_steps`."""
        table = self.findings.study.details.get(file)
        wanted = [
            self.rows[
                (self.rows["panel"] == lead.panel)
                & (self.rows["budget"] == lead.budget)
                & self.rows["tree"].isin(trees)
            ]
            for lead, trees in chosen
        ]
        if table is None or not wanted:
            return pd.DataFrame()
        keys = pd.concat(wanted)[["combination", "panel", "tree", "shown", "steps"]].rename(
            columns={"steps": "all_steps"}
        )
        return table.merge(keys, on="combination")

    def _at(self) -> str:
        budgets = sorted({lead.budget for lead, _ in self._chosen()})
        if not budgets:
            return ""
        return (
            f", at {plural(budgets[0], 'node')}" if len(budgets) == 1 else f", at {budgets[0]} to {budgets[-1]} nodes"
        )

    def _depth(self) -> None:
        title = f"Acceptance by depth{self._at()}"
        table = self._detail("positions.csv", self._chosen())
        if table.empty:
            self._words("depth", title, self._absent("positions.csv"))
            return
        rates = depth_rates(table, table["all_steps"])
        kept = rates[rates["reached"] >= FEWEST_REACHED] if (rates["reached"] >= FEWEST_REACHED).any() else rates
        shapes = self._shapes_of(kept)
        kinds = {"conditional": "given that the step got there", "marginal": "of all steps"}
        long = kept.melt(["panel", "shown", "depth", "reached"], list(kinds), "kind", "rate")
        long["kind"] = long["kind"].map(lambda kind: f"{kind}: {kinds[kind]}")
        data = self._own("depth", long)
        x = alt.X(
            "depth:Q",
            title="depth in the tree (tokens)",
            axis=alt.Axis(values=_evenly(int(kept["depth"].max())), format="d", grid=False),
            scale=alt.Scale(nice=False, padding=8),
        )
        y = alt.Y("rate:Q", title="steps that accept (share)", scale=alt.Scale(domain=[0, 1]))
        chart = self._pointed(x, y, shapes, ["shown:N", "depth:Q", alt.Tooltip("rate:Q", format=".3f"), "reached:Q"])
        panels = self._panels_of(long)
        faceted = (
            alt.layer(*chart, data=data)
            .properties(width=width(len(panels)), height=170)
            .facet(
                row=alt.Row(
                    "kind:N",
                    title=None,
                    header=alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="normal"),
                ),
                column=alt.Column("panel:N", title=None, sort=panels),
            )
            .resolve_scale(x="independent")
        )
        told = []
        for lead, trees in self._chosen()[:MOST_SPOKEN]:
            own = kept[(kept["panel"] == lead.panel) & (kept["tree"] == (trees[0] if trees else ""))].sort_values(
                "depth"
            )
            if len(own):
                first, last = own.iloc[0], own.iloc[-1]
                deeper = (
                    say(
                        "; at depth {} it is {}, and {} of all steps accept that far",
                        int(last["depth"]),
                        f"{last['conditional']:.0%}",
                        f"{last['marginal']:.1%}",
                    )
                    if len(own) > 1
                    else ()
                )
                told.append(
                    say(
                        "{}, {}: of the steps that get to depth {}, {} accept there{}.",
                        Name(lead.panel),
                        Name(first["shown"]),
                        int(first["depth"]),
                        f"{first['conditional']:.0%}",
                        deeper,
                    )
                )
        few = (
            say("Depths that fewer than {} steps reached are left out.", FEWEST_REACHED)
            if len(kept) < len(rates)
            else ()
        )
        note = say("Pooled over prompts; the files record no intervals for depths.")
        self._add("depth", title, join([*told, few, note, self._left_out_details()]), faceted)

    def _ranks(self) -> None:
        title = f"Acceptance by child rank{self._at()}"
        chosen = []
        for lead, trees in self._chosen():  # the widest tree shows the most ranks
            there = self.rows[(self.rows["panel"] == lead.panel) & (self.rows["budget"] == lead.budget)]
            wide = [tree for tree in there["tree"] if tree == "wide" and tree in self.trees and tree not in trees]
            chosen.append((lead, [*trees, *wide]))
        table = self._detail("nodes.csv", chosen)
        if table.empty:
            self._words("rank", title, self._absent("nodes.csv"))
            return
        ranks = pd.to_numeric(table["rank_path"].str.rsplit("/", n=1).str[-1], errors="coerce")
        if ranks.isna().any():
            self._words("rank", title, say("Not drawn: nodes.csv has rank paths that cannot be read."))
            return
        sums = (
            table.assign(rank=ranks + 1)
            .groupby(["panel", "shown", "rank"], sort=False)[["reached", "accepted"]]
            .sum()
            .reset_index()
        )
        kept = sums[sums["reached"] >= FEWEST_REACHED] if (sums["reached"] >= FEWEST_REACHED).any() else sums
        kept = kept.assign(rate=kept["accepted"] / kept["reached"].where(kept["reached"] > 0))
        shapes = self._shapes_of(kept)
        data = self._own("rank", kept)
        x = alt.X(
            "rank:Q",
            title="child rank (1 = drafter's first choice)",
            axis=alt.Axis(format="d", tickMinStep=1, grid=False, labelOverlap="greedy"),
            scale=alt.Scale(type="log", base=2, nice=False, padding=8),
        )
        y = alt.Y(
            "rate:Q", title="accepted if its parent was (share, √ axis)", scale=alt.Scale(type="sqrt", domainMin=0)
        )
        chart = self._pointed(x, y, shapes, ["shown:N", "rank:Q", alt.Tooltip("rate:Q", format=".4f"), "reached:Q"])
        told = []
        for panel in self._panels_of(kept)[:MOST_SPOKEN]:
            own = kept[kept["panel"] == panel]
            deep = own.sort_values("rank", kind="stable")["shown"].iloc[-1]
            one = own[own["shown"] == deep].sort_values("rank")
            if len(one) > 1:
                first, second, last = one.iloc[0], one.iloc[1], one.iloc[-1]
                more = f", rank {int(last['rank'])} {last['rate']:.2%}" if len(one) > 2 else ""
                told.append(
                    say(
                        "{}, {}: rank {} is accepted {} of the times that its parent was, rank {} {}{}.",
                        Name(panel),
                        Name(deep),
                        int(first["rank"]),
                        f"{first['rate']:.0%}",
                        int(second["rank"]),
                        f"{second['rate']:.0%}",
                        more,
                    )
                )
            else:
                told.append(say("{}: the trees have only first-ranked children.", Name(panel)))
        note = say(
            "All depths of a tree pooled; no intervals are recorded for ranks. Under sampling a rank is the "
            "order in which "
            "children are drawn."
        )
        faceted = facet(alt.layer(*chart), data, self._panels_of(kept), height=220)
        self._add("rank", title, join([*told, note, self._left_out_details()]), faceted)

    def _pointed(self, x: alt.X, y: alt.Y, shapes: list[str], tips: list[Any]) -> list[Any]:
        pick = alt.selection_point(name="pick", fields=["shown"], bind="legend")
        strong = alt.condition(pick, alt.value(1), alt.value(0.08))
        colour = self.scales.colour(shapes)
        line = (
            alt.Chart()
            .mark_line(strokeWidth=1.8)
            .encode(x=x, y=y, color=colour, strokeDash=self.scales.dash(shapes), opacity=strong)
        )
        points = (
            alt.Chart()
            .mark_point(filled=True, size=40, opacity=1)
            .encode(x=x, y=y, color=colour, shape=self.scales.marker(shapes), opacity=strong, tooltip=tips)
        )
        return [line, points.add_params(pick)]

    def _lengths(self) -> None:
        title = f"How many draft tokens a step gets accepted{self._at()}"
        table = self._detail("lengths.csv", self._chosen())
        if table.empty:
            self._words("lengths", title, self._absent("lengths.csv"))
            return
        table = table.assign(capped=table["acceptance_length"].clip(upper=MOST_LENGTH))
        sums = table.groupby(["panel", "shown", "capped"], sort=False)["steps"].sum().reset_index()
        totals = sums.groupby(["panel", "shown"])["steps"].transform("sum")
        sums = sums.assign(share=sums["steps"] / totals.where(totals > 0))
        capped = bool((table["acceptance_length"] > MOST_LENGTH).any())
        labels = {n: f"{n}+" if capped and n == MOST_LENGTH else str(n) for n in range(MOST_LENGTH + 1)}
        sums["length"] = sums["capped"].astype(int).map(labels)
        shapes = self._shapes_of(sums)
        data = self._own("lengths", sums)
        x = alt.X(
            "length:O", title="accepted draft tokens in a step", sort=list(labels.values()), axis=alt.Axis(labelAngle=0)
        )
        bars = (
            alt.Chart()
            .mark_bar()
            .encode(
                x=x,
                y=alt.Y("share:Q", title="steps (share)", axis=alt.Axis(format="%")),
                xOffset=alt.XOffset("shown:N", sort=shapes),
                color=alt.Color("shown:N", scale=self.scales.scale(shapes), legend=alt.Legend(title="shape")),
                tooltip=["shown:N", "length:O", alt.Tooltip("share:Q", format=".1%"), "steps:Q"],
            )
        )
        told = []
        for lead, _ in self._chosen()[:MOST_SPOKEN]:
            own = sums[(sums["panel"] == lead.panel) & (sums["shown"] == visible(lead.tree))].sort_values("capped")
            if len(own):
                none = own.loc[own["capped"] == 0, "share"].sum()
                most = own.sort_values("share", ascending=False, kind="stable").iloc[0]
                told.append(
                    say(
                        "{}, {}: {} of the steps accept nothing; the most frequent number is {} ({}).",
                        Name(lead.panel),
                        Name(visible(lead.tree)),
                        f"{none:.0%}",
                        most["length"],
                        f"{most['share']:.0%}",
                    )
                )
        self._add(
            "lengths",
            title,
            join([*told, self._left_out_details()]),
            facet(bars, data, self._panels_of(sums), height=220),
        )


def _evenly(deepest: int) -> list[int]:
    """Depths to name."""
    return (
        list(range(1, deepest + 1))
        if deepest <= 10
        else [1, 3, 5, 7, 10, *range(15, 40, 5), *range(40, deepest + 1, 20)]
    )
