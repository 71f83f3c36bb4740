"""Trees in the words of other projects."""

from __future__ import annotations

from typing import NamedTuple

from specdraft.errors import ConfigError
from specdraft.trees.shapes.expand_rerank import ExpandRerank
from specdraft.trees.topology import Topology

MEDUSA_TOPK = 10  # a constant of Medusa's code: it reads so many tokens of each head


class SglangTriple(NamedTuple):
    """SGLang's settings; each field is called as its server argument."""

    speculative_num_steps: int
    speculative_eagle_topk: int
    speculative_num_draft_tokens: int


def medusa_choices(topology: Topology) -> list[list[int]]:
    """`medusa_choices`: the rank path of each draft node in the order in which Medusa sorts them, by length, then by
    ranks."""
    return sorted((list(path) for path in topology.paths[1:]), key=lambda path: (len(path), path))


def medusa_topk(topology: Topology) -> int:
    """How many tokens of each head Medusa must read for this tree (its constant `TOPK`)."""
    return max(MEDUSA_TOPK, int(topology.ranks.max()) + 1)


def sglang_settings(shape: ExpandRerank, budget: int) -> SglangTriple:
    """The settings with which SGLang drafts these trees, which differ from step to step as ours do.

    Raises:
        ConfigError: there are fewer candidates than the budget asks for.
    """
    if (most := shape.most(budget)) < budget:
        raise ConfigError(
            f"budget={budget} is more than the {most} candidates of {shape.label}; SGLang needs that many"
        )
    return SglangTriple(shape.steps, shape.top_k, budget + 1)


def sglang_triple(topology: Topology) -> SglangTriple:
    """The settings with which SGLang drafts exactly this tree in every step.

    With `k = speculative_eagle_topk` SGLang drafts the root's `k` best children and the `k` best children of each, then
    expands only the `k` nodes of each level with the largest cumulative probability, and at last verifies the
    `speculative_num_draft_tokens - 1` candidates of largest cumulative probability. Which ones they are depends on the
    text unless all candidates are verified and no level has more than `k`: chains of best tokens (`k = 1`), the root's
    `k` best children, and the complete tree of two levels with `k` children per node.

    Raises:
        ConfigError: SGLang's tree is not this one in every step.
    """
    width, depth = len(topology.children[0]), topology.depth
    complete = sum(width**level for level in range(1, min(depth, 2 if width > 1 else depth) + 1))
    if depth > 2 and width > 1:
        why = (
            f"with {width} children of the root it expands the {width} most probable nodes of each level, "
            "which depend on the text"
        )
    elif topology.ranks.max() >= width:
        why = (
            f"a node has child rank {topology.ranks.max()}; with a top-k of {width}, as at the root, there are "
            "lower ranks only"
        )
    elif topology.num_nodes < complete:
        why = (
            f"it picks {topology.num_nodes} of the {complete} nodes of two levels by their probability, which "
            "depends on the text"
        )
    else:
        return SglangTriple(depth, width, topology.num_nodes + 1)
    possible = (
        "a chain of best tokens, the root's k best children, and the complete tree of two levels with k "
        "children per node"
    )
    raise ConfigError(f"SGLang cannot be told to draft this tree in every step: {why}; it can draft {possible}")
