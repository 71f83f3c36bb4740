"""Lookahead decoding (Fu et al. 2024): a Jacobi window beside the tree fills a pool of n-grams, which guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from specdraft.drafters.base import (
    BY_RANK,
    Annotation,
    DrafterSpec,
    DrafterTraits,
    Drawing,
    Prefilled,
    RecordedText,
    Target,
)
from specdraft.drafters.jacobi import NgramPool, Window
from specdraft.drafters.rank_only import RankOnlyDrafter
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch


@dataclass
class Lookahead(DrafterSpec):
    """Guess what followed the root in the n-grams that the target made beside the text.

    A window of `window` columns and `level - 1` rows goes through the target with every tree:
    `(level - 1) * window - 1` tokens more (others in the first `level - 2` steps, in which it fills), which the column
    `overhead_tokens` counts. Each step gives an n-gram a column. Those that begin with the root are the guesses, the
    newest first; `tree=beam tree.width=guesses` verifies all of them, `tree=chain` one. Defaults: the paper's for
    models of 7B.

    Attributes:
        window: columns, W.
        level: tokens of an n-gram, N, its first one included; a guess has one less.
        guesses: n-grams that are kept for each first token, G.
    """

    kind: str = "lookahead"
    window: int = 15
    level: int = 5
    guesses: int = 15

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return DrafterTraits(
            probabilities=False,
            draws=False,
            deepest=self.level - 1,
            owns_weights=False,
            lasting_state=True,
            guesses=self.guesses,
            reach=self.window + self.level - 3,
        )

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        for name, least in (("window", 1), ("level", 3), ("guesses", 1)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"drafter.{name}={value} is out of range; expected {least} or more")

    def load(self, weights: ModelFiles | None, target: Target) -> LookaheadDrafter:
        """See `DrafterSpec.load`: there is nothing to load."""
        return LookaheadDrafter(self)

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        return {"drafter": self.as_dict()}


class LookaheadDrafter(RankOnlyDrafter):
    """See `Lookahead`."""

    def __init__(self, spec: Lookahead) -> None:
        super().__init__(spec)
        self._sizes, self._most = (spec.window, spec.level), spec.guesses
        self.begin(Prefilled([]))

    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`."""
        self._prompt_ids = list(prompt.token_ids)
        self.rewind()

    def rewind(self) -> None:
        """See `Drafter.rewind`: what steps made is forgotten."""
        self._window, self._pool = Window(*self._sizes, self._prompt_ids), NgramPool(self._most)

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`: a guess for each of the plan's sequences, as long as it; the window beside them."""
        if plan.topology is None:
            self._refuse()
        guesses = zip(self._pool.after(root), _lengths(plan.topology), strict=False)
        tree = DraftTree.from_sequences(root, [guess[:length] for guess, length in guesses])
        return replace(tree, beside=self._window.beside(root))

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`: what is accepted changes nothing here."""

    def read_beside(self, logits: torch.Tensor) -> None:
        """See `ReadsBeside`: the window moves on by one place, whatever was accepted."""
        self._pool.file(self._window.move(logits.argmax(-1).cpu().numpy()).tolist())

    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """See `Drafter.annotate`: what it says depends on where steps started."""
        raise ConfigError(f"drafter={self._spec.kind} says nothing along a recorded text: its window moves with steps")

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        return {"drafter": self._spec.as_dict()}


def _lengths(topology: Topology) -> list[int]:
    """Nodes of each sequence below the root, by rank."""
    first = topology.children[0]
    below = topology.ancestors[:, first].sum(0)
    return [int(count) for count in below]
