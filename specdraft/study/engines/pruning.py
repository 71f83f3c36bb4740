"""What pruning needs of a pair before rows are made: scores along the texts, costs, a temperature for each prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from specdraft.bench.curve import CostCurve
from specdraft.bench.kept import pair_costs
from specdraft.drafters.pair import Pair, PairFiles
from specdraft.prediction.features import GROUPS
from specdraft.prediction.predictor import Predictor, load_predictor, refuse_features
from specdraft.prediction.pruning import PruningPolicy, ScoredPolicy
from specdraft.replay.fit import resolve
from specdraft.replay.replayer import Limits, limits
from specdraft.replay.scores import TreeScores, score_trees
from specdraft.replay.static import pack_traces
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Work
from specdraft.study.engines.costs import table_costs
from specdraft.traces.library import Expansions, PairTraces
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes import NestedPlan
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    from specdraft.decoding.pruning import Pruning


def scores_for_pruning(
    work: Work,
    pair: Pair,
    combinations: Iterable[Combination],
    prompt_ids: Mapping[str, Sequence[int]],
    traces: PairTraces,
    expansions: Mapping[Limits, Expansions],
    calibrated: Mapping[str, float],
    predictors: Mapping[str, Predictor],
    store: TraceStore,
    note: Callable[[str], None] = lambda text: None,
    watch: Watch = UNWATCHED,
) -> dict[str, TreeScores]:
    """Kind of scores -> every tree that is pruned by it, scored.

    Args:
        work, pair, prompt_ids, traces, store, note, watch: see `ReplayEngine`.
        combinations: that are replayed along these texts.
        expansions: their best-first trees.
        calibrated: a fitted temperature for each prompt, where any of them asks for it; `predictors`: likewise.
    """
    by_kind: dict[str, list[Combination]] = {}
    for combination in combinations:
        if isinstance(combination.pruning, ScoredPolicy):
            by_kind.setdefault(combination.pruning.scored_by, []).append(combination)
    found = {}
    for kind, asked in by_kind.items():
        grown = {limits(plan): expansions[limits(plan)] for plan in _nested(asked)}
        predictor, static = predictor_of(asked[0]), _static(work, asked, traces)
        told = dict.fromkeys(prompt_ids, predictor) if predictor else predictors if kind == "predictor" else {}
        plain = {name: told[name].about.scores_temperature if told else 1.0 for name in prompt_ids}
        by = (calibrated if kind == "calibrated" else plain, store, note, watch, told)
        found[kind] = score_trees(pair, prompt_ids, traces, static, grown, *by)
    return found


def predictor_of(combination: Combination) -> Predictor | None:
    """What a combination's trees are pruned by; None: by the drafter's own probabilities.

    Raises:
        ConfigError, ResultsError: see `load_predictor`; it reads what is not known while trees are pruned.
    """
    policy, files, sampling = combination.pruning, combination.pair, combination.sampling
    told = ("pruning", getattr(policy, "predictor", None), files.weights, repr(sampling))
    return combination.once.of(told, lambda: predictor_for(policy, files, sampling))


def predictor_for(policy: PruningPolicy, files: PairFiles, sampling: Sampling) -> Predictor | None:
    """What a policy goes by with a pair and a sampling setting; raises as `predictor_of`."""
    if not isinstance(policy, ScoredPolicy) or policy.predictor is None:
        return None
    path = Path(policy.predictor)
    predictor = load_predictor(path, files, sampling)
    refuse_features(predictor, path, [group for group in GROUPS if group != "extra"])
    return predictor


class LiveNeeds(NamedTuple):
    """What policies need of a pair while it decodes: costs, where one weighs them, and predictors to prune by."""

    costs: CostCurve | None
    predictors: Mapping[str, Predictor | None]

    @classmethod
    def of(cls, pair: Pair, combinations: Sequence[Combination], store: TraceStore, watch: Watch) -> LiveNeeds:
        """Of these combinations."""
        predictors = {c.pruning.scored_by: predictor_of(c) for c in combinations if isinstance(c.pruning, ScoredPolicy)}
        return cls(costs_for_policies(pair, combinations, store, watch), predictors)

    def pruning(
        self, combination: Combination, temperature: float, dynamic: bool, fitted: Predictor | None = None
    ) -> Pruning:
        """How a combination's trees are pruned; `fitted`: by what predictor, where it has no file."""
        policy = combination.pruning
        predictor = (self.predictors[policy.scored_by] if isinstance(policy, ScoredPolicy) else None) or fitted
        from specdraft.decoding.pruning import Pruning

        return Pruning(policy, temperature, self.costs, dynamic, predictor)


def costs_for_policies(
    pair: Pair, combinations: Sequence[Combination], store: TraceStore, watch: Watch = UNWATCHED
) -> CostCurve | None:
    """The pair's costs, the same that replay has, where a policy of combinations that are decoded live weighs them."""
    if not any(policy.needs_costs for one in combinations for policy in (one.pruning, one.length)):
        return None
    if combinations[0].settings.cost.table is not None:
        return table_costs(combinations[0])
    return pair_costs(pair, store, 1 + max(combination.limits.nodes for combination in combinations), watch=watch)


def _nested(combinations: Iterable[Combination]) -> list[NestedPlan]:
    plans = [combination.together.plan for combination in combinations]
    return [plan.nested for plan in plans if plan is not None and plan.nested is not None]


def _static(work: Work, combinations: Iterable[Combination], traces: PairTraces) -> list[Topology]:
    """The static trees of combinations, fitted ones as they are of each half of the prompts."""
    packed = pack_traces(traces, [prompt.prompt_id for prompt in work.prompts])
    plans = [
        some.plan
        for combination in combinations
        if not combination.together.dynamic
        for some in resolve(combination.shape, combination.settings.budget, packed, work.halves)
    ]
    return [plan.topology for plan in plans if plan.topology is not None]
