"""Medusa's typical acceptance: keep what is probable enough. Not lossless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from specdraft.acceptance.base import NO_SOURCE, AcceptanceRule, Accepted
from specdraft.acceptance.judging import tree_tokens
from specdraft.errors import ConfigError
from specdraft.models.sending import to_device
from specdraft.sampling.randomness import Source
from specdraft.trees.draft_tree import DraftTree

if TYPE_CHECKING:
    import torch


@dataclass
class Typical(AcceptanceRule):
    """A node passes iff `target(x) > min(epsilon, delta exp(-H(target)))`; the longest passing path is accepted.

    H is the entropy in nats; of equally long paths the most probable one is taken. The bonus token is drawn
    from the target. Cai et al. 2024 (Medusa), section 2.3.1. It changes the distribution of the text.

    Attributes:
        epsilon: a token at least this probable always passes.
        delta: scales the threshold where the target is uncertain.
    """

    kind: str = "typical"
    epsilon: float = 0.09
    delta: float = 0.3
    lossless: ClassVar[bool] = False

    def check(self) -> None:
        """Raise `ConfigError` for parameters out of range."""
        if not 0 < self.epsilon <= 1:
            raise ConfigError(f"acceptance.epsilon={self.epsilon} is out of range; expected more than 0 and at most 1")
        if not 0 < self.delta < float("inf"):
            raise ConfigError(f"acceptance.delta={self.delta} is out of range; expected a finite number above 0")

    def accept(
        self,
        tree: DraftTree,
        target_probs: torch.Tensor,
        draft_probs: torch.Tensor | None = None,
        source: Source = NO_SOURCE,
    ) -> Accepted:
        """See `AcceptanceRule.accept`. One transfer from the device."""
        import torch

        topology, device = tree.topology, target_probs.device
        tokens, parents = tree_tokens(tree, device), to_device(topology.parents[1:], device)
        depths = to_device(topology.depths, device)
        on_path = to_device(topology.ancestors[:, 1:], device)  # [n + 1, n]
        threshold = (self.delta * torch.exp(-torch.special.entr(target_probs).sum(-1))).clamp(max=self.epsilon)
        chance = target_probs[parents, tokens[1:]].double()
        passes = ((chance > threshold[parents]) | ~on_path).all(-1)
        length = torch.where(passes, depths, -1)
        score = torch.where(on_path, chance.log(), 0.0).sum(-1)
        best = torch.where(length == length.max(), score, -torch.inf).argmax(keepdim=True)
        bonus = source.choose(target_probs[best])
        *drafted, end, drawn = torch.cat([tokens, best, bonus]).tolist()
        tree.know(drafted)
        nodes = topology.path_to(end)
        return Accepted(nodes, [drafted[node] for node in nodes], drawn)
