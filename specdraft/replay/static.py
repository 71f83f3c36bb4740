"""What a tree would have done along recorded trajectories, without a model.

Greedy decoding emits the target's own text whatever the tree, so a step that starts at position t
accepts the tree's path along which each child's rank equals the drafter's recorded rank of the next
token. That is exact: the counts are those of a live run, step by step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from specdraft.results.metrics import Tally, looped_tokens
from specdraft.trees.topology import RankPath, Topology


class PackedRanks(NamedTuple):
    """The ranks of several trajectories side by side.

    Attributes:
        ranks: `[P, T_max + 2]` the drafter's rank of the token at each position; -1 where there is none. A drafter
            whose
            proposal depends on how far below the root it is has `[P, T_max + 2, O]`: by depth, from 1 to O, the last
            for all below.
        last: `[P]` each trajectory's last position `T`.
        looped: `[P]` tokens that end a repeated 4-gram (see `metrics.looped_tokens`).
    """

    ranks: np.ndarray
    last: np.ndarray
    looped: np.ndarray


def pack(ranks: Sequence[np.ndarray], tokens: Sequence[np.ndarray]) -> PackedRanks:
    """Lay ranks `[T + 1]`, or `[T + 1, O]`, of each prompt side by side."""
    last = np.array([len(r) - 1 for r in ranks], dtype=np.int64)
    packed = np.full(
        (len(ranks), int(last.max(initial=0)) + 2, *(ranks[0].shape[1:] if len(ranks) else ())), -1, dtype=np.int64
    )
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


def at_depth(ranks: np.ndarray, depth: int) -> np.ndarray:
    """`[P, S]` the ranks that hold `depth` levels below the root (see `PackedRanks`)."""
    return ranks if ranks.ndim == 2 else ranks[:, :, min(depth, ranks.shape[2]) - 1]


def accepted_nodes(topology: Topology, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The deepest accepted node, and its depth, of a step that starts at each position.

    Level by level, only the starts that are still accepted are looked at: a deep tree costs no more than what it
        accepts.

    Args:
        topology: the tree.
        ranks: see `PackedRanks`; -1 at position 0 ends the walks of the row before.

    Returns:
        node `[P, S]`, depth `[P, S]`; depth is the number of accepted tokens.
    """
    table = child_table(topology)
    beyond, width = table.shape[1] - 1, table.shape[1]
    size, shape = ranks.shape[0] * ranks.shape[1], ranks.shape[:2]
    children, node = table.ravel(), np.zeros(size, dtype=np.int64)
    starts, here = np.arange(size), np.zeros(size, dtype=np.int64)
    for level in range(1, topology.depth + 1):
        if level == 1 or ranks.ndim > 2:
            own = at_depth(ranks, level)
            following = np.append(
                np.minimum(own.astype(np.uint32), beyond).astype(np.int64), beyond
            )  # -1 is the largest
        child = children[here * width + following[starts + level]] if level > 1 else children[following[1:]]
        kept = np.flatnonzero(child >= 0)
        starts, here = starts[kept], child[kept]
        node[starts] = here
        if not len(starts):
            break
    return node.reshape(shape), topology.depths[node].reshape(shape)


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
    found = 0
    while (now := np.flatnonzero(started)).size > found:
        found = now.size
        started[following[now]] = True
        following = following[following]
    started[rows[:, 0] + last] = False
    return started.reshape(depth.shape)


class Counts(NamedTuple):
    """What one tree did on P prompts; integers, D the tree's depth.

    Attributes:
        steps, accepted_tokens, cuts: `[P]`; cuts are the steps that the end of the text cut.
        lengths: `[P, D + 1]` steps by accepted tokens.
        reached, beyond: `[P, D]` steps that got to try a node at each depth from 1, that accepted one there.
        tried, accepted: `[n + 1, P]` steps that went on to try each node's children, that accepted the node.
    """

    steps: np.ndarray
    accepted_tokens: np.ndarray
    cuts: np.ndarray
    lengths: np.ndarray
    reached: np.ndarray
    beyond: np.ndarray
    tried: np.ndarray
    accepted: np.ndarray


def count(topology: Topology, packed: PackedRanks) -> Counts:
    """Decode every prompt with one static tree: array code only."""
    node, depth = accepted_nodes(topology, packed.ranks)
    starts = np.flatnonzero(step_starts(depth, packed.last))
    rows, positions = np.divmod(starts, depth.shape[1])
    ends, accepted = node.ravel()[starts], depth.ravel()[starts]
    cut = positions + accepted == packed.last[rows]
    prompts, levels = len(packed.last), topology.depth
    onwards = ~cut & (np.bincount(topology.parents[1:], minlength=len(topology)) > 0)[ends]

    def tabled(row: np.ndarray, column: np.ndarray, height: int, width: int) -> np.ndarray:
        return np.bincount(row * width + column, minlength=height * width).reshape(height, width)

    lengths = tabled(rows, accepted, prompts, levels + 1)
    beyond = lengths[:, :0:-1].cumsum(1)[:, ::-1]
    reached = beyond + tabled(
        rows[onwards], accepted[onwards], prompts, levels
    )  # who accepted d tokens had tried depth d
    through = tabled(ends, rows, len(topology), prompts)
    for child in range(topology.num_nodes, 0, -1):
        through[topology.parents[child]] += through[child]
    tried = through - tabled(ends[cut], rows[cut], len(topology), prompts)
    steps, cuts = (np.bincount(some, minlength=prompts) for some in (rows, rows[cut]))
    return Counts(steps, lengths @ np.arange(levels + 1), cuts, lengths, reached, beyond, tried, through)


class NodeCounts(Mapping[RankPath, list[int]]):
    """`Tally.nodes` of one prompt, read from the counts of all prompts when somebody looks."""

    __slots__ = ("_counts", "_listed", "_prompt", "_topology")

    def __init__(self, topology: Topology, counts: Counts, prompt: int) -> None:
        self._topology, self._counts, self._prompt = topology, counts, prompt
        self._listed: dict[RankPath, list[int]] | None = None

    def __getitem__(self, path: RankPath) -> list[int]:
        if self._listed is None:
            tried = self._counts.tried[self._topology.parents[1:], self._prompt].tolist()
            accepted = self._counts.accepted[1:, self._prompt].tolist()
            self._listed = dict(
                zip(self._topology.paths[1:], map(list, zip(tried, accepted, strict=True)), strict=True)
            )
        return self._listed[path]

    def __iter__(self) -> Iterator[RankPath]:
        return iter(self._topology.paths[1:])

    def __len__(self) -> int:
        return self._topology.num_nodes


def replay(topology: Topology, packed: PackedRanks) -> list[Tally]:
    """Counts of decoding every prompt with one static tree: integers, equal to a live run's."""
    counts = count(topology, packed)
    lengths: list[Counter[int]] = [Counter() for _ in packed.last]
    for prompt, length, steps in _entries(counts.lengths):
        lengths[prompt][length] = steps
    positions: list[dict[int, list[int]]] = [{} for _ in packed.last]
    for prompt, above, reached in _entries(counts.reached):
        positions[prompt][above + 1] = [reached, 0]
    for prompt, above, accepted in _entries(counts.beyond):
        positions[prompt][above + 1][1] = accepted
    columns = (counts.steps, counts.accepted_tokens, counts.steps - counts.cuts, packed.last + 1, packed.looped)
    return [
        Tally(
            steps=steps,
            drafted_tokens=steps * topology.num_nodes,
            accepted_tokens=accepted,
            bonus_tokens=bonus,
            new_tokens=new,
            looped_tokens=looped,
            lengths=lengths[prompt],
            positions=positions[prompt],
            nodes=NodeCounts(topology, counts, prompt) if steps else {},
        )
        for prompt, (steps, accepted, bonus, new, looped) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
    ]


def _entries(table: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Row, column and value of everything but zeros."""
    rows, columns = np.nonzero(table)
    return zip(rows.tolist(), columns.tolist(), table[rows, columns].tolist(), strict=True)


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
