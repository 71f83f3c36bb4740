"""A drafter that reads true features of what is committed and drifts below it: see `models.eagle_head`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from specdraft.drafters.base import (
    BY_RANK,
    Drawing,
    Expansion,
    GivenTrees,
    Prefilled,
    RecordedText,
)
from specdraft.drafters.grams import GrowingText
from specdraft.drafters.loaded.by_offset import Known, OffsetDrafter
from specdraft.drafters.loaded.eagle_along import along, grown, scored
from specdraft.drafters.loaded.eagle_model import Drafted, EagleModel
from specdraft.drafters.loaded.tree_in_work import PreparedTopology, TreeInWork
from specdraft.errors import TreeError
from specdraft.models.batch import logits_at_once
from specdraft.models.eagle_head import KeyValues
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan


class EagleDrafter(OffsetDrafter):
    """An EAGLE head with the true entries of the committed text.

    A step reads the entries that the last one made known, the root's at the end, and drafts below it. What was read
    is kept once the step is committed; what was drafted never is: accepted tokens are read anew, with the target's
    features.

    Args:
        model: the head.
        known: what it is.
    """

    def __init__(self, model: EagleModel, known: Known) -> None:
        super().__init__(model.target, known)
        self._model = model
        self._prepared: PreparedTopology | None = None
        self._forget()

    def _forget(self) -> None:
        like = self._model.head.fc.weight
        self._past: list[KeyValues] = [
            KeyValues(*(part[0] for part in layer)) for layer in self._model.head.nothing_fed(1, 1, like)
        ]  # the true entries that were read
        self._read: list[KeyValues] = self._past  # those of the step in work
        self._tokens = torch.empty(0, dtype=torch.long, device=like.device)  # committed, and not read yet
        self._features = like.new_empty(0, self._model.head.shape.width)  # of the tokens before these, and of the last
        self._after_prompt = self._past, self._features

    @torch.inference_mode()
    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`: the prompt's entries; the last token's feature waits for the first root."""
        self._forget()
        if not prompt.token_ids:
            return
        assert prompt.hidden is not None
        features = self._model.fuse(prompt.hidden)
        ids = torch.tensor(list(prompt.token_ids[1:]), dtype=torch.long, device=features.device)
        if len(ids):
            self._past = self._model.read(ids, features[:-1]).kept
        self._features = features[-1:]
        self._after_prompt = self._past, self._features

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        self._past, self._features = self._after_prompt
        self._tokens = self._tokens[:0]

    @torch.inference_mode()
    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`: one forward for the entries that are new, and one for each further level."""
        model = self._model
        if plan.topology is not None and (most := int(plan.topology.ranks.max(initial=0))) >= model.proposed:
            raise TreeError(f"the tree has child rank {most}, and the head proposes {model.proposed} tokens only")
        tokens = torch.cat([self._tokens, self._tokens.new_tensor([root])])
        out = model.read(tokens, self._features, self._past)
        self._read = out.kept
        whole = [past.then(new) for past, new in zip(self._past, out.kept, strict=True)]
        said = model.logits(out.said[0, -1:])
        work = TreeOfEagle(model, whole, out.fed[0, -1:], root, drawing, self._prepared, said)
        tree = plan.expand(work)
        self._prepared = work.prepared
        return tree

    @torch.inference_mode()
    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`: the next step reads the accepted tokens with true features."""
        assert hidden is not None and isinstance(tree.tokens, torch.Tensor)
        self._past = [past.then(new) for past, new in zip(self._past, self._read, strict=True)]
        self._tokens = tree.tokens[list(accepted_nodes)]
        self._features = self._model.fuse(hidden)

    def _said_along(self, text: RecordedText) -> Iterator[tuple[int, int, torch.Tensor]]:
        """See `OffsetDrafter._said_along`."""
        at_once = logits_at_once(self._target, 1)
        for first, offset, said in along(self._model, text, self._deepest):
            for begin in range(0, len(said), at_once):
                yield first + begin, offset, self._model.logits(said[begin : begin + at_once])

    @torch.inference_mode()
    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """See `Drafter.logits_along`: the first offset's."""
        target, longest = self._model.target, max(len(text.tokens) for text in texts)
        said = torch.nn.utils.rnn.pad_sequence([self._read_along(text) for text in texts], batch_first=True)
        yield torch.zeros(len(texts), 1, target.width, device=target.device)
        for first in range(0, longest - 1, at_once):
            yield self._model.logits(said[:, first : first + at_once])

    def _read_along(self, text: RecordedText) -> torch.Tensor:
        """`[T, d]` what the output layer reads at each start."""
        parts = [said for _, _, said in along(self._model, text, 1)]
        return torch.cat([self._features.new_empty(0, self._model.head.shape.width), *parts])

    @torch.inference_mode()
    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """See `Drafter.expand`: every start with drafted states of its own."""
        for text in texts:
            yield grown(self._model, text, plan)

    def _scored(self, text: RecordedText, trees: GivenTrees, temperature: float) -> Expansion:
        return scored(self._model, text, trees, temperature)


def below_one(model: EagleModel, past: list[KeyValues], root: torch.Tensor) -> Drafted:
    """Nothing yet below one start, whose root `[1, d]` is the last of these entries."""
    entries = past[0].keys.shape[1]
    of_past = torch.ones(1, entries, dtype=torch.bool, device=root.device)
    return Drafted(model, past, of_past, root, torch.tensor([entries - 1], device=root.device))


class TreeOfEagle(TreeInWork):
    """See `TreeInWork`: what is fed are drafted tokens with the states of their parents.

    Args:
        model: the head.
        past: the true entries, the root's the last of them.
        state: `[1, d]` what came out of the root's.
        root, drawing, prepared: see `TreeInWork`.
        said: `[1, vocab]` logits after the root.
    """

    def __init__(
        self,
        model: EagleModel,
        past: list[KeyValues],
        state: torch.Tensor,
        root: int,
        drawing: Drawing,
        prepared: PreparedTopology | None,
        said: torch.Tensor,
    ) -> None:
        nothing = torch.empty(0, dtype=torch.long, device=model.target.device)
        super().__init__(model.target, nothing, root, drawing, GrowingText().until(root), prepared)  # no predictor asks
        self._eagle, self._said, self._drafted = model, said, below_one(model, past, state)

    @property
    def vocab(self) -> int:
        """See `shapes.DraftView.vocab`: ids that are never proposed are no choice."""
        return self._eagle.proposed

    def _feed_root(self) -> torch.Tensor:
        return self._said

    def _append(self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        seen = tail == 0
        before = torch.arange(1, 1 + tail.shape[1] - len(tokens), device=tail.device)
        parents = (seen[:, : len(before)] * before).argmax(1)  # the last one that was fed of those that it sees
        return self._eagle.logits(self._drafted.feed(tokens[None], parents[None], seen[None])[0])
