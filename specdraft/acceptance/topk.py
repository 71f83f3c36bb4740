"""Deterministic children: the drafter's best by rank, so that the draft is a point mass on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from specdraft.acceptance.base import Replay
from specdraft.acceptance.judging import Judged, Judging
from specdraft.acceptance.membership import judge_membership
from specdraft.trees.draft_tree import DraftTree

if TYPE_CHECKING:
    import torch


@dataclass
class TopK(Judging):
    """Draw X from the target; the child that equals X is accepted, else X is the bonus token.

    Recursive rejection (Miao et al. 2024, section 4.3) in which child i was "drawn" from the point mass
    on its own token. The children may be chosen in any way that does not look at the target's draw, so
    dynamic shapes are lossless with this rule at every temperature.
    """

    kind: str = "topk"
    replay: ClassVar[Replay] = "rank"

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`."""
        return judge_membership(tree, target_probs)
