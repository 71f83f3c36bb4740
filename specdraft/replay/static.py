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
from specdraft.traces.library import PairTraces
from specdraft.trees.ranks import PackedRanks, at_depth
from specdraft.trees.topology import RankPath, Topology


def pack(ranks: Sequence[np.ndarray], tokens: Sequence[np.ndarray], offered: Sequence[np.ndarray] = ()) -> PackedRanks:
    """Lay ranks `[T + 1]`, or `[T + 1, O]`, of each prompt side by side, and what was `offered` `[T + 1, O]`."""
    last = np.array([len(text) - 1 for text in ranks], dtype=np.int64)
    packed = _side_by_side(ranks, -1)
    packed[:, 0] = -1
    looped = np.array([looped_tokens(text.tolist()) for text in tokens], dtype=np.int64)
    partial = bool(offered) and offered[0].shape[1] > 0
    return PackedRanks(packed, last, looped, _side_by_side(offered, 0) if partial else None)


def pack_traces(traces: PairTraces, names: Sequence[str]) -> PackedRanks:
    """The recorded texts of these prompts side by side, as the pair's drafter ranks them."""
    said = [traces.annotations[name] for name in names]
    tokens = [traces.trajectories[name].tokens for name in names]
    return pack([a.ranks for a in said], tokens, [a.offered for a in said])


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
            level_ranks = at_depth(ranks, level)
            following = np.append(
                np.minimum(level_ranks.astype(np.uint32), beyond).astype(np.int64), beyond
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
    there: np.ndarray | None

    def sizes(self, topology: Topology) -> np.ndarray:
        """`[V]` draft nodes of each step."""
        if self.there is None:
            return np.full(len(self.end), topology.num_nodes)
        nodes: np.ndarray = self.there.sum(1) - 1
        return nodes


def take_steps(topology: Topology, packed: PackedRanks) -> Taken:
    """The steps with one static tree."""
    node, depth = accepted_nodes(topology, packed.ranks)
    starts = np.flatnonzero(step_starts(depth, packed.last))
    prompt, position = np.divmod(starts, depth.shape[1])
    end, accepted = node.ravel()[starts], depth.ravel()[starts]
    cut = position + accepted == packed.last[prompt]
    there = None if packed.offered is None else drafted_nodes(topology, packed.offered[prompt, position])
    return Taken(prompt, position, end, accepted, cut, there)


def drafted_nodes(topology: Topology, offered: np.ndarray) -> np.ndarray:
    """`[V, n + 1]` which nodes of a tree were drafted below roots with `offered` `[V, O]`."""
    there = np.ones((len(offered), len(topology)), dtype=bool)
    for node in range(1, len(topology)):
        depth = int(topology.depths[node])
        enough = offered[:, depth - 1] > topology.ranks[node] if depth <= offered.shape[1] else False
        there[:, node] = there[:, topology.parents[node]] & enough
    return there


class Counts(NamedTuple):
    """What one tree did on P prompts; integers, D the tree's depth.

    Attributes:
        steps, drafted_tokens, accepted_tokens, cuts: `[P]`; cuts are the steps that the end of the text cut.
        lengths: `[P, D + 1]` steps by accepted tokens.
        reached, beyond: `[P, D]` steps that got to try a node at each depth from 1, that accepted one there.
        drafted, tried, accepted: `[n + 1, P]` steps that drafted, that tried, and that accepted each node.
    """

    steps: np.ndarray
    drafted_tokens: np.ndarray
    accepted_tokens: np.ndarray
    cuts: np.ndarray
    lengths: np.ndarray
    reached: np.ndarray
    beyond: np.ndarray
    drafted: np.ndarray
    tried: np.ndarray
    accepted: np.ndarray


def count(topology: Topology, packed: PackedRanks) -> Counts:
    """Decode every prompt with one static tree: array code only."""
    taken = take_steps(topology, packed)
    prompts, levels = len(packed.last), topology.depth

    def tabled(row: np.ndarray, column: np.ndarray, height: int, width: int) -> np.ndarray:
        return np.bincount(row * width + column, minlength=height * width).reshape(height, width)

    steps, cuts = (np.bincount(some, minlength=prompts) for some in (taken.prompt, taken.prompt[taken.cut]))
    lengths = tabled(taken.prompt, taken.accepted, prompts, levels + 1)
    beyond = lengths[:, :0:-1].cumsum(1)[:, ::-1]
    through = tabled(taken.end, taken.prompt, len(topology), prompts)
    for child in range(topology.num_nodes, 0, -1):
        through[topology.parents[child]] += through[child]
    if taken.there is None:
        onwards = ~taken.cut & (np.bincount(topology.parents[1:], minlength=len(topology)) > 0)[taken.end]
        tried = through - tabled(taken.end[taken.cut], taken.prompt[taken.cut], len(topology), prompts)
        tried, drafted = tried[topology.parents], np.broadcast_to(steps, through.shape)
    else:
        trying = tried_nodes(topology, taken)
        onwards = (trying & (topology.parents == taken.end[:, None])).any(1)
        tried, drafted = (_per_prompt(nodes, taken.prompt, prompts) for nodes in (trying, taken.there))
    # who accepted d tokens had tried depth d
    reached = beyond + tabled(taken.prompt[onwards], taken.accepted[onwards], prompts, levels)
    sizes = np.bincount(taken.prompt, weights=taken.sizes(topology), minlength=prompts).astype(np.int64)
    return Counts(
        steps, sizes, lengths @ np.arange(levels + 1), cuts, lengths, reached, beyond, drafted, tried, through
    )


def tried_nodes(topology: Topology, taken: Taken) -> np.ndarray:
    """`[V, n + 1]` the drafted nodes whose parent was accepted, and did not end the text."""
    assert taken.there is not None
    above = topology.ancestors[taken.end][:, topology.parents]
    ended = taken.cut[:, None] & (topology.parents == taken.end[:, None])
    tried: np.ndarray = taken.there & above & ~ended
    tried[:, 0] = False  # the root has no parent; -1 picked some other node
    return tried


def _per_prompt(nodes: np.ndarray, prompt: np.ndarray, prompts: int) -> np.ndarray:
    """`[V, n + 1]` -> `[n + 1, P]`."""
    summed = np.zeros((prompts, nodes.shape[1]), dtype=np.int64)
    np.add.at(summed, prompt, nodes)
    return summed.T


class NodeCounts(Mapping[RankPath, list[int]]):
    """`Tally.nodes` of one prompt, read from the counts of all prompts when somebody looks."""

    __slots__ = ("_by_path", "_counts", "_prompt", "_topology")

    def __init__(self, topology: Topology, counts: Counts, prompt: int) -> None:
        self._topology, self._counts, self._prompt = topology, counts, prompt
        self._by_path: dict[RankPath, list[int]] | None = None

    def _nodes(self) -> dict[RankPath, list[int]]:
        if self._by_path is None:
            columns = [table[1:, self._prompt].tolist() for table in self._counts[-3:]]
            rows = zip(self._topology.paths[1:], *columns, strict=True)
            self._by_path = {path: [tried, accepted] for path, drafted, tried, accepted in rows if drafted}
        return self._by_path

    def __getitem__(self, path: RankPath) -> list[int]:
        return self._nodes()[path]

    def __iter__(self) -> Iterator[RankPath]:
        return iter(self._nodes())

    def __len__(self) -> int:
        return len(self._nodes())


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
    columns = (
        counts.steps,
        counts.drafted_tokens,
        counts.accepted_tokens,
        counts.steps - counts.cuts,
        packed.last + 1,
        packed.looped,
    )
    return [
        Tally(
            steps=steps,
            drafted_tokens=drafted,
            accepted_tokens=accepted,
            bonus_tokens=bonus,
            new_tokens=new,
            looped_tokens=looped,
            lengths=lengths[prompt],
            positions=positions[prompt],
            nodes=NodeCounts(topology, counts, prompt) if steps else {},
        )
        for prompt, (steps, drafted, accepted, bonus, new, looped) in enumerate(
            zip(*(c.tolist() for c in columns), strict=True)
        )
    ]


def _entries(table: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Row, column and value of everything but zeros."""
    rows, columns = np.nonzero(table)
    return zip(rows.tolist(), columns.tolist(), table[rows, columns].tolist(), strict=True)


def replay_steps(topology: Topology, packed: PackedRanks) -> list[list[list[int]]]:
    """Every prompt's steps as `steps.csv` lists them: index, drafted, accepted and bonus tokens, cut (0 or 1)."""
    taken = take_steps(topology, packed)
    steps: list[list[list[int]]] = [[] for _ in packed.last]
    columns = (taken.prompt, taken.sizes(topology), taken.accepted, taken.cut)
    for prompt, size, accepted, cut in zip(*(column.tolist() for column in columns), strict=True):
        steps[prompt].append([len(steps[prompt]), size, accepted, int(not cut), int(cut)])
    return steps
