"""A draft tree: a topology with tokens on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specdraft.errors import TreeError
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class DraftTree:
    """A topology with tokens on it.

    Attributes:
        tokens: `[n + 1]` token ids, the root's first: a list, an array or a tensor on the model's device.
        draft_probs: `[n + 1]` the drafter's probability of each node's token after its parent
            (softmax at temperature 1; the root's is 1), or None where it was not asked for.
        drawn_from: `[n + 1, vocab]` the standardised draft distribution that each node's children were
            drawn from (rows of leaves are 0), or None where they were chosen by rank.
    """

    topology: Topology
    tokens: Sequence[int] | np.ndarray | torch.Tensor
    draft_probs: Sequence[float] | np.ndarray | torch.Tensor | None = None
    drawn_from: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.topology):
            raise TreeError(f"{len(self.tokens)} tokens for {len(self.topology)} nodes")

    @classmethod
    def from_paths(cls, paths: Iterable[Sequence[int]], root: int, tokens: Sequence[int]) -> DraftTree:
        """Build from rank paths and their tokens `[n]` in the same order."""
        listed = [tuple(p) for p in paths]
        topology = Topology.from_paths(listed)
        if len(listed) != len(tokens):
            raise TreeError(f"{len(tokens)} tokens for {len(listed)} paths")
        token_of = dict(zip(listed, tokens, strict=True))
        return cls(topology, [root, *(token_of[path] for path in topology.paths[1:])])

    @classmethod
    def from_sequences(cls, root: int, sequences: Iterable[Sequence[int]]) -> DraftTree:
        """Merge candidate continuations of the root; shared prefixes become shared nodes.

        A new child's rank is its order of arrival below its parent.
        """
        parents, tokens = [-1], [root]
        child: dict[tuple[int, int], int] = {}
        for sequence in sequences:
            node = 0
            for token in sequence:
                if (node, token) not in child:
                    child[node, token] = len(parents)
                    parents.append(node)
                    tokens.append(token)
                node = child[node, token]
        return cls(Topology(parents), tokens)

    def __len__(self) -> int:
        return len(self.topology)

    @property
    def num_nodes(self) -> int:
        """Draft nodes; the root is not counted."""
        return self.topology.num_nodes

    @property
    def depth(self) -> int:
        return self.topology.depth

    def probability_list(self) -> list[float | None]:
        """`draft_probs` as plain numbers (from a GPU: one transfer); None where they were not asked for."""
        if self.draft_probs is None:
            return [1.0, *[None] * self.num_nodes]
        return [float(prob) for prob in _on_host(self.draft_probs)]

    def token_list(self) -> list[int]:
        """Tokens as plain integers (from a GPU: one transfer)."""
        return [int(token) for token in _on_host(self.tokens)]


def _on_host(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) else values.tolist()
