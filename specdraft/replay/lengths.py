"""What chains of differing lengths would have done along recorded trajectories.

How long a chain is may depend on what was accepted in the steps before it, so each text is gone through step by step.
What a step at a start could accept at most, and what the drafter would say there, is known of every start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specdraft.drafters.base import Expansion
from specdraft.prediction.length import LengthPolicy, Said
from specdraft.replay.best_first import NEVER, Steps, Walked, accepted_tokens, count_steps, take_steps, walk
from specdraft.results.counted import Counted
from specdraft.trees.ranks import PackedRanks


class Chains(NamedTuple):
    """The drafter's own chain at every start of some trajectories.

    Attributes:
        walked: where the trajectories' tokens are in them.
        said: `[F, N]` each, see `Said`; zeros where no policy reads it.
    """

    walked: Walked
    said: Said

    @classmethod
    def of(cls, packed: PackedRanks, trees: Sequence[Expansion], entropy: Sequence[np.ndarray] = ()) -> Chains:
        """Recorded ones of each trajectory."""
        walked = walk(packed, trees)
        read = np.concatenate(entropy) if entropy else np.zeros(walked.log_prob.shape, dtype=np.float32)
        return cls(walked, Said(walked.log_prob, read))

    @classmethod
    def unread(cls, packed: PackedRanks, length: int) -> Chains:
        """For policies that look at nothing that the drafter says: its ranks tell all."""
        return cls.of(packed, [_bare(starts, length) for starts in packed.last.tolist()])

    def first(self, length: int) -> Chains:
        """Chains of so many tokens."""
        walked = self.walked
        parent, depth, log_prob, path = (
            field[:, :length] for field in (walked.parent, walked.depth, walked.log_prob, walked.path)
        )
        on_path = np.where(walked.on_path[:, : length + 2] > length, NEVER, walked.on_path[:, : length + 2])
        shorter = walked._replace(parent=parent, depth=depth, log_prob=log_prob, path=path, on_path=on_path)
        return Chains(shorter, Said(*(field[:, :length] for field in self.said)))


def _bare(starts: int, length: int) -> Expansion:
    """Chains without tokens or probabilities."""
    shape = (starts, length)
    parent = np.broadcast_to(np.arange(length, dtype=np.int16), shape)
    nothing = np.zeros(shape, dtype=np.int16)
    return Expansion(parent, nothing, nothing.astype(np.int32), np.zeros(shape))


def lengths_along(chains: Chains, policy: LengthPolicy, packed: PackedRanks, step_s: np.ndarray | None) -> np.ndarray:
    """`[F]` how many tokens a step sends that starts there; 0 where none does.

    Args:
        chains: of the budget.
        policy: what says so.
        packed: the trajectories.
        step_s: see `LengthPolicy.begin`.
    """
    walked, budget = chains.walked, chains.walked.depth.shape[1]
    reach = accepted_tokens(walked, walked.depth > 0)
    if policy.hindsight:
        return reach
    sent = np.zeros(len(reach), dtype=np.int64)
    for first, last in zip(walked.first.tolist(), packed.last.tolist(), strict=True):
        text, at = policy.begin(budget, step_s), 0
        while at < last:
            start = first + at
            said = Said(*(field[start] for field in chains.said)).first(text.next())
            sent[start] = length = text.length(said)
            accepted = min(int(reach[start]), length)
            text.observe(accepted, said.first(length))
            at += accepted + 1
    return sent


def replay_sized(
    chains: Chains,
    policy: LengthPolicy,
    packed: PackedRanks,
    step_s: np.ndarray | None = None,
    with_steps: bool = False,
) -> tuple[Counted, Steps]:
    """Counts of decoding every prompt with chains of these lengths: integers, equal to a live run's; and the steps.

    Arguments as `lengths_along`; `with_steps`: list the steps.
    """
    sent = lengths_along(chains, policy, packed, step_s)
    there = np.arange(chains.walked.depth.shape[1]) < sent[:, None]
    steps = take_steps(chains.walked, packed, there)
    return count_steps(chains.walked, packed, steps, there, with_steps), steps
