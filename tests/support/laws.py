"""What replay multiplies, as a law: how probable each child of one node is accepted, given the recorded token."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import NO_SOURCE
from specdraft.traces.rule_records import by_node
from specdraft.trees.topology import Topology


def law_of_record(rule: AcceptanceRule, record: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
    """`[T, count]` for the children of a node with `count` of them, by the weights that the rule gives them."""
    weights = rule.weights(Topology([-1] + [0] * count), _packed(record))
    return torch.from_numpy(np.stack([weight[0, :-1] for weight in weights[1:]], -1))


def weights_of_text(
    rule: AcceptanceRule, topology: Topology, target: torch.Tensor, draft: torch.Tensor, tokens: torch.Tensor
) -> list[float]:
    """P(node accepted | a step starts before this text) of each node, the distributions `[T, vocab]` those along it."""
    if by_node(rule):
        follower = rule.follow(topology, 1, len(tokens) + 1)
        follower.take(1, target[None].double(), draft[None].double(), tokens[None])
        packed = {name: values.numpy() for name, values in follower.record().items()}
    else:
        packed = _packed(rule.record(target, draft, tokens, max(map(len, topology.children)), NO_SOURCE))
    return [float(weight[0, 0]) for weight in rule.weights(topology, packed)]


def _packed(record: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """One text's, with the prefill's position in front."""
    return {
        name: np.concatenate([np.zeros_like(values[:1]), values])[None]
        for name, values in ((name, values.numpy()) for name, values in record.items())
    }


def law_by_rank(scores: torch.Tensor, tokens: torch.Tensor, count: int) -> torch.Tensor:
    """`[T, count]` 1 at the recorded token's rank, else 0: of a rule that replays by rank.

    `scores` `[T, vocab]` order the tokens as the drafter's raw logits do; the standardised distribution does not (ties
    go to the lower token id).
    """
    given = scores.gather(-1, tokens[:, None])
    earlier = torch.arange(scores.shape[-1]) < tokens[:, None]
    rank = ((scores > given) | ((scores == given) & earlier)).sum(-1, keepdim=True)
    return (rank == torch.arange(count)).double()
