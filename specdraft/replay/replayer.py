"""Replay combinations of one pair: traces and costs are fetched once, each further tree costs array code only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from specdraft.acceptance import AcceptanceRule
from specdraft.bench.curve import CostCurve
from specdraft.drafters.pair import Pair
from specdraft.prompts import Prompt
from specdraft.replay.best_first import Steps, Walked, fed_nodes, listed_steps, replay_dynamic, walk
from specdraft.replay.expected import pack_records, replay_sampled, rule_weights
from specdraft.replay.fit import PlanOnPrompts, resolve
from specdraft.replay.folds import folds
from specdraft.replay.static import pack_traces, replay, replay_steps, take_steps
from specdraft.results.metrics import Tally
from specdraft.traces.library import Expansions, PairTraces
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.ranks import PackedRanks, at_depth
from specdraft.trees.shapes import NestedPlan, Plan, Shape
from specdraft.trees.topology import Topology

BLOCK = 256  # prompts that are replayed at a time: it bounds the memory of the work in hand
StepLists = list[list[list[int]] | None]  # steps of each prompt, where they are wanted
Replayed = tuple[list[Tally], StepLists]
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
        self._packed = pack_traces(traces, [p.prompt_id for p in prompts])
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

    def run(self, shape: Shape, node_budget: int, rule: AcceptanceRule, with_steps: bool = False) -> Replayed:
        """Every prompt with a shape's tree; a fitted shape is fitted here (see `resolve`). Returns as `run_plan`."""
        return self._run(resolve(shape, node_budget, self._packed, self._fold), rule, with_steps)

    def run_plan(self, plan: Plan, rule: AcceptanceRule, with_steps: bool = False) -> Replayed:
        """Every prompt with one plan: counts and estimated times, and the steps if wanted (see `replay_steps`)."""
        return self._run([PlanOnPrompts(plan, np.arange(len(self._names)))], rule, with_steps)

    def _run(self, parts: Iterable[PlanOnPrompts], rule: AcceptanceRule, with_steps: bool) -> Replayed:
        counted: dict[int, Tally] = {}
        step_lists: dict[int, list[list[int]] | None] = {}
        for plan, members in parts:
            for block in np.array_split(members, range(BLOCK, len(members), BLOCK)):
                tallies, steps = self._replay(plan, rule, block, with_steps)
                counted |= zip(block.tolist(), tallies, strict=True)
                step_lists |= zip(block.tolist(), steps, strict=True)
        for index, (overlap, judged) in enumerate(zip(self._overlap.tolist(), self._judged.tolist(), strict=True)):
            counted[index].overlap, counted[index].judged_tokens = overlap, judged
        everyone = range(len(self._names))
        return [counted[i] for i in everyone], [step_lists[i] for i in everyone]

    def _replay(self, plan: Plan, rule: AcceptanceRule, block: np.ndarray, with_steps: bool) -> Replayed:
        """One block of prompts, in the way that plan and rule ask for."""
        if plan.nested is not None:
            return self._replay_nested(plan.nested, block, with_steps)
        assert plan.topology is not None, "trees that differ and are not nested: see fitting.Together.live_only"
        if rule.replay != "rank" and self._records:
            return self._replay_expected(plan.topology, rule, block)
        return self._replay_static(plan.topology, rule, block, with_steps)

    def _replay_static(self, topology: Topology, rule: AcceptanceRule, block: np.ndarray, with_steps: bool) -> Replayed:
        part = self._packed.of(block)
        if rule.replay != "rank":
            # greedy: whatever is drawn is the drafter's best token, and the first of its copies is taken
            part = part._replace(ranks=np.where(part.ranks > 0, -1, part.ranks))
        tallies = replay(topology, part)
        tallies = list(map(self._with_estimates, tallies, self._static_seconds(topology, part, tallies)))
        return tallies, [*replay_steps(topology, part)] if with_steps else [None] * len(block)

    def _static_seconds(self, topology: Topology, part: PackedRanks, tallies: list[Tally]) -> list[float]:
        """Estimated seconds of each prompt; a drafter that fills no tree makes all its levels at once."""
        if part.offered is None:
            return [self._costs.decode_s(topology, tally.steps) for tally in tallies]
        taken = take_steps(topology, part)
        each = self._costs.dynamic_steps_s(np.ones((len(taken.end), 1)), taken.sizes(topology))
        spent = np.bincount(taken.prompt, weights=each, minlength=len(part.last))
        seconds: list[float] = (self._costs.prefill_s + spent).tolist()
        return seconds

    def _replay_expected(self, topology: Topology, rule: AcceptanceRule, block: np.ndarray) -> Replayed:
        rows = _rows(block)
        records = {name: values[rows] for name, values in self._records.items()}
        tallies = replay_sampled(topology, rule_weights(topology, rule, records), self._packed.of(rows))
        seconds = [self._costs.decode_s(topology, tally.steps) for tally in tallies]
        return list(map(self._with_estimates, tallies, seconds)), [None] * len(block)

    def _replay_nested(self, plan: NestedPlan, block: np.ndarray, with_steps: bool) -> Replayed:
        walked = self._walk(limits(plan), block)
        tallies, steps = replay_dynamic(walked, self._packed.of(block), plan)
        tallies = list(map(self._with_estimates, tallies, self._seconds(walked, steps, plan)))
        return tallies, [*listed_steps(walked, steps)] if with_steps else [None] * len(block)

    def _walk(self, which: Limits, block: np.ndarray) -> Walked:
        """The last one is kept: every budget with these limits wants it."""
        key = (which, int(block[0]))
        if self._walked is None or self._walked[0] != key:
            self._walked = None  # its memory is needed
            expansions = [self._expansions[which].of(self._names[i]) for i in block]
            self._walked = key, walk(self._packed.of(block), expansions)
        return self._walked[1]

    def _seconds(self, walked: Walked, steps: Steps, plan: NestedPlan) -> list[float]:
        """Estimated seconds of each prompt."""
        each = self._costs.dynamic_steps_s(fed_nodes(walked, steps, plan), steps.size)
        summed = np.bincount(walked.prompt[steps.start], weights=each, minlength=len(walked.first))
        seconds: list[float] = (self._costs.prefill_s + summed).tolist()
        return seconds

    def _with_estimates(self, tally: Tally, seconds: float) -> Tally:
        tally.est_s, tally.est_plain_s = seconds, self._costs.plain_decode_s(tally.new_tokens)
        return tally


def _rows(block: np.ndarray) -> slice | np.ndarray:
    """The same prompts, as a slice where they stand side by side: a slice copies nothing."""
    first, last = int(block[0]), int(block[-1])
    return slice(first, last + 1) if last - first + 1 == len(block) else block


def limits(plan: NestedPlan) -> Limits:
    """Plans with equal limits share their trees."""
    return plan.max_depth, plan.max_children


def dynamic_trees(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    traces: PairTraces,
    plans: Iterable[Plan | None],
    store: TraceStore,
    recorded: Callable[[str], None],
    watch: Watch = UNWATCHED,
) -> dict[Limits, Expansions]:
    """The expansions that best-first plans need: one for each limits, at their largest budget; drafted where they are
    missing. Other plans need none."""
    nested = [plan.nested for plan in plans if plan is not None and plan.nested is not None]
    largest = {limits(plan): plan for plan in sorted(nested, key=lambda plan: plan.nodes)}
    expansions = {which: Expansions(pair, prompts, traces, plan, store) for which, plan in largest.items()}
    for expansion in expansions.values():
        expansion.record(recorded, watch)
    return expansions


def most_children(topologies: Iterable[Topology | None]) -> int:
    """The most children of one node in static trees, rounded up to a power of two so that studies share what they
    record."""
    most = max((max(map(len, tree.children)) for tree in topologies if tree is not None), default=1)
    return 1 << (most - 1).bit_length()
