"""Replay combinations of one pair: traces and costs are fetched once, each further tree costs array code only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from specdraft.acceptance import AcceptanceRule
from specdraft.bench.costs import CostCurve
from specdraft.drafters.pair import Pair
from specdraft.prompts import Prompt
from specdraft.replay.best_first import Steps, Walked, fed_nodes, listed_steps, replay_dynamic, walk
from specdraft.replay.expected import pack_records, replay_sampled, rule_weights
from specdraft.replay.fit import fitted_trees
from specdraft.replay.folds import folds
from specdraft.replay.static import PackedRanks, at_depth, pack, replay, replay_steps, take_steps
from specdraft.results.metrics import Tally
from specdraft.traces.library import Expansions, PairTraces
from specdraft.traces.store import TraceStore
from specdraft.trees.shapes import BestFirstPlan, FittedPlan, Plan, StaticPlan
from specdraft.trees.topology import Topology

BLOCK = 256  # prompts that are replayed at a time: it bounds the memory of the work in hand
Listed = list[list[list[int]] | None]  # steps of each prompt, where they are wanted
Limits = tuple[int, int]  # of best-first trees: levels, children


class Replayer:
    """One pair's traces on a list of prompts, ready for any tree.

    Args:
        traces: of every prompt.
        prompts: the order of every result.
        costs: for the estimates of time.
        seed: of the halves that fitted trees are scored on.
        expansions: best-first trees of every prompt, by their limits (see `dynamic_trees`).
    """

    def __init__(
        self,
        traces: PairTraces,
        prompts: Sequence[Prompt],
        costs: CostCurve,
        seed: int,
        expansions: Mapping[Limits, Expansions] | None = None,
    ) -> None:
        trajectories = [traces.trajectories[p.prompt_id] for p in prompts]
        said = [traces.annotations[p.prompt_id] for p in prompts]
        self._packed = pack([a.ranks for a in said], [t.tokens for t in trajectories], [a.offered for a in said])
        self._fold = folds([p.category for p in prompts], seed)
        self._costs, self._expansions = costs, expansions or {}
        self._names = [p.prompt_id for p in prompts]
        records = [traces.records[p.prompt_id] for p in prompts] if traces.records else []
        self._records = pack_records(records, self._packed.ranks.shape[1]) if records else {}
        # greedy distributions overlap wholly or not at all
        top_ranked = (at_depth(self._packed.ranks, 1) == 0).sum(1).astype(float)
        self._overlap = self._records["overlap"].sum(1) if records else top_ranked * traces.greedy
        self._judged = self._packed.last * (traces.greedy or bool(records))  # tokens whose overlap is known
        self._walked: tuple[tuple[Limits, int], Walked] | None = None

    def run(self, plan: Plan, rule: AcceptanceRule, with_steps: bool = False) -> tuple[list[Tally], Listed]:
        """Every prompt with one tree: counts and estimated times, and the steps if wanted (see `replay_steps`)."""
        tallies, steps = self._run(plan, rule, with_steps)
        for tally, overlap, judged in zip(tallies, self._overlap.tolist(), self._judged.tolist(), strict=True):
            tally.overlap, tally.judged_tokens = overlap, judged
        return tallies, steps

    def _run(self, plan: Plan, rule: AcceptanceRule, with_steps: bool) -> tuple[list[Tally], Listed]:
        if rule.replay != "rank" and self._records:
            assert isinstance(plan, StaticPlan)
            return self._run_expected(plan.topology, rule), [None] * len(self._names)
        if isinstance(plan, BestFirstPlan):
            return self._run_dynamic(plan, with_steps)
        counted: dict[int, Tally] = {}
        listed: dict[int, list[list[int]] | None] = {}
        for topology, members in self._trees(plan):
            for block in np.array_split(members, range(BLOCK, len(members), BLOCK)):
                part = self._of(block)
                if (
                    rule.replay != "rank"
                ):  # greedy: whatever is drawn is the drafter's best token, and the first of its copies is taken
                    part = part._replace(ranks=np.where(part.ranks > 0, -1, part.ranks))
                steps = replay_steps(topology, part) if with_steps else [None] * len(block)
                seconds = self._static_seconds(topology, part, tallies := replay(topology, part))
                for index, tally, spent, taken in zip(block.tolist(), tallies, seconds, steps, strict=True):
                    counted[index] = self._with_estimates(tally, spent)
                    listed[index] = taken
        return [counted[i] for i in range(len(self._names))], [listed[i] for i in range(len(self._names))]

    def _static_seconds(self, topology: Topology, part: PackedRanks, tallies: list[Tally]) -> list[float]:
        """Estimated seconds of each prompt; a drafter that fills no tree makes all its levels at once."""
        if part.offered is None:
            return [self._costs.decode_s(topology, tally.steps) for tally in tallies]
        taken = take_steps(topology, part)
        each = self._costs.dynamic_steps_s(np.ones((len(taken.end), 1)), taken.sizes(topology))
        seconds: list[float] = (
            self._costs.prefill_s + np.bincount(taken.prompt, weights=each, minlength=len(part.last))
        ).tolist()
        return seconds

    def _run_expected(self, topology: Topology, rule: AcceptanceRule) -> list[Tally]:
        tallies: list[Tally] = []
        for first in range(0, len(self._names), BLOCK):
            part = self._of(np.arange(first, min(first + BLOCK, len(self._names))))
            records = {name: values[first : first + BLOCK] for name, values in self._records.items()}
            found = replay_sampled(topology, rule_weights(topology, rule, records), part)
            tallies += [self._with_estimates(tally, self._costs.decode_s(topology, tally.steps)) for tally in found]
        return tallies

    def _run_dynamic(self, plan: BestFirstPlan, with_steps: bool) -> tuple[list[Tally], Listed]:
        counted: list[Tally] = []
        listed: list[list[list[int]] | None] = []
        for first in range(0, len(self._names), BLOCK):
            block = np.arange(first, min(first + BLOCK, len(self._names)))
            part, walked = self._of(block), self._walk(limits(plan), block)
            tallies, steps = replay_dynamic(walked, part, plan)
            counted += [
                self._with_estimates(t, s) for t, s in zip(tallies, self._seconds(walked, steps, plan), strict=True)
            ]
            listed += listed_steps(walked, steps) if with_steps else [None] * len(block)
        return counted, listed

    def _walk(self, which: Limits, block: np.ndarray) -> Walked:
        """The last one is kept: every budget with these limits wants it."""
        key = (which, int(block[0]))
        if self._walked is None or self._walked[0] != key:
            self._walked = None  # its memory is needed
            expansions = [self._expansions[which].of(self._names[i]) for i in block]
            self._walked = key, walk(self._of(block), expansions)
        return self._walked[1]

    def _seconds(self, walked: Walked, steps: Steps, plan: BestFirstPlan) -> list[float]:
        """Estimated seconds of each prompt."""
        each = self._costs.dynamic_steps_s(fed_nodes(walked, steps, plan), steps.size)
        summed = np.bincount(walked.prompt[steps.start], weights=each, minlength=len(walked.first))
        seconds: list[float] = (self._costs.prefill_s + summed).tolist()
        return seconds

    def _trees(self, plan: Plan) -> list[tuple[Topology, np.ndarray]]:
        """Trees with the prompts (indices) that they are for."""
        if isinstance(plan, StaticPlan):
            return [(plan.topology, np.arange(len(self._names)))]
        assert isinstance(plan, FittedPlan)
        return fitted_trees(plan, self._packed, self._fold)

    def _of(self, members: np.ndarray) -> PackedRanks:
        return self._packed.of(members)

    def _with_estimates(self, tally: Tally, seconds: float) -> Tally:
        tally.est_s, tally.est_plain_s = seconds, self._costs.plain_decode_s(tally.new_tokens)
        return tally


def limits(plan: BestFirstPlan) -> Limits:
    """Plans with equal limits share their trees."""
    return plan.shape.max_depth, plan.shape.max_children


def dynamic_trees(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    traces: PairTraces,
    plans: Iterable[Plan],
    store: TraceStore,
    recorded: Callable[[str], None],
) -> dict[Limits, Expansions]:
    """The expansions that best-first plans need: one for each limits, at their largest budget; drafted where they are
    missing."""
    largest: dict[Limits, BestFirstPlan] = {}
    for plan in plans:
        if isinstance(plan, BestFirstPlan) and plan.nodes > getattr(largest.get(limits(plan)), "nodes", 0):
            largest[limits(plan)] = plan
    expansions = {which: Expansions(pair, prompts, traces, plan, store) for which, plan in largest.items()}
    for one in expansions.values():
        one.record(recorded)
    return expansions


def most_children(plans: Iterable[Plan]) -> int:
    """The most children of one node in static trees, rounded up to a power of two so that studies share what they
    record."""
    most = max((max(map(len, plan.topology.children)) for plan in plans if isinstance(plan, StaticPlan)), default=1)
    return 1 << (most - 1).bit_length()
