"""What one verification step was: plain data that the decoder yields and every metric is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from specdraft.trees.draft_tree import DraftTree

if TYPE_CHECKING:
    import torch


class Trial(NamedTuple):
    """A coin flip that decided a node.

    Attributes:
        node: of the tree.
        chance: the probability that it is accepted, given that it is tried.
        taken: what the flip said.
    """

    node: int
    chance: float
    taken: bool


@dataclass(frozen=True)
class Step:
    """One verification step, after the end of the text was applied.

    Attributes:
        tree: the tree that was sent to the target.
        accepted: the accepted draft nodes that were also emitted.
        tokens: everything emitted: the accepted tokens, then the bonus token if there is one.
        cut: the step met the end (an end-of-sequence token or the length limit) on an accepted
            token, so it has no bonus token.
        draft_s, verify_s, other_s: seconds spent drafting, in the target's forward, and on the rest; `predict_s`:
            scoring and pruning.
        tried: every coin flip in the order in which it was made, whatever the end of the text then left out.
        pruned: drafted nodes that were left out of the tree.
        whole: the tree before nodes were left out, where any were.
        logits: `[n + 1, vocab]` the target's after each node, where a step is watched.
    """

    tree: DraftTree
    accepted: list[int]
    tokens: list[int]
    cut: bool
    draft_s: float = 0.0
    verify_s: float = 0.0
    other_s: float = 0.0
    tried: Sequence[Trial] = ()
    logits: torch.Tensor | None = field(default=None, repr=False)
    pruned: int = 0
    predict_s: float = 0.0
    whole: DraftTree | None = None

    @property
    def accepted_tokens(self) -> int:
        return len(self.accepted)

    @property
    def bonus_tokens(self) -> int:
        return len(self.tokens) - len(self.accepted)
