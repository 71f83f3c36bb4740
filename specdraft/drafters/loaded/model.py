"""A smaller causal LM drafts the tree, level by level, over its own cache."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from specdraft.drafters.base import (
    BY_RANK,
    TOP_K,
    Annotation,
    Described,
    DrafterTraits,
    Drawing,
    Expansion,
    GivenTrees,
    Prefilled,
    RecordedText,
    RowOf,
)
from specdraft.drafters.grams import GrowingText
from specdraft.drafters.loaded.expansion import describe_trees, expand
from specdraft.drafters.loaded.ranking import rank_tokens, ranks_of
from specdraft.drafters.loaded.scoring import score
from specdraft.drafters.loaded.tree_in_work import PreparedTopology, TreeInWork
from specdraft.models.batch import along, logits_at_once
from specdraft.models.cached_model import CachedModel
from specdraft.models.check_result import SelfCheck
from specdraft.models.facts import describe_model, model_facts
from specdraft.models.files import ModelFiles
from specdraft.models.language_model import padded
from specdraft.models.sending import to_device
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan
from specdraft.trees.topology import Topology


class ModelDrafter:
    """A draft model with the committed tokens in its cache.

    An accepted leaf was not fed (nothing is drafted below it), so it is missing from the cache afterwards; it is fed
    together with the next root. So is a root below which nothing was drafted.

    Args:
        model: the draft model.
        files: where it came from; None of a model that was handed over in memory.
        check: what the load-time self-check said.
    """

    traits = DrafterTraits(waits=True)

    def __init__(self, model: CachedModel, files: ModelFiles | None = None, check: SelfCheck | None = None) -> None:
        self.model, self.files, self.check = model, files, check
        self._prepared: PreparedTopology | None = None
        self._missing = self._no_token = torch.empty(0, dtype=torch.long, device=model.device)
        self._slot: dict[int, int] = {}  # node of the last tree -> its slot among those fed for it
        self._prompt_ids: Sequence[int] = ()
        self._prompt_length = 0  # in the model's cache
        self._text = GrowingText()

    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`."""
        self.model.reset()
        if prompt.token_ids:
            self.model.prefill(prompt.token_ids)
        if prompt.text:
            self.model.prefill(prompt.text)
        self._missing, self._prompt_length = self._no_token, self.model.length
        self._prompt_ids = [*prompt.token_ids, *prompt.text]
        self._text = GrowingText(self._prompt_ids)

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        self.model.rewind(self._prompt_length)
        self._missing, self._text = self._no_token, GrowingText(self._prompt_ids)

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`: one forward per level."""
        if not plan.nodes:
            self._slot = {}
            return self._bare(root, drawing)
        work = TreeInWork(self.model, self._missing, root, drawing, self._text.until(root), self._prepared)
        tree = plan.expand(work)
        self._slot, self._prepared = work.slot, work.prepared
        return tree

    def _bare(self, root: int, drawing: Drawing) -> DraftTree:
        """A root without children."""
        tokens, probs = to_device([root], self.model.device), torch.ones(1, device=self.model.device)
        drawn = None if drawing.draw == "rank" else probs.new_zeros(1, self.model.vocab, dtype=torch.float64)
        return DraftTree(Topology([-1]), tokens, probs, drawn)

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`: keep the root and the accepted nodes that were fed; remember an accepted leaf."""
        assert isinstance(tree.tokens, torch.Tensor)
        if self._slot:
            fed = [0, *(self._slot[node] for node in accepted_nodes if node in self._slot)]
            self.model.commit(fed)
            leaf = accepted_nodes[-1:] if len(fed) <= len(accepted_nodes) else []
            self._missing = tree.tokens[leaf[0] : leaf[0] + 1] if leaf else self._no_token
        else:
            self._missing = torch.cat([self._missing, tree.tokens])
        tokens = tree.token_list()
        self._text.commit([tokens[node] for node in (0, *accepted_nodes)])

    def another(self, row_of: RowOf) -> Self:
        """See `Drafter.another`."""
        other = copy.copy(self)
        other.model = row_of(self.model)
        return other

    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """See `Drafter.annotate`: teacher-forced, in slices."""
        tokens = padded([text.tokens.tolist() for text in texts], self.model.device)  # [B, longest]
        said, first = [], 0
        for logits in self.logits_along(texts, logits_at_once(self.model, len(texts))):
            said.append(Said.of(logits, tokens[:, first : first + logits.shape[1]]))
            first += logits.shape[1]
        whole = Said(*(np.concatenate(parts, 1) for parts in zip(*said, strict=True)))
        return [whole.annotation(row, len(text.tokens)) for row, text in enumerate(texts)]

    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """See `Drafter.logits_along`."""
        return along(self.model, [text.prompt_ids for text in texts], [text.tokens for text in texts], at_once)

    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """See `Drafter.expand`."""
        return expand(self.model, texts, plan)

    def describe_trees(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Described]:
        """See `Drafter.describe_trees`."""
        return describe_trees(self.model, texts, plan)

    def score(
        self, texts: Sequence[RecordedText], trees: Sequence[GivenTrees], temperature: float, featured: bool = False
    ) -> Iterator[Described]:
        """See `Drafter.score`."""
        return score(self.model, texts, trees, temperature, featured)

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        assert self.files is not None
        return model_facts(self.model, self.files)

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        assert self.files is not None
        return describe_model(self.model, self.files, self.check)


class Said(NamedTuple):
    """What a drafter of tokens says of the tokens of several texts; see `Annotation`.

    Attributes:
        ranks: `[B, m]`.
        top_ids, top_probs: `[B, m, K]`.
        entropy: `[B, m]`.
    """

    ranks: np.ndarray
    top_ids: np.ndarray
    top_probs: np.ndarray
    entropy: np.ndarray

    @classmethod
    def of(cls, logits: torch.Tensor, tokens: torch.Tensor) -> Said:
        """`logits` `[B, m, vocab]` before each of `tokens` `[B, m]`."""
        top = rank_tokens(logits.flatten(0, -2), min(TOP_K, logits.shape[-1])).view(*tokens.shape, -1)
        log_probs = torch.log_softmax(logits, -1)
        top_probs = log_probs.gather(-1, top).exp()
        entropy = -log_probs.mul(log_probs.exp()).nansum(-1)  # 0 * -inf of an id that it does not have
        return cls(*(value.cpu().numpy() for value in (ranks_of(logits, tokens), top.int(), top_probs, entropy)))

    def annotation(self, row: int, count: int) -> Annotation:
        """Of one text of so many tokens."""
        ranks, top_ids, top_probs, entropy = (field[row, :count].copy() for field in self)
        ranks[0] = -1
        return Annotation(ranks, top_ids, top_probs, entropy)
