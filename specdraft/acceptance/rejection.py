"""Token-wise rejection on a chain: speculative sampling as it was invented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from specdraft.acceptance.base import Arrays, Replay
from specdraft.acceptance.judging import Judged, Judging, probability, ratio, tree_tokens
from specdraft.acceptance.weights import node_weights
from specdraft.sampling.randomness import Draw, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch


@dataclass
class Rejection(Judging):
    """Accept token x with `min(1, target(x) / draft(x))`; after a rejection draw from `norm(max(target - draft, 0))`.

    Leviathan et al. 2023, section 2.3 and algorithm 1; Chen et al. 2023, algorithm 2.
    """

    kind: str = "rejection"
    draw: ClassVar[Draw] = "iid"
    chain_only: ClassVar[bool] = True
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"pi": "position"}

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`. On a chain node i's parent is i - 1."""
        import torch

        tokens = tree_tokens(tree, target_probs.device)[1:]
        target, draft = target_probs[:-1], draft_probs[:-1]
        accept = ratio(probability(target, tokens), probability(draft, tokens))
        residual = torch.cat([(target - draft).clamp(min=0), target_probs[-1:]])
        return Judged(torch.cat([accept.new_ones(1), accept]), residual)

    def record(
        self, target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, count: int, source: Source
    ) -> dict[str, torch.Tensor]:
        """See `AcceptanceRule.record`: P(the only child is accepted | the recorded token), `min(1, draft / target)`."""
        return {"pi": ratio(probability(draft_probs.double(), tokens), probability(target_probs.double(), tokens))}

    def weights(self, topology: Topology, record: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See `AcceptanceRule.weights`."""
        return node_weights(topology, lambda rank, count: record["pi"])
