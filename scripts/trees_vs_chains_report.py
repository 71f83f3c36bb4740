"""The page of results/trees-vs-chains, from the tables that scripts/trees_vs_chains.py wrote.

python scripts/trees_vs_chains_report.py [FOLDER]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import altair as alt
import pandas as pd
import typer

from specdraft.report.charts import write_charts
from specdraft.report.theme import CONFIG
from specdraft.results.files import write_atomically
from specdraft.results.intervals import Interval

OUT = Path(__file__).resolve().parent.parent / "results" / "trees-vs-chains"
ANY, HERE, LIGHT = "any tree", "this machine", "flat, light draft"


def forest(table: pd.DataFrame) -> dict[str, Any]:
    """How many times the speed of the best chain the best tree has, by drafter, a panel for each setting and costs."""
    rows = table[table["family"] == ANY].assign(
        who=lambda t: t["pair"] + " · " + t["drafter"],
        panel=lambda t: t["temperature"].map({0.0: "greedy, ", 1.0: "temperature 1, "}) + t["costs"],
    )
    rows = rows.sort_values("temperature", kind="stable")
    order, panels = list(dict.fromkeys(table["pair"] + " · " + table["drafter"])), list(dict.fromkeys(rows["panel"]))
    said = ["tree", "chain", "open", "equal"]
    colours = alt.Scale(domain=said, range=["#0072B2", "#D55E00", "#808080", "#808080"])
    symbols = alt.Scale(domain=said, range=["diamond", "circle", "triangle-up", "square"])
    legend = alt.Legend(title="faster beyond the interval", orient="bottom")
    colour = alt.Color("faster:N", scale=colours, legend=legend)
    span = alt.Scale(domain=[0.9, 1.6], clamp=True)
    y = alt.Y("who:N", title=None, sort=order)
    x = alt.X("ratio_lo:Q", title="best tree / best chain", scale=span)
    base = alt.Chart()
    one = base.mark_rule(color="#808080", strokeDash=[4, 3]).encode(x=alt.datum(1, scale=span))
    rule = base.mark_rule(strokeWidth=2).encode(y=y, x=x, x2="ratio_hi:Q", color=colour)
    point = base.mark_point(filled=True, size=55, opacity=1).encode(
        y=y, x=alt.X("ratio:Q", scale=span), color=colour, shape=alt.Shape("faster:N", scale=symbols, legend=legend)
    )
    layered = alt.layer(one, rule, point, data=rows).properties(width=180, height=15 * len(order))
    chart = layered.facet(alt.Facet("panel:N", title=None, sort=panels), columns=4)
    spec: dict[str, Any] = chart.configure(**CONFIG).to_dict()
    return spec


def main(out: Annotated[Path, typer.Argument(help="the folder of the tables")] = OUT) -> None:
    table = pd.read_csv(out / "answers.csv")
    write_charts(out, {"tree-over-chain": forest(table)})
    siblings, rates = (pd.read_csv(out / f"{name}.csv") for name in ("siblings", "efficiency"))
    live = pd.read_csv(out / "live.csv") if (out / "live.csv").exists() else None
    said = "\n".join(f"- {sentence}" for sentence in sentences(out))
    parts = [HEAD.format(answer=said, not_shown=NOT_SHOWN), FAMILIES_HEAD, by_family(table), AT_NODES, at_nodes(rates)]
    parts += [BELOW, below(siblings), COSTS_HEAD, by_costs(table)]
    parts += [LIVE, live_table(live)] if live is not None else []
    write_atomically(out / "README.md", "\n".join(parts) + "\n")


HEAD = """# Does a tree pay against the best chain at equal time?

{answer}

{not_shown}

![How many times the speed of the best chain the best tree has](figures/tree-over-chain.png)

Made by `scripts/trees_vs_chains.py` (`experiment=trees_vs_chains` and `-sampled`): the bundled pairs on 40 prompts x 64
tokens in float32, SmolLM2-135M-Instruct on 24 instructions x 48 tokens in bfloat16; replayed, so all candidates are of
the same texts. Chains have 1 to 6, 8, 16 and 32 tokens, trees 2 nodes or more, as far as a drafter makes them. Which
chain and which tree is the fastest is chosen on one half of the prompts and timed on the other, each half in turn;
ratios are those of estimated seconds, intervals 95 % over prompts, paired. What costs may be wrong by is not in them:
`costs/` has what was measured, with its spread.
"""
NOT_SHOWN = (
    "What this does not show: large models. A target of 3 M or 135 M parameters on processor cores is bound by "
    "calls and arithmetic, not by memory; the made-up tables say what a device would have to cost, and no GPU was "
    "measured."
)
FAMILIES_HEAD = """
## By family

Greedy, this machine's costs: speed of the family's fastest tree over that of the fastest chain; behind it what both
gain over plain decoding.
"""
AT_NODES = """
## At equal nodes

Greedy, tokens per step at 8 nodes: what a tree yields for the same verification, whatever it costs to draft.
"""
BELOW = """
## Below siblings

How often the next level is accepted below an accepted first child, and below one of its siblings (`measured`, 32 nodes,
greedy).
"""
COSTS_HEAD = """
## By costs

Speed of the fastest tree of any family over that of the fastest chain. `flat`: verifying up to 65 tokens takes one
pass; `linear`: three passes at 65 tokens; `steps`: a quarter of a pass more from 9 and from 17 tokens, two passes from
33; in these, a level of drafting takes what it takes here, whatever its width, and nothing else takes any time. `flat,
light draft`: a level takes at most 3 % of a pass. Temperature 1 was replayed under the first and the last.
"""
LIVE = """
## Live

The chain and the tree that estimates call the fastest (greedy, this machine's costs), decoded in turns, three rounds.
"""


def sentences(folder: Path) -> list[str]:
    """The answer in three sentences, from the tables, and what came of it live."""
    table, siblings = (pd.read_csv(folder / f"{name}.csv") for name in ("answers", "siblings"))
    whole = table[table["family"] == ANY]
    greedy, sampled = (whole[whole["temperature"] == temperature] for temperature in (0, 1))
    told = []
    for what, rows in (("Greedy", greedy), ("At temperature 1", sampled)):
        here = rows[rows["costs"] == HERE]
        top = here.sort_values("ratio").iloc[-1]
        told.append(
            f"{what}, at this machine's costs, the best tree is faster than the best chain, beyond the interval, with "
            f"{won(here)} drafters, and slower with {lost(here)}; at most {Interval.of(top, 'ratio')} times "
            f"({top['pair']} with {top['drafter']}: {shown(top['tree'])} against {shown(top['chain'])})."
        )
    cheap, dear = greedy[greedy["costs"] == LIGHT], sampled[sampled["costs"] == LIGHT]
    top = cheap.sort_values("ratio").iloc[-1]
    hits = siblings.groupby("below")[["accepted", "reached"]].sum()
    rates = (hits["accepted"] / hits["reached"]).to_dict()
    told.append(
        f"Where verification is flat and drafting light, greedy trees win with {won(cheap)} drafters (at most "
        f"{Interval.of(top, 'ratio')} times, {top['pair']} with {top['drafter']}), sampled ones with {won(dear)}; "
        f"below a sibling the next level is accepted {rates['a sibling']:.0%} of the time, below a first child "
        f"{rates['the first child']:.0%}."
    )
    if (folder / "live.csv").exists():
        live = pd.read_csv(folder / "live.csv")
        faster, slower = (live["ratio_lo"] > 1).sum(), (live["ratio_hi"] < 1).sum()
        less = (live["ratio"] / live["estimated"]).median() - 1
        told.append(
            f"Decoded live ({live['prompts'].iloc[0]} prompts, greedy, bundled pairs), the tree is faster than "
            f"the chain beyond the interval with {faster} of {len(live)} drafters, slower with {slower}: the ratio is "
            f"{less:+.0%} of the estimated one in the median, so a lead of a few per cent is none."
        )
    return told


def won(rows: pd.DataFrame) -> str:
    """How many trees are faster, of how many."""
    return f"{(rows['faster'] == 'tree').sum()} of {len(rows)}"


def lost(rows: pd.DataFrame) -> int:
    """How many chains are."""
    return int((rows["faster"] == "chain").sum())


def shown(name: str) -> str:
    """A candidate without its rule."""
    tree, budget, _ = name.split()
    return f"{tree} of {budget}"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first one its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])


def cases_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs with drafters, in their order."""
    return list(dict.fromkeys(zip(table["pair"], table["drafter"], strict=True)))


def cell(rows: pd.DataFrame, name: str = "ratio") -> str:
    """One value with its interval, in bold where it is clear; empty where there is none."""
    if rows.empty:
        return ""
    row = rows.iloc[0]
    text = str(Interval.of(row, name))
    return f"**{text}**" if name == "ratio" and row["faster"] == "tree" else text


def by_family(table: pd.DataFrame) -> str:
    """A row per drafter, greedy, at this machine's costs."""
    here = table[(table["costs"] == HERE) & (table["temperature"] == 0)]
    names = list(dict.fromkeys(here["family"]))
    names = [*(name for name in names if name != ANY), ANY]
    lines = [["pair, drafter", *names, "chain / plain", "tree / plain"]]
    for pair, drafter in cases_of(here):
        rows = here[(here["pair"] == pair) & (here["drafter"] == drafter)]
        whole = rows[rows["family"] == ANY]
        cells = [cell(rows[rows["family"] == name]) for name in names]
        lines.append([f"{pair}, {drafter}", *cells, cell(whole, "chain_speedup"), cell(whole, "tree_speedup")])
    return grid(lines) + "\n\nIn bold: beyond the interval, the tree is faster."


def by_costs(table: pd.DataFrame) -> str:
    """A row per drafter and temperature, a column per table of costs."""
    whole = table[table["family"] == ANY]
    names = list(dict.fromkeys(whole["costs"]))
    lines = [["pair, drafter", "temperature", *names]]
    for temperature in (0, 1):
        at = whole[whole["temperature"] == temperature]
        for pair, drafter in cases_of(at):
            rows = at[(at["pair"] == pair) & (at["drafter"] == drafter)]
            lines.append([f"{pair}, {drafter}", str(temperature), *(cell(rows[rows["costs"] == c]) for c in names)])
    return grid(lines)


def at_nodes(rates: pd.DataFrame, nodes: int = 8) -> str:
    """A row per drafter: tokens per step at so many nodes."""
    rows = rates[(rates["temperature"] == 0) & (rates["budget"] == nodes)]
    rows = rows.assign(tree=rows["tree"].str.replace(r"-md\d+", "", regex=True))
    trees = ["chain", "sequoia", "measured", "best_first", "best_first-calibrated"]
    lines = [["pair, drafter", *trees]]
    for pair, drafter in cases_of(rows):
        of_case = rows[(rows["pair"] == pair) & (rows["drafter"] == drafter)]
        lines.append([f"{pair}, {drafter}", *(cell(of_case[of_case["tree"] == t], "block_efficiency") for t in trees)])
    return grid(lines)


def below(siblings: pd.DataFrame) -> str:
    """A row per drafter."""
    lines = [["pair, drafter", "below the first child", "below a sibling"]]
    for pair, drafter in cases_of(siblings):
        rows = siblings[(siblings["pair"] == pair) & (siblings["drafter"] == drafter)].set_index("below")["rate"]
        lines.append(
            [f"{pair}, {drafter}", *(f"{rows[b]:.0%}" if b in rows else "" for b in ("the first child", "a sibling"))]
        )
    return grid(lines)


def live_table(live: pd.DataFrame) -> str:
    """A row per drafter."""
    lines = [["pair, drafter", "chain", "tree", "tree / chain, live", "estimated"]]
    for row in live.to_dict("records"):
        names = [f"{row['pair']}, {row['drafter']}", shown(row["chain"]), shown(row["tree"])]
        lines.append([*names, str(Interval.of(row, "ratio")), f"{row['estimated']:.2f}"])
    return grid(lines)


if __name__ == "__main__":
    typer.run(main)
