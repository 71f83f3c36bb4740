"""The structure of a draft tree: which nodes there are, and which sees which.

Node 0 is the root: the last committed token, whose successor is drafted. Nodes 1..n are draft nodes,
a parent always before its children. A node's *rank path* names it by child ranks from the root:
`(0,)` is the drafter's most probable next token, `(0, 1)` the second most probable after that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from specdraft.errors import TreeError

RankPath = tuple[int, ...]


class Level(NamedTuple):
    """The nodes of one depth, as the drafter makes them: one forward over `parents`, then `nodes`."""

    parents: np.ndarray  # [m] distinct nodes one level up that have children here
    nodes: np.ndarray  # [k] the nodes of this depth
    parent_row: np.ndarray  # [k] each node's parent, as an index into `parents`
    ranks: np.ndarray  # [k] each node's child rank


class Topology:
    """The structure of a tree without its tokens.

    Args:
        parents: `[n + 1]`, `parents[0] == -1` and `parents[i] < i`.
        ranks: `[n + 1]` child ranks, distinct among siblings (`ranks[0]` is ignored). Left out: the
            order in which siblings are listed.

    Raises:
        TreeError: the arrays do not describe a tree.
    """

    def __init__(self, parents: Sequence[int] | np.ndarray, ranks: Sequence[int] | np.ndarray | None = None) -> None:
        self.parents = np.asarray(parents, dtype=np.int64)
        if self.parents.ndim != 1 or len(self.parents) == 0 or self.parents[0] != -1:
            raise TreeError("a tree needs a root: parents[0] must be -1")
        index = np.arange(len(self.parents))
        if np.any(self.parents[1:] < 0) or np.any(self.parents >= index):
            raise TreeError("each draft node needs a parent that comes before it: 0 <= parents[i] < i")
        self.ranks = self._listing_order() if ranks is None else np.asarray(ranks, dtype=np.int64)
        if self.ranks.shape != self.parents.shape or np.any(self.ranks < 0):
            raise TreeError("each node needs one child rank, 0 or more")
        siblings = set(zip(self.parents[1:].tolist(), self.ranks[1:].tolist(), strict=True))
        if len(siblings) != self.num_nodes:
            raise TreeError("two children of one node have the same rank")

    @classmethod
    def from_paths(cls, paths: Iterable[Sequence[int]]) -> Topology:
        """Build from rank paths in any order; nodes keep the order given, parents moved before children.

        Raises:
            TreeError: a path is empty, negative, repeated, or its parent is missing.
        """
        rank_paths = [tuple(map(int, path)) for path in paths]
        for path in rank_paths:
            if not path or min(path) < 0:
                raise TreeError(f"{list(path)} is not a rank path: it needs one or more ranks, each 0 or more")
        node_of: dict[RankPath, int] = {(): 0}
        parents, ranks = [-1], [0]
        for path in sorted(rank_paths, key=len):
            if path in node_of:
                raise TreeError(f"the path {list(path)} is listed twice")
            if path[:-1] not in node_of:
                raise TreeError(f"the path {list(path)} has no parent: {list(path[:-1])} is not in the tree")
            node_of[path] = len(parents)
            parents.append(node_of[path[:-1]])
            ranks.append(path[-1])
        return cls(parents, ranks)

    def _listing_order(self) -> np.ndarray:
        seen: dict[int, int] = {}
        ranks = []
        for parent in self.parents.tolist():
            ranks.append(seen.get(parent, 0))
            seen[parent] = ranks[-1] + 1
        ranks[0] = 0
        return np.array(ranks, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.parents)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topology) and set(self.paths) == set(other.paths)

    def __hash__(self) -> int:
        return hash(frozenset(self.paths))

    @property
    def num_nodes(self) -> int:
        """Draft nodes; the root is not counted."""
        return len(self.parents) - 1

    @cached_property
    def depths(self) -> np.ndarray:
        """`[n + 1]` distance from the root."""
        depths = np.zeros(len(self), dtype=np.int64)
        for node in range(1, len(self)):
            depths[node] = depths[self.parents[node]] + 1
        return depths

    @property
    def depth(self) -> int:
        """Draft levels; 0 for a bare root."""
        return int(self.depths.max())

    @cached_property
    def paths(self) -> list[RankPath]:
        """`[n + 1]` rank paths; the root's is `()`."""
        paths: list[RankPath] = [()]
        for node in range(1, len(self)):
            paths.append((*paths[self.parents[node]], int(self.ranks[node])))
        return paths

    @cached_property
    def ancestors(self) -> np.ndarray:
        """`[n + 1, n + 1]` bool: row i is true at i's ancestors and at i itself."""
        seen = np.eye(len(self), dtype=bool)
        for node in range(1, len(self)):
            seen[node] |= seen[self.parents[node]]
        return seen

    @cached_property
    def tried_before(self) -> np.ndarray:
        """`[n + 1, n + 1]` bool: row i is true at the siblings of lower rank of i and of i's ancestors."""
        before: np.ndarray = (self.parents[:, None] == self.parents) & (self.ranks[:, None] > self.ranks)
        for node in range(1, len(self)):
            before[node] |= before[self.parents[node]]
        return before

    @cached_property
    def children(self) -> list[list[int]]:
        """`[n + 1]` each node's children by rank."""
        children: list[list[int]] = [[] for _ in range(len(self))]
        for node in np.argsort(self.ranks, kind="stable").tolist():
            if node:
                children[self.parents[node]].append(node)
        return children

    @cached_property
    def has_children(self) -> np.ndarray:
        """`[n + 1]` bool."""
        there: np.ndarray = np.bincount(self.parents[1:], minlength=len(self)) > 0
        return there

    @cached_property
    def chain(self) -> list[int]:
        """The nodes of `(0,)`, `(0, 0)`, ... as far as there are any."""
        nodes: list[int] = []
        while below := self.children[nodes[-1] if nodes else 0]:
            if self.ranks[below[0]] != 0:
                break
            nodes.append(below[0])
        return nodes

    @cached_property
    def levels(self) -> list[Level]:
        """One entry for each depth from 1."""
        levels = []
        for depth in range(1, self.depth + 1):
            nodes = np.flatnonzero(self.depths == depth)
            parents, parent_row = np.unique(self.parents[nodes], return_inverse=True)
            levels.append(Level(parents, nodes, parent_row, self.ranks[nodes]))
        return levels

    @cached_property
    def parents_by_level(self) -> np.ndarray:
        """`[D]` how many nodes have children at each depth from 1."""
        parents = np.unique(self.parents[1:])
        return np.bincount(self.depths[parents], minlength=self.depth)

    def path_to(self, node: int) -> list[int]:
        """The draft nodes from the root downwards to `node`; none to the root itself."""
        path = []
        while node:
            path.append(node)
            node = int(self.parents[node])
        return path[::-1]

    def places_in(self, whole: Topology) -> np.ndarray:
        """`[n + 1]` where its nodes, the root first, stand in a tree that holds all of them."""
        place = {path: node for node, path in enumerate(whole.paths)}
        return np.array([place[path] for path in self.paths], dtype=np.int64)

    def part(self, nodes: Sequence[int] | np.ndarray) -> Topology:
        """Some of the nodes, the root among them, a node only with its parent; in this order, ranks as they are."""
        kept = np.asarray(nodes, dtype=np.int64)
        place = np.full(len(self) + 1, -1)  # the last stands for the root's parent
        place[kept] = np.arange(len(kept))
        part = Topology.__new__(Topology)  # what holds of the whole tree holds of a part, if it has all parents
        part.parents, part.ranks = place[self.parents[kept]], self.ranks[kept]
        if kept[0] != 0 or (part.parents >= np.arange(len(kept))).any() or (part.parents[1:] < 0).any():
            raise TreeError("a part of a tree has the root first, and every other node after its parent")
        known = vars(self)  # what is known of the whole tree is known of its part
        vars(part).update({name: known[name][kept] for name in ("depths",) if name in known})
        vars(part).update({name: known[name][np.ix_(kept, kept)] for name in ("ancestors",) if name in known})
        return part

    @property
    def is_chain(self) -> bool:
        return self.depth == self.num_nodes

    @cached_property
    def is_span(self) -> bool:
        """Whether it is one sequence of best children."""
        return self.is_chain and not self.ranks[1:].any()

    @property
    def sibling_closed(self) -> bool:
        """Whether every node's lower-ranked siblings are in the tree."""
        return all(self.ranks[kids].tolist() == list(range(len(kids))) for kids in self.children)
