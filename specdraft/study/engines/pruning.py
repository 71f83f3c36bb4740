"""What pruning needs of a pair before rows are made: scores along the texts, costs, a temperature for each prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from specdraft.bench.curve import CostCurve
from specdraft.bench.kept import pair_costs
from specdraft.drafters.pair import Pair
from specdraft.prediction.pruning import ScoredPolicy
from specdraft.replay.fit import resolve
from specdraft.replay.folds import folds
from specdraft.replay.replayer import Limits, limits
from specdraft.replay.scores import TreeScores, score_trees
from specdraft.replay.static import pack_traces
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Work
from specdraft.traces.library import Expansions, PairTraces
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes import NestedPlan
from specdraft.trees.topology import Topology


def scores_for_pruning(
    work: Work,
    pair: Pair,
    combinations: Iterable[Combination],
    prompt_ids: Mapping[str, Sequence[int]],
    traces: PairTraces,
    expansions: Mapping[Limits, Expansions],
    calibrated: Mapping[str, float],
    store: TraceStore,
    note: Callable[[str], None] = lambda text: None,
    watch: Watch = UNWATCHED,
) -> dict[str, TreeScores]:
    """Kind of scores -> every tree that is pruned by it, scored.

    Args:
        work, pair, prompt_ids, traces, store, note, watch: see `ReplayEngine`.
        combinations: that are replayed along these texts.
        expansions: their best-first trees.
        calibrated: a fitted temperature for each prompt, where any of them asks for it.
    """
    by_kind: dict[str, list[Combination]] = {}
    for combination in combinations:
        if isinstance(combination.pruning, ScoredPolicy):
            by_kind.setdefault(combination.pruning.scores, []).append(combination)
    found = {}
    for kind, asked in by_kind.items():
        grown = {limits(plan): expansions[limits(plan)] for plan in _nested(asked)}
        temperatures = calibrated if kind == "calibrated" else dict.fromkeys(prompt_ids, 1.0)
        static = _static(work, asked, traces)
        found[kind] = score_trees(pair, prompt_ids, traces, static, grown, temperatures, store, note, watch)
    return found


def costs_for_pruning(
    pair: Pair, combinations: Sequence[Combination], store: TraceStore, watch: Watch = UNWATCHED
) -> CostCurve | None:
    """The pair's costs, the same that replay has, where a policy of combinations that are decoded live weighs them."""
    if not any(combination.pruning.needs_costs for combination in combinations):
        return None
    return pair_costs(pair, store, 1 + max(combination.limits.nodes for combination in combinations), watch=watch)


def _nested(combinations: Iterable[Combination]) -> list[NestedPlan]:
    plans = [combination.together.plan for combination in combinations]
    return [plan.nested for plan in plans if plan is not None and plan.nested is not None]


def _static(work: Work, combinations: Iterable[Combination], traces: PairTraces) -> list[Topology]:
    """The static trees of combinations, fitted ones as they are of each half of the prompts."""
    packed = pack_traces(traces, [prompt.prompt_id for prompt in work.prompts])
    fold = folds([prompt.category for prompt in work.prompts], work.seed)
    plans = [
        some.plan
        for combination in combinations
        if not combination.together.dynamic
        for some in resolve(combination.shape, combination.settings.budget, packed, fold)
    ]
    return [plan.topology for plan in plans if plan.topology is not None]
