"""Recursive rejection: children in turn, each judged against what the earlier ones left over."""

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
class Recursive(Judging):
    """Accept child x with `min(1, rest(x) / draft(x))`; else `rest = norm(max(rest - draft, 0))` and the next child.

    `rest` starts as the target's distribution; the bonus token is drawn from what is left. SpecInfer's
    multi-step speculative sampling (Miao et al. 2024, section 4.3, algorithm 2).

    A duplicate sibling is a trial like any other. Its first copy was rejected, so less of the target than
    of the draft was left on that token and now nothing is: the duplicate is accepted with probability 0.
    """

    kind: str = "recursive"
    draw: ClassVar[Draw] = "iid"
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"pi": "child"}

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`."""
        return judge_in_turn(tree, target_probs, draft_probs, replace=True)

    def record(
        self, target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, count: int, source: Source
    ) -> dict[str, torch.Tensor]:
        """See `AcceptanceRule.record`.

        With `m_0` the target and `m_{i+1} = max(m_i - sum(m_i) draft, 0)`, `pi` is `(m_i(x) - m_{i+1}(x)) / target(x)`.
        """
        import torch

        draft, mass = normalised(draft_probs), normalised(target_probs)
        left = [here := probability(mass, tokens)]
        for _ in range(count):
            mass = (mass - mass.sum(-1, keepdim=True) * draft).clamp(min=0)
            left.append(probability(mass, tokens))
        return {"pi": ratio(-torch.stack(left, -1).diff(dim=-1), here[:, None])}


def judge_in_turn(tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor, *, replace: bool) -> Judged:
    """Judge children against the rest; without `replace`, each rejected token leaves the draft's support."""
    accept, rest, draft = target_probs.new_ones(len(tree)), target_probs.clone(), draft_probs.clone()
    for parents, children, tokens in rounds(tree, target_probs.device):
        here, drafted = rest[parents], draft[parents]
        accept[children] = ratio(here.gather(-1, tokens), drafted.gather(-1, tokens))[:, 0]
        rest[parents] = normalised((here - drafted).clamp(min=0))
        if not replace:
            draft[parents] = normalised(drafted.scatter(-1, tokens, 0.0))
    return Judged(accept, rest)
