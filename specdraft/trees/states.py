"""What became of the nodes of a tree that the target checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from specdraft.trees.topology import Topology

# `unused`: neither accepted nor rejected itself: below a rejected node, after an accepted sibling, or beyond the
# text's end.
State = Literal["root", "accepted", "rejected", "unused"]


def judged_by_tokens(topology: Topology, accepted: Sequence[int], cut: bool) -> list[State]:
    """What became of each node where a rule looks at all children of an accepted node at once."""
    states: list[State] = ["root", *["unused"] * topology.num_nodes]  # type: ignore[list-item]
    tried = [0, *accepted][: -1 if cut else None]
    for node in tried:
        for child in topology.children[node]:
            states[child] = "rejected"
    for node in accepted:
        states[node] = "accepted"
    return states
