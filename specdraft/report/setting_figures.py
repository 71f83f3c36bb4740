"""Figures across settings (rules, temperatures) and against theory."""

from __future__ import annotations

import altair as alt
import pandas as pd

from specdraft.report.canvas import CHAIN, METRIC_TITLES, MOST_DETAIL_PANELS, MOST_DETAIL_SHAPES, Canvas, tips, width
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, plural, say
from specdraft.results.intervals import Interval
from specdraft.theory.formulas import expected_tokens
from specdraft.trees.shapes import is_reference

MOST_SETTINGS = 24
TOKEN_WISE = (
    "greedy",
    "rejection",
    "recursive",
    "no_replacement",
    "kseq",
)  # on a chain these all accept with probability min(1, p/q)


class SettingFigures(Canvas):
    """Draws settings side by side, and theory."""

    def _settings(self) -> None:
        study = self.findings.study
        if len(study.panels) == len(study.summary["pair"].unique()):
            return  # nothing but pair, shape and budget was swept
        title = "Rules, temperatures and other settings side by side"
        pairs = list(dict.fromkeys(self.rows["pair"]))[:MOST_DETAIL_PANELS]
        budgets = self.rows.groupby("budget")["panel"].nunique()
        budget = max(budgets.index, key=lambda b: (budgets[b], b))
        at = self.rows[
            (self.rows["budget"] == budget) & self.rows["pair"].isin(pairs) & self.rows["tree"].isin(self.trees)
        ].copy()
        best = (
            at[~at["tree"].map(is_reference)]
            .groupby("tree")["panel"]
            .count()
            .sort_values(ascending=False, kind="stable")
        )
        at = at[at["tree"].isin(list(best.index[: MOST_DETAIL_SHAPES + 1]))]
        at["setting"] = [panel.partition(" · ")[2] or panel for panel in at["panel"]]
        settings = list(dict.fromkeys(at["setting"]))
        at = at[at["setting"].isin(settings[:MOST_SETTINGS])]
        shapes = self._shapes_of(at)
        at["pair"] = at["pair"].map(visible)
        columns = ["pair", "setting", "shown", "block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]
        data = self._own("settings", at[columns])
        y, offset = (
            alt.Y("setting:N", title="setting", sort=settings[:MOST_SETTINGS]),
            alt.YOffset("shown:N", sort=shapes),
        )
        x = alt.X(
            "block_efficiency:Q",
            title=f"{METRIC_TITLES['block_efficiency']}, at {plural(int(budget), 'node')}",
            scale=alt.Scale(zero=False),
        )
        colour = self.scales.colour(shapes)
        bars = (
            alt.Chart()
            .mark_rule(strokeWidth=2)
            .encode(
                y=y, yOffset=offset, x=alt.X("block_efficiency_lo:Q"), x2=alt.X2("block_efficiency_hi:Q"), color=colour
            )
        )
        points = (
            alt.Chart()
            .mark_point(filled=True, size=46, opacity=1)
            .encode(y=y, yOffset=offset, x=x, color=colour, shape=self.scales.marker(shapes), tooltip=tips(columns))
        )
        told = [self._spread_of_settings(pair, at) for pair in dict.fromkeys(at["pair"])]
        left = len(settings) - MOST_SETTINGS
        extra = say("{} settings more are only in the table.", left) if left > 0 else ()
        note = say("The files hold no paired comparison across settings, so compare their intervals only.")
        height = alt.Step(max(26, 11 * len(shapes)), **{"for": "position"})
        layers = [*([bars] if at["block_efficiency_lo"].notna().any() else []), points]
        faceted = (
            alt.layer(*layers, data=data)
            .properties(width=width(len(pairs)), height=height)
            .facet(facet=alt.Facet("pair:N", title=None, sort=[visible(p) for p in pairs]), columns=3)
        )
        self._add("settings", title, join([*told, note, extra]), faceted)

    def _spread_of_settings(self, pair: str, rows: pd.DataFrame) -> Text:
        own = rows[rows["pair"] == pair]
        tree = own["shown"].iloc[0]
        own = own[own["shown"] == tree].sort_values("block_efficiency")
        if len(own) < 2:
            return ()
        low, high = own.iloc[0], own.iloc[-1]
        a, b = Interval.of(low, "block_efficiency"), Interval.of(high, "block_efficiency")
        verdict = (
            ("their intervals do not overlap" if b.low > a.high else "their intervals overlap")
            if a.known and b.known
            else "no intervals"
        )
        return say(
            "{}, {}: highest under {} ({}), lowest under {} ({}); {}.",
            Name(pair),
            Name(tree),
            Name(high["setting"]),
            b,
            Name(low["setting"]),
            a,
            verdict,
        )

    def _theory(self) -> None:
        title = "Measured against theory: chains"
        rows = self.findings.rows
        rows = rows[rows["alpha"].notna()]
        if rows.empty:
            return  # alpha exists under replayed sampling only
        rule = rows["acceptance"] if "acceptance" in rows else pd.Series("", index=rows.index)
        rows = rows[(rows["tree"] == CHAIN) & rule.isin(TOKEN_WISE) & rows["alpha"].between(0, 1)].drop_duplicates(
            ["panel", "budget"]
        )
        if rows.empty:
            self._words(
                "theory",
                title,
                say(
                    "Not drawn: the closed form is for chains under a token-wise rule ({}), and none was run.",
                    ", ".join(TOKEN_WISE),
                ),
            )
            return
        rows = rows.assign(
            predicted=[
                expected_tokens(float(a), int(n))
                for a, n in zip(rows["alpha"], rows["nodes"].fillna(rows["budget"]), strict=True)
            ]
        )
        left = max(0, len(rows) - 400)
        shown = rows.iloc[:: 1 + len(rows) // 400]
        columns = [
            "panel",
            "pair",
            "budget",
            "alpha",
            "predicted",
            "block_efficiency",
            "block_efficiency_lo",
            "block_efficiency_hi",
        ]
        data = self._own("theory", shown[columns].assign(pair=shown["pair"].map(visible)))
        ends = [1.0, float(max(rows["predicted"].max(), rows["block_efficiency"].max())) * 1.05]
        diagonal = (
            alt.Chart(self._own("diagonal", pd.DataFrame({"v": ends})))
            .mark_line(strokeDash=[4, 4], color="#808080")
            .encode(x="v:Q", y="v:Q")
        )
        x = alt.X("predicted:Q", title="predicted from alpha (tokens per step)", scale=alt.Scale(domain=ends))
        y = alt.Y("block_efficiency:Q", title=METRIC_TITLES["block_efficiency"], scale=alt.Scale(domain=ends))
        colour = alt.Color("pair:N", title="pair")
        bars = (
            alt.Chart(data)
            .mark_rule()
            .encode(x=x, y=alt.Y("block_efficiency_lo:Q"), y2="block_efficiency_hi:Q", color=colour)
        )
        points = (
            alt.Chart(data)
            .mark_point(filled=True, size=50, opacity=1)
            .encode(x=x, y=y, color=colour, shape=alt.Shape("pair:N", title="pair"), tooltip=tips(columns))
        )
        known = rows[rows["block_efficiency_lo"].notna()]
        layers = [diagonal, *([bars] if len(known) else []), points]
        inside = known["predicted"].between(known["block_efficiency_lo"], known["block_efficiency_hi"]).sum()
        above = (known["predicted"] > known["block_efficiency_hi"]).sum()
        below = len(known) - inside - above
        told = (
            say(
                "The prediction lies within the measured 95 % interval for {} of {} chains, above it for {}, "
                "below it for {}.",
                inside,
                len(known),
                above,
                below,
            )
            if len(known)
            else say("No intervals are recorded, so agreement cannot be judged.")
        )
        note = say(
            "Theory: (1 - alpha^(n+1)) / (1 - alpha) with acceptances taken as independent (Leviathan et al. "
            "2023); real "
            "acceptances are not, "
            "and the last step of a text is cut. On the dashed line both agree."
        )
        extra = say("{} of {} points are drawn.", len(shown), len(rows)) if left else ()
        self._add("theory", title, join([told, note, extra]), alt.layer(*layers).properties(width=420, height=320))
