"""Replay combinations of one pair: traces and costs are fetched once, each further tree costs array code only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from math import inf
from typing import NamedTuple

import numpy as np
import pandas as pd

from specdraft.acceptance import AcceptanceRule
from specdraft.bench.curve import CostCurve, estimates
from specdraft.drafters.pair import Pair
from specdraft.prediction.length import Constant, LengthPolicy
from specdraft.prediction.length.costs import fed_levels, step_seconds
from specdraft.prediction.pruning import NoPruning, PruningPolicy, ScoredPolicy
from specdraft.prompts import Prompt
from specdraft.replay.best_first import Walked, fed_nodes, nodes_there, replay_dynamic, walk
from specdraft.replay.calibration import FittedScores
from specdraft.replay.expected import pack_records, replay_sampled, rule_weights
from specdraft.replay.fit import Fits, PlanOnPrompts
from specdraft.replay.folds import halves
from specdraft.replay.lengths import Chains, replay_sized
from specdraft.replay.offsets import offset_curve
from specdraft.replay.pruned import Scored, prune, replay_pruned
from specdraft.replay.redraft import Redrafting
from specdraft.replay.reliability import merged, reliability
from specdraft.replay.scores import TreeScores
from specdraft.replay.static import NestedWalk, counted, pack_traces, take_steps
from specdraft.results.counted import Counted, joined
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.traces.library import Expansions, PairTraces
from specdraft.traces.rule_records import parts_of
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.ranks import PackedRanks, at_depth
from specdraft.trees.shapes import NestedPlan, Plan, Shape
from specdraft.trees.topology import Topology

BLOCK = 256  # prompts that are replayed at a time: it bounds the memory of the work in hand
LARGEST = 2**23  # numbers, one for each node and position, that are held at once


class Limits(NamedTuple):
    """Best-first plans with equal ones share their trees; see `NestedPlan`."""

    max_depth: int
    max_children: int
    temperature: float | None
    top_p: float
    scorer: str = ""
    margin: float = inf
    beam: int | None = None
    searched: bool = False

    @property
    def scores(self) -> str:
        """What nodes are ranked by."""
        if self.scorer or self.temperature is None:
            return "predictor" if self.scorer else "calibrated"
        return "raw" if self.temperature == 1 else f"t{self.temperature:g}"


WHOLE, SAME = NoPruning(), Constant()


class Replayer:
    """One pair's traces on a list of prompts, ready for any tree.

    Args:
        traces: of every prompt.
        prompts: the order of every result.
        costs: for the estimates of time.
        seed: of the halves that fitted trees are scored on.
        expansions: best-first trees of every prompt, by their limits (see `dynamic_trees`).
        scores: what trees are pruned by, by the kind of scores (see `score_trees`).
        redrafting: of a drafter that drafts again along the texts (`DrafterTraits.from_tokens`).
        chains: the drafter's own ones, for length policies that look at what it says (see `chain_plan`).
    """

    def __init__(
        self,
        traces: PairTraces,
        prompts: Sequence[Prompt],
        costs: CostCurve,
        seed: int,
        expansions: Mapping[Limits, Expansions] | None = None,
        scores: Mapping[str, TreeScores] | None = None,
        redrafting: Redrafting | None = None,
        chains: Expansions | None = None,
    ) -> None:
        self._scores, self._redrafting, self._chains = scores or {}, redrafting, chains
        self._packed = pack_traces(traces, [p.prompt_id for p in prompts])
        self._fits = Fits(self._packed, halves(prompts, seed))
        self._costs, self._expansions = costs, expansions or {}
        self._names = [p.prompt_id for p in prompts]
        records = [traces.records[p.prompt_id] for p in prompts] if traces.records else []
        self._recorded = traces.tree
        self._records = pack_records(records, self._packed.ranks.shape[1]) if records else {}
        self._greedy = traces.greedy
        self._judged = self._packed.last * (traces.greedy or bool(records))  # tokens whose overlap is known
        self._nested: tuple[Hashable, NestedWalk] | None = None
        self._walked: tuple[tuple[Limits, bytes], Walked] | None = None
        self._read: tuple[bytes, Chains] | None = None

    def at_costs(self, costs: CostCurve) -> Replayer:
        """The same by other costs."""
        other = copy(self)
        other._costs = costs
        return other

    def run(
        self,
        shape: Shape,
        node_budget: int,
        rule: AcceptanceRule,
        with_steps: bool = False,
        prompts: np.ndarray | None = None,
        pruning: PruningPolicy = WHOLE,
        length: LengthPolicy = SAME,
        drawn: Drawn = AS_TARGET,
    ) -> Counted:
        """Prompts with a shape's tree; a fitted shape is fitted here, on all prompts (see `resolve`). Otherwise as
        `run_plan`."""
        return self._run(self._fits.resolve(shape, node_budget), rule, with_steps, prompts, pruning, length, drawn)

    def run_plan(
        self,
        plan: Plan,
        rule: AcceptanceRule,
        with_steps: bool = False,
        prompts: np.ndarray | None = None,
        pruning: PruningPolicy = WHOLE,
        length: LengthPolicy = SAME,
        drawn: Drawn = AS_TARGET,
    ) -> Counted:
        """Prompts with one plan: counts and estimated times.

        Args:
            plan: what is expanded in every step.
            rule: which nodes are accepted.
            with_steps: list the steps.
            prompts: `[m]` ascending; left out: all of them.
            pruning: which drafted nodes are sent.
            length: how long the chain of each step is, where the plan is a chain.
            drawn: what children are drawn with.
        """
        everywhere = [PlanOnPrompts(plan, np.arange(len(self._names)))]
        return self._run(everywhere, rule, with_steps, prompts, pruning, length, drawn)

    def reliabilities(self) -> dict[str, pd.DataFrame]:
        """How well the scores of best-first trees tell what is accepted, by what the trees are ranked by; see
        `reliability`."""
        blocks = [np.arange(start, min(start + BLOCK, len(self._names))) for start in range(0, len(self._names), BLOCK)]
        largest = {which.scores: which for which in self._expansions if which.margin == inf and which.beam is None}
        return {
            scores: merged(reliability(self._walk(which, block), self._packed.of(block)) for block in blocks)
            for scores, which in largest.items()
        }

    def offsets(self) -> pd.DataFrame:
        """Acceptance by the distance from the root; see `offset_curve`."""
        return offset_curve(self._packed)

    def _run(
        self,
        plans: Iterable[PlanOnPrompts],
        rule: AcceptanceRule,
        with_steps: bool,
        prompts: np.ndarray | None,
        pruning: PruningPolicy,
        length: LengthPolicy,
        drawn: Drawn,
    ) -> Counted:
        wanted = np.arange(len(self._names)) if prompts is None else prompts
        blocks = [block for plan in plans for block in self._blocks(plan, wanted)]
        parts = [self._replay(plan, rule, pruning, length, drawn, block, with_steps) for plan, block in blocks]
        together = joined(parts, [np.searchsorted(wanted, block) for _, block in blocks])
        return together.with_sums(overlap=self._overlap(drawn)[wanted], judged_tokens=self._judged[wanted])

    def _overlap(self, drawn: Drawn) -> np.ndarray:
        """`[P]`, of the root's children; greedy distributions overlap wholly or not at all."""
        if self._records:
            overlap: np.ndarray = self._records[parts_of(None, drawn)[0].name].sum(1)
            return overlap
        top_ranked: np.ndarray = (at_depth(self._packed.ranks, 1) == 0).sum(1) * float(self._greedy)
        return top_ranked

    def _blocks(self, plan: PlanOnPrompts, wanted: np.ndarray) -> Iterator[PlanOnPrompts]:
        """The wanted prompts of a plan, as many at a time as memory allows; with best-first trees always equally many,
        so that what was walked is there for the next budget."""
        numbers = self._packed.ranks.shape[1] * (plan.plan.nodes + 1)
        size = BLOCK if plan.plan.nested is not None else max(1, min(BLOCK, LARGEST // numbers))
        members = np.intersect1d(plan.prompts, wanted)
        for start in range(0, len(members), size):
            yield PlanOnPrompts(plan.plan, members[start : start + size])

    def _replay(
        self,
        plan: Plan,
        rule: AcceptanceRule,
        pruning: PruningPolicy,
        length: LengthPolicy,
        drawn: Drawn,
        block: np.ndarray,
        with_steps: bool,
    ) -> Counted:
        """One block of prompts, in the way that plan, rule and policies ask for."""
        if length.sizes:
            return self._replay_sized(plan.nodes, length, block, with_steps)
        if isinstance(pruning, ScoredPolicy):
            return self._replay_pruned(plan, pruning, block, with_steps)
        if self._redrafting is not None:
            return self._replay_redrafted(self._redrafting, plan, block, with_steps)
        if plan.nested is not None:
            return self._replay_nested(plan.nested, block, with_steps)
        assert plan.topology is not None, "trees that differ and are not nested: see fitting.Together.live_only"
        if rule.replay != "rank" and self._records:
            return self._replay_expected(plan.topology, rule, drawn, block)
        return self._replay_static(plan.topology, rule, block, with_steps)

    def _replay_static(self, topology: Topology, rule: AcceptanceRule, block: np.ndarray, with_steps: bool) -> Counted:
        part = self._packed.of(block)
        if rule.replay != "rank":
            # greedy: whatever is drawn is the drafter's best token, and the first of its copies is taken
            part = part._replace(ranks=np.where(part.ranks > 0, -1, part.ranks))
        taken = take_steps(topology, part, self._static_walk(topology, part, (block.tobytes(), rule.replay)))
        done = counted(topology, part, taken, with_steps)
        return self._with_estimates(done, lambda costs: costs.decode_s(topology, done.sums["steps"]))

    def _static_walk(self, topology: Topology, part: PackedRanks, of: Hashable) -> NestedWalk:
        """The last one is kept: smaller budgets of its shape want it."""
        if self._nested is None or self._nested[0] != of or not self._nested[1].holds(topology):
            self._nested = of, NestedWalk(topology, part.ranks)
        return self._nested[1]

    def _replay_redrafted(self, redrafting: Redrafting, plan: Plan, block: np.ndarray, with_steps: bool) -> Counted:
        drafts = redrafting.along([self._names[place] for place in block], plan)
        done = drafts.counted(plan, self._packed.of(block), with_steps)
        fed = drafts.looked_up(plan)[:, None]

        def seconds(costs: CostCurve) -> np.ndarray:
            each = costs.dynamic_steps_s(fed, drafts.sizes)
            return costs.prefill_s + np.bincount(drafts.prompt, weights=each, minlength=len(block))

        return self._with_estimates(done, seconds)

    def _replay_expected(self, topology: Topology, rule: AcceptanceRule, drawn: Drawn, block: np.ndarray) -> Counted:
        rows = _rows(block)
        records = {name: values[rows] for name, values in self._records.items()}
        weights = rule_weights(topology, rule, records, self._recorded, drawn)
        done = replay_sampled(topology, weights, self._packed.of(rows))
        return self._with_estimates(done, lambda costs: costs.decode_s(topology, done.sums["steps"]))

    def _replay_nested(self, plan: NestedPlan, block: np.ndarray, with_steps: bool) -> Counted:
        walked = self._walk(limits(plan), block)
        done, steps = replay_dynamic(walked, self._packed.of(block), plan, with_steps)
        fed = fed_nodes(walked, steps, plan)

        def seconds(costs: CostCurve) -> np.ndarray:
            each = costs.dynamic_steps_s(fed, steps.size)
            return costs.prefill_s + np.bincount(walked.prompt[steps.start], weights=each, minlength=len(block))

        return self._with_estimates(done, seconds)

    def _replay_pruned(self, plan: Plan, policy: ScoredPolicy, block: np.ndarray, with_steps: bool) -> Counted:
        part, scored = self._packed.of(block), self._scored(plan, policy.scored_by, block)
        kept = prune(scored, policy, self._costs)
        done, steps = replay_pruned(scored, kept, part, with_steps)
        if plan.nested is not None:
            fed = fed_nodes(scored.walked, steps, plan.nested)
        else:
            assert plan.topology is not None
            fed = np.broadcast_to(plan.topology.parents_by_level, (len(steps.start), plan.depth))

        def seconds(costs: CostCurve) -> np.ndarray:
            of_steps = costs.of_steps(fed, plan.nodes, plan.dynamic)
            each = of_steps.fixed_s + of_steps.verify_s[steps.size]
            return costs.prefill_s + np.bincount(scored.walked.prompt[steps.start], weights=each, minlength=len(block))

        return self._with_estimates(done, seconds)

    def _replay_sized(self, budget: int, policy: LengthPolicy, block: np.ndarray, with_steps: bool) -> Counted:
        part = self._packed.of(block)
        chains = self._own_chains(block).first(budget) if policy.watches else Chains.unread(part, budget)
        step_s = step_seconds(self._costs, budget) if policy.needs_costs else None
        done, steps = replay_sized(chains, policy, part, step_s, with_steps)
        fed = fed_levels(steps.size, budget)

        def seconds(costs: CostCurve) -> np.ndarray:
            of_steps = costs.of_steps(fed, budget, dynamic=policy.watches)
            each = of_steps.fixed_s + of_steps.verify_s[steps.size]
            return costs.prefill_s + np.bincount(chains.walked.prompt[steps.start], weights=each, minlength=len(block))

        return self._with_estimates(done, seconds)

    def _own_chains(self, block: np.ndarray) -> Chains:
        """Those of the largest budget; the last ones are kept, for the others."""
        if self._read is None or self._read[0] != block.tobytes():
            assert self._chains is not None, "recorded for policies that look at what the drafter says"
            names = [self._names[place] for place in block]
            entropy = [self._chains.nodes_of(name).entropy for name in names] if self._chains.described else []
            found = Chains.of(self._packed.of(block), [self._chains.of(name) for name in names], entropy)
            self._read = block.tobytes(), found
        return self._read[1]

    def _scored(self, plan: Plan, kind: str, block: np.ndarray) -> Scored:
        """The drafted trees of one block of prompts, scored."""
        scores, names = self._scores[kind], [self._names[place] for place in block]
        if plan.nested is None:
            assert plan.topology is not None
            walked = walk(self._packed.of(block), scores.of_static(plan.topology, names))
            return Scored(walked, walked.depth > 0, walked.log_prob, dynamic=False)
        which = limits(plan.nested)
        walked = self._walk(which, block)
        survival = np.concatenate([trees.log_prob for trees in scores.of_nested(which, names)])
        return Scored(walked, nodes_there(walked, plan.nested), survival, dynamic=True)

    def _walk(self, which: Limits, block: np.ndarray) -> Walked:
        """The last one is kept: every budget with these limits wants it."""
        key = (which, block.tobytes())
        if self._walked is None or self._walked[0] != key:
            self._walked = None  # its memory is needed
            expansions = [self._expansions[which].of(self._names[i]) for i in block]
            self._walked = key, walk(self._packed.of(block), expansions)
        return self._walked[1]

    def _with_estimates(self, done: Counted, seconds: Callable[[CostCurve], np.ndarray]) -> Counted:
        """With what `seconds` says of costs, prompt by prompt; without any where they cannot be trusted."""
        return done.with_sums(**estimates(self._costs, done.sums["new_tokens"], seconds))


def _rows(block: np.ndarray) -> slice | np.ndarray:
    """The same prompts, as a slice where they stand side by side: a slice copies nothing."""
    first, last = int(block[0]), int(block[-1])
    return slice(first, last + 1) if last - first + 1 == len(block) else block


def limits(plan: NestedPlan) -> Limits:
    """Plans with equal limits share their trees."""
    scorer = plan.scorer.name if plan.scorer else plan.predictor or ""
    tempered = plan.max_depth, plan.max_children, plan.temperature, plan.top_p
    return Limits(*tempered, scorer, plan.margin, plan.beam, plan.searched)


def dynamic_trees(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    traces: PairTraces,
    plans: Iterable[Plan | None],
    store: TraceStore,
    recorded: Callable[[str], None],
    watch: Watch = UNWATCHED,
    fitted: FittedScores | None = None,
) -> dict[Limits, Expansions]:
    """The expansions that best-first plans need: one for each limits, at their largest budget; drafted where they are
    missing. Other plans need none, nor does a drafter that drafts again.

    Args:
        pair, prompts, traces, store, recorded, watch: see `Expansions`.
        plans: of any shapes.
        fitted: what plans lack whose scores are fitted.
    """
    expansions: dict[Limits, Expansions] = {}
    for which, plan in largest_nested([] if pair.traits.from_tokens else plans).items():
        of_prompts = {name: (fitted or FittedScores()).complete(plan, name) for name in prompts}
        expansions[which] = Expansions(pair, prompts, traces, of_prompts, store)
    for expansion in expansions.values():
        expansion.record(recorded, watch)
    return expansions


def largest_nested(plans: Iterable[Plan | None]) -> dict[Limits, NestedPlan]:
    """Of best-first plans with the same limits the one with the most nodes; other plans are passed over."""
    nested = [plan.nested for plan in plans if plan is not None and plan.nested is not None]
    return {limits(plan): plan for plan in sorted(nested, key=lambda plan: plan.nodes)}


def most_children(topologies: Iterable[Topology | None]) -> int:
    """The most children of one node in static trees, rounded up to a power of two so that studies share what they
    record."""
    most = max((max(map(len, tree.children)) for tree in topologies if tree is not None), default=1)
    return 1 << (most - 1).bit_length()
