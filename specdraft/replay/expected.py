"""What a tree would have done along sampled trajectories: expected values, exact given the trajectory.

A lossless rule emits the target's own text, so given the text each child of an accepted node is taken
with a known probability, whatever happened before. The chance that a step starts at a position
follows from that, and every count is a sum over starts. There is no Monte-Carlo noise but the one
history per position of the rule without replacement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from specdraft.acceptance import AcceptanceRule
from specdraft.results.counted import Counted, NodeCounts
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.traces.rule_records import Part, RuleRecords, parts_of
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.topology import Topology

NEGLIGIBLE = 1e-12  # expected steps: a length that is less probable than this is not listed


def pack_records(records: Sequence[RuleRecords], positions: int) -> RuleRecords:
    """Lay several trajectories side by side: name -> `[P, positions, ...]`, 0 beyond each one's end."""
    packed = {}
    for name, first in records[0].items():
        packed[name] = np.zeros((len(records), positions, *first.shape[1:]))
        for row, record in enumerate(records):
            packed[name][row, : len(record[name])] = record[name]
    return packed


def rule_weights(
    topology: Topology,
    rule: AcceptanceRule,
    packed: RuleRecords,
    recorded: Topology | None = None,
    drawn: Drawn = AS_TARGET,
) -> list[np.ndarray]:
    """`AcceptanceRule.weights` of one rule from the packed records of all.

    Args:
        topology: the tree.
        rule: which one.
        packed: see `pack_records`.
        recorded: the tree that has all nodes of which rules kept numbers; left out: this one.
        drawn: what children are drawn with.
    """
    nodes = None if recorded is None else topology.places_in(recorded)

    def record(part: Part) -> RuleRecords:
        kept = {array: packed[part.array(array)] for array in rule.arrays}
        return kept if nodes is None or not part.by_node else {array: kept[array][:, :, nodes] for array in kept}

    records = [record(part) for part in parts_of(rule, drawn)]
    return rule.weights(topology, records[0]) if len(records) == 1 else rule.weights_by_depth(topology, records)


def start_mass(lengths: np.ndarray, last: np.ndarray) -> np.ndarray:
    """`[P, S]` the expected number of steps that start at each root position.

    Args:
        lengths: `[P, S, D + 1]` P(exactly a tokens accepted | a step starts there).
        last: `[P]` each trajectory's last position; no step starts there or beyond.
    """
    prompts, positions, most = lengths.shape
    mass = np.zeros((prompts, positions + most))
    mass[:, 0] = last > 0
    for position in range(positions):
        mass[:, position] *= position < last
        mass[:, position + 1 : position + 1 + most] += mass[:, position, None] * lengths[:, position]
    return mass[:, :positions]


def replay_sampled(topology: Topology, weights: list[np.ndarray], packed: PackedRanks) -> Counted:
    """Expected counts of decoding every prompt with one static tree, given the trajectories.

    Args:
        topology: the tree.
        weights: see `AcceptanceRule.weights`.
        packed: the trajectories (their ranks are not used).
    """
    prompts, positions = weights[0].shape
    by_depth = np.zeros((prompts, positions, topology.depth + 2))  # P(at least a accepted)
    trying = np.zeros_like(by_depth)  # P(the accepted node at this depth has a child)
    for node, weight in enumerate(weights):
        depth = int(topology.depths[node])
        by_depth[:, :, depth] += weight
        if topology.children[node]:
            trying[:, :, depth] += weight
    exactly = by_depth[:, :, :-1] - by_depth[:, :, 1:]
    mass = start_mass(exactly, packed.last)
    # a step from s that accepts T - s tokens reaches the end; a node at depth d is tried if s + d <= T
    left = packed.last[:, None] - np.arange(positions)  # [P, S] T - s
    by_length = np.einsum("ps,psa->pa", mass, exactly)
    reaching = np.take_along_axis(exactly, np.clip(left, 0, topology.depth)[:, :, None], 2)[:, :, 0] * (
        left <= topology.depth
    )
    cut = (mass * reaching).sum(1)
    before = [mass * (depth <= left) for depth in range(topology.depth + 2)]
    tried = np.zeros((prompts, topology.depth))
    for depth in range(topology.depth):
        tried[:, depth] = (before[depth + 1] * trying[:, :, depth]).sum(1)
    hit = np.einsum("ps,psa->pa", mass, by_depth)[:, 1 : topology.depth + 1]
    steps = mass.sum(1)
    sums = {
        "steps": steps,
        "drafted_tokens": steps * topology.num_nodes,
        "accepted_tokens": by_length @ np.arange(topology.depth + 1),
        "bonus_tokens": steps - cut,
        "new_tokens": packed.last + 1,
        "looped_tokens": packed.looped,
    }
    there = tried > NEGLIGIBLE
    lengths = np.where(by_length > NEGLIGIBLE, by_length, 0.0).sum(0)
    return Counted(
        sums, lengths, (tried * there).sum(0), (hit * there).sum(0), _node_counts(topology, weights, mass, before)
    ).unpruned


def _node_counts(
    topology: Topology, weights: Sequence[np.ndarray], mass: np.ndarray, before: Sequence[np.ndarray]
) -> NodeCounts:
    """Of all prompts; none where no step is taken."""
    count = topology.num_nodes if mass.any() else 0
    nodes = range(1, count + 1)
    at_node = [float((mass * weights[node]).sum()) for node in nodes]
    continued = np.array(
        [
            float((before[depth + 1] * weights[node]).sum()) if children and count else 0.0
            for node, (depth, children) in enumerate(zip(topology.depths.tolist(), topology.children, strict=True))
        ]
    )
    reached, paths = continued[topology.parents[1 : count + 1]], topology.paths[1 : count + 1]
    return NodeCounts(paths, np.full(count, mass.sum()), reached, np.array(at_node), continued[1 : count + 1])
