"""Best-first trees of every place at which a step could start, drafted without decoding.

The drafter reads recorded trajectories once; what follows each of their tokens is then known. Only nodes
off a trajectory are fed after that, each context once: a continuation that hangs below one token of
the trajectory is in the trees of several starts. Texts stand side by side, a row of the batch each, so a
context sees its own text only, and of that only the starts that are grown with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from specdraft.drafters.base import Described, Expansion, NodeFeatures, RecordedText
from specdraft.drafters.grams import RecordedRoots, TextGrams
from specdraft.drafters.loaded.ranking import SPREAD, at_one, best_children, children_and_spread
from specdraft.models.batch import Batch, by_device, causal, logits_at_once
from specdraft.models.branches import Branches
from specdraft.models.language_model import LanguageModel, padded
from specdraft.trees.growth import GrownTrees, add_scored
from specdraft.trees.shapes import NestedPlan
from specdraft.trees.shapes.base import Growing, NodeScores, SaidChildren

NODES_OF_A_TEXT = 4096  # of the trees of one text that are grown together
NODES = {"cpu": 8192, "cuda": 65536}  # of all texts that are grown together; side by side they wait for each other
# contexts of a forward at most: more fill it, but more of them fall out of their trees
FED = {"cpu": 512, "cuda": 2048}


@torch.inference_mode()
def expand(model: LanguageModel, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
    """Of each text the trees that a live run would draft if a step started at each of the positions 0 .. T - 1.

    Args:
        model: the draft model.
        texts: prompts and the trajectories `[T + 1]` that follow them.
        plan: the largest budget and the limits; a threshold is left to whoever reads the result.
    """
    yield from (described.expansion for described in _in_parts(model, texts, plan, featured=False))


@torch.inference_mode()
def describe_trees(model: LanguageModel, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Described]:
    """As `expand`, and what the draft model said in these trees."""
    yield from _in_parts(model, texts, plan, featured=True)


def _in_parts(
    model: LanguageModel, texts: Sequence[RecordedText], plan: NestedPlan, featured: bool
) -> Iterator[Described]:
    count = texts_at_once(model, texts, plan)
    for first in range(0, len(texts), count):
        yield from _side_by_side(model, texts[first : first + count], plan, featured)


def texts_at_once(model: LanguageModel, texts: Sequence[RecordedText], plan: NestedPlan) -> int:
    """How many texts are grown side by side."""
    longest = max(len(text.tokens) for text in texts)
    return max(1, by_device(model, NODES) // (min(longest, starts_at_once(plan)) * plan.nodes))


def starts_at_once(plan: NestedPlan) -> int:
    """How many starts of one text are grown together."""
    return max(1, NODES_OF_A_TEXT // plan.nodes)


def _side_by_side(
    model: LanguageModel, texts: Sequence[RecordedText], plan: NestedPlan, featured: bool
) -> list[Described]:
    starts = np.array([len(text.tokens) - 1 for text in texts])  # [B]
    contexts = Contexts(model, texts, plan, featured)
    parts: list[list[Sequence[np.ndarray]]] = [[_nothing(plan, featured)] for _ in texts]
    for first in range(0, int(starts.max()), starts_at_once(plan)):
        here = np.clip(starts - first, 0, starts_at_once(plan))  # [B]
        rows = np.repeat(np.arange(len(texts)), here)
        position = first + np.arange(len(rows)) - np.repeat(np.cumsum(here) - here, here)
        trees, nodes = contexts.grow(contexts.of_trunk(rows, position), plan)
        grown = (*as_expansion(trees), *nodes)
        for row in np.flatnonzero(here):
            parts[row].append([field[rows == row] for field in grown])
    whole = [[np.concatenate(fields) for fields in zip(*part, strict=True)] for part in parts]
    return [Described(Expansion(*fields[:4]), NodeFeatures(*fields[4:]) if featured else None) for fields in whole]


def _nothing(plan: NestedPlan, featured: bool) -> list[np.ndarray]:
    empty, features = np.empty((0, plan.nodes)), np.empty((0, plan.nodes), dtype=np.float32)
    return [empty.astype(np.int16), empty.astype(np.int16), empty.astype(np.int32), empty, *[features] * featured * 4]


def as_expansion(trees: GrownTrees) -> Expansion:
    """Grown trees as they are kept."""
    return Expansion(
        trees.parent.astype(np.int16),
        trees.rank.astype(np.int16),
        trees.token.astype(np.int32),
        trees.log_prob.astype(np.float64),
    )


class Contexts:
    """The contexts that were fed after each text's prompt, and the most probable tokens after each.

    Letters: c contexts, K children, B texts. A context is a token of a trajectory, or hangs below one.

    Attributes of a context, `[c]` each:
        row: its text.
        trunk: how many tokens of the trajectory it sees; `branch`: `[c, depth]` what it sees beyond them, as
            `Branches` numbers it, itself the last, -1 where nothing is.
        tokens, log_probs, below: `[c, K]` its children, and the contexts that they lead to, -1 where not fed.
    """

    def __init__(
        self, model: LanguageModel, texts: Sequence[RecordedText], plan: NestedPlan, featured: bool = False
    ) -> None:
        assert plan.temperature is not None, "its temperature is fitted first"
        assert plan.predictor is None, "its predictor is read first"
        self._scorer = plan.scorer
        self._model, self._children = model, plan.looked_at(model.vocab)
        self._temperature = plan.temperature if plan.scorer is None else plan.scorer.temperature
        self._at_once = max(1, by_device(model, FED) // len(texts))
        self._prompts = np.array([len(text.prompt_ids) for text in texts])
        self._grams = TextGrams(np.concatenate([text.prompt_ids, text.tokens]).astype(np.int64) for text in texts)
        ids = padded([text.tokens.tolist() for text in texts], model.device)  # [B, longest]
        self._longest = ids.shape[1]
        position = np.tile(np.arange(self._longest), len(texts))
        self._row = np.repeat(np.arange(len(texts)), self._longest)
        self._trunk, self._branch = position + 1, np.full((len(position), plan.depth), -1)
        self._tokens = np.empty((0, self._children), dtype=np.int64)
        self._log_probs = np.empty((0, self._children))
        self._below = np.full((len(position), self._children), -1)
        self._featured, self._describes = featured, featured or bool(plan.scorer and not plan.scorer.only_tempered)
        self._said = np.empty((0, SPREAD if self._describes else 0), dtype=np.float32)
        batch = Batch(model, [text.prompt_ids for text in texts])
        self._read(batch, ids)
        self._branches = Branches(model, batch)
        self._kept = len(position)
        following = np.append(ids[:, 1:].cpu().numpy(), np.full((len(texts), 1), -1), 1).reshape(-1, 1)
        context, rank = np.nonzero(self._tokens == following)
        self._below[context, rank] = context + 1

    def _read(self, batch: Batch, ids: torch.Tensor) -> None:
        """Feed the trajectories, in slices."""
        at_once = logits_at_once(self._model, len(ids))
        children = []
        for first in range(0, self._longest, at_once):
            some = ids[:, first : first + at_once]
            count, device = some.shape[1], ids.device
            offsets = torch.arange(first, first + count, device=device)[None]
            logits = batch.append(some, offsets, causal(first, count, device))
            children.append(
                [part.reshape(len(ids), count, part.shape[-1]) for part in self._children_of(logits.flatten(0, 1))]
            )
        whole = (np.concatenate(parts, 1) for parts in zip(*children, strict=True))
        self._tokens, self._log_probs, self._said = (part.reshape(len(self._row), part.shape[-1]) for part in whole)

    def _children_of(self, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`[m, K]` tokens and log-probabilities, `[m, SPREAD]` what else the distribution says, if that is wanted."""
        if self._describes:
            return children_and_spread(logits, self._children, self._temperature)
        return *best_children(logits, self._children, self._temperature), np.empty((len(logits), 0), dtype=np.float32)

    def of_trunk(self, row: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The contexts of trajectories' tokens."""
        contexts: np.ndarray = row * self._longest + position
        return contexts

    def grow(self, starts: np.ndarray, plan: NestedPlan) -> tuple[GrownTrees, Sequence[np.ndarray]]:
        """The trees of these starts, and the fields of `NodeFeatures` if they are wanted."""
        growth = plan.growth(len(starts), self._model.vocab, whole=True)
        context = self._grow(growth, starts)
        trees = growth.trees()
        nodes = self._node_features(trees, growth, context)
        self.forget()
        return trees, nodes

    def _node_features(self, trees: GrownTrees, growth: Growing, context: np.ndarray) -> Sequence[np.ndarray]:
        if not self._featured:
            return []
        parent = growth.nodes_at(np.maximum(trees.nodes, 0)).parent
        fields = self.said(context[np.maximum(parent, 0)], np.maximum(trees.rank, 0))
        return [np.where(trees.parent >= 0, field, np.float32(0)) for field in fields]

    def said(self, above: np.ndarray, rank: np.ndarray) -> list[np.ndarray]:
        """The fields of `NodeFeatures` of contexts' children."""
        said = self._said[above]
        behind = self._log_probs[above, rank] - self._log_probs[above, 0]
        own = said[..., 1] + self._temperature * behind  # at temperature 1
        return [own.astype(np.float32), *np.moveaxis(said, -1, 0)]

    def _grow(self, growth: Growing, starts: np.ndarray) -> np.ndarray:
        """`[nodes]` the context of each node that was expanded.

        A node is expanded as soon as its context was fed; of those that were not, each text feeds the ones whose
        nodes are the least likely to fall out of their trees. So no text waits for another one's levels.
        """
        context = starts
        scores = self._scorer.begin(self._before(starts)) if self._scorer else None
        self._add_children(growth, starts, growth.frontier, scores)
        while len(growth.frontier):
            nodes = growth.nodes_at(growth.frontier)
            above = context[nodes.parent]
            soon = growth.ahead <= 1 + growth.place // 3  # the more a tree knows, the more of it is fed at once
            self._feed_first(above[soon], nodes.rank[soon], growth.place[soon])
            here = self._below[above, nodes.rank]
            some, here = growth.frontier[here >= 0], here[here >= 0]
            context = np.concatenate([context, np.full(max(some[-1] + 1 - len(context), 0), -1)])
            context[some] = here
            self._add_children(growth, here, some, scores)
        return context

    def _feed_first(self, above: np.ndarray, rank: np.ndarray, urgency: np.ndarray) -> None:
        """Feed what these children of contexts lead to, of each text's new ones those with the smallest numbers."""
        unknown = self._below[above, rank] < 0
        edges, which = np.unique(above[unknown] * self._children + rank[unknown], return_inverse=True)
        if not len(edges):
            return
        first = np.full(len(edges), np.iinfo(np.int64).max)
        np.minimum.at(first, which, urgency[unknown])
        row = self._row[edges // self._children]
        order = np.lexsort((first, row))
        turn = np.arange(len(edges)) - np.searchsorted(row[order], row[order])
        self._add(*np.divmod(edges[order[turn < self._at_once]], self._children))

    def _before(self, starts: np.ndarray) -> RecordedRoots:
        row = self._row[starts]
        return RecordedRoots(self._grams, row, self._prompts[row] + self._trunk[starts])

    def _add_children(self, growth: Growing, here: np.ndarray, some: np.ndarray, scores: NodeScores | None) -> None:
        """The children of these nodes, whose contexts these are."""
        if scores is None:
            growth.add(self._tokens[here], self._log_probs[here], some)
            return
        if not self._describes:
            add_scored(growth, scores, SaidChildren.only_tempered(self._tokens[here], self._log_probs[here]), some)
            return
        tempered, (entropy, best, second) = self._log_probs[here], self._said[here].T.astype(np.float64)
        raw = at_one(tempered, best, self._temperature)
        add_scored(growth, scores, SaidChildren(self._tokens[here], raw, tempered, entropy, second), some)

    def child(self, above: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[m]` tokens of contexts' children, and the logarithms of their probabilities."""
        return self._tokens[above, rank], self._log_probs[above, rank]

    def below(self, above: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """`[m]` the contexts that contexts' children lead to; those that are new are fed, each once."""
        unknown = self._below[above, rank] < 0
        if unknown.any():
            edges = np.unique(above[unknown] * self._children + rank[unknown])
            self._add(*np.divmod(edges, self._children))
        here: np.ndarray = self._below[above, rank]
        return here

    def _add(self, parents: np.ndarray, ranks: np.ndarray) -> None:
        """Feed the children `ranks` `[m]` of the contexts `parents` `[m]`."""
        order = np.lexsort((*self._branch[parents].T[::-1], self._trunk[parents], self._row[parents]))
        parents, ranks = parents[order], ranks[order]  # what sees the same stands together
        count, row, trunk, above = len(parents), self._row[parents], self._trunk[parents], self._branch[parents]
        numbers = len(self._row) + np.arange(count)
        self._below[parents, ranks] = numbers
        children = self._feed(self._tokens[parents, ranks], row, trunk, above)
        branch = above.copy()
        branch[np.arange(count), (above >= 0).sum(1)] = numbers - self._kept
        self._row = np.concatenate([self._row, row])
        self._trunk, self._branch = np.concatenate([self._trunk, trunk]), np.concatenate([self._branch, branch])
        self._tokens = np.concatenate([self._tokens, children[0]])
        self._log_probs = np.concatenate([self._log_probs, children[1]])
        self._said = np.concatenate([self._said, children[2]])
        self._below = np.concatenate([self._below, np.full((count, self._children), -1)])

    def _feed(self, *contexts: np.ndarray) -> list[np.ndarray]:
        """The children of new contexts (see `Branches.feed`), in as many forwards as their logits need."""
        at_once = logits_at_once(self._model, 1)
        parts = []
        for first in range(0, len(contexts[0]), at_once):
            logits = self._branches.feed(*(field[first : first + at_once] for field in contexts))
            parts.append([field[logits.place] for field in self._children_of(logits.padded)])
        return [np.concatenate(fields) for fields in zip(*parts, strict=True)]

    def forget(self) -> None:
        """Drop what hangs below the trajectories."""
        self._branches.forget()
        for name in ("_row", "_trunk", "_branch", "_tokens", "_log_probs", "_said", "_below"):
            setattr(self, name, getattr(self, name)[: self._kept])
        self._below[self._below >= self._kept] = -1
