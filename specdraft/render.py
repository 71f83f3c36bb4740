"""Results and trees as terminal text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    import pandas as pd

    from specdraft.draft_tree import Topology

ACCEPTED, REJECTED, BONUS, DIM = "bold green", "red", "bold cyan", "dim"
LONGEST_TOKEN = 24


def summary_table(summary: pd.DataFrame) -> Table:
    """The headline of a study: one line per combination."""
    table = Table(caption="95 % intervals over prompts; block efficiency = tokens per verification step, bonus included")
    looping = bool((summary["loop_share"] > 0.3).any())
    for name in ("pair", "tree"):
        table.add_column(name, no_wrap=True)
    for name in ("nodes", "block efficiency", "accepted per step", "rate", "tok/s", "speed-up", *(["loops"] if looping else [])):
        table.add_column(name, justify="right")
    before = None
    for row in summary.to_dict("records"):
        if before not in (None, row["pair"]):
            table.add_section()
        before = row["pair"]
        cells = [
            str(row["pair"]),
            str(row["tree"]),
            str(row["nodes"]),
            _with_interval(row, "block_efficiency"),
            _number(row["acceptance_length"]),
        ]
        cells += [_number(row["acceptance_rate"]), _number(row["tokens_per_s"], 0), _number(row["speedup"])]
        table.add_row(*cells, *([_number(row["loop_share"])] if looping else []))
    return table


def _number(value: Any, digits: int = 2) -> str:
    return "-" if value is None or isnan(value) else f"{value:.{digits}f}"


def _with_interval(row: dict[Any, Any], name: str) -> str:
    low, high = row[f"{name}_lo"], row[f"{name}_hi"]
    return _number(row[name]) if isnan(low) else f"{_number(row[name])} [{_number(low)}, {_number(high)}]"


def token_text(token: str) -> str:
    """A token so that white space and control characters can be seen."""
    shown = repr(token)[1:-1].replace(" ", "\u00b7") if token else "(empty)"
    return shown if len(shown) <= LONGEST_TOKEN else shown[: LONGEST_TOKEN - 1] + "\u2026"


def topology_tree(topology: Topology, labels: Sequence[Text | str] | None = None) -> Tree:
    """A tree as lines: child ranks, or the labels given for each node."""
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


def _path_label(path: tuple[int, ...]) -> Text:
    return Text.assemble(str(path[-1]), (f"  {'/'.join(map(str, path))}", DIM))


def step_tree(topology: Topology, tokens: Sequence[str], probs: Sequence[float] | None, accepted: Sequence[int], bonus: str | None) -> Tree:
    """One verification step: accepted nodes, rejected nodes, the bonus token below the last accepted one."""
    kept, last = set(accepted), accepted[-1] if accepted else 0
    labels = []
    for node, token in enumerate(tokens):
        style = "bold" if node == 0 else ACCEPTED if node in kept else REJECTED
        mark = "" if node == 0 else "\u2713 " if node in kept else "\u2717 "
        label = Text(f"{mark}{token_text(token)}", style=style)
        if probs is not None and node:
            label.append(f"  {probs[node]:.2f}", style=DIM)
        if node == last:
            label.append("  \u2192 end" if bonus is None else f"  \u2192 {token_text(bonus)}", style=BONUS)
        labels.append(label)
    return topology_tree(topology, labels)
