"""Two studies side by side as a report: the same page as a study's own, with what changed in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.confidence import Confidence
from specdraft.report.document import Document
from specdraft.report.figures.base import Drawn, Figure, drawn, named, together
from specdraft.report.figures.charts import METRIC_TITLES
from specdraft.report.page import html_page
from specdraft.report.run_facts import Fact
from specdraft.report.study_files import visible
from specdraft.report.table import Table
from specdraft.report.words import Name, Strong, Text, join, plural, say
from specdraft.results.files import check_folder_writable, csv_pieces, write_atomically
from specdraft.results.intervals import Interval
from specdraft.results.manifest_differences import Differing
from specdraft.results.side_by_side import BETTER, GONE, METRICS, NEW, PAIRED, RATED, VERDICTS, WORSE, SideBySide
from specdraft.viewer.comparison_tables import changed_rows, shown_keys, signed

PAGE, CSV = "comparison.html", "comparison.csv"
HEADING = "What changed from one study to the other?"
MAIN = METRICS[0]
MOST_NAMED = 3
COLOURS = {BETTER: "#0072B2", WORSE: "#D55E00"}
GREY = "#808080"
MARKERS = {BETTER: "triangle-up", WORSE: "triangle-down"}
ORDER = {verdict: place for place, verdict in enumerate((WORSE, BETTER, *VERDICTS[2:]))}


def write_comparison(
    found: SideBySide, names: tuple[str, str], differs: Sequence[Differing], out: Path
) -> tuple[Path, Path]:
    """Write the page and the table of all rows; returns both files. Raises `ResultsError`."""
    check_folder_writable(out)
    page, table = out / PAGE, out / CSV
    write_atomically(table, csv_pieces(found.rows))
    write_atomically(page, html_page(comparison_document(found, names, differs)))
    return page, table


def comparison_document(found: SideBySide, names: tuple[str, str], differs: Sequence[Differing]) -> Document:
    """The report."""
    a, b = map(visible, names)
    return Document(
        title=f"{a} and {b}",
        heading=HEADING,
        question=[
            say("Study a is {}, study b is {}. Of every combination of settings that both have: is b better?", Name(a),
                Name(b)),
            say("Differences are b minus a, with 95 % intervals over prompts."),
        ],
        answer=_answer(found),
        confidence=_confidence(found),
        gaps=[say("{}.", visible(note)) for note in found.notes],
        tiles=_tiles(found),
        headline=None,
        drawn=_figures(found),
        tables=[_table(found, metric) for metric in _measured(found)],
        run=[Fact(visible(one.what), say("{} in a, {} in b", visible(one.a), visible(one.b))) for one in differs]
        or [Fact("both", say("Models, versions, machine and settings are the same."))],
    )  # fmt: skip


def _measured(found: SideBySide) -> list[str]:
    there = set(found.rows["metric"])
    return [metric for metric in METRICS if metric in there]


def _answer(found: SideBySide) -> list[Text]:
    texts = [_counted(found, metric) for metric in _measured(found)]
    changed = changed_rows(found, MAIN)
    for verdict, said in ((BETTER, "Largest gains"), (WORSE, "Largest losses")):
        largest = changed[changed["verdict"] == verdict].head(MOST_NAMED)
        if len(largest):
            listed = join((_named(found, row) for row in largest.to_dict("records")), "; ")
            texts.append(say("{} by {}: {}.", Strong(said), Name(MAIN), listed))
    return texts


def _counted(found: SideBySide, metric: str) -> Text:
    counts, rated = found.counts(metric), sum(found.counts(metric)[verdict] for verdict in RATED)
    if not rated:
        return say("{}: no combination of both has an interval.", Name(metric))
    same = found.unchanged(metric)
    equal = f", {same} of them equal on every prompt" if same else ""
    return say(
        "{}: of {} {} better, {} worse, {} within noise{} (by chance alone about {} would not be).",
        Name(metric),
        plural(rated, "combination"),
        Strong(str(counts[BETTER])),
        Strong(str(counts[WORSE])),
        counts["within noise"],
        equal,
        f"{found.by_chance(metric):.0f}",
    )


def _named(found: SideBySide, row: Mapping[Any, Any]) -> Text:
    keys = [visible(row[key]) for key in shown_keys(found) if key not in ("tree", "budget")]
    what = ", ".join([plural(int(row["budget"]), "node"), *keys])
    return say("{} ({}) {}", Name(visible(row["tree"])), what, signed(Interval.of(row, "difference")))


def _confidence(found: SideBySide) -> Confidence:
    how = found.rows.loc[found.rows["how"] != "", "how"]
    paired = int((how == PAIRED).sum())
    word = (
        f"Paired over {plural(found.shared, 'prompt')}"
        if paired == len(how) and paired
        else "Partly paired over prompts"
        if paired
        else "Not paired: two independent sets of numbers"
    )
    reasons = [
        say("Better and worse: the 95 % interval of the difference does not hold 0. Within noise: it does."),
        say(
            "Nothing is corrected for the number of rows: one in twenty would be called better or worse by chance. "
            "Rows share prompts, so such rows come together."
        ),
    ]
    return Confidence(word, reasons)


def _tiles(found: SideBySide) -> list[tuple[str, str]]:
    counts = found.counts(MAIN)
    tiles = [(f"{found.common:,}", "combinations in both"), (f"{found.shared:,}", "prompts in both")]
    return tiles + [(f"{counts[verdict]:,}", f"{verdict} in b") for verdict in (BETTER, WORSE, NEW, GONE)]


def _figures(found: SideBySide) -> Drawn:
    figures = [figure for metric in _measured(found) if (figure := _figure(found, metric)) is not None]
    return together(figures[:1] + [figure for figure in figures[1:] if figure.name == "speedup"])


def _figure(found: SideBySide, metric: str) -> Figure | None:
    rows = found.rows[(found.rows["metric"] == metric) & found.rows["difference"].notna()]
    if rows.empty:
        return None
    keys = shown_keys(found)
    label = rows[keys].astype(str).agg(" · ".join, axis=1)
    table = rows[["a", "a_lo", "a_hi", "b", "b_lo", "b_hi", "difference", "verdict"]].assign(shown=label.map(visible))
    title = f"{METRIC_TITLES.get(metric, metric)}: b over a"
    caption = say(
        "A point for each combination that both studies have: above the line b is larger. Triangles are better or "
        "worse, grey circles within noise; lines are each study's own 95 % intervals, wider than that of the "
        "difference where prompts are paired."
    )
    ends = table[["a", "b", "a_lo", "a_hi", "b_lo", "b_hi"]]
    corners = pd.DataFrame({"a": [ends.min().min(), ends.max().max()]}).assign(b=lambda line: line["a"])
    tables = {metric: table, f"{metric}-equal": corners}
    return drawn(metric, title[0].upper() + title[1:], caption, _chart(metric, table, corners), tables)


def _chart(metric: str, table: pd.DataFrame, corners: pd.DataFrame) -> Any:
    said = METRIC_TITLES.get(metric, metric)
    verdicts = [verdict for verdict in VERDICTS if verdict in set(table["verdict"])]
    colours = alt.Scale(domain=verdicts, range=[COLOURS.get(verdict, GREY) for verdict in verdicts])
    markers = alt.Scale(domain=verdicts, range=[MARKERS.get(verdict, "circle") for verdict in verdicts])
    extent = alt.Scale(domain=corners["a"].tolist(), nice=True, zero=False)
    x = alt.X("a:Q", title=f"a: {said}", scale=extent)
    y = alt.Y("b:Q", title=f"b: {said}", scale=extent)
    legend = alt.Legend(title=None, symbolOpacity=1)
    colour = alt.Color("verdict:N", scale=colours, legend=legend)
    line = alt.Chart(named(f"{metric}-equal")).mark_line(strokeDash=[3, 3], color=GREY).encode(x=x, y=y)
    across = alt.Chart().mark_rule(opacity=0.5).encode(x="a_lo:Q", x2="a_hi:Q", y=y, color=colour)
    along = alt.Chart().mark_rule(opacity=0.5).encode(x=x, y="b_lo:Q", y2="b_hi:Q", color=colour)
    points = (
        alt.Chart()
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=alt.Shape("verdict:N", scale=markers, legend=legend),
            tooltip=[alt.Tooltip("shown:N", title="combination"), "a:Q", "b:Q", "difference:Q", "verdict:N"],
        )
    )
    chart: Any = alt.layer(across, along, points, data=named(metric))
    return alt.layer(line, chart).properties(width=480, height=420)


def _table(found: SideBySide, metric: str) -> Table:
    rows = found.rows[found.rows["metric"] == metric]
    rows = rows.assign(order=rows["verdict"].map(ORDER), size=-rows["difference"].abs())
    keys = shown_keys(found)
    listed = [
        (*(visible(row[key]) for key in keys), str(Interval.of(row, "a")), str(Interval.of(row, "b")),
         signed(Interval.of(row, "difference")), row["verdict"], row["how"])
        for row in rows.sort_values(["order", "size"], kind="stable").to_dict("records")
    ]  # fmt: skip
    columns = (*keys, "a [95 %]", "b [95 %]", "b - a [95 %]", "verdict", "how")
    note = say("Worse first, then better, the largest differences first. {} has all digits.", Name(CSV))
    return Table(metric, METRIC_TITLES.get(metric, metric), columns, listed, note)
