"""Naive membership: let the target draw, and look whether its token was drafted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from specdraft.acceptance.base import Arrays, Replay
from specdraft.acceptance.judging import Judged, Judging, normalised, probability, ratio, rounds
from specdraft.sampling.randomness import Draw, Source
from specdraft.trees.draft_tree import DraftTree

if TYPE_CHECKING:
    import torch


@dataclass
class Membership(Judging):
    """Draw X from the target; the first child that equals X is accepted, else X is the bonus token.

    SpecInfer's naive sampling (Miao et al. 2024, section 4.3), the baseline of its multi-step sampling.
    A duplicate sibling is a trial that cannot succeed: X is not the token of its first copy.
    """

    kind: str = "membership"
    draw: ClassVar[Draw] = "iid"
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"pi": "child"}

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`."""
        return judge_membership(tree, target_probs)

    def record(
        self, target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, count: int, source: Source
    ) -> dict[str, torch.Tensor]:
        """See `AcceptanceRule.record`: P(child i is the first with the recorded token), `(1 - draft(x))^i draft(x)`."""
        import torch

        drafted = probability(normalised(draft_probs), tokens)[:, None]
        return {"pi": (1 - drafted) ** torch.arange(count, device=drafted.device) * drafted}


def judge_membership(tree: DraftTree, target_probs: torch.Tensor) -> Judged:
    """Child x is accepted with the target's probability of x given that it is no earlier sibling's token."""
    accept, rest = target_probs.new_ones(len(tree)), target_probs.clone()
    for parents, children, tokens in rounds(tree, target_probs.device):
        here = rest[parents]
        accept[children] = ratio(here.gather(-1, tokens)[:, 0], here.sum(-1))
        rest[parents] = here.scatter(-1, tokens, 0.0)
    return Judged(accept, rest)
