"""Figures over the node budget: metrics per shape, the winner's lead, the heat map."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.canvas import METRIC_TITLES, MOST_SPOKEN, Canvas, facet
from specdraft.report.findings import lead_sentence
from specdraft.report.study_files import visible
from specdraft.report.theme import HEAT
from specdraft.report.words import Name, Text, join, plural, say
from specdraft.results.intervals import Interval
from specdraft.trees.shapes import is_reference

MOST_HEAT_ROWS = 30
CLOSE = 1.25  # two ticks of a logarithmic axis
CURVES = ["panel", "shown", "budget", "nodes", "lonely"]


class BudgetFigures(Canvas):
    """Draws over the budget."""

    def _metric(
        self,
        metric: str,
        title: str,
        caption: Text,
        plain: bool = False,
        single: bool = False,
        rows: pd.DataFrame | None = None,
    ) -> None:
        curves = self.curves if rows is None else rows
        curves = curves[curves[metric].notna()]
        name = metric.replace("_", "-")
        if curves.empty:
            self._words(name, title, say("Not drawn: summary.csv has no {}.", metric))
            return
        columns = [*CURVES, metric, f"{metric}_lo", f"{metric}_hi"]
        data = self._share("curves", curves, columns)
        notes = [
            caption,
            self._left_out(),
            say(
                "Shaded or with bars: 95 % intervals over prompts."
                if curves[f"{metric}_lo"].notna().any()
                else "No intervals: none are recorded."
            ),
        ]
        chart = self._dots(metric, curves, data, plain) if single else self._lines(metric, curves, data, plain)
        self._add(name, title, join(notes), chart)

    def _lines(self, metric: str, curves: pd.DataFrame, data: alt.NamedData, plain: bool) -> Any:
        shapes = self._shapes_of(curves)
        panels = self._panels_of(curves)
        pick = alt.selection_point(name="pick", fields=["shown"], bind="legend")
        budgets = _ticks({int(budget) for budget in curves["budget"]})
        x = alt.X(
            "budget:Q",
            title="node budget (draft nodes)",
            scale=alt.Scale(type="log", base=2, nice=False, padding=8),
            axis=alt.Axis(values=budgets, format="d", grid=False),
        )
        y = alt.Y(f"{metric}:Q", title=METRIC_TITLES[metric], scale=alt.Scale(zero=metric == "acceptance_rate"))
        colour = self.scales.colour(shapes)
        base = alt.Chart().transform_filter(f"isValid(datum['{metric}'])")
        faint = alt.condition(pick, alt.value(0.13), alt.value(0.01))
        strong = alt.condition(pick, alt.value(1), alt.value(0.08))
        ends = {"y": alt.Y(f"{metric}_lo:Q"), "y2": alt.Y2(f"{metric}_hi:Q")}
        band = base.transform_filter("!datum.lonely").mark_area().encode(x=x, **ends, color=colour, opacity=faint)
        bars = (
            base.transform_filter("datum.lonely")
            .mark_rule(strokeWidth=1.5)
            .encode(x=x, **ends, color=colour, opacity=strong)
        )
        line = (
            base.transform_filter("!datum.lonely")
            .mark_line(strokeWidth=1.8)
            .encode(x=x, y=y, color=colour, strokeDash=self.scales.dash(shapes), opacity=strong)
        )
        tips = [
            alt.Tooltip("panel:N", title="setting"),
            alt.Tooltip("shown:N", title="shape"),
            alt.Tooltip("budget:Q", title="node budget"),
            alt.Tooltip("nodes:Q", title="nodes"),
            alt.Tooltip(f"{metric}:Q", title=metric.replace("_", " ")),
            alt.Tooltip(f"{metric}_lo:Q", title="95 % from"),
            alt.Tooltip(f"{metric}_hi:Q", title="to"),
        ]
        points = base.mark_point(filled=True, size=46, opacity=1).encode(
            x=x, y=y, color=colour, shape=self.scales.marker(shapes), opacity=strong, tooltip=tips
        )
        bounded = curves[f"{metric}_lo"].notna()  # a layer without a row makes Vega complain
        layers = [
            *([band] if (bounded & ~curves["lonely"]).any() else []),
            *([bars] if (bounded & curves["lonely"]).any() else []),
        ]
        layers += [*([line] if not curves["lonely"].all() else []), points.add_params(pick)]
        if plain:
            layers.insert(0, base.mark_rule(strokeDash=[3, 3], color="#808080").encode(y=alt.datum(1)))
        return facet(alt.layer(*layers), data, panels, height=260)

    def _dots(self, metric: str, curves: pd.DataFrame, data: alt.NamedData, plain: bool) -> Any:
        """A single budget: one line per shape, no axis of budgets."""
        shapes = [visible(tree) for tree in dict.fromkeys(curves.sort_values(metric, ascending=False)["tree"])]
        y = alt.Y("shown:N", title="shape", sort=shapes)
        title = f"{METRIC_TITLES[metric]}, at {plural(int(curves['budget'].iloc[0]), 'node')}"
        x = alt.X(f"{metric}:Q", title=title, scale=alt.Scale(zero=False))
        colour = alt.Color("shown:N", scale=self.scales.scale(self._shapes_of(curves)), legend=None)
        base = alt.Chart().transform_filter(f"isValid(datum['{metric}'])")
        bars = base.mark_rule(strokeWidth=2).encode(
            y=y, x=alt.X(f"{metric}_lo:Q"), x2=alt.X2(f"{metric}_hi:Q"), color=colour
        )
        points = base.mark_point(filled=True, size=70, opacity=1).encode(
            y=y, x=x, color=colour, tooltip=["shown:N", f"{metric}:Q"]
        )
        layers = [*([bars] if curves[f"{metric}_lo"].notna().any() else []), points]
        if plain:
            layers.insert(0, base.mark_rule(strokeDash=[3, 3], color="#808080").encode(x=alt.datum(1)))
        return facet(alt.layer(*layers), data, self._panels_of(curves), height=max(60, 22 * len(shapes)))

    def _winners(self) -> None:
        """The lead of each budget's winner over its runner-up, with its interval."""
        title = "The winner's lead over the runner-up, by node budget"
        contested = [lead for lead in self.findings.leads if lead.runner is not None and not isnan(lead.lead.value)]
        drawn = [lead for lead in contested if lead.panel in self.panels]
        if not drawn:
            self._words(
                "lead",
                title,
                say(
                    "Not drawn: {}.",
                    "comparisons.csv gives no lead here" if self.all_shapes > 1 else "a single shape has no runner-up",
                ),
            )
            return
        table = pd.DataFrame(
            [
                {
                    "panel": lead.panel,
                    "budget": str(lead.budget),
                    "order": lead.budget,
                    "shown": visible(lead.tree),
                    "runner": visible(lead.runner),
                    "lead": lead.lead.value,
                    "low": lead.lead.low,
                    "high": lead.lead.high,
                    "sure": lead.verdict,
                }
                for lead in drawn
            ]
        )
        data = self._own("lead", table)
        y = alt.Y("budget:O", title="node budget", sort=[str(b) for b in sorted(set(table["order"]))])
        ends = table[["lead", "low", "high"]].min().min(), table[["lead", "low", "high"]].max().max()
        span = [
            min(0.0, ends[0]),
            max(0.0, ends[1]) + 0.5 * (max(0.0, ends[1]) - min(0.0, ends[0])),
        ]  # room for names at the right
        x = alt.X("lead:Q", title="lead (tokens per step)", scale=alt.Scale(domain=span, nice=True))
        filled = alt.condition("datum.sure === 'clear'", alt.value("#0072B2"), alt.value("#D55E00"))
        zero = alt.Chart().mark_rule(strokeDash=[3, 3], color="#808080").encode(x=alt.datum(0))
        bars = alt.Chart().mark_rule(strokeWidth=2).encode(y=y, x=alt.X("low:Q"), x2=alt.X2("high:Q"), color=filled)
        points = (
            alt.Chart()
            .mark_point(filled=True, size=70, opacity=1)
            .encode(
                y=y,
                x=x,
                color=filled,
                shape=alt.Shape(
                    "sure:N",
                    legend=None,
                    scale=alt.Scale(domain=["clear", "open", "no interval"], range=["circle", "square", "cross"]),
                ),
                tooltip=[
                    alt.Tooltip("shown:N", title="leads"),
                    alt.Tooltip("runner:N", title="runner-up"),
                    "lead:Q",
                    "low:Q",
                    "high:Q",
                ],
            )
        )
        label = (
            alt.Chart()
            .mark_text(align="left", dx=7, dy=-9, fontSize=10.5, color="#808080")
            .encode(y=y, x=x, text="words:N")
        )
        label = label.transform_calculate(words="datum.shown + ' over ' + datum.runner")
        layers = [zero, *([bars] if table["low"].notna().any() else []), points, label]
        rows = table["budget"].nunique()
        chart = facet(alt.layer(*layers), data, self._panels_of(table), height=max(60, 34 * rows))
        clear, rated = sum(lead.verdict == "clear" for lead in contested), sum(lead.lead.known for lead in contested)
        told = (
            say(
                "{} of {} leads have a 95 % interval that lies above 0 (blue circles); the others (orange "
                "squares) do not show a winner.",
                clear,
                rated,
            )
            if rated
            else say("No lead has an interval: nothing shows a winner.")
        )
        note = say("Leads are paired differences from comparisons.csv; hindsight trees do not compete.")
        self._add("lead", title, join([told, note, self._left_out()]), chart)

    def _heat(self) -> None:
        title = "Shape by budget: tokens per step"
        rows = self.rows[self.rows["panel"].isin(self.panels)]
        if rows["tree"].nunique() < 2 and rows["budget"].nunique() < 2:
            self._words("heat", title, say("Not drawn: one shape at one budget gives a single cell."))
            return
        best = rows.groupby("tree")["block_efficiency"].max().sort_values(ascending=False)
        kept = list(best.index[:MOST_HEAT_ROWS])
        rows = rows[rows["tree"].isin(kept)]
        middle = (rows["block_efficiency"].min() + rows["block_efficiency"].max()) / 2
        data = self._own("heat", rows[["panel", "shown", "budget", "block_efficiency"]])
        many = rows["budget"].nunique() > 10
        x = alt.X(
            "budget:O",
            title="node budget (draft nodes)",
            axis=alt.Axis(labelAngle=0, labelOverlap="greedy", format="d"),
        )
        y = alt.Y("shown:N", title="shape", sort=[visible(tree) for tree in kept])
        # width 260 is fixed: cells without room for a number have none
        cells = (
            alt.Chart()
            .mark_rect()
            .encode(
                x=x,
                y=y,
                tooltip=["panel:N", "shown:N", "budget:O", "block_efficiency:Q"],
                color=alt.Color(
                    "block_efficiency:Q",
                    scale=alt.Scale(scheme=HEAT),
                    legend=alt.Legend(title="tokens per step", gradientLength=200),
                ),
            )
        )
        layers = [cells]
        if not many:
            ink = alt.condition(f"datum.block_efficiency > {middle}", alt.value("#111111"), alt.value("#ffffff"))
            layers.append(
                alt.Chart()
                .mark_text(fontSize=10.5)
                .encode(x=x, y=y, text=alt.Text("block_efficiency:Q", format=".2f"), color=ink)
            )
        left = len(best) - len(kept)
        caption = say(
            "Brighter is more tokens per pass of the target; an empty cell was not measured. {}",
            join([self._best_cell(panel, rows) for panel in self._panels_of(rows)[:MOST_SPOKEN]]),
        )
        extra = (
            say("The {} shapes with the highest cells are drawn, {} are only in the table.", MOST_HEAT_ROWS, left)
            if left
            else ()
        )
        self._add(
            "heat",
            title,
            join([caption, extra, self._left_out(shapes=False)]),
            facet(alt.layer(*layers), data, self._panels_of(rows), height=max(50, 22 * len(kept))),
        )

    def _best_cell(self, panel: str, rows: pd.DataFrame) -> Text:
        fair = rows[(rows["panel"] == panel) & ~rows["tree"].map(is_reference)]
        if fair.empty:
            return ()
        top = fair.sort_values("block_efficiency", ascending=False, kind="stable").iloc[0]
        return say(
            "{}: the highest cell is {} at {}, {}.",
            Name(panel),
            Name(top["shown"]),
            plural(int(top["budget"]), "node"),
            Interval.of(top, "block_efficiency"),
        )

    def _leads_caption(self) -> Text:
        heads = [lead for panel, lead in self.findings.headlines.items() if panel in self.panels]
        spoken = join(lead_sentence(lead) for lead in heads[:MOST_SPOKEN])
        more = (
            say("{} more panels: see the table of winners.", len(heads) - MOST_SPOKEN)
            if len(heads) > MOST_SPOKEN
            else ()
        )
        return join([spoken, more, say("The dashed line at 1 is plain decoding."), self._reference_note()])

    def _growth_caption(self, metric: str) -> Text:
        """From the smallest to the largest budget, for the headline's leader; a trend only where intervals are
        apart."""
        told = []
        for panel in [panel for panel in self.panels if panel in self.findings.headlines][:MOST_SPOKEN]:
            tree = self.findings.headlines[panel].tree
            own = self.rows[
                (self.rows["panel"] == panel) & (self.rows["tree"] == tree) & self.rows[metric].notna()
            ].sort_values("budget")
            if len(own) < 2:
                continue
            first, last = own.iloc[0], own.iloc[-1]
            a, b = Interval.of(first, metric), Interval.of(last, metric)
            told.append(
                say(
                    "{}, {}: from {} at {} to {} at {}{}.",
                    Name(panel),
                    Name(visible(tree)),
                    a,
                    plural(int(first["budget"]), "node"),
                    b,
                    int(last["budget"]),
                    _trend(a, b),
                )
            )
        if not told:
            told = [say("Each shape at the one budget that it was measured at.")]
        return join(told)


def _trend(first: Interval, last: Interval) -> str:
    if not (first.known and last.known):
        return ""
    if last.low > first.high:
        return ", a rise (the intervals are apart)"
    return ", a fall (the intervals are apart)" if last.high < first.low else " (the intervals overlap)"


def _ticks(budgets: Iterable[int]) -> list[int]:
    """Budgets to name on a logarithmic axis, largest first, none too close to another."""
    kept: list[int] = []
    for budget in sorted(budgets, reverse=True):
        if not kept or kept[-1] / budget > CLOSE:
            kept.append(budget)
    return kept[::-1]
