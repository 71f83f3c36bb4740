"""What best-first trees would have done along recorded trajectories.

The trees of all budgets are nested: the tree of n nodes is the first n of the order that `expand`
recorded. So a node on the trajectory is in it iff its place in the order is at most n, and one walk
down the trajectory serves every budget and every threshold on the probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specdraft.drafters.base import Expansion
from specdraft.results.counted import Counted, NodeCounts, StepCounts
from specdraft.trees.ranks import PackedRanks, at_depth
from specdraft.trees.shapes import NestedPlan
from specdraft.trees.topology import RankPath

NEVER = np.iinfo(np.int64).max  # the place of a node that is in no tree


class Walked(NamedTuple):
    """Every start of some trajectories, one after another, and where their own tokens are in the trees.

    Attributes:
        prompt: `[F]` the trajectory of each start; `first`: `[P]` the first start of each trajectory.
        parent, depth: `[F, N]` of the nodes in their order (depth 0: no node); `log_prob`: see `Expansion`.
        path: `[F, N]` each node's rank path, as an index into `paths`.
        on_path: `[F, D + 2]` the place, from 1, of the node at each depth that holds the trajectory's own token.
    """

    prompt: np.ndarray
    first: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    log_prob: np.ndarray
    path: np.ndarray
    paths: list[RankPath]
    on_path: np.ndarray


def walk(packed: PackedRanks, expansions: Sequence[Expansion]) -> Walked:
    """Follow every trajectory through the trees of its starts.

    Args:
        packed: ranks of the trajectories (see `PackedRanks`).
        expansions: one for each trajectory, all with one limit.
    """
    parent, rank, _, log_prob = (np.concatenate(fields) for fields in zip(*expansions, strict=True))
    parent, rank = parent.astype(np.int64), rank.astype(np.int64)
    prompt = np.repeat(np.arange(len(packed.last)), packed.last)
    first = np.cumsum(packed.last) - packed.last
    position = np.arange(len(prompt)) - first[prompt]
    depth, path, paths = paths_of(parent, rank)
    on_path = _follow(packed.ranks, prompt, position, parent, rank, int(depth.max(initial=0)))
    return Walked(prompt, first, parent, depth, log_prob, path, paths, on_path)


def paths_of(parent: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[RankPath]]:
    """`[F, N]` depth and rank path (an index into the list) of every node; see `Walked`."""
    depth, path = np.zeros_like(parent), np.zeros_like(parent)
    paths: list[RankPath] = [()]
    rows = np.arange(len(parent))[:, None]
    level = parent == 0
    while level.any():
        start, place = np.nonzero(level)
        above = np.where(parent[start, place] > 0, path[start, parent[start, place] - 1], 0)
        edges, which = np.unique(np.stack([above, rank[start, place]]), axis=1, return_inverse=True)
        path[start, place] = len(paths) + which.reshape(-1)
        depth[start, place] = len(paths[above[0]]) + 1
        paths += [(*paths[p], r) for p, r in edges.T.tolist()]
        level = (parent > 0) & (depth == 0) & (depth[rows, np.maximum(parent - 1, 0)] > 0)
    return depth, path, paths


def _follow(
    ranks: np.ndarray, prompt: np.ndarray, position: np.ndarray, parent: np.ndarray, rank: np.ndarray, levels: int
) -> np.ndarray:
    """See `Walked.on_path`."""
    starts = np.arange(len(prompt))
    on_path = np.full((len(prompt), levels + 2), NEVER)
    on_path[:, 0] = 0
    for depth in range(levels + 1):
        below = parent == on_path[:, depth, None]
        at = np.minimum(position + depth + 1, ranks.shape[1] - 1)
        on_path[:, depth + 1] = _place(below & (rank == at_depth(ranks, depth + 1)[prompt, at][:, None]))
    assert (on_path[starts, -1] == NEVER).all()
    return on_path


def _place(mask: np.ndarray) -> np.ndarray:
    """`[F, N]` -> `[F]` the place, from 1, of each row's first true, or `NEVER`."""
    if not mask.shape[1]:
        return np.full(len(mask), NEVER)
    return np.where(mask.any(1), mask.argmax(1) + 1, NEVER)


def nodes_there(walked: Walked, plan: NestedPlan) -> np.ndarray:
    """`[F, N]` the nodes of each start's tree at a budget and a threshold: the first ones of the order."""
    enough = (walked.depth > 0) & (walked.log_prob >= plan.least)
    first: np.ndarray = enough & (np.arange(enough.shape[1]) < plan.nodes)
    return first


def accepted_tokens(walked: Walked, there: np.ndarray) -> np.ndarray:
    """`[F]` what a step accepts at each start with these nodes `[F, N]`, which have their ancestors."""
    row, level = np.nonzero(walked.on_path[:, 1:] != NEVER)
    kept = there[row, walked.on_path[row, level + 1] - 1]
    return np.bincount(row[kept], minlength=len(there))


class Steps(NamedTuple):
    """The steps that decoding takes, prompt by prompt in their order.

    Attributes:
        start: `[V]` the start of each step.
        size: `[V]` its draft nodes; `accepted`: `[V]` its accepted tokens.
        cut: `[V]` whether the text ends on an accepted token.
    """

    start: np.ndarray
    size: np.ndarray
    accepted: np.ndarray
    cut: np.ndarray


def take_steps(walked: Walked, packed: PackedRanks, there: np.ndarray) -> Steps:
    """The steps with trees of these nodes `[F, N]`."""
    accepted, size = accepted_tokens(walked, there), there.sum(1)
    at = np.zeros(len(packed.last), dtype=np.int64)
    visited = []
    while (going := at < packed.last).any():
        start = walked.first[going] + at[going]
        visited.append(start)
        at[going] += accepted[start] + 1
    start = np.sort(np.concatenate([*visited, np.empty(0, dtype=np.int64)])).astype(np.int64)
    position = start - walked.first[walked.prompt[start]]
    cut = position + accepted[start] == packed.last[walked.prompt[start]]
    return Steps(start, size[start], accepted[start], cut)


def fed_nodes(walked: Walked, steps: Steps, plan: NestedPlan) -> np.ndarray:
    """`[V, D]` how many nodes were fed to make each level of each step's tree, 0 where there is no such level.

    Of trees that grow adaptively they are known. Of best-first ones a level is made from the nodes above it that were
    better than the last of a full tree when it was made; of those, the ones that better nodes pushed out of the largest
    recorded tree are not known and are left out. Of trees out of a beam no level is made from more than that, and of
    what a beam search ends with each is made from a whole beam.
    """
    if plan.searched and plan.beam is not None:
        return np.tile(np.array([1] + [plan.beam] * (plan.depth - 1)), (len(steps.start), 1))
    if plan.margin < np.inf:
        return _fed_adaptively(walked, steps, plan)
    depth, value = walked.depth[steps.start], walked.log_prob[steps.start]
    there = (depth > 0) & (value >= plan.least)
    fed = np.zeros((len(depth), plan.depth), dtype=np.int64)
    fed[:, 0] = 1
    for level in range(1, plan.depth):
        among = there & (depth <= level)
        place = np.cumsum(among, axis=1)
        last = np.max(value, axis=1, initial=-np.inf, where=among & (place == plan.nodes))
        fed[:, level] = (among & (depth == level) & (place <= plan.nodes) & (value > last[:, None])).sum(1)
    return fed if plan.beam is None else np.minimum(fed, plan.beam)


def _fed_adaptively(walked: Walked, steps: Steps, plan: NestedPlan) -> np.ndarray:
    """See `fed_nodes`; a tree's own nodes say what was expanded (see `Adaptive`)."""
    there = nodes_there(walked, plan)[steps.start]
    depth, value = np.where(there, walked.depth[steps.start], 0), walked.log_prob[steps.start]
    parents = np.zeros((len(there), there.shape[1] + 1), dtype=bool)
    row, place = np.nonzero(there)
    parents[row, walked.parent[steps.start][row, place]] = True
    fed = np.zeros((len(depth), plan.depth), dtype=np.int64)
    fed[:, 0] = 1
    for level in range(1, plan.depth):
        last = depth == level
        leaf = last | (there & (depth < level) & ~parents[:, 1:])
        best = np.max(value, axis=1, initial=-np.inf, where=leaf)
        full = (there & (depth <= level)).sum(1) >= plan.nodes
        fed[:, level] = (last & (value >= best[:, None] - plan.margin)).sum(1) * ~full
    return fed


def replay_dynamic(
    walked: Walked, packed: PackedRanks, plan: NestedPlan, with_steps: bool = False
) -> tuple[Counted, Steps]:
    """Counts of decoding every prompt with best-first trees: integers, equal to a live run's; and the steps."""
    there = nodes_there(walked, plan)
    steps = take_steps(walked, packed, there)
    return count_steps(walked, packed, steps, there, with_steps), steps


def count_steps(
    walked: Walked, packed: PackedRanks, steps: Steps, there: np.ndarray, with_steps: bool = False
) -> Counted:
    """What steps came to that were taken with these nodes `[F, N]` of the trees."""
    there = there[steps.start]
    tried = steps.accepted - steps.cut  # depths whose accepted node's children were tried
    prompt, prompts = walked.prompt[steps.start], len(packed.last)
    depths = np.arange(walked.on_path.shape[1] - 1)
    grew = _has_children(walked, steps, there)[:, :-1]
    reached = grew & (depths <= tried[:, None])
    count = np.bincount(prompt, minlength=prompts)
    sums = {
        "steps": count,
        "drafted_tokens": np.bincount(prompt, weights=steps.size, minlength=prompts).astype(np.int64),
        "accepted_tokens": np.bincount(prompt, weights=steps.accepted, minlength=prompts).astype(np.int64),
        "bonus_tokens": count - np.bincount(prompt[steps.cut], minlength=prompts),
        "new_tokens": packed.last + 1,
        "looped_tokens": packed.looped,
    }
    accepted = (depths < steps.accepted[:, None]).sum(0)
    listed = StepCounts(prompt, steps.size, steps.accepted, steps.cut) if with_steps else None
    nodes = _nodes(walked, steps, there, tried, reached)
    counts = (np.bincount(steps.accepted), reached.sum(0), accepted, nodes, True, listed, np.bincount(steps.size))
    return Counted(sums, *counts).unpruned


def _has_children(walked: Walked, steps: Steps, there: np.ndarray) -> np.ndarray:
    """`[V, D + 2]` whether the trajectory's own node at each depth has a child among these nodes `[V, N]`."""
    parents = np.zeros((there.shape[0], there.shape[1] + 1), dtype=bool)
    row, place = np.nonzero(there)
    parents[row, walked.parent[steps.start][row, place]] = True
    on_path = walked.on_path[steps.start]
    known = on_path != NEVER
    have: np.ndarray = known & np.take_along_axis(parents, np.where(known, on_path, 0), axis=1)
    return have


def _nodes(walked: Walked, steps: Steps, there: np.ndarray, tried: np.ndarray, goes_on: np.ndarray) -> NodeCounts:
    """Of the nodes that were ever reached; `there`: `[V, N]` those that were sent; `goes_on`: `[V, D + 1]` whether
    children of the accepted node at each depth were tried."""
    parent, depth, path = walked.parent[steps.start], walked.depth[steps.start], walked.path[steps.start]
    on_path = walked.on_path[steps.start]
    place = np.arange(1, parent.shape[1] + 1)
    rows = np.arange(len(parent))[:, None]
    reached = there & (depth - 1 <= tried[:, None]) & (parent == on_path[rows, np.maximum(depth - 1, 0)])
    accepted = reached & (depth <= steps.accepted[:, None]) & (place == on_path[rows, depth])
    marked = (reached, accepted, accepted & goes_on[rows, depth])
    times, taken, continued = (np.bincount(path[which], minlength=len(walked.paths)) for which in marked)
    there = np.flatnonzero(times)
    drafted = np.full(len(there), len(steps.start))
    paths = [walked.paths[index] for index in there.tolist()]
    return NodeCounts(paths, drafted, times[there], taken[there], continued[there])
