"""What most rules share: judge all nodes at once with array code, then walk the tree with coin flips.

A rule's `judge` says with which probability each node would be accepted if it were tried, and from
which distribution the bonus token would come if the step ended there. Both are known before the first
coin is flipped, because a node is tried only after everything tried before it was rejected. So every node
gets a coin, the device finds where the walk ends and draws the bonus token there, and all of it is
transferred at once; the host then walks with the coins that it got.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from specdraft.acceptance.base import NO_SOURCE, AcceptanceRule, Accepted
from specdraft.errors import ConfigError
from specdraft.models.sending import to_device
from specdraft.sampling.randomness import Flip, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.step import Trial
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch


class Judged(NamedTuple):
    """One step, judged before any randomness.

    Attributes:
        accept: `[n + 1]` P(node accepted | it is tried); the root's is 1.
        residual: `[n + 1, vocab]` unnormalised distribution of the bonus token if the step ends at
            this node: none of its children, if it has any, was accepted.
    """

    accept: torch.Tensor
    residual: torch.Tensor


class Judging(AcceptanceRule):
    """A rule that judges all nodes at once.

    Attributes:
        leaves_first: try the deepest nodes first and accept a node with its whole path. Otherwise the
            rule is node-wise: from the root, the children of an accepted node are tried in turn.
    """

    leaves_first: ClassVar[bool] = False

    @abstractmethod
    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        """Judge all nodes without waiting for the device.

        Args:
            tree: the tree.
            target_probs: `[n + 1, vocab]` float64.
            draft_probs: `[n + 1, vocab]` float64; empty for a rule that does not need them.
        """

    def judge_any(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor | None) -> Judged:
        """`judge` of weights that are not normalised, in any floating type. Raises `ConfigError` where it needs the
        drafter's, and there are none."""
        if not self.needs_draft_probs:
            return self.judge(tree, normalised(target_probs), target_probs.new_empty(0))
        if draft_probs is None:
            raise ConfigError(f"acceptance={self.kind} needs the drafter's probabilities, and this drafter gives none")
        return self.judge(tree, normalised(target_probs), normalised(draft_probs))

    def accept(
        self,
        tree: DraftTree,
        target_probs: torch.Tensor,
        draft_probs: torch.Tensor | None = None,
        source: Source = NO_SOURCE,
    ) -> Accepted:
        """See `AcceptanceRule.accept`. One transfer from the device."""
        import torch

        judged = self.judge_any(tree, target_probs, draft_probs)
        walk, end = (walk_up, end_upwards) if self.leaves_first else (walk_down, end_downwards)
        coins = source.flips(judged.accept, lambda flip: walk(tree.topology, flip))
        bonus = source.choose(judged.residual[end(tree.topology, coins)])
        of_nodes = torch.cat([judged.accept, coins.double(), tree_tokens(tree, coins.device).double()])
        *numbers, drawn = torch.cat([of_nodes, bonus.double()]).tolist()
        chances, taken, drafted = (numbers[first : first + len(tree)] for first in range(0, len(numbers), len(tree)))
        tree.know(drafted)
        nodes, tried = walk(tree.topology, lambda node: taken[node] > 0)
        trials = [Trial(node, chances[node], taken[node] > 0) for node in tried]
        return Accepted(nodes, [int(drafted[node]) for node in nodes], int(drawn), trials)


class Walk(NamedTuple):
    """The accepted nodes from the root downwards, and every node that was tried, in this order."""

    nodes: list[int]
    tried: list[int]


def walk_down(topology: Topology, flip: Flip) -> Walk:
    """From the root, try the children of the accepted node in turn."""
    nodes, tried = list[int](), list[int]()
    while (node := _first_taken(topology.children[nodes[-1] if nodes else 0], flip, tried)) is not None:
        nodes.append(node)
    return Walk(nodes, tried)


def walk_up(topology: Topology, flip: Flip) -> Walk:
    """Try each node after everything below it and below its earlier siblings; the first one is accepted with its
    path."""
    tried = list[int]()
    return Walk(topology.path_to(_first_taken(leaving(topology), flip, tried) or 0), tried)


def _first_taken(nodes: Iterable[int], flip: Flip, tried: list[int]) -> int | None:
    """Flip coins until one says yes; whose they were is added to `tried`."""
    for node in nodes:
        tried.append(node)
        if flip(node):
            return node
    return None


def end_downwards(topology: Topology, taken: torch.Tensor) -> torch.Tensor:
    """`[1]` the last node that `walk_down` accepts, or the root, where every node's coin is known: `[n + 1]` bool."""
    stops_at = to_device(_stops_at(topology), taken.device)
    accepted = (stops_at != taken.byte()).all(-1)
    return len(taken) - 1 - accepted.byte().argmax(-1, keepdim=True)  # the first of those that are greatest


def end_upwards(topology: Topology, taken: torch.Tensor) -> torch.Tensor:
    """As `end_downwards`, of `walk_up`."""
    order = to_device([*leaving(topology), 0], taken.device)
    said = taken[order]
    said[-1] = True
    return order[said.byte().argmax(-1, keepdim=True)]


def _stops_at(topology: Topology) -> np.ndarray:
    """`[n + 1, n + 1]` uint8: what coin j would say for the walk down not to come by node n - i: 0 of the node itself
    and of what is above it, 1 of what is tried before any of these, 2 of the others, whatever theirs says."""
    on_path = topology.ancestors[::-1, 1:]
    stops = np.full((len(topology), len(topology)), 2, dtype=np.uint8)
    stops[:, 1:][topology.tried_before[::-1, 1:]] = 1
    stops[:, 1:][on_path] = 0
    return stops


def leaving(topology: Topology) -> Iterator[int]:
    """Draft nodes in the order in which a `tour` leaves them."""
    return (node for node, entering in tour(topology) if node and not entering)


def tour(topology: Topology) -> Iterator[tuple[int, bool]]:
    """Depth first, children by rank: each node with True on entering it, with False on leaving it."""
    stack = [(0, True)]
    while stack:
        node, entering = stack.pop()
        yield node, entering
        if entering:
            stack += [(node, False), *((child, True) for child in reversed(topology.children[node]))]


class Round(NamedTuple):
    """The j-th child of every node that has one."""

    parents: torch.Tensor  # [m]
    children: torch.Tensor  # [m]
    tokens: torch.Tensor  # [m, 1] the children's


def rounds(tree: DraftTree, device: torch.device) -> Iterator[Round]:
    """First children, second children, ..."""
    import torch

    tokens = tree_tokens(tree, device)
    children = list(enumerate(tree.topology.children))
    trials = [
        [(node, siblings[j]) for node, siblings in children if len(siblings) > j]
        for j in range(max(len(siblings) for _, siblings in children))
    ]
    pairs = to_device([pair for trial in trials for pair in trial], device)
    for trial in torch.split(pairs, [len(trial) for trial in trials]) if trials else ():
        yield Round(trial[:, 0], trial[:, 1], tokens[trial[:, 1:]])


def tree_tokens(tree: DraftTree, device: torch.device) -> torch.Tensor:
    """`[n + 1]` token ids on `device`."""
    return to_device(tree.tokens, device)


def normalised(weights: torch.Tensor) -> torch.Tensor:
    """`[..., vocab]` non-negative weights -> float64 probabilities; a row without weight stays zero."""
    import torch

    weights = weights.double()
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """`above / below`, at most 1; 0 where both are 0."""
    return (above / below).nan_to_num(0.0).clamp(max=1)


def relative(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`draft / target`, not clipped; at most 1 where the target is 0: rounding at an edge of top-p let such a token
    through."""
    import torch

    return torch.where(target > 0, draft / target, (draft > 0).double())


def probability(probs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Each row's probability of its token: `[T, vocab]` float64 and `[T]` ids -> `[T]`."""
    return probs.gather(-1, tokens[:, None])[:, 0]
