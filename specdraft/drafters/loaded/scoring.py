"""Given trees at every place at which a step could start, each node with its token and its probability.

As `expansion.expand`, but which nodes there are is known before: only those that have children are fed, each context
once for all starts that share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from specdraft.drafters.base import Described, Expansion, GivenTrees, NodeFeatures, RecordedText
from specdraft.drafters.loaded.expansion import Contexts, starts_at_once, texts_at_once
from specdraft.models.language_model import LanguageModel
from specdraft.trees.shapes import BestFirstPlan


@torch.inference_mode()
def score(
    model: LanguageModel,
    texts: Sequence[RecordedText],
    trees: Sequence[GivenTrees],
    temperature: float,
    featured: bool = False,
) -> Iterator[Described]:
    """Of each text its trees as a live run would draft them, scored.

    Args:
        model: the draft model.
        texts: prompts and the trajectories `[T + 1]` that follow them.
        trees: of each text, at its positions 0 .. T - 1.
        temperature: what logits are divided by.
        featured: also say what the draft model said in them.
    """
    limits = _limits(trees, temperature)
    count = texts_at_once(model, texts, limits)
    for first in range(0, len(texts), count):
        here = slice(first, first + count)
        yield from _side_by_side(model, texts[here], trees[here], limits, featured)


def _limits(trees: Sequence[GivenTrees], temperature: float) -> BestFirstPlan:
    """What encloses all of the trees."""
    nodes = max(some.parent.shape[1] for some in trees)
    depth = max(int(some.depth.max(initial=1)) for some in trees)
    width = 1 + max(int(some.rank.max(initial=0)) for some in trees)
    return BestFirstPlan(max(nodes, width, depth), depth, width, temperature=temperature)


def _side_by_side(
    model: LanguageModel,
    texts: Sequence[RecordedText],
    trees: Sequence[GivenTrees],
    limits: BestFirstPlan,
    featured: bool,
) -> list[Described]:
    starts = np.array([len(text.tokens) - 1 for text in texts])  # [B]
    contexts = Contexts(model, texts, limits, featured)
    whole = [some.at_starts(count) for some, count in zip(trees, starts.tolist(), strict=True)]
    widest = max(some.parent.shape[1] for some in trees)
    together = GivenTrees(
        *(np.concatenate([_padded(field, widest) for field in fields]) for fields in zip(*whole, strict=True))
    )
    row = np.repeat(np.arange(len(texts)), starts)
    position = np.arange(len(row)) - np.repeat(np.cumsum(starts) - starts, starts)
    found = _nothing(together.parent.shape, featured)
    for first in range(0, int(starts.max()), starts_at_once(limits)):
        here = np.flatnonzero((position >= first) & (position < first + starts_at_once(limits)))
        given = GivenTrees(*(field[here] for field in together))
        walked = _walk(contexts, contexts.of_trunk(row[here], position[here]), given, featured)
        for field, values in zip(found, walked, strict=True):
            field[here] = values
        contexts.forget()
    return [
        _described(some, [field[row == text, : some.parent.shape[1]] for field in found])
        for text, some in enumerate(whole)
    ]


def _described(trees: GivenTrees, found: Sequence[np.ndarray]) -> Described:
    tokens, log_prob, *nodes = found
    return Described(Expansion(trees.parent, trees.rank, tokens, log_prob), NodeFeatures(*nodes) if nodes else None)


def _nothing(shape: tuple[int, ...], featured: bool) -> list[np.ndarray]:
    """Tokens, logarithms of cumulative probabilities, and the fields of `NodeFeatures` if they are wanted."""
    nodes = [np.zeros(shape, dtype=np.float32) for _ in NodeFeatures._fields] if featured else []
    return [np.full(shape, -1, dtype=np.int32), np.zeros(shape), *nodes]


def _padded(field: np.ndarray, nodes: int) -> np.ndarray:
    return np.pad(field, ((0, 0), (0, nodes - field.shape[1])), constant_values=-1)


def _walk(contexts: Contexts, starts: np.ndarray, trees: GivenTrees, featured: bool) -> list[np.ndarray]:
    """See `_nothing`, `[F, N]`, of trees below these contexts `[F]`."""
    shape, depth = trees.parent.shape, trees.depth
    context = np.full((shape[0], shape[1] + 1), -1)
    context[:, 0] = starts
    fed = np.zeros(context.shape, dtype=bool)  # who has children
    row, place = np.nonzero(depth > 0)
    fed[row, trees.parent[row, place]] = True
    (tokens, _, *nodes), reached = _nothing(shape, featured), np.zeros(context.shape)
    for level in range(1, int(depth.max(initial=0)) + 1):
        row, place = np.nonzero(depth == level)
        parent, rank = trees.parent[row, place].astype(np.int64), trees.rank[row, place].astype(np.int64)
        above = context[row, parent]
        tokens[row, place], own = contexts.child(above, rank)
        reached[row, place + 1] = reached[row, parent] + own
        for field, values in zip(nodes, contexts.said(above, rank) if featured else [], strict=True):
            field[row, place] = values
        going = fed[row, place + 1]
        context[row[going], place[going] + 1] = contexts.below(above[going], rank[going])
    return [tokens, reached[:, 1:], *nodes]
