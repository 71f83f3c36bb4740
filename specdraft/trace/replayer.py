"""Replay combinations of one pair: traces and costs are fetched once, each further tree costs array code only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from specdraft.draft_tree import Topology
from specdraft.metrics import Tally
from specdraft.prompts import Prompt
from specdraft.shapes import FittedPlan, Plan, StaticPlan
from specdraft.trace.cost import CostCurve
from specdraft.trace.fit import fitted_trees, folds
from specdraft.trace.replay import PackedRanks, pack, replay, replay_steps
from specdraft.trace.traces import PairTraces


class Replayer:
    """One pair's traces on a list of prompts, ready for any tree.

    Args:
        traces: of every prompt.
        prompts: the order of every result.
        costs: for the estimates of time.
        seed: of the halves that fitted trees are scored on.
    """

    def __init__(self, traces: PairTraces, prompts: Sequence[Prompt], costs: CostCurve, seed: int) -> None:
        trajectories = [traces.trajectories[p.prompt_id] for p in prompts]
        self._packed = pack([traces.annotations[p.prompt_id].ranks for p in prompts], [t.tokens for t in trajectories])
        self._fold = folds([p.category for p in prompts], seed)
        self._costs = costs

    def tallies(self, plan: Plan) -> list[Tally]:
        """Counts and estimated times of every prompt with one tree."""
        found: dict[int, Tally] = {}
        for topology, members in self._trees(plan):
            for index, tally in zip(members.tolist(), replay(topology, self._of(members)), strict=True):
                found[index] = self._with_estimates(tally, topology)
        return [found[index] for index in range(len(self._packed.last))]

    def steps(self, plan: Plan) -> list[list[list[int]]]:
        """The steps of every prompt with one tree (see `replay_steps`)."""
        found: dict[int, list[list[int]]] = {}
        for topology, members in self._trees(plan):
            found |= dict(zip(members.tolist(), replay_steps(topology, self._of(members)), strict=True))
        return [found[index] for index in range(len(self._packed.last))]

    def _trees(self, plan: Plan) -> list[tuple[Topology, np.ndarray]]:
        """Trees with the prompts (indices) that they are for."""
        if isinstance(plan, StaticPlan):
            return [(plan.topology, np.arange(len(self._packed.last)))]
        assert isinstance(plan, FittedPlan)
        return fitted_trees(plan, self._packed, self._fold)

    def _of(self, members: np.ndarray) -> PackedRanks:
        return PackedRanks(*(field[members] for field in self._packed))

    def _with_estimates(self, tally: Tally, topology: Topology) -> Tally:
        seconds = self._costs.decode_s(topology, tally.steps)
        return replace(tally, est_s=seconds, est_plain_s=self._costs.plain_decode_s(tally.new_tokens))
