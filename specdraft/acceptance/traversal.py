"""Traversal verification: block verification on a tree, from the leaves to the root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from specdraft.acceptance.base import Arrays, DraftProbs, Replay
from specdraft.acceptance.block import stays
from specdraft.acceptance.judging import Judged, Judging, normalised, ratio, tour, tree_tokens
from specdraft.sampling.randomness import Draw
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch

TINY = 1e-15  # a probability that rounding leaves of nothing


@dataclass
class Traversal(Judging):
    """A path passes with `p_child = min(1, p_node rest(x) / draft(x))`; leaves are tried first.

    After everything below a child was rejected, and the child too, its parent has
    `s = sum max(p rest - draft, 0)`, `p = s / (s + 1 - p)` and `rest = max(p rest - draft, 0) / s`; then its
    next child is tried, or the parent itself. Weng et al. 2025 (Traversal verification for speculative
    tree decoding), algorithm 2, with children drawn independently. Equal to `Block` on a chain.

    A duplicate sibling is a trial like any other, with its own subtree.

    It can be replayed: whatever is drafted below a child, all of it is rejected with probability `1 - p_child`, so what
    its parent becomes depends on the child's place among its siblings alone (see `Followed`).
    """

    kind: str = "traversal"
    draw: ClassVar[Draw] = "iid"
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"weights": "node"}
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

    def follow(self, tree: Topology, texts: int, positions: int) -> Followed:
        """See `AcceptanceRule.follow`."""
        return Followed(tree, texts, positions)

    def weights(self, topology: Topology, record: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """See `AcceptanceRule.weights`."""
        return [record["weights"][:, :, node] for node in range(len(topology))]


class Followed:
    """P(the accepted path goes through a node | a step starts here), given the text from here on.

    A node is entered with `p`, and the mass `m_0 = p target` of what may follow it. Child i with token x is reached
    where the subtrees of those before it were rejected, and enters with `min(1, m_i(x) / draft(x))`; its subtree is
    rejected with probability `1 - a_i`, `a_i = sum min(draft, m_i)`, which leaves `m_{i+1} = max(m_i - draft, 0) /
    (1 - a_i)`. By induction over the tree this is algorithm 2 of Weng et al. (2025), whose `p rest` is `m_i`.

    Args:
        tree: children's ranks are the order of their drawing.
        texts, positions: B and S.
    """

    def __init__(self, tree: Topology, texts: int, positions: int) -> None:
        import torch

        self._tree = tree
        self._entering = torch.ones(texts, positions, len(tree), dtype=torch.float64)
        self._reached = torch.zeros_like(self._entering)  # over the target's probability of the tokens on the way
        self._reached[:, :, 0] = 1

    def take(self, first: int, target_probs: torch.Tensor, draft_probs: DraftProbs, tokens: torch.Tensor) -> None:
        """See `Follower.take`."""
        self._entering, self._reached = (kept.to(target_probs.device) for kept in (self._entering, self._reached))
        for node, children in enumerate(self._tree.children):
            ahead = int(self._tree.depths[node]) + 1  # from the root to the children
            starts = range(max(first - ahead, 0), first + tokens.shape[1] - ahead)
            if children and starts:
                here = slice(starts.start + ahead - first, starts.stop + ahead - first)
                part = (target_probs[:, here], draft_probs(ahead)[:, here], tokens[:, here, None])
                self._enter(node, children, slice(starts.start, starts.stop), *part)

    def _enter(
        self,
        node: int,
        children: Sequence[int],
        starts: slice,
        target_probs: torch.Tensor,
        draft_probs: torch.Tensor,
        tokens: torch.Tensor,
    ) -> None:
        """The children of a node, of some starts `[B, k]`."""
        import torch

        target, draft = (probs.gather(-1, tokens)[..., 0] for probs in (target_probs, draft_probs))
        drawn = torch.where(target > 0, draft / target, 0.0)  # a token that only rounding let through is never drawn
        mass, left = self._entering[:, starts, node, None] * target_probs, self._reached[:, starts, node]
        in_turn = sorted(children, key=lambda child: int(self._tree.ranks[child]))
        for child in in_turn:
            of_token = mass.gather(-1, tokens)[..., 0]
            self._entering[:, starts, child] = torch.where(draft > 0, of_token / draft, 1.0).clamp(max=1)
            self._reached[:, starts, child] = left * drawn
            if child == in_turn[-1]:
                return
            rest = (mass - draft_probs).clamp(min=0)
            rejected = 1 - mass.sum(-1) + rest.sum(-1)
            mass = torch.where(rejected[..., None] > TINY, rest / rejected[..., None], 0.0)
            left = left * rejected.clamp(min=0)

    def record(self) -> dict[str, torch.Tensor]:
        """See `Follower.record`."""
        return {"weights": self._entering * self._reached}
