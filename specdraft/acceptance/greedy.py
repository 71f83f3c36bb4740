"""Keep the draft tokens that the target would have chosen itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from specdraft.acceptance.base import NO_SOURCE, AcceptanceRule, Accepted, Replay
from specdraft.sampling.randomness import Source
from specdraft.trees.draft_tree import DraftTree

if TYPE_CHECKING:
    import torch


@dataclass
class Greedy(AcceptanceRule):
    """A node is accepted iff its token is the target's most probable one after an accepted parent.

    Stern et al. 2018 (blockwise parallel decoding, section 3), on a tree as SpecInfer's greedy
    verification (Miao et al. 2024, algorithm 2).
    """

    kind: str = "greedy"
    greedy_only: ClassVar[bool] = True
    only_best: ClassVar[bool] = True
    replay: ClassVar[Replay] = "rank"

    def accept(
        self,
        tree: DraftTree,
        target_probs: torch.Tensor,
        draft_probs: torch.Tensor | None = None,
        source: Source = NO_SOURCE,
    ) -> Accepted:
        """See `AcceptanceRule.accept`. One transfer from the device; siblings must differ in their tokens."""
        import torch

        best = target_probs.argmax(-1)
        chosen, tokens = torch.stack([best, torch.as_tensor(tree.tokens, device=best.device)]).tolist()
        tree.know(tokens)
        nodes: list[int] = []
        node: int | None = 0
        while node is not None:
            last, wanted = node, chosen[node]
            node = next((child for child in tree.topology.children[node] if tokens[child] == wanted), None)
            nodes += [] if node is None else [node]
        return Accepted(nodes, [tokens[n] for n in nodes], chosen[last])
