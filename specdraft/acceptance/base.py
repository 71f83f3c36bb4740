"""What an acceptance rule is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from specdraft.draft_tree import DraftTree
from specdraft.records import Accepted

if TYPE_CHECKING:
    import torch


class AcceptanceRule(Protocol):
    """A pure function on probabilities; `lossless` says whether the target's distribution is kept."""

    kind: str
    lossless: ClassVar[bool]

    def accept(self, tree: DraftTree, target_probs: torch.Tensor) -> Accepted:
        """Decide one step.

        Args:
            tree: the tree that was verified, its tokens on the device of `target_probs`.
            target_probs: `[n + 1, vocab]` the target's standardised distribution after each node,
                row 0 after the root.
        """
