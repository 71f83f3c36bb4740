"""What most rules share: judge all nodes at once with array code, then walk the tree with coin flips.

A rule's `judge` says with which probability each node would be accepted if it were tried, and from
which distribution the bonus token would come if the step ended there. Both are known before the first
coin is flipped, because a node is tried only after everything tried before it was rejected.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from specdraft.acceptance.base import NO_SOURCE, AcceptanceRule, Accepted
from specdraft.errors import ConfigError
from specdraft.models.sending import to_device
from specdraft.sampling.randomness import Source
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

    def accept(
        self,
        tree: DraftTree,
        target_probs: torch.Tensor,
        draft_probs: torch.Tensor | None = None,
        source: Source = NO_SOURCE,
    ) -> Accepted:
        """See `AcceptanceRule.accept`. One transfer from the device to decide, one for the bonus token."""
        import torch

        if self.needs_draft_probs and draft_probs is None:
            raise ConfigError(f"acceptance={self.kind} needs the drafter's probabilities, and this drafter gives none")
        draft = (
            normalised(draft_probs) if self.needs_draft_probs and draft_probs is not None else target_probs.new_empty(0)
        )
        judged = self.judge(tree, normalised(target_probs), draft)
        accept, drafted = torch.stack([judged.accept, tree_tokens(tree, judged.accept.device).double()]).tolist()
        tree.know(drafted)
        nodes, tried = (walk_up if self.leaves_first else walk_down)(tree.topology, accept, source)
        last = nodes[-1] if nodes else 0
        bonus = source.choose(judged.residual[last : last + 1])
        return Accepted(nodes, [int(drafted[node]) for node in nodes], int(bonus), tried)


class Walk(NamedTuple):
    """The accepted nodes from the root downwards, and every coin flip that led there."""

    nodes: list[int]
    tried: list[Trial]


def walk_down(topology: Topology, accept: list[float], source: Source) -> Walk:
    """From the root, try the children of the accepted node in turn."""
    tried: list[Trial] = []
    node: int | None = 0
    while node is not None:
        node = _first_taken(topology.children[node], accept, source, tried)
    return Walk([trial.node for trial in tried if trial.taken], tried)


def walk_up(topology: Topology, accept: list[float], source: Source) -> Walk:
    """Try each node after everything below it and below its earlier siblings; the first one is accepted with its
    path."""
    tried: list[Trial] = []
    leaving = (node for node, entering in tour(topology) if node and not entering)
    return Walk(topology.path_to(_first_taken(leaving, accept, source, tried) or 0), tried)


def _first_taken(nodes: Iterable[int], accept: list[float], source: Source, tried: list[Trial]) -> int | None:
    """Flip a coin for each node until one is taken; the flips are added to `tried`."""
    for node in nodes:
        tried.append(Trial(node, accept[node], source.flip(accept[node])))
        if tried[-1].taken:
            return node
    return None


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
