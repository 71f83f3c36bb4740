"""What replay multiplies, as a law: how probable each child of one node is accepted, given the recorded token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    rule: AcceptanceRule,
    topology: Topology,
    target: torch.Tensor,
    drafts: Sequence[torch.Tensor],
    tokens: torch.Tensor,
) -> list[float]:
    """P(node accepted | a step starts before this text) of each node, the distributions `[T, vocab]` those along it,
    the drafter's at depth 1, 2, ..., the last for all below."""
    if by_node(rule):
        follower = rule.follow(topology, 1, len(tokens) + 1)
        at = [draft[None].double() for draft in drafts]
        follower.take(1, target[None].double(), lambda depth: at[min(depth, len(at)) - 1], tokens[None])
        packed = [{name: values.numpy() for name, values in follower.record().items()}]
    else:
        most = max(map(len, topology.children))
        packed = [_packed(rule.record(target, draft, tokens, most, NO_SOURCE)) for draft in drafts]
    weights = rule.weights(topology, packed[0]) if len(packed) == 1 else rule.weights_by_depth(topology, packed)
    return [float(weight[0, 0]) for weight in weights]


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
