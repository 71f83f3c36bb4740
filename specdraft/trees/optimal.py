"""The best static draft tree when acceptance depends on child rank, or on depth and rank, only.

Sequoia's dynamic programme (Chen et al. 2024, arXiv 2402.12374), made exact for acceptance that does not fall with
rank. Let `a[d, k]` be the probability that the child of rank `k` at depth `d` is the accepted one. The value of a
tree is its expected number of accepted tokens: the sum over its nodes of the product of `a` along their paths. Below
one reached node, the most that `m` nodes are worth when its children of ranks `0 .. k-1` are there already is

    forest[d, k, 0] = 0
    forest[d, k, m] = max over s = 1 .. m of  a[d, k] * (1 + forest[d + 1, 0, s - 1])  +  forest[d, k + 1, m - s]

where `s` nodes go to the child of rank `k` and its subtree. `forest[1, 0, n]` is the value of the best tree of `n`
nodes; what has no room (no rank `k`, no depth `d`) is worth -inf. Acceptance that is the same at every depth, without a
limit on depth, makes `forest[d] = forest[d + 1]`: one table that refers to its own smaller entries.
"""

from __future__ import annotations

import heapq
from collections import deque
from math import fsum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specdraft.config import read_json
from specdraft.errors import ConfigError
from specdraft.trees.topology import RankPath

SUM_SLACK = 1e-6  # how far rounding may lift a sum of probabilities above 1


class BestTree(NamedTuple):
    """A tree that no other tree of its size beats; others may equal it."""

    paths: list[RankPath]  # depth by depth
    expected_accepted: float  # tokens per verification step, the bonus token not counted
    nodes: int
    filled: bool  # False: no tree of as many nodes as the budget has room within the depth and width

    @property
    def depth(self) -> int:
        """Draft levels."""
        return len(self.paths[-1])


class _Level(NamedTuple):
    """The recurrence at one depth, with K ranks and up to n nodes."""

    child: np.ndarray  # [K, n + 1] worth of the child of rank k with s nodes, itself included
    forest: np.ndarray  # [K + 1, n + 1] worth of m nodes in the children of ranks k, k + 1, ...


def best_tree(
    acceptance: npt.ArrayLike,
    node_budget: int,
    *,
    max_depth: int | None = None,
    max_children: int | None = None,
    free_ranks: bool = False,
) -> BestTree:
    """The tree of `node_budget` draft nodes with the most expected accepted tokens.

    Args:
        acceptance: `[K]` probability that the child of rank k is the accepted one, the same at every depth; or `[D,
            K]`, one row for each depth, and then the tree has at most D levels.
        node_budget: draft nodes; all are used where there is room, also for ranks of probability 0.
        max_depth: draft levels at most.
        max_children: children of one node at most.
        free_ranks: whether a node may be used without its lower-ranked siblings. A path then weighs at most what its
            parent weighs, so the nodes of largest weight are the best tree (ties: shallower first, then by path).

    Raises:
        ConfigError: acceptance is not made of probabilities (see `check_acceptance`), or a limit is below 1.
    """
    probs = check_acceptance(acceptance)
    for name, value in (("budget", node_budget), ("max_depth", max_depth), ("max_children", max_children)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name}={value} is out of range; expected a whole number, 1 or more")
    rows = np.atleast_2d(probs)
    levels = min(node_budget, max_depth or node_budget, node_budget if probs.ndim == 1 else len(rows))
    width = min(node_budget, max_children or node_budget, rows.shape[1])
    paths = (
        _heaviest_paths(rows, levels, width, node_budget)
        if free_ranks
        else _closed_paths(rows[:, :width], levels, node_budget)
    )
    return BestTree(paths, fsum(path_weights(paths, rows).values()), len(paths), len(paths) == node_budget)


def path_weights(paths: list[RankPath], acceptance: np.ndarray) -> dict[RankPath, float]:
    """Each path's probability of being accepted: the product of `acceptance` (`[K]` or `[D, K]`) along it; parents
    come first."""
    rows = np.atleast_2d(acceptance)
    weights: dict[RankPath, float] = {(): 1.0}
    for path in paths:
        weights[path] = weights[path[:-1]] * float(_row(rows, len(path) - 1)[path[-1]])
    del weights[()]
    return weights


def _row(rows: np.ndarray, above: int) -> np.ndarray:
    """`[K]` acceptance below a node with `above` levels above it; a vector is one row for all depths."""
    return np.asarray(rows[min(above, len(rows) - 1)])


def _closed_paths(rows: np.ndarray, levels: int, budget: int) -> list[RankPath]:
    """The best sibling-closed tree of `budget` nodes, or of as many as there is room for."""
    if len(rows) == 1:
        paths = _trace_back([_solve(rows[0], None, budget)], budget)
        if len(paths[-1]) <= levels:
            return paths
    below = np.array([0.0, *[-np.inf] * (budget - levels)])
    solved: deque[_Level] = deque()
    for above in reversed(range(levels)):
        solved.appendleft(_solve(_row(rows, above), below, budget - above))  # each ancestor took a node of the budget
        below = solved[0].forest[0]
    return _trace_back(list(solved), int(np.flatnonzero(np.isfinite(below))[-1]))


def _solve(row: np.ndarray, below: np.ndarray | None, budget: int) -> _Level:
    """One depth of the recurrence: `row` `[K]`, `below` `[budget]` from the next depth (None: this depth itself)."""
    child = np.full((len(row), budget + 1), -np.inf)
    forest = np.full((len(row) + 1, budget + 1), -np.inf)
    forest[:, 0] = 0
    deeper = forest[0] if below is None else below
    for m in range(1, budget + 1):
        if np.isfinite(deeper[m - 1]):  # 0 * -inf has no value
            child[:, m] = row * (1 + deeper[m - 1])
        forest[:-1, m] = (child[:, 1 : m + 1] + forest[1:, m - 1 :: -1]).max(axis=1)
    return _Level(child, forest)


def _trace_back(solved: list[_Level], nodes: int) -> list[RankPath]:
    """The paths of a best tree of `nodes` nodes, depth by depth; the last level solved stands for all below it."""
    paths: list[RankPath] = []
    queue: deque[tuple[RankPath, int]] = deque([((), nodes)])
    while queue:
        parent, left = queue.popleft()
        child, forest = solved[min(len(parent), len(solved) - 1)]
        rank = 0
        while left:
            size = 1 + int(np.argmax(child[rank, 1 : left + 1] + forest[rank + 1, left - 1 :: -1]))
            paths.append((*parent, rank))
            queue.append((paths[-1], size - 1))
            rank, left = rank + 1, left - size
    return paths


def _heaviest_paths(rows: np.ndarray, levels: int, width: int, budget: int) -> list[RankPath]:
    """The `budget` paths of largest weight, using at each depth the `width` ranks most often accepted."""
    usable = [np.argsort(-row, kind="stable")[:width].tolist() for row in rows]
    chosen: list[RankPath] = []
    heap: list[tuple[float, int, RankPath]] = [(-1.0, 0, ())]
    while heap and len(chosen) <= budget:
        weight, depth, path = heapq.heappop(heap)
        chosen.append(path)
        if depth < levels:
            row = _row(rows, depth)
            for rank in usable[min(depth, len(rows) - 1)]:
                heapq.heappush(heap, (weight * float(row[rank]), depth + 1, (*path, rank)))
    return sorted(chosen[1:], key=lambda path: (len(path), path))


def check_acceptance(values: npt.ArrayLike, what: str = "acceptance") -> np.ndarray:
    """`values` as float64 `[K]` or `[D, K]`; `what` names them in messages.

    Raises:
        ConfigError: not a vector or matrix of numbers, empty, ragged, an entry that is not in [0, 1], or a row that
            sums above 1.
    """
    try:
        probs = np.asarray(values)
    except ValueError as error:  # numpy has no ragged arrays
        raise ConfigError(
            f"{what}: the rows differ in length; expected rows with the same number of probabilities"
        ) from error
    if probs.dtype.kind not in "fiu" or probs.ndim not in (1, 2) or probs.size == 0:
        raise ConfigError(f"{what}: expected one or more probabilities by rank, or rows of them by depth")
    probs = probs.astype(np.float64)
    wrong = np.argwhere(~((probs >= 0) & (probs <= 1)))  # NaN is neither
    if len(wrong):
        *row, rank = wrong[0].tolist()
        raise ConfigError(
            f"{what}: {_at(row)}rank {rank} has {probs[tuple(wrong[0])]:g}; expected a probability from 0 to 1"
        )
    sums = np.atleast_1d(probs.sum(axis=-1))
    if sums.max() > 1 + SUM_SLACK:
        row = [int(sums.argmax())] if probs.ndim == 2 else []
        raise ConfigError(f"{what}: {_at(row)}the probabilities sum to {sums.max():.8g}; expected at most 1")
    return probs


def _at(row: list[int]) -> str:
    return f"depth {row[0] + 1}: " if row else ""


def read_acceptance(vector: str | None, matrix: Path | None) -> np.ndarray:
    """What the command line was given: a comma-separated `vector`, or a `matrix` file with a JSON list of rows.

    Raises:
        ConfigError: neither or both were given, or the one given is unreadable or no list of probabilities.
    """
    if vector is not None and matrix is None:
        try:
            return check_acceptance([float(entry) for entry in vector.split(",")], "--acceptance-vector")
        except ValueError as error:
            raise ConfigError(
                f"--acceptance-vector {vector!r} is not a list of numbers; expected 0.63,0.11,..."
            ) from error
    if matrix is None or vector is not None:
        raise ConfigError("expected one of --acceptance-vector 0.63,0.11,... and --acceptance-matrix FILE.json")
    rows = read_json(matrix, f"--acceptance-matrix {matrix}")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ConfigError(
            f"--acceptance-matrix {matrix}: expected a list of rows, one for each depth: [[0.63, 0.11], [0.6, 0.1]]"
        )
    return check_acceptance(rows, f"--acceptance-matrix {matrix}")
