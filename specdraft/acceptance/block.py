"""Block verification: a chain is accepted by the joint probability of its tokens, longest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from specdraft.acceptance.base import Arrays, Replay, of_depth
from specdraft.acceptance.judging import Judged, Judging, normalised, probability, relative, tree_tokens
from specdraft.acceptance.weights import block_weights
from specdraft.sampling.randomness import Draw, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch


@dataclass
class Block(Judging):
    """With `p_i = min(1, p_{i-1} target(x_i) / draft(x_i))`, accept the longest i that passes its own coin flip.

    Its probability is `s_i / (s_i + 1 - p_i)` with `s_i = sum max(p_i target - draft, 0)`, and `p_i` for the
    whole chain; the bonus token comes from `max(p_i target - draft, 0)`. Sun et al. 2025 (Block
    verification accelerates speculative decoding), section 4, algorithm 2.
    """

    kind: str = "block"
    draw: ClassVar[Draw] = "iid"
    chain_only: ClassVar[bool] = True
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"ratio": "position"}
    leaves_first: ClassVar[bool] = True

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`. On a chain node i's parent is i - 1."""
        import torch

        tokens = tree_tokens(tree, target_probs.device)[1:]
        steps = probability(target_probs[:-1], tokens).log() - probability(draft_probs[:-1], tokens).log()
        joint = torch.nn.functional.pad(steps.cumsum(0), (1, 0))
        passing = (joint - joint.cummax(0).values).exp()  # [n + 1] p_i: the minimum at each step, undone at its last 1
        left = (passing[:-1, None] * target_probs[:-1] - draft_probs[:-1]).clamp(min=0)
        accept = stays(passing[:-1], left.sum(-1))
        return Judged(torch.cat([accept, passing[-1:]]), torch.cat([left, target_probs[-1:]]))

    def record(
        self, target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, count: int, source: Source
    ) -> dict[str, torch.Tensor]:
        """See `AcceptanceRule.record`: draft over target probability of each recorded token, not clipped."""
        target, draft = (probability(normalised(probs), tokens) for probs in (target_probs, draft_probs))
        return {"ratio": relative(draft, target)}

    def weights(self, topology: Topology, record: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See `AcceptanceRule.weights`."""
        return self.weights_by_depth(topology, [record])

    def weights_by_depth(self, topology: Topology, records: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        """See `AcceptanceRule.weights_by_depth`."""
        return block_weights(topology, lambda depth: of_depth(records, depth)["ratio"])


def stays(passing: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """`left / (left + 1 - passing)`: how probable a path stays after a continuation of it was rejected."""
    import torch

    return torch.where(passing < 1, left / (left + 1 - passing), 1.0)
