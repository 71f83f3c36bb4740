"""Figures of time: measured where decoding was live, estimated where it was replayed."""

from __future__ import annotations

import altair as alt
import pandas as pd

from specdraft.report.budget_figures import BudgetFigures
from specdraft.report.canvas import MOST_DETAIL_PANELS, MOST_SPOKEN, facet
from specdraft.report.findings import against_one
from specdraft.report.theme import PARTS
from specdraft.report.words import Name, Strong, Text, join, plural, say
from specdraft.results.intervals import Interval
from specdraft.trees.shapes import is_reference


class TimeFigures(BudgetFigures):
    """Draws times."""

    def _live(self) -> None:
        live = self.findings.live.drop_duplicates(["panel", "tree", "budget"])
        if live.empty:
            return
        self._latency(live)
        rows = self.curves[self.curves["speedup"].notna()]
        told = self._fastest(rows, "speedup", "{}: fastest is {} at {}, {}: {}.")
        note = say(
            "Measured against plain decoding in the same run, on the hardware named below; the fastest of many "
            "is picked, "
            "which flatters it."
        )
        self._metric(
            "speedup",
            "Measured speed-up over plain decoding, by node budget",
            join([*told, note]),
            plain=True,
            single=rows["budget"].nunique() == 1,
            rows=rows,
        )

    def _fastest(self, rows: pd.DataFrame, name: str, template: str) -> list[Text]:
        """The largest `name` of each panel: `template` takes panel, shape, nodes, value and what its interval
        supports."""
        told = []
        for panel in self._panels_of(rows)[:MOST_SPOKEN]:
            own = rows[(rows["panel"] == panel) & ~rows["tree"].map(is_reference)].sort_values(name, ascending=False)
            if len(own):
                top = own.iloc[0]
                speed, nodes = Interval.of(top, name), plural(int(top["budget"]), "node")
                told.append(say(template, Name(panel), Name(top["shown"]), nodes, speed, against_one(speed)))
        return told

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
        bars = (
            alt.Chart()
            .mark_bar()
            .encode(
                y=y,
                x=alt.X("sum(ms):Q", title="time per new token (ms)"),
                color=colour,
                order=alt.Order("place:Q"),
                tooltip=["shown:N", "part:N", alt.Tooltip("sum(ms):Q", format=".2f", title="ms per token")],
            )
        )
        tick = (
            alt.Chart()
            .mark_tick(thickness=3, color="#D55E00")
            .encode(y=y, x=alt.X("mean(plain):Q"), tooltip=[alt.Tooltip("mean(plain):Q", title="plain decoding, ms")])
        )
        told = []
        for panel in self._panels_of(long)[:MOST_SPOKEN]:
            own = chosen[chosen["panel"] == panel]
            share = own["verify_s"].sum() / own["wall_s"].sum()
            told.append(
                say(
                    "{}, {}: verifying takes {} of the time, drafting {}.",
                    Name(panel),
                    plural(int(own["budget"].iloc[0]), "node"),
                    f"{share:.0%}",
                    f"{own['draft_s'].sum() / own['wall_s'].sum():.0%}",
                )
            )
        note = say(
            "The orange tick is plain decoding of the same texts: a bar that ends before it is faster. Sums over "
            "prompts, "
            "without intervals; “the rest” holds prefills, acceptance and cache upkeep."
        )
        self._add(
            "latency",
            title,
            join([*told, note]),
            facet(alt.layer(bars, tick), data, self._panels_of(long), height=max(50, 24 * chosen["shown"].nunique())),
        )

    def _estimate(self, single: bool) -> None:
        rows = self.curves[self.curves["est_speedup"].notna()]
        if self.findings.estimated.empty:
            return
        told = self._fastest(rows, "est_speedup", "{}: highest for {} at {}, {}; {}.")
        note = say(
            "{} computed from accepted tokens and the pair's measured cost of drafting and verifying. Intervals "
            "are over prompts only; "
            "they do not hold the error of the costs.",
            Strong("An estimate, not a measurement:"),
        )
        self._metric(
            "est_speedup",
            "Estimated speed-up (replay; not measured), by node budget",
            join([note, *told]),
            plain=True,
            single=single,
            rows=rows,
        )
