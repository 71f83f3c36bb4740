"""Traversal verification: block verification on a tree, from the leaves to the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from specdraft.acceptance.base import Replay
from specdraft.acceptance.block import stays
from specdraft.acceptance.judging import Judged, Judging, normalised, ratio, tour, tree_tokens
from specdraft.sampling.randomness import Draw
from specdraft.trees.draft_tree import DraftTree

if TYPE_CHECKING:
    import torch


@dataclass
class Traversal(Judging):
    """A path passes with `p_child = min(1, p_node rest(x) / draft(x))`; leaves are tried first.

    After everything below a child was rejected, and the child too, its parent has
    `s = sum max(p rest - draft, 0)`, `p = s / (s + 1 - p)` and `rest = max(p rest - draft, 0) / s`; then its
    next child is tried, or the parent itself. Weng et al. 2025 (Traversal verification for speculative
    tree decoding), algorithm 2, with children drawn independently. Equal to `Block` on a chain.

    A duplicate sibling is a trial like any other, with its own subtree.
    """

    kind: str = "traversal"
    draw: ClassVar[Draw] = "iid"
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "none"
    leaves_first: ClassVar[bool] = True

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """See `Judging.judge`. One node after the other, without waiting for the device."""
        import torch

        tokens = tree_tokens(tree, target_probs.device)
        parents = tree.topology.parents.tolist()
        passing, rest = list(target_probs.new_ones(len(tree), 1)), list(target_probs)
        for node, entering in tour(tree.topology):
            above, token = parents[node], tokens[node : node + 1]
            if node and entering:
                passing[node] = ratio(
                    passing[above] * rest[above].gather(0, token), draft_probs[above].gather(0, token)
                )
            elif node:
                left = (passing[above] * rest[above] - draft_probs[above]).clamp(min=0)
                passing[above], rest[above] = stays(passing[above], left.sum()), normalised(left)
        return Judged(torch.cat(passing), torch.stack(rest))
