"""Where the nodes of a tree stand in a picture, and which of its paths a picture marks."""

from __future__ import annotations

from collections.abc import Sequence

from specdraft.trees.topology import Topology


def layout(topology: Topology) -> list[tuple[int, float]]:
    """Where to draw each node: its depth, and its place across, leaves one apart and parents amid their children."""
    place = [0.0] * len(topology)
    leaves = 0
    stack = [(0, True)]
    while stack:
        node, entering = stack.pop()
        children = topology.children[node]
        if entering and children:
            stack += [(node, False), *((child, True) for child in reversed(children))]
        elif entering:
            place[node], leaves = float(leaves), leaves + 1
        else:
            place[node] = (place[children[0]] + place[children[-1]]) / 2
    return list(zip(topology.depths.tolist(), place, strict=True))


def first_choices(topology: Topology, draft_probs: Sequence[float | None]) -> list[int]:
    """The path of the drafter's first choices: from the root down, always the child it thinks most probable.

    Leaves are not compared by cumulative probability, which would favour a short path over the one that a chain drafts.

    Args:
        topology: the tree.
        draft_probs: `[n + 1]` of each node after its parent; None where it is unknown.

    Returns:
        The nodes, root left out; empty where a child on the way is unknown.
    """
    path: list[int] = []
    children = topology.children[0]
    while children:
        known = [(prob, -child) for child in children if (prob := draft_probs[child]) is not None]
        if len(known) < len(children):
            return []
        path.append(-max(known)[1])
        children = topology.children[path[-1]]
    return path
