"""What the target says of the nodes of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch


def target_probs_of(probs: torch.Tensor, topology: Topology, tokens: Sequence[int]) -> list[float | None]:
    """`[n + 1, vocab]` probabilities after each node -> each node's own after its parent; the root's is not known
    here."""
    node_probs: list[float] = probs[topology.parents[1:].tolist(), list(tokens[1:])].tolist()
    return [None, *node_probs]


def target_first(probs: torch.Tensor, topology: Topology, tokens: Sequence[int]) -> list[bool | None]:
    """Likewise, whether each node's token is the most probable one after its parent."""
    wanted, above = probs.argmax(-1).tolist(), topology.parents[1:].tolist()
    return [None, *(wanted[parent] == token for parent, token in zip(above, tokens[1:], strict=True))]
