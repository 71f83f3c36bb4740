"""Recursive rejection of children that were drawn without replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from specdraft.acceptance.base import Arrays, Replay
from specdraft.acceptance.judging import Judged, Judging, normalised, probability, ratio
from specdraft.acceptance.recursive import judge_in_turn
from specdraft.sampling.randomness import Draw, Source
from specdraft.trees.draft_tree import DraftTree

if TYPE_CHECKING:
    import torch


@dataclass
class NoReplacement(Judging):
    """As `Recursive`, but each rejected token is also taken out of the draft distribution, renormalised.

    Sequoia (Chen et al. 2024, section 3.2, algorithm 2); recursive speculative decoding with constant
    branching (Jeon et al. 2024, section 3, recursive rejection sampling).
    """

    kind: str = "no_replacement"
    draw: ClassVar[Draw] = "without_replacement"
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"pi": "child"}

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`."""
        return judge_in_turn(tree, target_probs, draft_probs, replace=False)

    def record(
        self, target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, count: int, source: Source
    ) -> dict[str, torch.Tensor]:
        """See `AcceptanceRule.record`; `pi` is an unbiased estimate.

        It follows one history per position in which every child was rejected: child c is drawn from
        `max(sum(m) draft - m, 0)`, the law of a child given that it was rejected. With K = 1 no draw is made.
        """
        import torch

        draft, mass = normalised(draft_probs), normalised(target_probs)
        left = [here := probability(mass, tokens)]
        for i in range(count):
            offered = mass.sum(-1, keepdim=True) * draft
            if i < count - 1:
                rejected = source.choose((offered - mass).clamp(min=0))
                draft = normalised(draft.scatter(-1, rejected[:, None], 0.0))
            mass = (mass - offered).clamp(min=0)
            left.append(probability(mass, tokens))
        return {"pi": ratio(-torch.stack(left, -1).diff(dim=-1), here[:, None])}
