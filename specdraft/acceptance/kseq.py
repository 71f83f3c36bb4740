"""SpecTr's k-seq: every child in turn against the same, scaled target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from specdraft.acceptance.base import Arrays, Replay
from specdraft.acceptance.judging import Judged, Judging, normalised, probability, ratio, relative, rounds
from specdraft.acceptance.weights import node_weights
from specdraft.models.sending import to_device
from specdraft.sampling.randomness import Draw, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch

BISECTIONS = 53  # as many as a float64 has bits


@dataclass
class KSeq(Judging):
    """Accept each of k children x with `min(1, target(x) / (rho draft(x)))`.

    With `beta = sum min(target / rho, draft)`, rho is the root in [1, k] of `1 - (1 - beta)^k = rho beta`,
    and the bonus token is drawn from `target - min(target / rho, draft) (1 - (1 - beta)^k) / beta`, which is
    never negative at or above the root. Sun et al. 2023 (SpecTr), section 5, algorithm 2.

    A duplicate sibling is a trial like any other: it is accepted with the same probability as its copy.
    """

    kind: str = "kseq"
    draw: ClassVar[Draw] = "iid"
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"ratio": "position", "rho": "child", "beta": "child"}

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`."""
        import torch

        children = to_device([[len(siblings)] for siblings in tree.topology.children], target_probs.device)
        counts = children.clamp(min=1)
        rho = solve(target_probs, draft_probs, counts)[0]
        common = torch.where(
            children > 0, torch.minimum(target_probs / rho, draft_probs), 0.0
        )  # P(a child is x and accepted)
        beta = common.sum(-1, keepdim=True)
        any_accepted = (_any_of(beta, counts) / beta).nan_to_num(0.0)
        accept = target_probs.new_ones(len(tree))
        scaled = rho * draft_probs
        for parents, nodes, tokens in rounds(tree, target_probs.device):
            accept[nodes] = ratio(target_probs[parents[:, None], tokens], scaled[parents[:, None], tokens])[:, 0]
        return Judged(accept, (target_probs - common * any_accepted).clamp(min=0))

    def record(
        self, target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, count: int, source: Source
    ) -> dict[str, torch.Tensor]:
        """See `AcceptanceRule.record`.

        `ratio` is draft over target probability of the recorded token, not clipped; `rho` and `beta` are those of nodes
        with 1 to K children.
        """
        import torch

        target, draft = normalised(target_probs), normalised(draft_probs)
        counts = torch.arange(1, count + 1, device=target.device).expand(len(target), count)
        rho, beta = solve(target, draft, counts)
        return {"ratio": relative(probability(draft, tokens), probability(target, tokens)), "rho": rho, "beta": beta}

    def weights(self, topology: Topology, record: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See `AcceptanceRule.weights`: child i of k is taken with `(1 - beta_k)^i min(1 / rho_k, ratio)`."""

        def taken(rank: int, count: int) -> np.ndarray:
            rho, beta = record["rho"][:, :, count - 1], record["beta"][:, :, count - 1]
            inverse = np.divide(1.0, rho, out=np.zeros_like(rho), where=rho > 0)
            chance: np.ndarray = (1 - beta) ** rank * np.minimum(inverse, record["ratio"])
            return chance

        return node_weights(topology, taken)


def solve(
    target_probs: torch.Tensor, draft_probs: torch.Tensor, counts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's `(rho, beta)`, `[m, c]`, for its numbers of children `counts` `[m, c]`; rho from above.

    With tokens sorted by `target / draft`, `beta` of any rho is two prefix sums.
    """
    import torch

    scale, order = (target_probs / draft_probs).nan_to_num(0.0).sort(-1)
    below = torch.nn.functional.pad(target_probs.gather(-1, order).cumsum(-1), (1, 0))
    above = torch.nn.functional.pad(draft_probs.gather(-1, order).flip(-1).cumsum(-1).flip(-1), (0, 1))

    def beta(rho: torch.Tensor) -> torch.Tensor:
        split = torch.searchsorted(scale, rho)
        return (below.gather(-1, split) / rho + above.gather(-1, split)).clamp(0, 1)

    low, high = torch.ones_like(counts, dtype=torch.float64), counts.double()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_low = _any_of(accepted := beta(middle), counts) > middle * accepted
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    return high, beta(high)


def _any_of(beta: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """`1 - (1 - beta)^k`, also for small beta."""
    import torch

    return -torch.expm1(counts * torch.log1p(-beta.clamp(max=1)))
