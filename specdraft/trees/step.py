"""What one verification step was: plain data that the decoder yields and every metric is computed from."""

from __future__ import annotations

from dataclasses import dataclass

from specdraft.trees.draft_tree import DraftTree


@dataclass(frozen=True)
class Step:
    """One verification step, after the end of the text was applied.

    Attributes:
        tree: the tree that was sent to the target.
        accepted: the accepted draft nodes that were also emitted.
        tokens: everything emitted: the accepted tokens, then the bonus token if there is one.
        cut: the step met the end (an end-of-sequence token or the length limit) on an accepted
            token, so it has no bonus token.
        draft_s, verify_s, other_s: seconds spent drafting, in the target's forward, and on the rest.
    """

    tree: DraftTree
    accepted: list[int]
    tokens: list[int]
    cut: bool
    draft_s: float = 0.0
    verify_s: float = 0.0
    other_s: float = 0.0

    @property
    def accepted_tokens(self) -> int:
        return len(self.accepted)

    @property
    def bonus_tokens(self) -> int:
        return len(self.tokens) - len(self.accepted)
