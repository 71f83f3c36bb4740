"""What a tree would have done along recorded trajectories, without a model.

Greedy decoding emits the target's own text whatever the tree, so a step that starts at position t
accepts the tree's path along which each child's rank equals the drafter's recorded rank of the next
token. That is exact: the counts are those of a live run, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from specdraft.results.counted import Counted, NodeCounts, StepCounts
from specdraft.results.metrics import looped_tokens
from specdraft.traces.library import PairTraces
from specdraft.trees.ranks import PackedRanks, at_depth
from specdraft.trees.topology import Topology


def pack(ranks: Sequence[np.ndarray], tokens: Sequence[np.ndarray]) -> PackedRanks:
    """Lay ranks `[T + 1]`, or `[T + 1, O]`, of each prompt side by side."""
    last = np.array([len(text) - 1 for text in ranks], dtype=np.int64)
    packed = _side_by_side(ranks, -1)
    packed[:, 0] = -1
    looped = np.array([looped_tokens(text.tolist()) for text in tokens], dtype=np.int64)
    return PackedRanks(packed, last, looped)


def pack_traces(traces: PairTraces, names: Sequence[str]) -> PackedRanks:
    """The recorded texts of these prompts side by side, as the pair's drafter ranks them."""
    said = [traces.annotations[name] for name in names]
    tokens = [traces.trajectories[name].tokens for name in names]
    return pack([a.ranks for a in said], tokens)


def _side_by_side(rows: Sequence[np.ndarray], empty: int) -> np.ndarray:
    """`[T + 1, ...]` arrays -> `[P, T_max + 2, ...]`, `empty` beyond each one's end."""
    longest = max((len(row) for row in rows), default=1)
    table = np.full((len(rows), longest + 1, *(rows[0].shape[1:] if len(rows) else ())), empty, dtype=np.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


def child_table(topology: Topology) -> np.ndarray:
    """`[n + 1, R + 2]`: the child of each node at each rank, or -1; the last column is for ranks beyond R."""
    table = np.full((len(topology), int(topology.ranks.max(initial=0)) + 2), -1, dtype=np.int64)
    nodes = np.arange(1, len(topology))
    table[topology.parents[nodes], topology.ranks[nodes]] = nodes
    return table


def accepted_nodes(topology: Topology, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `NestedWalk.accepted`, of one tree."""
    return NestedWalk(topology, ranks).accepted(topology)


class NestedWalk:
    """Which nodes of a tree a step would accept that starts at each position: one walk serves all trees that are the
    beginning of this one, as those of smaller budgets mostly are.

    Args:
        topology: the tree.
        ranks: see `PackedRanks`; -1 at position 0 ends the walks of the row before.
    """

    def __init__(self, topology: Topology, ranks: np.ndarray) -> None:
        self._topology, self._shape = topology, ranks.shape[:2]
        none = np.empty(0, dtype=np.int64)
        levels = [(none, none), *_levels(topology, ranks)]
        self._starts, self._nodes = (np.concatenate(column) for column in zip(*levels, strict=True))

    def holds(self, smaller: Topology) -> bool:
        """Whether a tree is the beginning of this one."""
        size, whole = len(smaller), self._topology
        return np.array_equal(whole.parents[:size], smaller.parents) and np.array_equal(
            whole.ranks[:size], smaller.ranks
        )

    def accepted(self, smaller: Topology) -> tuple[np.ndarray, np.ndarray]:
        """The deepest accepted node, and its depth, of a step that starts at each position, with such a tree.

        Returns:
            node `[P, S]`, depth `[P, S]`; depth is the number of accepted tokens.
        """
        node = np.zeros(self._shape[0] * self._shape[1], dtype=np.int64)
        there = self._nodes < len(smaller)
        node[self._starts[there]] = self._nodes[there]  # level by level: the deepest stays
        return node.reshape(self._shape), smaller.depths[node].reshape(self._shape)


def _levels(topology: Topology, ranks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The starts that accept a node of each depth from 1, and these nodes.

    Only the starts that are still accepted are looked at: a deep tree costs no more than what it accepts.
    """
    table = child_table(topology)
    beyond, width = table.shape[1] - 1, table.shape[1]
    size, children = ranks.shape[0] * ranks.shape[1], table.ravel()
    starts, here = np.arange(size), np.zeros(size, dtype=np.int64)
    for level in range(1, topology.depth + 1):
        if level == 1 or ranks.ndim > 2:
            level_ranks = at_depth(ranks, level)
            following = np.append(
                np.minimum(level_ranks.astype(np.uint32), beyond).astype(np.int64), beyond
            )  # -1 is the largest
        child = children[here * width + following[starts + level]] if level > 1 else children[following[1:]]
        kept = np.flatnonzero(child >= 0)
        starts, here = starts[kept], child[kept]
        yield starts, here
        if not len(starts):
            return


def step_starts(depth: np.ndarray, last: np.ndarray) -> np.ndarray:
    """`[P, S]` bool: where steps start, given what a start at each position accepts; a step ends before the next one
    starts.

    By doubling: the first 2, 4, 8, ... starts of every prompt at once.
    """
    prompts, slots = depth.shape
    rows = np.arange(prompts)[:, None] * slots
    following = (
        rows + np.minimum(np.arange(1, slots + 1) + depth, last[:, None])
    ).ravel()  # the last position leads to itself
    started = np.zeros(depth.size, dtype=bool)
    started[rows] = True
    count = 0
    while (now := np.flatnonzero(started)).size > count:
        count = now.size
        started[following[now]] = True
        following = following[following]
    started[rows[:, 0] + last] = False
    return started.reshape(depth.shape)


class Taken(NamedTuple):
    """The steps that decoding takes, V in all, prompt by prompt.

    Attributes:
        prompt, position: `[V]` where each step starts.
        end: `[V]` its deepest accepted node; `accepted`: `[V]` that node's depth.
        cut: `[V]` whether the text ends on an accepted token.
        there: `[V, n + 1]` which nodes were drafted; None where all were.
    """

    prompt: np.ndarray
    position: np.ndarray
    end: np.ndarray
    accepted: np.ndarray
    cut: np.ndarray
    there: np.ndarray | None = None

    def sizes(self, topology: Topology) -> np.ndarray:
        """`[V]` draft nodes of each step."""
        if self.there is None:
            return np.full(len(self.end), topology.num_nodes)
        nodes: np.ndarray = self.there.sum(1) - 1
        return nodes


def take_steps(topology: Topology, packed: PackedRanks, walk: NestedWalk | None = None) -> Taken:
    """The steps with one static tree; `walk`: of a tree that it is the beginning of, if there is one."""
    node, depth = (walk or NestedWalk(topology, packed.ranks)).accepted(topology)
    starts = np.flatnonzero(step_starts(depth, packed.last))
    prompt, position = np.divmod(starts, depth.shape[1])
    end, accepted = node.ravel()[starts], depth.ravel()[starts]
    cut = position + accepted == packed.last[prompt]
    return Taken(prompt, position, end, accepted, cut)


def replay(topology: Topology, packed: PackedRanks, with_steps: bool = False) -> Counted:
    """Decode every prompt with one static tree, array code only: integers, equal to a live run's."""
    return counted(topology, packed, take_steps(topology, packed), with_steps)


def counted(topology: Topology, packed: PackedRanks, taken: Taken, with_steps: bool = False) -> Counted:
    """The counts of steps that were taken with one static tree."""
    prompts, levels = len(packed.last), topology.depth
    steps, cuts = (np.bincount(some, minlength=prompts) for some in (taken.prompt, taken.prompt[taken.cut]))
    accepted = np.bincount(taken.prompt, weights=taken.accepted, minlength=prompts).astype(np.int64)
    sizes = taken.sizes(topology)
    lengths = np.bincount(taken.accepted, minlength=levels + 1)
    beyond = lengths[:0:-1].cumsum()[::-1]
    onwards = _goes_on(topology, taken)
    # who accepted d tokens had tried depth d
    reached = beyond + np.bincount(taken.accepted[onwards], minlength=levels)[:levels]
    sums = {
        "steps": steps,
        "drafted_tokens": np.bincount(taken.prompt, weights=sizes, minlength=prompts).astype(np.int64),
        "accepted_tokens": accepted,
        "bonus_tokens": steps - cuts,
        "new_tokens": packed.last + 1,
        "looped_tokens": packed.looped,
    }
    listed = StepCounts(taken.prompt, sizes, taken.accepted, taken.cut) if with_steps else None
    differing = np.bincount(sizes) if taken.there is not None else sizes[:0]
    nodes = _node_counts(topology, taken, steps)
    return Counted(sums, lengths, reached, beyond, nodes, steps=listed, sizes=differing).unpruned


def _goes_on(topology: Topology, taken: Taken) -> np.ndarray:
    """`[V]` whether the deepest accepted node's children were tried: it has some, and did not end the text."""
    goes_on: np.ndarray
    if taken.there is None:
        goes_on = ~taken.cut & topology.has_children[taken.end]
    else:
        goes_on = (tried_nodes(topology, taken) & (topology.parents == taken.end[:, None])).any(1)
    return goes_on


def _node_counts(topology: Topology, taken: Taken, steps: np.ndarray) -> NodeCounts:
    """Of the nodes that any prompt drafted; `steps`: `[P]` of each prompt."""
    accepted = np.bincount(taken.end, minlength=len(topology))
    for child in range(topology.num_nodes, 0, -1):
        accepted[topology.parents[child]] += accepted[child]
    if taken.there is None:
        at_end = np.bincount(taken.end[taken.cut], minlength=len(topology))
        continued, drafted = (accepted - at_end) * topology.has_children, np.full(len(topology), steps.sum())
        reached = continued[topology.parents]
    else:
        tried = tried_nodes(topology, taken)
        reached, continued = tried.sum(0), _below(topology, tried).sum(0)
        drafted = steps @ _per_prompt(taken.there, taken.prompt, len(steps))
    nodes = NodeCounts(topology.paths[1:], drafted[1:], reached[1:], accepted[1:], continued[1:])
    return nodes if nodes.drafted.all() else nodes.where(nodes.drafted > 0)


def tried_nodes(topology: Topology, taken: Taken) -> np.ndarray:
    """`[V, n + 1]` the drafted nodes whose parent was accepted, and did not end the text."""
    assert taken.there is not None
    above = topology.ancestors[taken.end][:, topology.parents]
    ended = taken.cut[:, None] & (topology.parents == taken.end[:, None])
    tried: np.ndarray = taken.there & above & ~ended
    tried[:, 0] = False  # the root has no parent; -1 picked some other node
    return tried


def _below(topology: Topology, tried: np.ndarray) -> np.ndarray:
    """`[V, n + 1]` the nodes of which any child is in a mask `[V, n + 1]`."""
    below = np.zeros_like(tried)
    for child in range(1, len(topology)):
        below[:, topology.parents[child]] |= tried[:, child]
    return below


def _per_prompt(there: np.ndarray, prompt: np.ndarray, prompts: int) -> np.ndarray:
    """`[V, n + 1]` -> `[P, n + 1]` whether any step of a prompt has the node."""
    some = np.zeros((prompts, there.shape[1]), dtype=bool)
    np.logical_or.at(some, prompt, there)
    return some
