"""Results and trees as terminal text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    import pandas as pd

    from specdraft.trees.topology import Topology

ACCEPTED, REJECTED, BONUS, BEST, DIM = "bold green", "red", "bold cyan", "yellow", "dim"
LONGEST_TOKEN = 24
MOST_LINES = 40  # more combinations than this are shown as grids
MOST_LOOPING = 0.3
MOST_SKIPPED = 12  # more combinations than this are counted by reason
SHORT = {"acceptance": "rule", "temperature": "T", "max_new_tokens": "tokens"}
LABEL_ROOM = 28  # columns for what stands behind the indentation
MOST_LEVELS = 12  # deeper trees are folded: indentation would leave no room in a terminal of 80 columns


def summary_tables(summary: pd.DataFrame) -> list[Table]:
    """The headline of a study: a line per combination, or for many combinations a grid per pair."""
    if len(summary) <= MOST_LINES:
        return [_lines(summary)]
    return [_grid(str(pair), group) for pair, group in summary.groupby("pair", sort=False)]


def _lines(summary: pd.DataFrame) -> Table:
    estimated = bool(summary["speedup"].isna().all())
    caption = _caption(summary, estimated, "in brackets: 95 % intervals over prompts")
    table = Table(box=SIMPLE_HEAD, caption=caption, padding=(0, 1, 0, 0), pad_edge=False)
    settings = _settings(summary)
    for name in ("pair", "tree", *settings):
        table.add_column(SHORT.get(name, name), overflow="fold", no_wrap=name in SHORT)
    looping = bool((summary["loop_share"] > MOST_LOOPING).any())
    speed = "est. speed-up" if estimated else "speed-up"
    for name in ("nodes", "block efficiency", "accepted", "rate", speed, *(["loops"] if looping else [])):
        table.add_column(name, justify="right", no_wrap=name == "block efficiency")
    before = None
    for row in summary.to_dict("records"):
        if before not in (None, row["pair"]):
            table.add_section()
        before = row["pair"]
        cells = [
            str(row["pair"]),
            str(row["tree"]),
            *(str(row[key]) for key in settings),
            str(row["nodes"]),
            _with_interval(row, "block_efficiency"),
        ]
        cells += [_number(row[name]) for name in ("acceptance_length", "acceptance_rate", "est_speedup" if estimated else "speedup")]
        table.add_row(*cells, *([_number(row["loop_share"])] if looping else []))
    return table


def _grid(pair: str, summary: pd.DataFrame) -> Table:
    """Block efficiency by tree and nodes; several settings of one tree are told apart by their own lines."""
    estimated = bool(summary["speedup"].isna().all())
    caption = _caption(summary, estimated, "bold: the most of its column, the hindsight tree aside; intervals: summary.csv")
    table = Table(box=SIMPLE_HEAD, title=f"{pair}: block efficiency by tree and nodes", caption=caption, min_width=76)
    table.add_column("tree", overflow="fold")
    nodes = sorted(summary["nodes"].unique())
    for count in nodes:
        table.add_column(str(count), justify="right")
    settings = _settings(summary)
    fair = summary[summary["tree"] != "hindsight"]
    most = fair.groupby("nodes")["block_efficiency"].max()
    for label, group in summary.groupby(["tree", *settings], sort=False):
        cells = []
        for count in nodes:
            values = group.loc[group["nodes"] == count, "block_efficiency"]
            best = len(values) and label[0] != "hindsight" and values.iloc[0] == most.get(count)
            cells.append(Text(_number(values.iloc[0]) if len(values) else "", style="bold green" if best else ""))
        table.add_row(" ".join(map(str, label)), *cells)
    return table


def plan_table(combinations: pd.DataFrame) -> Table:
    """What a sweep would do: a row per combination, the columns that tell them apart."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    names = ["pair", "tree", *_settings(combinations), "budget", "nodes", "depth", "reused"]
    for name in names:
        table.add_column(SHORT.get(name, name), overflow="fold", no_wrap=name in SHORT)
    for row in combinations.to_dict("records"):
        table.add_row(*(str(row[name]) for name in names))
    return table


def skipped_lines(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """A line per combination that is left out; many of them: a line per reason."""
    if len(skipped) <= MOST_SKIPPED:
        return [f"skipped: {what}: {reason}" for what, reason in skipped]
    reasons = Counter(reason for _, reason in skipped)
    return [f"skipped {n} combinations (--dry-run lists them): {reason}" for reason, n in reasons.items()]


def _settings(summary: pd.DataFrame) -> list[str]:
    """What else differs between the combinations."""
    return [key for key in ("acceptance", "temperature", "top_k", "top_p", "max_new_tokens", "engine") if summary[key].nunique() > 1]


def _caption(summary: pd.DataFrame, estimated: bool, first: str) -> str:
    lines = [first, "block efficiency = tokens per verification step, bonus included"]
    if (summary["temperature"] > 0).any():
        lines.append("sampled texts, replayed: expected values given the texts")
    if estimated:
        lines.append("replayed: times are estimates from the measured cost of drafting and verifying")
    if (summary["loop_share"] > MOST_LOOPING).any():
        lines.append(f"loops: share of repeated text; above {MOST_LOOPING} acceptance measures loops")
    return "\n".join(lines)


def _number(value: Any, digits: int = 2) -> str:
    return "-" if value is None or isnan(value) else f"{value:.{digits}f}"


def _with_interval(row: dict[Any, Any], name: str) -> str:
    low, high = row[f"{name}_lo"], row[f"{name}_hi"]
    return _number(row[name]) if isnan(low) else f"{_number(row[name])} [{_number(low)}, {_number(high)}]"


def token_text(token: str, longest: int | None = LONGEST_TOKEN) -> str:
    """A token so that white space and control characters can be seen, cut to `longest` columns of a terminal."""
    shown = repr(token)[1:-1].replace(" ", "\u00b7") if token else "(empty)"
    if longest is None or cell_len(shown) <= longest:
        return shown
    while cell_len(shown) >= longest:
        shown = shown[:-1]
    return shown + "\u2026"


def plain_text(text: str) -> str:
    """Text that does nothing to a terminal: control and formatting characters are spelled out, line ends and tabs stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def levels_in(width: int) -> int:
    """How many levels of a tree can be indented in a terminal of so many columns."""
    return max(2, min(MOST_LEVELS, (width - LABEL_ROOM) // 4))


def topology_tree(topology: Topology, labels: Sequence[Text | str] | None = None, width: int = 80) -> Tree:
    """A tree as lines: child ranks, or the labels given for each node. What is deep for the `width` is folded (see `_folded`)."""
    if topology.depth > levels_in(width):
        return _folded(topology, labels, levels_in(width))
    shown = labels or ["root", *(_path_label(path) for path in topology.paths[1:])]
    branches = {0: Tree(shown[0])}
    for node in _depth_first(topology):
        branches[node] = branches[int(topology.parents[node])].add(shown[node])
    return branches[0]


def _depth_first(topology: Topology) -> list[int]:
    order, stack = [], list(reversed(topology.children[0]))
    while stack:
        node = stack.pop()
        order.append(node)
        stack += reversed(topology.children[node])
    return order


def _folded(topology: Topology, labels: Sequence[Text | str] | None, most_levels: int) -> Tree:
    """A deep tree: nodes without siblings share a line with their parent, and what is still too deep goes on at the left."""
    top = Tree(labels[0] if labels else "root")
    stack = [(child, top, 1) for child in reversed(topology.children[0])]
    while stack:
        node, parent, level = stack.pop()
        run = [node]
        while len(topology.children[run[-1]]) == 1:
            run += topology.children[run[-1]]
        label = Text(" \u2192 ").join(_as_text(labels[n]) for n in run) if labels else Text(_ranks_text(topology.ranks[run].tolist()))
        if level > most_levels:
            parent, level = top, 1
            label = Text.assemble((f"\u22ef after {_ranks_text(topology.paths[node][:-1])}: ", DIM), label)
        children = topology.children[run[-1]]
        if children and level == most_levels:
            label.append(" \u22ef", style=DIM)
        branch = parent.add(label)
        stack += [(child, branch, level + 1) for child in reversed(children)]
    return top


def _ranks_text(ranks: Iterable[int]) -> str:
    """`0 x3 \u2192 1` for 0, 0, 0, 1 (with a multiplication sign)."""
    runs = [(rank, len(list(same))) for rank, same in groupby(ranks)]
    return " \u2192 ".join(f"{rank} \u00d7{count}" if count > 1 else str(rank) for rank, count in runs)


def _as_text(label: Text | str) -> Text:
    return label if isinstance(label, Text) else Text(label)


def _path_label(path: tuple[int, ...]) -> Text:
    return Text.assemble(str(path[-1]), (f"  {'/'.join(map(str, path))}", DIM))


def step_tree(
    topology: Topology,
    tokens: Sequence[str | None],
    probs: Sequence[float | None] | None,
    accepted: Sequence[int],
    bonus: str | None,
    target_probs: Sequence[float | None] | None = None,
    unused: Collection[int] = (),
    best: int = 0,
    width: int = 80,
) -> Tree:
    """One verification step: accepted nodes, rejected nodes, the bonus token below the last accepted one.

    Args:
        topology: the tree.
        tokens: each node's; None is unknown and shown as `?`.
        probs, target_probs: of each node, or of some, or not shown at all.
        accepted: the accepted path.
        bonus: None where the text ended.
        unused: nodes that were not tried.
        best: the leaf of the path that the drafter thinks most probable, if it is to be marked.
        width: columns of the terminal.
    """
    kept, last = set(accepted), accepted[-1] if accepted else 0
    longest = max(4, min(LONGEST_TOKEN, width // 3))
    labels = []
    for node, token in enumerate(tokens):
        style, mark = ("bold", "") if not node else (ACCEPTED, "\u2713 ") if node in kept else (REJECTED, "\u2717 ")
        if node in unused:
            style, mark = DIM, "- "
        label = Text(f"{mark}{'?' if token is None else token_text(token, longest)}", style=style)
        if probs is not None and node:
            shown = [probs[node], *([] if target_probs is None else [target_probs[node]])]
            label.append("  " + "|".join("?" if prob is None else f"{prob:.2f}" for prob in shown), style=DIM)
        if node and node == best:
            label.append(" \u2605", style=BEST)
        if node == last:
            label.append("  \u2192 end" if bonus is None else f"  \u2192 {token_text(bonus, longest)}", style=BONUS)
        labels.append(label)
    return topology_tree(topology, labels, width)
