"""Drafters that need no model: what they propose follows from the text so far.

Three ways to use one of them. A chain is a span: looked up once, under the root. A tree that differs from step to step
is the drafter's own. Under any other tree it looks up again at every node, after the tokens from the root to there.
Replay drafts again along the recorded text (see `replay.redraft`), with this very code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from specdraft.drafters.base import (
    BY_RANK,
    Annotation,
    DrafterSpec,
    Drawing,
    Prefilled,
    RecordedText,
)
from specdraft.drafters.rank_only import RankOnlyDrafter
from specdraft.drafters.text_index import Continuation
from specdraft.errors import ConfigError
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch

ALL = 2**31  # children of a node: as many as there are


class Reader(ABC):
    """Reads a text, and says what may follow it."""

    @abstractmethod
    def read(self, tokens: Iterable[int]) -> None:
        """The text goes on, for good."""

    @abstractmethod
    def push(self, token: int) -> None:
        """One token more."""

    @abstractmethod
    def pop(self) -> None:
        """Take the last pushed token back."""

    @property
    @abstractmethod
    def pushed(self) -> int:
        """How many tokens can be taken back."""

    @abstractmethod
    def next_tokens(self, most: int) -> list[int]:
        """What may come next, best first."""

    @abstractmethod
    def span(self, most: int) -> list[int]:
        """One sequence that may follow; its first token is the best of `next_tokens`."""

    def tree(self, plan: NestedPlan) -> list[Continuation]:
        """The best nodes, a parent before its children; of readers that have a tree of their own."""
        raise NotImplementedError


class TextDrafter(RankOnlyDrafter):
    """Drafts what a reader of the text proposes, and nothing where it proposes nothing.

    Args:
        spec: which drafter it is.
        stops: the target's end-of-sequence tokens.
    """

    def __init__(self, spec: DrafterSpec, stops: frozenset[int]) -> None:
        super().__init__(spec)
        self._stops = stops
        self._reader = self._new_reader()

    def _new_reader(self, earlier: Sequence[Sequence[int]] = ()) -> Reader:
        """Of an empty text; `earlier`: see `Prefilled`."""
        raise NotImplementedError

    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`."""
        self._reader = self._new_reader(prompt.earlier)
        self._reader.read([*prompt.token_ids, *prompt.text])

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        while self._reader.pushed:
            self._reader.pop()

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`: what there is of the plan's tree."""
        self._reader.push(root)
        if plan.topology is None:
            return self._own_tree(root, plan)
        if plan.topology.is_span:
            tokens = self._reader.span(plan.topology.num_nodes)
            return DraftTree(plan.topology.part(range(len(tokens) + 1)), [root, *tokens])
        return self._looked_up(root, plan.topology)

    def _own_tree(self, root: int, plan: Plan) -> DraftTree:
        if not self.traits.counts or plan.nested is None:
            raise ConfigError(f"drafter={self._spec.label} has no probabilities to choose the nodes of a tree by")
        nodes = self._reader.tree(plan.nested)
        topology = Topology([-1, *(node.parent for node in nodes)], [0, *(node.rank for node in nodes)])
        return DraftTree(topology, [root, *(node.token for node in nodes)])

    def _looked_up(self, root: int, topology: Topology) -> DraftTree:
        """Depth first: every node that may have children is read, asked, and taken back."""
        tokens, coming = {0: root}, [0]
        while coming:
            if (node := coming.pop()) < 0:
                self._reader.pop()
            elif children := topology.children[node]:
                if node:
                    self._reader.push(tokens[node])
                    coming.append(-1)
                ranks = topology.ranks[children].tolist()
                proposed = self._reader.next_tokens(ranks[-1] + 1)
                there = [(child, rank) for child, rank in zip(children, ranks, strict=True) if rank < len(proposed)]
                tokens |= {child: proposed[rank] for child, rank in there}
                coming += [child for child, _ in there]
        kept = sorted(tokens)
        return DraftTree(topology.part(kept), [tokens[node] for node in kept])

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`."""
        tokens = tree.token_list()
        for node in accepted_nodes:
            self._reader.push(tokens[node])

    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """See `Drafter.annotate`: as it is looked up at every node."""
        return [self._annotation(text) for text in texts]

    def _annotation(self, text: RecordedText) -> Annotation:
        reader = self._new_reader()
        reader.read(text.prompt_ids)
        ranks = np.full(len(text.tokens), -1, dtype=np.int32)
        for position, token in enumerate(text.tokens.tolist()):
            if position and token in (proposed := reader.next_tokens(ALL)):
                ranks[position] = proposed.index(token)
            reader.read([token])
        nothing, none = np.zeros(len(ranks), dtype=np.float32), np.empty((len(ranks), 0))
        return Annotation(ranks, none.astype(np.int32), none.astype(np.float32), nothing)

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        return text_facts(self._spec, self._stops)


def text_facts(spec: DrafterSpec, stops: Iterable[int]) -> dict[str, Any]:
    """See `Drafter.facts`."""
    return {"drafter": spec.as_dict(), "stops": sorted(stops)}
