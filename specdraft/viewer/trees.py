"""Trees as lines of a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from specdraft.trees.step_graph import FIRST_DRAFT, FIRST_TARGET
from specdraft.trees.tokens import LONGEST_TOKEN, token_text

if TYPE_CHECKING:
    from specdraft.trees.topology import Topology

ACCEPTED, REJECTED, BONUS, BEST, DIM = "bold green", "red", "bold cyan", "yellow", "dim"
LABEL_ROOM = 28  # columns for what stands behind the indentation
MOST_LEVELS = 12  # deeper trees are folded: indentation would leave no room in a terminal of 80 columns


def levels_in(width: int) -> int:
    """How many levels of a tree can be indented in a terminal of so many columns."""
    return max(2, min(MOST_LEVELS, (width - LABEL_ROOM) // 4))


def topology_tree(topology: Topology, labels: Sequence[Text | str] | None = None, width: int = 80) -> Tree:
    """A tree as lines: child ranks, or the labels given for each node. What is deep for the `width` is folded (see
    `_folded`)."""
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
    """A deep tree: nodes without siblings share a line with their parent, and what is still too deep goes on at the
    left."""
    top = Tree(labels[0] if labels else "root")
    stack = [(child, top, 1) for child in reversed(topology.children[0])]
    while stack:
        node, parent, level = stack.pop()
        run = [node]
        while len(topology.children[run[-1]]) == 1:
            run += topology.children[run[-1]]
        label = (
            Text(" \u2192 ").join(_as_text(labels[n]) for n in run)
            if labels
            else Text(_ranks_text(topology.ranks[run].tolist()))
        )
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
    best: Collection[int] = (),
    width: int = 80,
    first: Collection[int] = (),
) -> Tree:
    """One verification step: accepted nodes, rejected nodes, the bonus token below the last accepted one.

    Args:
        topology: the tree.
        tokens: each node's; None is unknown and shown as `?`.
        probs, target_probs: of each node, or of some, or not shown at all.
        accepted: the accepted path.
        bonus: None where the text ended.
        unused: nodes that were not tried.
        best: the path of the drafter's first choices, if it is to be marked.
        width: columns of the terminal.
        first: nodes that are the target's first choice after their parent.
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
        if node in best:
            label.append(f" {FIRST_DRAFT}", style=BEST)
        if node in first:
            label.append(f" {FIRST_TARGET}", style="bold")
        if node == last:
            label.append("  \u2192 end" if bonus is None else f"  \u2192 {token_text(bonus, longest)}", style=BONUS)
        labels.append(label)
    return topology_tree(topology, labels, width)
