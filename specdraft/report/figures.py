"""The figures, each with a caption that says what is to be seen and is computed from what is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from specdraft.metrics import depth_rates
from specdraft.report.findings import Findings, Lead, against_one, interval, is_reference, lead_sentence
from specdraft.report.study_files import visible
from specdraft.report.theme import CONFIG, HEAT, PARTS, ShapeScales
from specdraft.report.words import Interval, Name, Strong, Text, join, names, number, plural, say
from specdraft.theory import expected_tokens

MOST_SHAPES = 12  # lines in one panel
MOST_PANELS = 9
MOST_DETAIL_PANELS, MOST_DETAIL_SHAPES = 3, 4
MOST_HEAT_ROWS = 30
MOST_SETTINGS = 24
FEWEST_REACHED = 20  # steps; rates over fewer are noise
MOST_LENGTH = 12
CLOSE = 1.25  # two ticks of a logarithmic axis
MOST_SPOKEN = 3  # panels that a caption speaks of one by one
CHAIN = "chain"
TOKEN_WISE = ("greedy", "rejection", "recursive", "no_replacement", "kseq")  # on a chain these all accept with probability min(1, p/q)
CURVES = ["panel", "shown", "budget", "nodes", "lonely"]
METRIC_TITLES = {
    "block_efficiency": "block efficiency (tokens per step)",
    "acceptance_length": "acceptance length (tokens per step)",
    "acceptance_rate": "acceptance rate (share of drafted)",
    "est_speedup": "ESTIMATED speed-up (times plain)",
    "speedup": "measured speed-up (times plain)",
}


@dataclass(frozen=True)
class Figure:
    """A figure: a Vega-Lite specification that names its data, or the words that stand in its place.

    Attributes:
        name: file name and anchor.
        spec: None where the study has nothing to draw.
    """

    name: str
    title: str
    caption: Text
    spec: dict[str, Any] | None = None


@dataclass
class Drawn:
    """Every figure of a study, and the tables that they share."""

    figures: list[Figure] = field(default_factory=list)
    datasets: dict[str, pd.DataFrame] = field(default_factory=dict)


class Artist:
    """Draws a study."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.rows = findings.rows.drop_duplicates(["panel", "tree", "budget"])
        self.drawn = Drawn()
        trees = list(dict.fromkeys(self.rows["tree"]))
        fair = [tree for tree in trees if not is_reference(tree)]
        self.all_shapes = len(fair)
        best = self.rows.groupby("tree")["block_efficiency"].max()
        kept = sorted(fair, key=lambda tree: (tree != CHAIN, -best[tree]))[:MOST_SHAPES]
        self.trees = [tree for tree in fair if tree in kept] + [tree for tree in trees if is_reference(tree)]
        self.panels = _spread(findings.study.panels, dict(zip(self.rows["panel"], self.rows["pair"], strict=True)), MOST_PANELS)
        shown = {tree: visible(tree) for tree in trees}
        self.scales = ShapeScales([shown[t] for t in kept], [shown[t] for t in trees if is_reference(t)])
        kept_rows = self.rows[self.rows["tree"].isin(self.trees) & self.rows["panel"].isin(self.panels)]
        counts = kept_rows.groupby(["panel", "tree"])["budget"].transform("count")
        self.curves = kept_rows.assign(lonely=counts == 1)

    def draw(self) -> Drawn:
        """Every figure, in the report's order."""
        if self.rows.empty:
            return self.drawn
        single = self.rows["budget"].nunique() == 1
        self._metric("block_efficiency", "Tokens per pass of the target, by node budget", self._leads_caption(), plain=True, single=single)
        self._winners()
        self._metric("acceptance_length", "Accepted draft tokens per step, by node budget", self._growth_caption("acceptance_length"), single=single)
        self._metric("acceptance_rate", "Share of draft tokens that are accepted, by node budget", self._growth_caption("acceptance_rate"), single=single)
        self._heat()
        self._depth()
        self._ranks()
        self._lengths()
        self._settings()
        self._theory()
        self._live()
        self._estimate(single)
        return self.drawn

    # one figure each

    def _metric(self, metric: str, title: str, caption: Text, plain: bool = False, single: bool = False, rows: pd.DataFrame | None = None) -> None:
        curves = self.curves if rows is None else rows
        curves = curves[curves[metric].notna()]
        name = metric.replace("_", "-")
        if curves.empty:
            self._words(name, title, say("Not drawn: summary.csv has no {}.", metric))
            return
        columns = [*CURVES, metric, f"{metric}_lo", f"{metric}_hi"]
        data = self._share("curves", curves, columns)
        notes = [caption, self._left_out(), say("Shaded or with bars: 95 % intervals over prompts." if curves[f"{metric}_lo"].notna().any()
                                              else "No intervals: none are recorded.")]  # fmt: skip
        chart = self._dots(metric, curves, data, plain) if single else self._lines(metric, curves, data, plain)
        self._add(name, title, join(notes), chart)

    def _lines(self, metric: str, curves: pd.DataFrame, data: alt.NamedData, plain: bool) -> Any:
        shapes = self._shapes_of(curves)
        panels = self._panels_of(curves)
        pick = alt.selection_point(name="pick", fields=["shown"], bind="legend")
        budgets = _ticks({int(budget) for budget in curves["budget"]})
        x = alt.X("budget:Q", title="node budget (draft nodes)", scale=alt.Scale(type="log", base=2, nice=False, padding=8),
                  axis=alt.Axis(values=budgets, format="d", grid=False))  # fmt: skip
        y = alt.Y(f"{metric}:Q", title=METRIC_TITLES[metric], scale=alt.Scale(zero=metric == "acceptance_rate"))
        colour = self.scales.colour(shapes)
        base = alt.Chart().transform_filter(f"isValid(datum['{metric}'])")
        faint = alt.condition(pick, alt.value(0.13), alt.value(0.01))
        strong = alt.condition(pick, alt.value(1), alt.value(0.08))
        ends = {"y": alt.Y(f"{metric}_lo:Q"), "y2": alt.Y2(f"{metric}_hi:Q")}
        band = base.transform_filter("!datum.lonely").mark_area().encode(x=x, **ends, color=colour, opacity=faint)
        bars = base.transform_filter("datum.lonely").mark_rule(strokeWidth=1.5).encode(x=x, **ends, color=colour, opacity=strong)
        line = base.transform_filter("!datum.lonely").mark_line(strokeWidth=1.8).encode(
            x=x, y=y, color=colour, strokeDash=self.scales.dash(shapes), opacity=strong)  # fmt: skip
        tips = [alt.Tooltip("panel:N", title="setting"), alt.Tooltip("shown:N", title="shape"), alt.Tooltip("budget:Q", title="node budget"),
                alt.Tooltip("nodes:Q", title="nodes"), alt.Tooltip(f"{metric}:Q", title=metric.replace("_", " ")),
                alt.Tooltip(f"{metric}_lo:Q", title="95 % from"), alt.Tooltip(f"{metric}_hi:Q", title="to")]  # fmt: skip
        points = base.mark_point(filled=True, size=46, opacity=1).encode(
            x=x, y=y, color=colour, shape=self.scales.marker(shapes), opacity=strong, tooltip=tips
        )  # fmt: skip
        bounded = curves[f"{metric}_lo"].notna()  # a layer without a row makes Vega complain
        layers = [*([band] if (bounded & ~curves["lonely"]).any() else []), *([bars] if (bounded & curves["lonely"]).any() else [])]
        layers += [*([line] if not curves["lonely"].all() else []), points.add_params(pick)]
        if plain:
            layers.insert(0, base.mark_rule(strokeDash=[3, 3], color="#808080").encode(y=alt.datum(1)))
        return _facet(alt.layer(*layers), data, panels, height=260)

    def _dots(self, metric: str, curves: pd.DataFrame, data: alt.NamedData, plain: bool) -> Any:
        """A single budget: one line per shape, no axis of budgets."""
        shapes = [visible(tree) for tree in dict.fromkeys(curves.sort_values(metric, ascending=False)["tree"])]
        y = alt.Y("shown:N", title="shape", sort=shapes)
        title = f"{METRIC_TITLES[metric]}, at {plural(int(curves['budget'].iloc[0]), 'node')}"
        x = alt.X(f"{metric}:Q", title=title, scale=alt.Scale(zero=False))
        colour = alt.Color("shown:N", scale=self.scales.scale(self._shapes_of(curves)), legend=None)
        base = alt.Chart().transform_filter(f"isValid(datum['{metric}'])")
        bars = base.mark_rule(strokeWidth=2).encode(y=y, x=alt.X(f"{metric}_lo:Q"), x2=alt.X2(f"{metric}_hi:Q"), color=colour)
        points = base.mark_point(filled=True, size=70, opacity=1).encode(y=y, x=x, color=colour, tooltip=["shown:N", f"{metric}:Q"])
        layers = [*([bars] if curves[f"{metric}_lo"].notna().any() else []), points]
        if plain:
            layers.insert(0, base.mark_rule(strokeDash=[3, 3], color="#808080").encode(x=alt.datum(1)))
        return _facet(alt.layer(*layers), data, self._panels_of(curves), height=max(60, 22 * len(shapes)))

    def _winners(self) -> None:
        """The lead of each budget's winner over its runner-up, with its interval."""
        title = "The winner's lead over the runner-up, by node budget"
        contested = [lead for lead in self.findings.leads if lead.runner is not None and not isnan(lead.lead.value)]
        drawn = [lead for lead in contested if lead.panel in self.panels]
        if not drawn:
            self._words("lead", title, say("Not drawn: {}.", "comparisons.csv gives no lead here" if self.all_shapes > 1
                                           else "a single shape has no runner-up"))  # fmt: skip
            return
        table = pd.DataFrame([{
            "panel": lead.panel, "budget": str(lead.budget), "order": lead.budget, "shown": visible(lead.tree),
            "runner": visible(lead.runner), "lead": lead.lead.value, "low": lead.lead.low, "high": lead.lead.high, "sure": lead.verdict,
        } for lead in drawn])  # fmt: skip
        data = self._own("lead", table)
        y = alt.Y("budget:O", title="node budget", sort=[str(b) for b in sorted(set(table["order"]))])
        ends = table[["lead", "low", "high"]].min().min(), table[["lead", "low", "high"]].max().max()
        span = [min(0.0, ends[0]), max(0.0, ends[1]) + 0.5 * (max(0.0, ends[1]) - min(0.0, ends[0]))]  # room for names at the right
        x = alt.X("lead:Q", title="lead (tokens per step)", scale=alt.Scale(domain=span, nice=True))
        filled = alt.condition("datum.sure === 'clear'", alt.value("#0072B2"), alt.value("#D55E00"))
        zero = alt.Chart().mark_rule(strokeDash=[3, 3], color="#808080").encode(x=alt.datum(0))
        bars = alt.Chart().mark_rule(strokeWidth=2).encode(y=y, x=alt.X("low:Q"), x2=alt.X2("high:Q"), color=filled)
        points = alt.Chart().mark_point(filled=True, size=70, opacity=1).encode(
            y=y, x=x, color=filled, shape=alt.Shape("sure:N", legend=None, scale=alt.Scale(domain=["clear", "open", "no interval"], range=["circle", "square", "cross"])),
            tooltip=[alt.Tooltip("shown:N", title="leads"), alt.Tooltip("runner:N", title="runner-up"), "lead:Q", "low:Q", "high:Q"])  # fmt: skip
        label = alt.Chart().mark_text(align="left", dx=7, dy=-9, fontSize=10.5, color="#808080").encode(y=y, x=x, text="words:N")
        label = label.transform_calculate(words="datum.shown + ' over ' + datum.runner")
        layers = [zero, *([bars] if table["low"].notna().any() else []), points, label]
        rows = table["budget"].nunique()
        chart = _facet(alt.layer(*layers), data, self._panels_of(table), height=max(60, 34 * rows))
        clear, rated = sum(lead.verdict == "clear" for lead in contested), sum(lead.lead.known for lead in contested)
        told = say("{} of {} leads have a 95 % interval that lies above 0 (blue circles); the others (orange squares) do not show a winner.",
                   clear, rated) if rated else say("No lead has an interval: nothing shows a winner.")  # fmt: skip
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
        x = alt.X("budget:O", title="node budget (draft nodes)", axis=alt.Axis(labelAngle=0, labelOverlap="greedy", format="d"))
        y = alt.Y("shown:N", title="shape", sort=[visible(tree) for tree in kept])
        # width 260 is fixed: cells without room for a number have none
        cells = alt.Chart().mark_rect().encode(
            x=x, y=y, tooltip=["panel:N", "shown:N", "budget:O", "block_efficiency:Q"],
            color=alt.Color("block_efficiency:Q", scale=alt.Scale(scheme=HEAT), legend=alt.Legend(title="tokens per step", gradientLength=200)))  # fmt: skip
        layers = [cells]
        if not many:
            ink = alt.condition(f"datum.block_efficiency > {middle}", alt.value("#111111"), alt.value("#ffffff"))
            layers.append(alt.Chart().mark_text(fontSize=10.5).encode(x=x, y=y, text=alt.Text("block_efficiency:Q", format=".2f"), color=ink))
        left = len(best) - len(kept)
        caption = say("Brighter is more tokens per pass of the target; an empty cell was not measured. {}", join(
            [self._best_cell(panel, rows) for panel in self._panels_of(rows)[:MOST_SPOKEN]]))  # fmt: skip
        extra = say("The {} shapes with the highest cells are drawn, {} are only in the table.", MOST_HEAT_ROWS, left) if left else ()
        self._add("heat", title, join([caption, extra, self._left_out(shapes=False)]),
                  _facet(alt.layer(*layers), data, self._panels_of(rows), height=max(50, 22 * len(kept))))  # fmt: skip

    def _best_cell(self, panel: str, rows: pd.DataFrame) -> Text:
        fair = rows[(rows["panel"] == panel) & ~rows["tree"].map(is_reference)]
        if fair.empty:
            return ()
        top = fair.loc[fair["block_efficiency"].idxmax()]
        return say("{}: the highest cell is {} at {}, {}.", Name(panel), Name(top["shown"]), plural(int(top["budget"]), "node"),
                   interval(top, "block_efficiency"))  # fmt: skip

    def _chosen(self) -> list[tuple[Lead, list[str]]]:
        """Panels and shapes whose inner workings are drawn: leader, runner-up, chain and the reference at the headline budget."""
        chosen = []
        heads = self.findings.headlines
        contested = [panel for panel in self.panels if panel in heads and heads[panel].shapes > 1]
        pairs = dict(zip(self.rows["panel"], self.rows["pair"], strict=True))
        for panel in _spread(contested or [panel for panel in self.panels if panel in heads], pairs, MOST_DETAIL_PANELS):
            lead = heads[panel]
            there = self.rows[(self.rows["panel"] == panel) & (self.rows["budget"] == lead.budget)]
            ranked = [tree for tree in there.sort_values("block_efficiency", ascending=False)["tree"] if not is_reference(tree)]
            first = [lead.tree, *([lead.runner] if lead.runner else []), *([CHAIN] if CHAIN in ranked else [])]
            trees = list(dict.fromkeys([*first, *ranked]))[:MOST_DETAIL_SHAPES]
            chosen.append((lead, [tree for tree in trees if tree in self.trees]))
        return chosen

    def _detail(self, file: str, chosen: Iterable[tuple[Lead, list[str]]]) -> pd.DataFrame:
        """A detail table's rows of the chosen combinations, with `panel`, `shown` and `all_steps`."""
        table = self.findings.study.details.get(file)
        wanted = [self.rows[(self.rows["panel"] == lead.panel) & (self.rows["budget"] == lead.budget) & self.rows["tree"].isin(trees)]
                  for lead, trees in chosen]  # fmt: skip
        if table is None or not wanted:
            return pd.DataFrame()
        keys = pd.concat(wanted)[["combination", "panel", "tree", "shown", "steps"]].rename(columns={"steps": "all_steps"})
        return table.merge(keys, on="combination")

    def _at(self) -> str:
        budgets = sorted({lead.budget for lead, _ in self._chosen()})
        return plural(budgets[0], "node") if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]} nodes"

    def _depth(self) -> None:
        title = f"Acceptance by depth, at {self._at()}"
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
        x = alt.X("depth:Q", title="depth in the tree (tokens)", axis=alt.Axis(values=_evenly(int(kept["depth"].max())), format="d", grid=False),
                  scale=alt.Scale(nice=False, padding=8))  # fmt: skip
        y = alt.Y("rate:Q", title="steps that accept (share)", scale=alt.Scale(domain=[0, 1]))
        chart = self._pointed(x, y, shapes, ["shown:N", "depth:Q", alt.Tooltip("rate:Q", format=".3f"), "reached:Q"])
        panels = self._panels_of(long)
        faceted = alt.layer(*chart, data=data).properties(width=_width(len(panels)), height=170).facet(
            row=alt.Row("kind:N", title=None, header=alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="normal")),
            column=alt.Column("panel:N", title=None, sort=panels)).resolve_scale(x="independent")  # fmt: skip
        told = []
        for lead, trees in self._chosen()[:MOST_SPOKEN]:
            own = kept[(kept["panel"] == lead.panel) & (kept["tree"] == (trees[0] if trees else ""))].sort_values("depth")
            if len(own):
                first, last = own.iloc[0], own.iloc[-1]
                deeper = say("; at depth {} it is {}, and {} of all steps accept that far", int(last["depth"]), f"{last['conditional']:.0%}",
                             f"{last['marginal']:.1%}") if len(own) > 1 else ()  # fmt: skip
                told.append(say("{}, {}: of the steps that get to depth {}, {} accept there{}.", Name(lead.panel), Name(first["shown"]),
                                int(first["depth"]), f"{first['conditional']:.0%}", deeper))  # fmt: skip
        few = say("Depths that fewer than {} steps reached are left out.", FEWEST_REACHED) if len(kept) < len(rates) else ()
        note = say("Pooled over prompts; the files record no intervals for depths.")
        self._add("depth", title, join([*told, few, note, self._left_out_details()]), faceted)

    def _ranks(self) -> None:
        title = f"Acceptance by child rank, at {self._at()}"
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
        sums = table.assign(rank=ranks + 1).groupby(["panel", "shown", "rank"], sort=False)[["reached", "accepted"]].sum().reset_index()
        kept = sums[sums["reached"] >= FEWEST_REACHED] if (sums["reached"] >= FEWEST_REACHED).any() else sums
        kept = kept.assign(rate=kept["accepted"] / kept["reached"].where(kept["reached"] > 0))
        shapes = self._shapes_of(kept)
        data = self._own("rank", kept)
        x = alt.X("rank:Q", title="child rank (1 = drafter's first choice)", axis=alt.Axis(format="d", tickMinStep=1, grid=False, labelOverlap="greedy"),
                  scale=alt.Scale(type="log", base=2, nice=False, padding=8))  # fmt: skip
        y = alt.Y("rate:Q", title="accepted if its parent was (share, √ axis)", scale=alt.Scale(type="sqrt", domainMin=0))
        chart = self._pointed(x, y, shapes, ["shown:N", "rank:Q", alt.Tooltip("rate:Q", format=".4f"), "reached:Q"])
        told = []
        for panel in self._panels_of(kept)[:MOST_SPOKEN]:
            own = kept[kept["panel"] == panel]
            deep = own.loc[own["rank"].idxmax(), "shown"]
            one = own[own["shown"] == deep].sort_values("rank")
            if len(one) > 1:
                first, second, last = one.iloc[0], one.iloc[1], one.iloc[-1]
                more = f", rank {int(last['rank'])} {last['rate']:.2%}" if len(one) > 2 else ""
                told.append(say("{}, {}: rank {} is accepted {} of the times that its parent was, rank {} {}{}.", Name(panel), Name(deep),
                    int(first["rank"]), f"{first['rate']:.0%}", int(second["rank"]), f"{second['rate']:.0%}", more))  # fmt: skip
            else:
                told.append(say("{}: the trees have only first-ranked children.", Name(panel)))
        note = say("All depths of a tree pooled; no intervals are recorded for ranks. Under sampling a rank is the order in which children are drawn.")
        faceted = _facet(alt.layer(*chart), data, self._panels_of(kept), height=220)
        self._add("rank", title, join([*told, note, self._left_out_details()]), faceted)

    def _pointed(self, x: alt.X, y: alt.Y, shapes: list[str], tips: list[Any]) -> list[Any]:
        pick = alt.selection_point(name="pick", fields=["shown"], bind="legend")
        strong = alt.condition(pick, alt.value(1), alt.value(0.08))
        colour = self.scales.colour(shapes)
        line = alt.Chart().mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, strokeDash=self.scales.dash(shapes), opacity=strong)
        points = alt.Chart().mark_point(filled=True, size=40, opacity=1).encode(
            x=x, y=y, color=colour, shape=self.scales.marker(shapes), opacity=strong, tooltip=tips)  # fmt: skip
        return [line, points.add_params(pick)]

    def _lengths(self) -> None:
        title = f"How many draft tokens a step gets accepted, at {self._at()}"
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
        x = alt.X("length:O", title="accepted draft tokens in a step", sort=list(labels.values()), axis=alt.Axis(labelAngle=0))
        bars = alt.Chart().mark_bar().encode(
            x=x, y=alt.Y("share:Q", title="steps (share)", axis=alt.Axis(format="%")), xOffset=alt.XOffset("shown:N", sort=shapes),
            color=alt.Color("shown:N", scale=self.scales.scale(shapes), legend=alt.Legend(title="shape")),
            tooltip=["shown:N", "length:O", alt.Tooltip("share:Q", format=".1%"), "steps:Q"])  # fmt: skip
        told = []
        for lead, _ in self._chosen()[:MOST_SPOKEN]:
            own = sums[(sums["panel"] == lead.panel) & (sums["shown"] == visible(lead.tree))].sort_values("capped")
            if len(own):
                none = own.loc[own["capped"] == 0, "share"].sum()
                most = own.loc[own["share"].idxmax()]
                told.append(say("{}, {}: {} of the steps accept nothing; the most frequent number is {} ({}).", Name(lead.panel), Name(visible(lead.tree)),
                                f"{none:.0%}", most["length"], f"{most['share']:.0%}"))  # fmt: skip
        self._add("lengths", title, join([*told, self._left_out_details()]), _facet(bars, data, self._panels_of(sums), height=220))

    def _settings(self) -> None:
        study = self.findings.study
        if len(study.panels) == len(study.summary["pair"].unique()):
            return  # nothing but pair, shape and budget was swept
        title = "Rules, temperatures and other settings side by side"
        pairs = list(dict.fromkeys(self.rows["pair"]))[:MOST_DETAIL_PANELS]
        budgets = self.rows.groupby("budget")["panel"].nunique()
        budget = max(budgets.index, key=lambda b: (budgets[b], b))
        at = self.rows[(self.rows["budget"] == budget) & self.rows["pair"].isin(pairs) & self.rows["tree"].isin(self.trees)].copy()
        best = at[~at["tree"].map(is_reference)].groupby("tree")["panel"].count().sort_values(ascending=False, kind="stable")
        at = at[at["tree"].isin(list(best.index[: MOST_DETAIL_SHAPES + 1]))]
        at["setting"] = [panel.partition(" · ")[2] or panel for panel in at["panel"]]
        settings = list(dict.fromkeys(at["setting"]))
        at = at[at["setting"].isin(settings[:MOST_SETTINGS])]
        shapes = self._shapes_of(at)
        at["pair"] = at["pair"].map(visible)
        columns = ["pair", "setting", "shown", "block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]
        data = self._own("settings", at[columns])
        y, offset = alt.Y("setting:N", title="setting", sort=settings[:MOST_SETTINGS]), alt.YOffset("shown:N", sort=shapes)
        x = alt.X("block_efficiency:Q", title=f"{METRIC_TITLES['block_efficiency']}, at {plural(int(budget), 'node')}", scale=alt.Scale(zero=False))
        colour = self.scales.colour(shapes)
        bars = alt.Chart().mark_rule(strokeWidth=2).encode(y=y, yOffset=offset, x=alt.X("block_efficiency_lo:Q"), x2=alt.X2("block_efficiency_hi:Q"), color=colour)
        points = alt.Chart().mark_point(filled=True, size=46, opacity=1).encode(y=y, yOffset=offset, x=x, color=colour, shape=self.scales.marker(shapes), tooltip=_tips(columns))
        told = [self._spread_of_settings(pair, at) for pair in dict.fromkeys(at["pair"])]
        left = len(settings) - MOST_SETTINGS
        extra = say("{} settings more are only in the table.", left) if left > 0 else ()
        note = say("The files hold no paired comparison across settings, so compare their intervals only.")
        height = alt.Step(max(26, 11 * len(shapes)), **{"for": "position"})
        layers = [*([bars] if at["block_efficiency_lo"].notna().any() else []), points]
        faceted = alt.layer(*layers, data=data).properties(width=_width(len(pairs)), height=height).facet(
            facet=alt.Facet("pair:N", title=None, sort=[visible(p) for p in pairs]), columns=3)  # fmt: skip
        self._add("settings", title, join([*told, note, extra]), faceted)

    def _spread_of_settings(self, pair: str, rows: pd.DataFrame) -> Text:
        own = rows[rows["pair"] == pair]
        tree = own["shown"].iloc[0]
        own = own[own["shown"] == tree].sort_values("block_efficiency")
        if len(own) < 2:
            return ()
        low, high = own.iloc[0], own.iloc[-1]
        a, b = interval(low, "block_efficiency"), interval(high, "block_efficiency")
        verdict = ("their intervals do not overlap" if b.low > a.high else "their intervals overlap") if a.known and b.known else "no intervals"
        return say("{}, {}: highest under {} ({}), lowest under {} ({}); {}.", Name(pair), Name(tree), Name(high["setting"]), b, Name(low["setting"]), a, verdict)

    def _theory(self) -> None:
        title = "Measured against theory: chains"
        rows = self.findings.rows
        rows = rows[rows["alpha"].notna()]
        if rows.empty:
            return  # alpha exists under replayed sampling only
        rule = rows["acceptance"] if "acceptance" in rows else pd.Series("", index=rows.index)
        rows = rows[(rows["tree"] == CHAIN) & rule.isin(TOKEN_WISE) & rows["alpha"].between(0, 1)].drop_duplicates(["panel", "budget"])
        if rows.empty:
            self._words("theory", title, say("Not drawn: the closed form is for chains under a token-wise rule ({}), and none was run.", ", ".join(TOKEN_WISE)))
            return
        rows = rows.assign(predicted=[expected_tokens(float(a), int(n)) for a, n in zip(rows["alpha"], rows["nodes"].fillna(rows["budget"]), strict=True)])
        left = max(0, len(rows) - 400)
        shown = rows.iloc[:: 1 + len(rows) // 400]
        columns = ["panel", "pair", "budget", "alpha", "predicted", "block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]
        data = self._own("theory", shown[columns].assign(pair=shown["pair"].map(visible)))
        ends = [1.0, float(max(rows["predicted"].max(), rows["block_efficiency"].max())) * 1.05]
        diagonal = alt.Chart(self._own("diagonal", pd.DataFrame({"v": ends}))).mark_line(strokeDash=[4, 4], color="#808080").encode(x="v:Q", y="v:Q")
        x = alt.X("predicted:Q", title="predicted from alpha (tokens per step)", scale=alt.Scale(domain=ends))
        y = alt.Y("block_efficiency:Q", title=METRIC_TITLES["block_efficiency"], scale=alt.Scale(domain=ends))
        colour = alt.Color("pair:N", title="pair")
        bars = alt.Chart(data).mark_rule().encode(x=x, y=alt.Y("block_efficiency_lo:Q"), y2="block_efficiency_hi:Q", color=colour)
        points = alt.Chart(data).mark_point(filled=True, size=50, opacity=1).encode(x=x, y=y, color=colour, shape=alt.Shape("pair:N", title="pair"), tooltip=_tips(columns))
        known = rows[rows["block_efficiency_lo"].notna()]
        layers = [diagonal, *([bars] if len(known) else []), points]
        inside = known["predicted"].between(known["block_efficiency_lo"], known["block_efficiency_hi"]).sum()
        above = (known["predicted"] > known["block_efficiency_hi"]).sum()
        below = len(known) - inside - above
        told = (say("The prediction lies within the measured 95 % interval for {} of {} chains, above it for {}, below it for {}.", inside, len(known), above, below)
                if len(known) else say("No intervals are recorded, so agreement cannot be judged."))  # fmt: skip
        note = say("Theory: (1 - alpha^(n+1)) / (1 - alpha) with acceptances taken as independent (Leviathan et al. 2023); real acceptances are not, "
                   "and the last step of a text is cut. On the dashed line both agree.")  # fmt: skip
        extra = say("{} of {} points are drawn.", len(shown), len(rows)) if left else ()
        self._add("theory", title, join([told, note, extra]), alt.layer(*layers).properties(width=420, height=320))

    def _live(self) -> None:
        live = self.findings.live.drop_duplicates(["panel", "tree", "budget"])
        if live.empty:
            return
        self._latency(live)
        rows = self.curves[self.curves["speedup"].notna()]
        told = []
        for panel in self._panels_of(rows)[:MOST_SPOKEN]:
            own = rows[(rows["panel"] == panel) & ~rows["tree"].map(is_reference)].sort_values("speedup", ascending=False)
            if len(own):
                top = own.iloc[0]
                speed = interval(top, "speedup")
                told.append(say("{}: fastest is {} at {}, {}: {}.", Name(panel), Name(top["shown"]), plural(int(top["budget"]), "node"), speed, against_one(speed)))
        note = say("Measured against plain decoding in the same run, on the hardware named below; the fastest of many is picked, which flatters it.")
        self._metric("speedup", "Measured speed-up over plain decoding, by node budget", join([*told, note]), plain=True,
                     single=rows["budget"].nunique() == 1, rows=rows)  # fmt: skip

    def _latency(self, live: pd.DataFrame) -> None:
        title = "Where the time goes (measured)"
        names_of = {"draft_s": "drafting", "verify_s": "verifying", "other_s": "the rest"}
        rows = []
        for panel in [p for p in self.panels if p in set(live["panel"])][: MOST_DETAIL_PANELS * 2]:
            budget = self.findings.headlines[panel].budget if panel in self.findings.headlines else live["budget"].max()
            rows.append(live[(live["panel"] == panel) & (live["budget"] == budget) & live["tree"].isin(self.trees)])
        chosen = pd.concat(rows) if rows else live.iloc[:0]
        chosen = chosen[chosen["new_tokens"] > 0]
        if chosen.empty:
            self._words("latency", title, say("Not drawn: no live combination stands at the budgets shown above."))
            return
        per_token = {part: 1000 * chosen[column] / chosen["new_tokens"] for column, part in names_of.items()}
        chosen = chosen.assign(**per_token, plain=1000 * chosen["wall_s"] * chosen["speedup"] / chosen["new_tokens"])
        long = chosen.melt(["panel", "shown", "budget", "plain"], list(per_token), "part", "ms")
        long["place"] = long["part"].map({part: place for place, part in enumerate(per_token)})
        data = self._own("latency", long)
        y = alt.Y("shown:N", title="shape")
        colour = alt.Color("part:N", title="time for", scale=alt.Scale(domain=list(per_token), range=list(PARTS)))
        bars = alt.Chart().mark_bar().encode(y=y, x=alt.X("sum(ms):Q", title="time per new token (ms)"), color=colour, order=alt.Order("place:Q"),
                                             tooltip=["shown:N", "part:N", alt.Tooltip("sum(ms):Q", format=".2f", title="ms per token")])  # fmt: skip
        tick = alt.Chart().mark_tick(thickness=3, color="#D55E00").encode(y=y, x=alt.X("mean(plain):Q"), tooltip=[alt.Tooltip("mean(plain):Q", title="plain decoding, ms")])
        told = []
        for panel in self._panels_of(long)[:MOST_SPOKEN]:
            own = chosen[chosen["panel"] == panel]
            share = own["verify_s"].sum() / own["wall_s"].sum()
            told.append(say("{}, {}: verifying takes {} of the time, drafting {}.", Name(panel), plural(int(own["budget"].iloc[0]), "node"),
                            f"{share:.0%}", f"{own['draft_s'].sum() / own['wall_s'].sum():.0%}"))  # fmt: skip
        note = say("The orange tick is plain decoding of the same texts: a bar that ends before it is faster. Sums over prompts, without intervals; “the rest” holds prefills, acceptance and cache upkeep.")
        self._add("latency", title, join([*told, note]), _facet(alt.layer(bars, tick), data, self._panels_of(long), height=max(50, 24 * chosen["shown"].nunique())))

    def _estimate(self, single: bool) -> None:
        rows = self.curves[self.curves["est_speedup"].notna()]
        if self.findings.estimated.empty:
            return
        told = []
        for panel in self._panels_of(rows)[:MOST_SPOKEN]:
            own = rows[(rows["panel"] == panel) & ~rows["tree"].map(is_reference)].sort_values("est_speedup", ascending=False)
            if len(own):
                top = own.iloc[0]
                speed = interval(top, "est_speedup")
                told.append(say("{}: highest for {} at {}, {}; {}.", Name(panel), Name(top["shown"]), plural(int(top["budget"]), "node"), speed, against_one(speed)))
        note = say("{} computed from accepted tokens and the pair's measured cost of drafting and verifying. Intervals are over prompts only; "
                   "they do not hold the error of the costs.", Strong("An estimate, not a measurement:"))  # fmt: skip
        self._metric("est_speedup", "Estimated speed-up (replay; not measured), by node budget", join([note, *told]), plain=True, single=single, rows=rows)

    # captions

    def _leads_caption(self) -> Text:
        heads = [lead for panel, lead in self.findings.headlines.items() if panel in self.panels]
        spoken = join(lead_sentence(lead) for lead in heads[:MOST_SPOKEN])
        more = say("{} more panels: see the table of winners.", len(heads) - MOST_SPOKEN) if len(heads) > MOST_SPOKEN else ()
        return join([spoken, more, say("The dashed line at 1 is plain decoding."), self._reference_note()])

    def _reference_note(self) -> Text:
        shown = [visible(tree) for tree in self.trees if is_reference(tree)]
        return say("{} (grey) is fitted on the very prompts that it is scored on: a reference, never a winner.", names(shown)) if shown else ()

    def _growth_caption(self, metric: str) -> Text:
        """From the smallest to the largest budget, for the headline's leader; a trend only where intervals are apart."""
        told = []
        for panel in [panel for panel in self.panels if panel in self.findings.headlines][:MOST_SPOKEN]:
            tree = self.findings.headlines[panel].tree
            own = self.rows[(self.rows["panel"] == panel) & (self.rows["tree"] == tree) & self.rows[metric].notna()].sort_values("budget")
            if len(own) < 2:
                continue
            first, last = own.iloc[0], own.iloc[-1]
            a, b = interval(first, metric), interval(last, metric)
            told.append(say("{}, {}: from {} at {} to {} at {}{}.", Name(panel), Name(visible(tree)), a, plural(int(first["budget"]), "node"), b,
                            int(last["budget"]), _trend(a, b)))  # fmt: skip
        if not told:
            told = [say("Each shape at the one budget that it was measured at.")]
        return join(told)

    def _left_out(self, shapes: bool = True) -> Text:
        told = []
        drawn = sum(not is_reference(tree) for tree in self.trees)
        if shapes and drawn < self.all_shapes:
            chain = ", chain among them" if CHAIN in self.trees else ""
            told.append(say("Of {} shapes the {} with the highest block efficiency are drawn{}; the tables have all.", self.all_shapes, drawn, chain))
        if len(self.panels) < len(self.findings.study.panels):
            told.append(say("{} of {} settings are drawn; the tables have all.", len(self.panels), len(self.findings.study.panels)))
        return join(told)

    def _left_out_details(self) -> Text:
        panels = len(self.findings.study.panels)
        if panels > MOST_DETAIL_PANELS:
            return say("{} of {} settings are drawn.", MOST_DETAIL_PANELS, panels)
        return ()

    def _absent(self, file: str) -> Text:
        why = "it is missing or damaged" if file not in self.findings.study.details else "it has no rows of the leading shapes"
        return say("Not drawn from {}: {}.", file, why)

    # plumbing

    def _shapes_of(self, rows: pd.DataFrame) -> list[str]:
        there = set(rows["shown"])
        return [shown for shown in map(visible, self.trees) if shown in there]

    def _panels_of(self, rows: pd.DataFrame) -> list[str]:
        there = set(rows["panel"])
        return [panel for panel in self.panels if panel in there]

    def _share(self, name: str, rows: pd.DataFrame, columns: list[str]) -> alt.NamedData:
        """A table that several figures draw from, which grows with the columns they need."""
        before = self.drawn.datasets.get(name)
        whole = self.curves[columns] if before is None else pd.concat([before, self.curves[[c for c in columns if c not in before]]], axis=1)
        self.drawn.datasets[name] = whole
        return alt.NamedData(name=name)

    def _own(self, name: str, rows: pd.DataFrame) -> alt.NamedData:
        self.drawn.datasets[name] = rows.reset_index(drop=True)
        return alt.NamedData(name=name)

    def _add(self, name: str, title: str, caption: Text, chart: Any) -> None:
        spec = chart.configure(**CONFIG).to_dict()
        self.drawn.figures.append(Figure(name, title, caption, spec))

    def _words(self, name: str, title: str, caption: Text) -> None:
        self.drawn.figures.append(Figure(name, title, caption))


def _trend(first: Interval, last: Interval) -> str:
    if not (first.known and last.known):
        return ""
    if last.low > first.high:
        return ", a rise (the intervals are apart)"
    return ", a fall (the intervals are apart)" if last.high < first.low else " (the intervals overlap)"


def _spread(panels: Sequence[str], pair_of: dict[str, str], most: int) -> list[str]:
    """At most so many panels, from every pair as far as it goes, in the study's order."""
    if len(panels) <= most:
        return list(panels)
    seen: dict[str, int] = {}
    turn = {}
    for panel in panels:
        pair = pair_of.get(panel, "")
        turn[panel] = seen[pair] = seen.get(pair, -1) + 1
    kept = sorted(panels, key=lambda panel: turn[panel])[:most]
    return [panel for panel in panels if panel in kept]


def _evenly(deepest: int) -> list[int]:
    """Depths to name."""
    return list(range(1, deepest + 1)) if deepest <= 10 else list(range(0, deepest + 1, 5 if deepest <= 40 else 10))


def _ticks(budgets: Iterable[int]) -> list[int]:
    """Budgets to name on a logarithmic axis, largest first, none too close to another."""
    kept: list[int] = []
    for budget in sorted(budgets, reverse=True):
        if not kept or kept[-1] / budget > CLOSE:
            kept.append(budget)
    return kept[::-1]


TEXT = {"panel", "pair", "setting", "shown"}


def _tips(columns: Iterable[str]) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{column}:{'N' if column in TEXT else 'Q'}", title=column.replace("_", " ")) for column in columns]


def _width(panels: int) -> int:
    return {1: 620, 2: 400}.get(panels, 270)


def _facet(chart: Any, data: alt.NamedData, panels: list[str], height: int) -> Any:
    """One panel per setting, three in a row."""
    sized = chart.properties(width=_width(len(panels)), height=height)
    sized.data = data
    return sized.facet(facet=alt.Facet("panel:N", title=None, sort=panels), columns=3)


def draw(findings: Findings) -> Drawn:
    """Every figure of a study."""
    return Artist(findings).draw()


