"""What replay multiplies, as a law: how probable each child of one node is accepted, given the recorded token."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from specdraft.acceptance import AcceptanceRule
from specdraft.trees.topology import Topology


def law_of_record(rule: AcceptanceRule, record: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
    """`[T, count]` for the children of a node with `count` of them, by the weights that the rule gives them."""
    packed = {name: np.concatenate([np.zeros_like(values[:1]), values])[None] for name, values in _numpy(record)}
    weights = rule.weights(Topology([-1] + [0] * count), packed)
    return torch.from_numpy(np.stack([weight[0, :-1] for weight in weights[1:]], -1))


def _numpy(record: Mapping[str, torch.Tensor]) -> list[tuple[str, np.ndarray]]:
    return [(name, values.numpy()) for name, values in record.items()]


def law_by_rank(scores: torch.Tensor, tokens: torch.Tensor, count: int) -> torch.Tensor:
    """`[T, count]` 1 at the recorded token's rank, else 0: of a rule that replays by rank.

    `scores` `[T, vocab]` order the tokens as the drafter's raw logits do; the standardised distribution does not (ties
    go to the lower token id).
    """
    given = scores.gather(-1, tokens[:, None])
    earlier = torch.arange(scores.shape[-1]) < tokens[:, None]
    rank = ((scores > given) | ((scores == given) & earlier)).sum(-1, keepdim=True)
    return (rank == torch.arange(count)).double()
