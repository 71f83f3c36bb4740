"""Best-first trees of every place at which a step could start, drafted without decoding.

The drafter reads a recorded trajectory once; what follows each of its tokens is then known. Only nodes
off the trajectory are fed after that, each context once: a continuation that hangs below one token of
the trajectory is in the trees of several starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from specdraft.drafters.base import Expansion, RecordedText
from specdraft.drafters.loaded.ranking import best_children
from specdraft.drafters.loaded.tree_in_work import with_descendants
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import tail_mask
from specdraft.trees.growth import Growth
from specdraft.trees.shapes import NestedPlan

MAX_NODES = 4096  # of the trees that are grown at the same time: it bounds the drafter's cache and the masks


@torch.inference_mode()
def expand(model: CachedModel, text: RecordedText, plan: NestedPlan) -> Expansion:
    """The trees that a live run would draft if a step started at each of the positions 0 .. T - 1.

    Args:
        model: the draft model.
        text: a prompt and the trajectory `[T + 1]` that follows it.
        plan: the largest budget and the limits; a threshold is left to whoever reads the result.
    """
    tokens = text.tokens
    contexts = _Contexts(model, text.prompt_ids, tokens, plan.growth(1, model.vocab).max_children)
    last, at_once = len(tokens) - 1, max(1, MAX_NODES // plan.nodes)
    parts = [contexts.grow(np.arange(first, min(first + at_once, last)), plan) for first in range(0, last, at_once)]
    if not parts:
        empty = np.empty((0, plan.nodes))
        return Expansion(empty.astype(np.int16), empty.astype(np.int16), empty.astype(np.int32), empty)
    return Expansion(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


class _Contexts:
    """The contexts that were fed after a prompt, and the most probable tokens after each.

    Contexts 0 .. T are the trajectory's tokens; the others hang below them.
    """

    def __init__(self, model: CachedModel, prompt: Sequence[int], tokens: np.ndarray, children: int) -> None:
        self._model, self._children = model, children
        model.reset()
        model.prefill(prompt)
        self._offsets = np.empty(0, dtype=np.int64)  # [c] position after the prompt
        self._tokens = np.empty((0, children), dtype=np.int64)
        self._log_probs = np.empty((0, children))
        self._feed(tokens, np.arange(len(tokens)), np.tril(np.ones((len(tokens), len(tokens)), dtype=bool)))
        self._trunk = len(tokens)
        self._below = np.full((self._trunk, children), -1)  # [c, children] the context that a child leads to
        position, rank = np.nonzero(self._tokens[:-1] == tokens[1:, None])
        self._below[position, rank] = position + 1

    def _feed(self, tokens: np.ndarray, offsets: np.ndarray, seen: np.ndarray) -> None:
        """One forward over new contexts; `seen` `[c, c]` is which of all contexts sees which."""
        self._seen = seen
        device = self._model.device
        tail = tail_mask(torch.from_numpy(seen[-len(tokens) :]).to(device), self._model.dtype)
        logits = self._model.append(
            torch.tensor(tokens, device=device), torch.from_numpy(offsets).to(device), tail
        ).logits
        children, log_probs = best_children(logits, self._children)
        self._tokens, self._log_probs = (
            np.concatenate([self._tokens, children]),
            np.concatenate([self._log_probs, log_probs]),
        )
        self._offsets = np.concatenate([self._offsets, offsets])

    def grow(self, starts: np.ndarray, plan: NestedPlan) -> Expansion:
        """The trees of these starts."""
        growth = Growth(len(starts), plan.nodes, plan.depth, self._children)
        context = here = starts  # [nodes so far] the context of each node that was expanded
        growth.add(self._tokens[here], self._log_probs[here])
        while len(growth.frontier):
            here = self._enter(growth, context)
            context = np.concatenate([context, np.full(growth.frontier.max() + 1 - len(context), -1)])
            context[growth.frontier] = here
            growth.add(self._tokens[here], self._log_probs[here])
        self._forget()
        trees = growth.trees()
        return Expansion(
            trees.parent.astype(np.int16),
            trees.rank.astype(np.int16),
            trees.token.astype(np.int32),
            trees.log_prob.astype(np.float64),
        )

    def _enter(self, growth: Growth, context: np.ndarray) -> np.ndarray:
        """`[m]` the contexts of the frontier's nodes; those that are new are fed, each once."""
        nodes = growth.nodes_at(growth.frontier)
        above = context[nodes.parent]
        unknown = self._below[above, nodes.rank] < 0
        if unknown.any():
            edges = np.unique(np.stack([above[unknown], nodes.rank[unknown]]), axis=1)
            parents, ranks = edges
            self._below[parents, ranks] = len(self._below) + np.arange(len(parents))
            self._below = np.concatenate([self._below, np.full((len(parents), self._children), -1)])
            self._feed(self._tokens[parents, ranks], self._offsets[parents] + 1, with_descendants(self._seen, parents))
        here: np.ndarray = self._below[above, nodes.rank]
        return here

    def _forget(self) -> None:
        """Drop what hangs below the trajectory."""
        self._model.forget(self._trunk)
        self._seen = self._seen[: self._trunk, : self._trunk]
        self._tokens, self._log_probs = self._tokens[: self._trunk], self._log_probs[: self._trunk]
        self._offsets, self._below = self._offsets[: self._trunk], self._below[: self._trunk]
        self._below[self._below >= self._trunk] = -1
