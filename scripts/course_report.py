"""Write the course report of a study: method, set-up, results, analysis computed from the tables, and where each
claim comes from.

    python scripts/course_report.py results/course-report

Reads result files only. A sentence says that one number is larger than another only where their 95 % intervals
do not overlap, or where the paired interval of their difference lies on one side of 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from specdraft.errors import UserError
from specdraft.report.attention import AttentionReport, read_attention
from specdraft.report.document import compose
from specdraft.report.findings import Findings, fair, findings_of
from specdraft.report.leads import CLEAR, OPEN, lead_sentence
from specdraft.report.markdown import code, escaped, paragraphs, words
from specdraft.report.study_files import StudyFiles, read_study
from specdraft.report.texts import REFERENCES
from specdraft.report.words import Name, Text, plural, say
from specdraft.results.files import write_atomically
from specdraft.results.intervals import Interval, number
from specdraft.theory.formulas import expected_tokens

COMMAND = "scripts/reproduce_course_report.sh"
ATTENTION = "attention"  # folder of `specdraft bench attention` in the study's
SPEEDS = ("speedup", "est_speedup")


def main(folder: Annotated[Path, typer.Argument(help="a results folder")] = Path("results/course-report")) -> None:
    try:
        study = read_study(folder)
        attention = read_attention(folder / ATTENTION) if (folder / ATTENTION).is_dir() else None
        path = folder / "COURSE_REPORT.md"
        write_atomically(path, "\n".join(pages(study, folder, attention)) + "\n")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{path}: written")


def pages(study: StudyFiles, folder: Path, attention: AttentionReport | None = None) -> Iterator[str]:
    """The report, line by line; `attention` is the benchmark of tree attention, where there is one."""
    findings, document = findings_of(study), compose(study)
    yield from ("# Draft trees and token budgets in speculative decoding", "")
    yield from (
        f"Written by `{COMMAND}` from the files of study {code(study.name)}; every number below is in one of them.",
        "",
    )
    yield from ("## 1. Summary", "", *paragraphs(document.answer))
    yield from (
        f"**Confidence.** {escaped(document.confidence.word)}.",
        "",
        *(f"- {words(reason)}" for reason in document.confidence.reasons),
        "",
    )
    yield from ("## 2. Method", "", *METHOD)
    yield from ("## 3. Set-up", "", *(f"- {escaped(label)}: {words(text)}" for label, text in document.run), "")
    yield from ("## 4. Results", "")
    pictures = {
        figure.name: folder / "figures" / f"{figure.name}.png" for figure in document.drawn.figures if figure.spec
    }
    for figure in document.drawn.figures:
        yield from (f"### {escaped(figure.title)}", "")
        if figure.name in pictures and pictures[figure.name].is_file():
            yield from (f"![{escaped(figure.title)}](<figures/{figure.name}.png>)", "")
        yield from (words(figure.caption), "")
    tables = dict(grids(findings))
    for title, lines in tables.items():
        yield from (f"### {escaped(title)}", "", *lines, "")
    yield from ("## 5. Analysis", "")
    for title, analyse in ANALYSES:
        if sentences := list(analyse(findings)):
            yield from (f"### {title}", "", *paragraphs(sentences))
    if attention:
        charts = [f"{ATTENTION}/figures/{name}.png" for name in attention.charts]
        yield from (*attention.markdown(charts, level=3),)
    yield from ("## 6. Limits", "", *LIMITS)
    yield from ("## 7. Where each claim comes from", "", *claims(pictures, tables))
    if attention:
        yield from (
            f"Tree attention: `{ATTENTION}/attention.csv`, by `specdraft bench attention` as `{COMMAND}` says.",
            "",
        )
    yield from ("## References", "", *(f"- {escaped(reference)}" for reference in REFERENCES), "")


METHOD = (
    "A drafter proposes a tree of draft tokens below the last token of the text; the target checks the whole "
    "tree in one pass "
    "(a verification step), and an acceptance rule keeps one path of it and adds one token of the target's own "
    "(the bonus token). "
    "The node budget is the number of draft tokens in the tree.",
    "",
    "- acceptance rate = accepted tokens / drafted tokens;",
    "- acceptance length = accepted tokens / verification steps (the bonus token is not counted);",
    "- block efficiency = (accepted + bonus tokens) / verification steps: tokens per pass of the target. Plain "
    "decoding has 1.",
    "",
    "A lossless rule leaves the target's text as it is, whatever the tree. So the target's text of each prompt "
    "is recorded once, the "
    "drafter reads it once, and every tree is replayed along it: greedy in whole numbers, equal to live decoding "
    "step by step; sampled "
    "as expected values given the text. Intervals are 95 % over prompts; two trees are compared on the same "
    "prompts, paired.",
    "",
)
LIMITS = (
    "- Intervals cover other prompts of the same kind, not other models, domains or hardware.",
    "- The leader of a budget is chosen after looking; its interval is not corrected for that.",
    "- Times of replayed rows are estimates from the measured cost of a draft level and of verifying n tokens, "
    "one text at a time.",
    "- `hindsight` trees are fitted on the prompts that they are scored on: a reference, not a competitor, and "
    "no bound.",
    "",
)


def grids(findings: Findings) -> Iterator[tuple[str, list[str]]]:
    """Acceptance length and rate by tree and budget, for each setting."""
    for panel, rows in findings.rows.groupby("panel", sort=False):
        budgets = sorted(rows["budget"].unique())
        lines = [
            f"| tree | {' | '.join(plural(int(b), 'node') for b in budgets)} |",
            f"| --- |{' --- |' * len(budgets)}",
        ]
        for tree, budget_rows in rows.groupby("tree", sort=False):
            cells = {int(row["budget"]): row for row in budget_rows.to_dict("records")}
            lines.append(f"| {code(str(tree))} | {' | '.join(grid_cell(cells.get(int(b))) for b in budgets)} |")
        yield f"Acceptance length [95 %] and acceptance rate: {panel}", lines


def grid_cell(row: dict[Any, Any] | None) -> str:
    return "" if row is None else escaped(f"{Interval.of(row, 'acceptance_length')}; {number(row['acceptance_rate'])}")


def order(first: Interval, second: Interval) -> str:
    """What the two intervals support."""
    if not (first.known and second.known):
        return "unknown"
    return "higher" if first.low > second.high else "lower" if first.high < second.low else "open"


def about_budgets(findings: Findings) -> Iterator[Text]:
    """What more draft tokens do, for the smallest and the largest budget of each setting and shape."""
    changes: dict[str, Counter[str]] = {"acceptance_rate": Counter(), "block_efficiency": Counter()}
    for _, rows in fair(findings.rows).groupby(["panel", "tree"], sort=False):
        if rows["budget"].nunique() > 1:
            ends = rows.sort_values("budget").to_dict("records")
            for name, orders in changes.items():
                orders[order(Interval.of(ends[-1], name), Interval.of(ends[0], name))] += 1
    for name, orders in changes.items():
        if total := orders.total():
            yield say(
                "From the smallest to the largest budget, {} rises in {} of {} pairs of setting and shape and "
                "falls in {} (intervals that "
                "do not overlap); in {} the intervals overlap.",
                name.replace("_", " "), orders["higher"], total, orders["lower"], orders["open"])  # fmt: skip


def about_shapes(findings: Findings) -> Iterator[Text]:
    """Who leads, and how often that is clear."""
    contested = [lead for lead in findings.leads if lead.verdict in (CLEAR, OPEN)]
    clear = Counter(lead.tree for lead in contested if lead.verdict == CLEAR)
    if contested:
        yield say("In {} comparisons of a setting and budget the leader's paired lead over the "
                  "runner-up is clear in {}.",
                  len(contested), sum(clear.values()))  # fmt: skip
    for tree, count in clear.most_common():
        leads = [lead for lead in contested if lead.tree == tree and lead.verdict == CLEAR]
        widest = max(leads, key=lambda lead: lead.lead.value)
        yield say("{} leads clearly in {}; its widest lead: {}", Name(tree), count, lead_sentence(widest))


def about_pairs(findings: Findings) -> Iterator[Text]:
    """The drafters, at the same shape, budget and setting."""
    rows = fair(findings.rows)
    settings = [key for key in findings.study.varying if key != "pair"]
    for values, chains in rows[rows["tree"] == "chain"].groupby([*settings, "budget"], sort=False, dropna=False):
        setting = dict(zip([*settings, "budget"], values, strict=True))
        if chains["pair"].nunique() > 1 and setting["budget"] == rows["budget"].max():
            ranked = chains.sort_values("block_efficiency", ascending=False).to_dict("records")
            parts = [f"{row['pair']} {Interval.of(row, 'block_efficiency')}" for row in ranked]
            apart = all(
                order(a, b) == "higher" for a, b in pairwise([Interval.of(row, "block_efficiency") for row in ranked])
            )
            where = ", ".join(f"{key}={value}" for key, value in setting.items())
            yield say("Block efficiency of a {} ({}): {}; {}.", Name("chain"), where, "; ".join(parts),
                      "no two intervals overlap" if apart else "not all of these intervals are apart")  # fmt: skip


def about_theory(findings: Findings) -> Iterator[Text]:
    """Leviathan's formula from the measured overlap, beside replayed chains."""
    rows = fair(findings.rows)
    chains = rows[(rows["tree"] == "chain") & (rows["acceptance"] == "rejection") & rows["alpha"].notna()]
    for _, panel_rows in chains.groupby("panel", sort=False):
        row = panel_rows.sort_values("budget").to_dict("records")[-1]
        predicted, measured = (
            expected_tokens(float(row["alpha"]), int(row["budget"])),
            Interval.of(row, "block_efficiency"),
        )
        side = "inside" if measured.known and measured.low <= predicted <= measured.high else "outside"
        yield say("{}: with the measured overlap alpha = {} the formula for independent "
                  "acceptances gives {} tokens per pass at {}; "
                  "measured {}, so the prediction is {} the interval.", Name(str(row["panel"])),
                  Interval.of(row, "alpha"), number(predicted),
                  plural(int(row["budget"]), "draft token"), measured, side)  # fmt: skip


def about_time(findings: Findings) -> Iterator[Text]:
    """The best speed-up of each pair, and whether it is one."""
    for name in SPEEDS:
        rows = fair(findings.rows)
        rows = rows[rows[name].notna()]
        for pair, pair_rows in rows.groupby("pair", sort=False):
            row = pair_rows.sort_values(name, ascending=False).to_dict("records")[0]
            speed = Interval.of(row, name)
            verdict = (
                "a gain"
                if speed.known and speed.low > 1
                else "a loss"
                if speed.known and speed.high < 1
                else "no clear gain"
            )
            what = "estimated speed-up" if name == "est_speedup" else "measured speed-up"
            where = say(
                "{} with {}, {}", Name(str(row["tree"])), plural(int(row["budget"]), "node"), Name(str(row["panel"]))
            )
            yield say("{}: the best {} is {} ({}): {}.", Name(str(pair)), what, speed, where, verdict)


def about_loops(findings: Findings) -> Iterator[Text]:
    """How far the texts repeat themselves."""
    for temperature, rows in findings.rows.groupby("temperature", sort=False):
        yield say("At temperature {} at most {} of the text ends a repeated 4-gram; where this is "
                  "much, acceptance measures loops.",
                  f"{float(temperature):g}", f"{rows['loop_share'].max():.0%}")  # type: ignore[arg-type]  # fmt: skip


ANALYSES: tuple[tuple[str, Callable[[Findings], Iterator[Text]]], ...] = (
    ("More draft tokens", about_budgets),
    ("Shapes", about_shapes),
    ("Model pairs", about_pairs),
    ("Theory", about_theory),
    ("Time", about_time),
    ("Loops", about_loops),
)


def claims(pictures: dict[str, Path], tables: dict[str, list[str]]) -> Iterator[str]:
    """Figure or table -> the file that it is drawn from -> the command that makes it."""
    sources = {
        "depth": "positions.csv",
        "rank": "nodes.csv",
        "length": "lengths.csv",
        "winner": "comparisons.csv",
        "lead": "comparisons.csv",
    }
    yield from ("| figure or table | file | command |", "| --- | --- | --- |")
    for name in pictures:
        file = next((file for word, file in sources.items() if word in name), "summary.csv")
        yield f"| `figures/{name}.png` | `{file}` | `specdraft report results/course-report` |"
    for title in tables:
        yield f"| {escaped(title)} | `summary.csv` | `{COMMAND}` |"
    yield f"| section 5, shapes | `comparisons.csv` | `{COMMAND}` |"
    yield f"| section 5, all else | `summary.csv` | `{COMMAND}` |"
    yield ""


if __name__ == "__main__":
    typer.run(main)
