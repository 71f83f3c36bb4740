"""How probable each node of a tree is accepted, given a recorded text: array code over all texts and starts at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from specdraft.trees.ranks import ahead
from specdraft.trees.topology import Topology

Taken = Callable[[int, int], np.ndarray]  # (child rank, number of siblings) -> [P, S] P(child taken | the token there)


def node_weights(topology: Topology, taken: Taken) -> list[np.ndarray]:
    """P(node accepted | a step starts at each root position), `[P, S]` for each node; the root's is 1.

    Args:
        topology: the tree.
        taken: a node-wise rule, see `Taken`.
    """
    siblings = [len(children) for children in topology.children]
    weights = [np.ones(taken(0, 1).shape)]
    for node in range(1, len(topology)):
        parent, depth = int(topology.parents[node]), int(topology.depths[node])
        chance = taken(int(topology.ranks[node]), siblings[parent])
        weights.append(weights[parent] * ahead(chance, depth))
    return weights


def level_weights(topology: Topology, below_root: Callable[[Topology, int], list[np.ndarray]]) -> list[np.ndarray]:
    """`node_weights` of a node-wise rule whose levels differ.

    Args:
        topology: the tree.
        below_root: the weights of a node's children if it were the root and they were at this depth.
    """
    weights = {0: below_root(Topology([-1]), 1)[0]}
    for node, children in enumerate(topology.children):
        if children:
            depth = int(topology.depths[node])
            star = Topology([-1, *(0 for _ in children)], [0, *topology.ranks[children].tolist()])
            taken = below_root(star, depth + 1)[1:]
            weights |= {c: weights[node] * ahead(one, depth) for c, one in zip(children, taken, strict=True)}
    return [weights[node] for node in range(len(topology))]


def block_weights(topology: Topology, ratio: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """`node_weights` of block verification on a chain: `ratio` at a depth `[P, S]` is draft over target probability, 0
    beyond the end.

    P(at least a tokens accepted) is the least product of the first 0 .. a ratios (Sun et al. 2025).
    """
    product = weight = np.ones_like(ratio(1))
    weights = [weight]
    for depth in range(1, len(topology)):
        product = product * ahead(ratio(depth), depth)
        weight = np.minimum(weight, product)
        weights.append(weight)
    return weights
