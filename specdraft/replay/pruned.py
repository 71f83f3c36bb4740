"""What pruned trees would have done along recorded trajectories.

What is left of a tree depends on its start alone, so a step that starts there accepts as far as the trajectory's own
nodes are kept. What the whole tree would have accepted there is known too: the difference is what pruning loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specdraft.bench.curve import CostCurve
from specdraft.drafters.base import Expansion
from specdraft.prediction.pruning import Drafted, PruningPolicy
from specdraft.replay.best_first import Steps, Walked, accepted_tokens, count_steps, take_steps
from specdraft.results.counted import Counted
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.topology import RankPath, Topology


class Scored(NamedTuple):
    """The drafted trees of every start of some trajectories.

    Attributes:
        walked: where the trajectories' own tokens are in them.
        there: `[F, N]` the nodes that are drafted.
        log_survival: `[F, N]` see `Drafted`.
        dynamic: trees differ from start to start before they are pruned.
    """

    walked: Walked
    there: np.ndarray
    log_survival: np.ndarray
    dynamic: bool

    @property
    def drafted(self) -> Drafted:
        """As a policy sees them."""
        parent, depth = np.where(self.there, self.walked.parent, -1), np.where(self.there, self.walked.depth, 0)
        return Drafted(parent, depth, self.log_survival)


class Pruned(NamedTuple):
    """What came of it: counts, the steps, and what they cost without drafting, which pruning does not change."""

    counted: Counted
    steps: Steps


def prune(scored: Scored, policy: PruningPolicy, costs: CostCurve) -> np.ndarray:
    """`[F, N]` the nodes that are sent."""
    drafted = scored.drafted
    steps = costs.of_steps(drafted.fed, scored.there.shape[1], scored.dynamic) if policy.needs_costs else None
    return policy.keep(drafted, steps)


def replay_pruned(scored: Scored, kept: np.ndarray, packed: PackedRanks, with_steps: bool = False) -> Pruned:
    """Decode every prompt, sending these nodes `[F, N]`: integers, equal to a live run's.

    Args:
        scored: the drafted trees.
        kept: what is left of them, closed under ancestors.
        packed: the trajectories.
        with_steps: list the steps.
    """
    walked, prompts = scored.walked, len(packed.last)
    steps = take_steps(walked, packed, kept)
    done = count_steps(walked, packed, steps, kept, with_steps)
    lost = accepted_tokens(walked, scored.there) - accepted_tokens(walked, kept)
    proposed = scored.there.sum(1)[steps.start]
    in_prompt = walked.prompt[steps.start]
    sums = {
        "pruned_tokens": np.bincount(in_prompt, weights=proposed - steps.size, minlength=prompts).astype(np.int64),
        "proposed_tokens": np.bincount(in_prompt, weights=proposed, minlength=prompts).astype(np.int64),
        "lost_tokens": np.bincount(walked.prompt, weights=lost, minlength=prompts).astype(np.int64),
        "starts": packed.last,
    }
    return Pruned(done.with_sums(**sums), steps)


def one_tree(topology: Topology, union: Topology, scores: Sequence[Expansion]) -> list[Expansion]:
    """Of each text one static tree, out of the scores of a tree that holds all of its nodes."""
    columns = topology.places_in(union)[1:] - 1
    parent = topology.parents[None, 1:].astype(np.int16)
    return [
        Expansion(np.repeat(parent, len(some.rank), axis=0), *(field[:, columns] for field in some[1:]))
        for some in scores
    ]


def union_of(topologies: Sequence[Topology]) -> Topology:
    """The tree that has all nodes of these."""
    paths: dict[RankPath, None] = {}
    for topology in topologies:
        paths |= dict.fromkeys(topology.paths[1:])
    return Topology.from_paths(sorted(paths, key=lambda path: (len(path), path)))
