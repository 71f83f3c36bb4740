"""What a tree would have done along recorded trajectories, without a model.

Greedy decoding emits the target's own text whatever the tree, so a step that starts at position t
accepts the tree's path along which each child's rank equals the drafter's recorded rank of the next
token. That is exact: the counts are those of a live run, step by step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specdraft.draft_tree import Topology
from specdraft.metrics import Tally, looped_tokens


class PackedRanks(NamedTuple):
    """The ranks of several trajectories side by side.

    Attributes:
        ranks: `[P, T_max + 2]` the drafter's rank of the token at each position; -1 where there is none.
        last: `[P]` each trajectory's last position `T`.
        looped: `[P]` tokens that end a repeated 4-gram (see `metrics.looped_tokens`).
    """

    ranks: np.ndarray
    last: np.ndarray
    looped: np.ndarray


def pack(ranks: Sequence[np.ndarray], tokens: Sequence[np.ndarray]) -> PackedRanks:
    """Lay ranks `[T + 1]` of each prompt side by side."""
    last = np.array([len(r) - 1 for r in ranks], dtype=np.int64)
    packed = np.full((len(ranks), int(last.max(initial=0)) + 2), -1, dtype=np.int64)
    for row, one in enumerate(ranks):
        packed[row, : len(one)] = one
    packed[:, 0] = -1
    return PackedRanks(packed, last, np.array([looped_tokens(t.tolist()) for t in tokens], dtype=np.int64))


def child_table(topology: Topology) -> np.ndarray:
    """`[n + 1, R + 2]`: the child of each node at each rank, or -1; the last column is for ranks beyond R."""
    table = np.full((len(topology), int(topology.ranks.max(initial=0)) + 2), -1, dtype=np.int64)
    nodes = np.arange(1, len(topology))
    table[topology.parents[nodes], topology.ranks[nodes]] = nodes
    return table


def accepted_nodes(topology: Topology, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The deepest accepted node, and its depth, of a step that starts at each position.

    Args:
        topology: the tree.
        ranks: `[P, S]` (see `PackedRanks`).

    Returns:
        node `[P, S]`, depth `[P, S]`; depth is the number of accepted tokens.
    """
    table = child_table(topology)
    beyond = table.shape[1] - 1
    clipped = np.where((ranks < 0) | (ranks > beyond), beyond, ranks)
    node = np.zeros_like(ranks)
    depth = np.zeros_like(ranks)
    going = np.ones(ranks.shape, dtype=bool)
    for level in range(1, topology.depth + 1):
        following = np.full_like(ranks, beyond)
        following[:, : ranks.shape[1] - level] = clipped[:, level:]
        child = table[node, following]
        going &= child >= 0
        if not going.any():
            break
        node = np.where(going, child, node)
        depth += going
    return node, depth


def replay(topology: Topology, packed: PackedRanks) -> list[Tally]:
    """Counts of decoding every prompt with one static tree: integers, equal to a live run's."""
    node, depth = accepted_nodes(topology, packed.ranks)
    prompts = np.arange(len(packed.last))
    ends = np.zeros((len(prompts), len(topology)), dtype=np.int64)  # steps by their deepest accepted node
    cuts = np.zeros_like(ends)  # of these, the ones cut there by the end of the text
    at = np.zeros(len(prompts), dtype=np.int64)
    while (going := at < packed.last).any():
        rows = prompts[going]
        reached, accepted = node[rows, at[going]], depth[rows, at[going]]
        ends[rows, reached] += 1
        cut = at[going] + accepted == packed.last[going]
        cuts[rows[cut], reached[cut]] += 1
        at[going] += accepted + 1
    return [_tally(topology, ends[p], cuts[p], int(packed.last[p]), int(packed.looped[p])) for p in prompts]


def replay_steps(topology: Topology, packed: PackedRanks) -> list[list[list[int]]]:
    """Every prompt's steps as `steps.csv` lists them: index, drafted, accepted and bonus tokens, cut (0 or 1)."""
    depth = accepted_nodes(topology, packed.ranks)[1]
    listed: list[list[list[int]]] = []
    for accepted, last in zip(depth.tolist(), packed.last.tolist(), strict=True):
        steps: list[list[int]] = []
        at = 0
        while at < last:
            cut = int(at + accepted[at] == last)
            steps.append([len(steps), topology.num_nodes, accepted[at], 1 - cut, cut])
            at += accepted[at] + 1
        listed.append(steps)
    return listed


def _tally(topology: Topology, ends: np.ndarray, cuts: np.ndarray, last: int, looped: int) -> Tally:
    """Counts of one prompt from how often steps ended, and were cut, at each node."""
    steps, depths = int(ends.sum()), topology.depths
    accepted = ends @ topology.ancestors  # steps whose path holds the node
    tried = accepted - cuts  # steps that went on to try the node's children
    parents = topology.parents[1:]
    by_length = np.bincount(depths, weights=ends).astype(int)
    inner = np.array([bool(kids) for kids in topology.children])
    reached_depth = np.bincount(depths[inner] + 1, weights=tried[inner], minlength=topology.depth + 1).astype(int)
    accepted_depth = np.bincount(depths, weights=accepted).astype(int)
    nodes = zip(topology.paths[1:], tried[parents].tolist(), accepted[1:].tolist(), strict=True)
    accepted_tokens = int(ends @ depths)
    return Tally(
        steps=steps,
        drafted_tokens=steps * topology.num_nodes,
        accepted_tokens=accepted_tokens,
        bonus_tokens=steps - int(cuts.sum()),
        new_tokens=last + 1,
        looped_tokens=looped,
        lengths=Counter({a: n for a, n in enumerate(by_length.tolist()) if n}),
        positions={d: [int(reached_depth[d]), int(accepted_depth[d])] for d in range(1, topology.depth + 1) if reached_depth[d]},
        nodes={path: [r, a] for path, r, a in nodes} if steps else {},
    )
