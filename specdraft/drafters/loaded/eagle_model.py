"""An EAGLE head with its embeddings and output layer, and what it makes of drafted tokens.

Letters in shapes as in `models.eagle_head`; V ids of texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from specdraft.models.cached_model import CachedModel
from specdraft.models.eagle_head import EagleHead, KeyValues, Out, Seen

Embeddings = Callable[[torch.Tensor], torch.Tensor]  # `[...]` ids -> `[..., d]`
Rows = Callable[[torch.Tensor], torch.Tensor]  # `[..., d]` -> `[..., rows]` float32 logits


@dataclass(frozen=True)
class EagleModel:
    """What an EAGLE drafter runs.

    Attributes:
        head: its layers.
        embeddings: its own, or the target's.
        rows: of its output layer, likewise.
        ids: `[rows]` the ids that these stand for; None: their numbers.
        target: whose texts it drafts.
    """

    head: EagleHead
    embeddings: Embeddings
    rows: Rows
    ids: torch.Tensor | None
    target: CachedModel

    @property
    def proposed(self) -> int:
        """How many ids it may propose."""
        return self.target.vocab if self.ids is None else len(self.ids)

    def fuse(self, hidden: torch.Tensor) -> torch.Tensor:
        """The target's states `[n, L, w]` as features `[n, d]`."""
        weight = self.head.fc.weight
        return self.head.fuse(hidden.to(weight.device, weight.dtype))

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """`[...]` -> `[..., d]`."""
        weight = self.head.fc.weight
        return self.embeddings(ids).to(weight.device, weight.dtype)

    def read(self, ids: torch.Tensor, features: torch.Tensor, past: list[KeyValues] | None = None) -> Out:
        """Entries of one text: tokens `[e]`, each with the feature `[e, d]` of the token before it."""
        return self.head.read(self.embed(ids[None]), features[None], past)

    def logits(self, said: torch.Tensor) -> torch.Tensor:
        """`[..., d]` -> `[..., V]` float32; -inf of ids that it never proposes."""
        logits = self.rows(said)
        if self.ids is not None:
            whole = logits.new_full((*logits.shape[:-1], self.target.vocab), -torch.inf)
            logits = whole.index_copy(-1, self.ids, logits)
        return self.target.of_texts(logits)


class Drafted:
    """Tokens that are drafted below S starts of one text. They see the text's true entries up to their root and what
    was drafted above them; nothing of them outlasts the step.

    Slot 0 of a start is its root, which is a true entry; drafted tokens have the slots after it, in the order in which
    they were fed.

    Args:
        model: the head.
        past: the text's true entries, the roots' own among them.
        of_past: `[S, e]` bool which of them each start sees.
        roots: `[S, d]` what came out of the roots' entries, for the next depth.
        positions: `[S]` of the roots.
    """

    def __init__(
        self,
        model: EagleModel,
        past: list[KeyValues],
        of_past: torch.Tensor,
        roots: torch.Tensor,
        positions: torch.Tensor,
    ) -> None:
        self._model, self._past, self._of_past = model, past, of_past[None]
        self._positions, self._states = positions, roots[None, :, None]  # [1, S, slots, d]
        self._own = model.head.nothing_fed(1, len(roots), roots)

    @torch.inference_mode()
    def feed(self, tokens: torch.Tensor, parents: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Feed tokens of every start: `[S, m, d]` what the output layer reads after each.

        Args:
            tokens: `[S, m]` ids.
            parents: `[S, m]` the slots of their parents.
            seen: `[S, m, slots + m]` bool which slots each one sees, the root's and its own included.
        """
        rows = torch.arange(len(tokens), device=parents.device)[:, None]
        features = self._states[0, rows, parents]
        depth = seen[..., 1:].sum(-1)
        out = self._model.head.draft(
            self._model.embed(tokens)[None],
            features[None],
            (self._positions[:, None] + depth)[None],
            Seen(self._past, self._of_past, self._own, seen[None, ..., 1:]),
        )
        self._own = [before.then(new) for before, new in zip(self._own, out.kept, strict=True)]
        self._states = torch.cat([self._states, out.fed], 2)
        return out.said[0]
