"""One row for each drafted node of recorded trees: its features, and what became of it along the target's text.

A row whose parent is off the text is *censored*: whether the node would have been accepted is not known. Conditionals
are learnt from rows that were reached only; of survival every row says something, as a censored node was not accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specdraft.drafters.base import Expansion, NodeFeatures, RecordedText
from specdraft.prediction.features import Features
from specdraft.prediction.loops import loops
from specdraft.prediction.tree_walks import above, along_path, depths


class Labels(NamedTuple):
    """What became of the nodes `[T, N]` of a text's trees.

    Attributes:
        there: it is a node, and the text does not end before its depth.
        reached: there, and its parent is the root or on the text.
        accepted: reached, and its token is the text's.
    """

    there: np.ndarray
    reached: np.ndarray
    accepted: np.ndarray


class Rows(NamedTuple):
    """Nodes of many trees, prompt by prompt, those of one tree in their order.

    Attributes:
        prompt: `[R]` a number from 0.
        start: `[R]` the position of the tree's root.
        parent: `[R]` the row of the node above; -1 below the root.
        features: `[R]`.
        reached: `[R]` bool; `accepted`: `[R]` float, of sampled texts the exact chance given the text before.
    """

    prompt: np.ndarray
    start: np.ndarray
    parent: np.ndarray
    features: Features
    reached: np.ndarray
    accepted: np.ndarray

    def of(self, prompts: np.ndarray) -> Rows:
        """Whole prompts, by number."""
        return self._chosen(np.isin(self.prompt, prompts))

    @property
    def on_text(self) -> Rows:
        """The rows that were reached; they still have their parents, which were reached before."""
        return self._chosen(self.reached)

    def _chosen(self, mask: np.ndarray) -> Rows:
        place = np.append(np.cumsum(mask) - 1, -1)
        chosen = (self.prompt[mask], self.start[mask], place[self.parent[mask]])
        return Rows(*chosen, self.features.at(mask), self.reached[mask], self.accepted[mask])


def labels(expansion: Expansion, tokens: np.ndarray) -> Labels:
    """Which nodes a text reached and accepted.

    Args:
        expansion: its trees, `[T, N]`.
        tokens: `[T + 1]` the text.
    """
    depth = depths(expansion.parent)
    position = np.arange(len(depth))[:, None] + depth
    there = (depth > 0) & (position < len(tokens))
    same = there & (expansion.token == tokens[np.minimum(position, len(tokens) - 1)])
    accepted, reached = same & (depth == 1), there & (depth == 1)
    for level in range(2, int(depth.max(initial=0)) + 1):
        here = there & (depth == level)
        reached |= here & above(accepted, expansion.parent)
        accepted |= same & reached & here
    return Labels(there, reached, accepted)


def tree_features(
    expansion: Expansion, nodes: NodeFeatures, text: RecordedText, extra: np.ndarray | None = None
) -> Features:
    """`[T, N]` the features of one text's trees; numbers without meaning where there is no node.

    Args:
        expansion, nodes: the trees, and what the drafter said in them.
        text: whose they are.
        extra: `[T, N, k]` further columns.
    """
    parent, depth = expansion.parent, depths(expansion.parent)
    inside = parent > 0

    def of_parent(values: np.ndarray) -> np.ndarray:
        return np.where(inside, above(values, parent), 0)

    return Features(
        depth,
        expansion.rank.astype(np.int64),
        nodes.log_prob,
        (expansion.log_prob - of_parent(expansion.log_prob)).astype(np.float32),
        along_path(nodes.log_prob, parent, np.add),
        nodes.entropy,
        nodes.best,
        nodes.second,
        np.where(inside, above(expansion.rank, parent), -1),
        of_parent(nodes.log_prob),
        of_parent(nodes.entropy),
        of_parent(nodes.best),
        of_parent(nodes.second),
        loops(expansion, text),
        np.zeros((*parent.shape, 0), dtype=np.float32) if extra is None else extra,
    )


class Recorded(NamedTuple):
    """One prompt's text, its trees and what the drafter said in them.

    Attributes:
        chances: `[T + 1, K]` of a sampled text: with what probability a child of each rank below an accepted node is
            accepted at each position. None: the text says yes or no.
        extra: `[T, N, k]` further columns of the nodes, if there are any (see `of_positions`).
    """

    text: RecordedText
    expansion: Expansion
    nodes: NodeFeatures
    chances: np.ndarray | None = None
    extra: np.ndarray | None = None


def of_positions(table: np.ndarray, expansion: Expansion, tokens: np.ndarray) -> np.ndarray:
    """`[T, N, k]` columns of nodes whose parents are on the text; 0 of other nodes, and of ranks beyond K.

    Conditional acceptance is learnt from such nodes alone, so what is known along a text is enough for that.

    Args:
        table: `[T + 1, K, k]` of the drafter's K best tokens at each position.
        expansion: the trees.
        tokens: `[T + 1]` the text.
    """
    depth, rank = depths(expansion.parent), expansion.rank.astype(np.int64)
    position = np.minimum(np.arange(len(depth))[:, None] + depth, len(tokens) - 1)
    known = labels(expansion, tokens).reached & (rank < table.shape[1])
    columns: np.ndarray = table[position, np.clip(rank, 0, table.shape[1] - 1)]
    return np.where(known[..., None], columns, 0)


def collect(recorded: Sequence[Recorded]) -> Rows:
    """The rows of all prompts, in their order; nodes that the text ends before are left out."""
    parts: list[Rows] = []
    for prompt, one in enumerate(recorded):
        parts.append(_rows(prompt, one, sum(len(part.prompt) for part in parts)))
    features = Features(*(np.concatenate(fields) for fields in zip(*(part.features for part in parts), strict=True)))
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Rows._fields[:3]}
    outcomes = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Rows._fields[4:]}
    return Rows(**joined, features=features, **outcomes)


def _rows(prompt: int, one: Recorded, before: int) -> Rows:
    """Of one prompt; so many rows stand `before` them."""
    nodes, found = one.expansion.parent, labels(one.expansion, one.text.tokens)
    features = tree_features(one.expansion, one.nodes, one.text, one.extra)
    there = found.there
    place = np.cumsum(there).reshape(there.shape) - 1 + before
    parent = np.where(nodes > 0, above(place, nodes), -1)
    start = np.broadcast_to(np.arange(len(nodes))[:, None], nodes.shape)
    whose = np.full(int(there.sum()), prompt)
    accepted = found.accepted.astype(float) if one.chances is None else _expected(one.chances, features, found)
    return Rows(whose, start[there], parent[there], features.at(there), found.reached[there], accepted[there])


def _expected(chances: np.ndarray, features: Features, found: Labels) -> np.ndarray:
    """`[T, N]` the chance that a node is accepted given the text before it; of ranks beyond K what the text says."""
    position = np.arange(len(features.depth))[:, None] + features.depth
    known = found.reached & (features.rank < chances.shape[1])
    place = np.minimum(position, len(chances) - 1), np.clip(features.rank, 0, chances.shape[1] - 1)
    return np.where(known, chances[place], found.accepted)


def survival(conditional: np.ndarray, parent: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """`[R]` P(node accepted): the product of the conditionals from the root down; `parent` as in `Rows`."""
    product = np.array(conditional, dtype=float)
    for level in range(2, int(depth.max(initial=0)) + 1):
        here = np.flatnonzero(depth == level)
        product[here] *= product[parent[here]]
    return product
