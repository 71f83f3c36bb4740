"""Rows from traces: the models run along each text once, every tree is array code after that."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from specdraft.bench.curve import NOT_MEASURED, CostCurve
from specdraft.bench.kept import LEAST_S, SHARE, kept_costs, pair_costs
from specdraft.bench.points import CostPoint
from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.errors import LeftOutError, LoadError, ResultsError
from specdraft.losslessness.certificate import near_ties
from specdraft.prediction.predictor import Predictor
from specdraft.replay.calibration import Calibration, FittedScores, cross_fit
from specdraft.replay.pruned import union_of
from specdraft.replay.redraft import Redrafting
from specdraft.replay.replayer import Replayer, dynamic_trees, most_children
from specdraft.results.kept_tables import OFFSETS, RELIABILITY, TEXTS
from specdraft.results.parts import ReplayedRows
from specdraft.study.combination import Combination, SameTexts, by_texts, largest_first
from specdraft.study.engines.base import Event, Failed, LeftOut, Measured, Replayed, TextCalibration, Work
from specdraft.study.engines.costs import cost_point, costs_of
from specdraft.study.engines.lengths import chains_for_lengths
from specdraft.study.engines.predictors import cross_fit_predictors, predictors_used, scorers_of
from specdraft.study.engines.pruning import scores_for_pruning
from specdraft.study.failures import explain
from specdraft.study.turns import read_prompts, without_turns
from specdraft.traces.alpha_bounds import alpha_bounds
from specdraft.traces.asked_twice import asked_twice
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.rule_records import Part, by_node, parts_of
from specdraft.traces.score_losses import score_losses
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch

MOST_ROWS = 20_000  # of a unit that is written as a whole
LONGEST_S = 5.0  # seconds of replay after which a unit is written, however small
PromptIds = Mapping[str, Sequence[int]]


class Prepared(NamedTuple):
    """A group's traces, ready for its trees, and what was measured on the way."""

    replayer: Replayer
    at: Mapping[CostPoint, Replayer]
    measured: Sequence[Measured]

    def replayer_of(self, combination: Combination) -> Replayer:
        """By the costs that a combination asks for."""
        return self.at.get(cost_point(combination), self.replayer)


@dataclass(frozen=True)
class ReplayEngine:
    """Records what is not recorded, then replays every combination from it.

    Attributes:
        store: where traces are kept.
        note: called with a line of text for each batch that had to be recorded, while the others still are to be.
        watch: told of every stage.
        costs_are_kept: they were measured for this study a moment ago (see `measure`): nothing is measured.
    """

    store: TraceStore
    note: Callable[[str], None] = lambda text: None
    watch: Watch = UNWATCHED
    costs_are_kept: bool = False

    def run(self, work: Work, pair: Pair) -> Iterator[Event]:
        """See `Engine.run`."""
        store = self.store.labelled(prompts=work.combinations[0].prompts.label)
        try:
            prompt_ids = read_prompts(pair, work.prompts, work.combinations, store, self.note, self.watch)
        except LeftOutError as error:  # answers that stand before later turns
            why = without_turns(work.prompts, error.why)
            yield LeftOut(pair.label, why, _rows_on(work, work.combinations, range(work.repeats), why))
            left = work.without(why)
            if left.prompts:
                yield from self.run(left, pair)
            return
        yield from self.along(work, pair, prompt_ids)

    def along(self, work: Work, pair: Pair, prompt_ids: PromptIds) -> Iterator[Event]:
        """The same, of prompts whose token ids are known."""
        groups = [group for group in by_texts(work.combinations, work.repeats) if _rows_of(work, group)]
        costs: dict[CostPoint, CostCurve] = {}  # measured, or looked at, once
        for group in groups:
            yield from self._replay_group(work, pair, group, prompt_ids, costs)

    def record(self, work: Work, pair: Pair) -> None:
        """Traces alone, of the work's prompts: all that its combinations need and that does not depend on other
        prompts. Raises as `run`, and whatever a forward can."""
        store = self.store.labelled(prompts=work.combinations[0].prompts.label)
        prompt_ids = read_prompts(pair, work.prompts, work.combinations, store, self.note, self.watch)
        for group in by_texts(work.combinations, work.repeats):
            traces = self._traces(work, pair, group, prompt_ids)
            where = (self.store, self.note, self.watch)
            whole = [c.together.plan for c in group.combinations if not c.fits_scores]
            dynamic_trees(pair, prompt_ids, traces, whole, *where)
            chains_for_lengths(pair, group.combinations, prompt_ids, traces, *where)
            if any(combination.fits_scores for combination in group.combinations):
                score_losses(pair, prompt_ids, traces, *where)

    def measure(self, work: Work, pair: Pair) -> None:
        """Costs alone, which are kept with the traces."""
        replace(self, costs_are_kept=False)._costs(work, pair, 0.0)

    def _replay_group(
        self, work: Work, pair: Pair, group: SameTexts, prompt_ids: PromptIds, costs: dict[CostPoint, CostCurve]
    ) -> Iterator[Event]:
        try:
            prepared = self._prepare_or_fail(work, pair, group, prompt_ids, costs)
        except LeftOutError as error:
            rows = _rows_on(work, group.combinations, group.repeats, error.why)
            yield LeftOut(pair.label, error.why, rows)
            others = {name: ids for name, ids in prompt_ids.items() if name not in error.why}
            if others:
                yield from self._replay_group(work.without(error.why), pair, group, others, costs)
            return
        if not isinstance(prepared, Prepared):
            yield from prepared
            return
        yield from prepared.measured
        self.watch.stage("replay", _rows_of(work, group), "rows")
        yield from _together(
            _replay_or_fail(work, prepared.replayer_of(combination), combination, group.repeats)
            for combination in largest_first(group.combinations)
            if work.due_rows(combination, group.repeats)
        )
        if (told := _reliability(group, prepared.replayer)) is not None:
            yield Measured(pair.label, reliability=told)
        if group.combinations[0].sampling.greedy and not pair.traits.from_tokens:
            texts = _texts_of(group)
            yield Measured(pair.label, offsets=prepared.replayer.offsets().assign(**texts)[OFFSETS.columns])

    def _prepare_or_fail(
        self, work: Work, pair: Pair, group: SameTexts, prompt_ids: PromptIds, costs: dict[CostPoint, CostCurve]
    ) -> Prepared | list[Failed]:
        try:
            return self._prepare(work, pair, group, prompt_ids, costs)
        except (ResultsError, LoadError):
            raise
        except Exception as error:  # whatever goes wrong in one pair must not stop the others
            return [_failed(work, combination, group.repeats, error) for combination in group.combinations]

    def _prepare(
        self, work: Work, pair: Pair, group: SameTexts, prompt_ids: PromptIds, costs: dict[CostPoint, CostCurve]
    ) -> Prepared:
        started = time.perf_counter()
        traces = self._traces(work, pair, group, prompt_ids)
        plans = [combination.together.plan for combination in group.combinations]
        calibration = self._calibrate(work, pair, group, prompt_ids, traces)
        temperatures = calibration.of_prompt if calibration else {}
        predictors = self._predictors(work, pair, group, prompt_ids, traces, calibration)
        fitted = FittedScores(temperatures, scorers_of(predictors))
        dynamic = dynamic_trees(pair, prompt_ids, traces, plans, self.store, self.note, self.watch, fitted)
        ties: dict[str, Any] | None = None
        if group.combinations[0].sampling.greedy:
            ties = near_ties(traces.trajectories.values(), pair.target_check)
            ties |= self._of_server(pair, group, prompt_ids, traces)
        costs |= {} if costs else self._costs(work, pair, time.perf_counter() - started)
        some = next(iter(costs.values()), None)
        by = (dynamic, temperatures, predictors, self.store, self.note, self.watch)
        scores = scores_for_pruning(work, pair, group.combinations, prompt_ids, traces, *by)
        redrafting = Redrafting(pair.drafter, prompt_ids, traces) if pair.traits.from_tokens else None
        chains = chains_for_lengths(pair, group.combinations, prompt_ids, traces, self.store, self.note, self.watch)
        given = (dynamic, scores, redrafting, chains)
        replayer = Replayer(traces, work.prompts, some or NOT_MEASURED, work.seed, *given)
        first_one = group.combinations[0]
        named = (first_one.sampling, first_one.settings.max_new_tokens, work.draw(group.repeats[0]))
        calibrations = [TextCalibration.of(*named, calibration)] if calibration else []
        used = predictors_used(pair, group.combinations, predictors.values())
        at = {point: replayer.at_costs(curve) for point, curve in costs.items()}
        measured = Measured(pair.label, some, ties, calibrations, predictors=used)
        others = (Measured(pair.label, curve) for curve in [*costs.values()][1:])
        return Prepared(replayer, at, [measured, *others])

    def _calibrate(
        self, work: Work, pair: Pair, group: SameTexts, prompt_ids: PromptIds, traces: PairTraces
    ) -> Calibration | None:
        """The temperatures of trees that are grown or pruned by fitted scores; None where there are no such trees."""
        if not any(combination.fits_scores for combination in group.combinations):
            return None
        found = score_losses(pair, prompt_ids, traces, self.store, self.note, self.watch)
        return cross_fit(found, [prompt.prompt_id for prompt in work.prompts], work.halves)

    def _predictors(
        self,
        work: Work,
        pair: Pair,
        group: SameTexts,
        prompt_ids: PromptIds,
        traces: PairTraces,
        calibration: Calibration | None,
    ) -> dict[str, Predictor]:
        """Those of trees that are grown or pruned by predictors without a file; empty where there are none."""
        if calibration is None or not any(combination.fits_predictor for combination in group.combinations):
            return {}
        given = (prompt_ids, traces, group.combinations[0].sampling, calibration, work.seed)
        return cross_fit_predictors(pair, work.prompts, *given, self.store, self.note, self.watch)

    def _costs(self, work: Work, pair: Pair, recording_s: float) -> dict[CostPoint, CostCurve]:
        """What drafting and verifying cost, for all trees of this work."""
        again, limit_s = work.combinations[0].settings.cost.measure == "again", max(LEAST_S, SHARE * recording_s)

        def measured(point: CostPoint, largest: int) -> CostCurve | None:
            if self.costs_are_kept:
                return kept_costs(pair, self.store, point)
            return pair_costs(pair, self.store, largest, limit_s, again, self.watch, point)

        return costs_of(work.combinations, pair, measured)

    def _of_server(self, pair: Pair, group: SameTexts, prompt_ids: PromptIds, traces: PairTraces) -> dict[str, Any]:
        """Whether a served target says the same again, and what its probabilities tell; nothing of others."""
        if not pair.files.target.spec.served:
            return {}
        given = Ending(group.combinations[0].settings.max_new_tokens, pair.eos_ids), self.store
        twice = asked_twice(pair, prompt_ids, traces.trajectories, *given).as_dict()
        bounds = None if pair.traits.by_offset else alpha_bounds(pair, prompt_ids, traces, *given)
        return twice | ({"alpha_bounds": bounds._asdict()} if bounds else {})

    def _traces(self, work: Work, pair: Pair, group: SameTexts, prompt_ids: PromptIds) -> PairTraces:
        first = group.combinations[0]
        ending = Ending(first.settings.max_new_tokens, pair.eos_ids)
        children = most_children(c.topology for c in group.combinations if c.rule.replay != "rank")
        draw, asked = work.draw(group.repeats[0]), _recorded_parts(group.combinations)
        trees = [c.topology for c in group.combinations if by_node(c.rule) and c.topology is not None]
        tree = union_of(trees) if trees else None
        store = self.store.labelled(prompts=first.prompts.label)
        return pair_traces(
            pair, prompt_ids, first.sampling, ending, store, self.note, draw, children, self.watch, asked, tree
        )


def _recorded_parts(combinations: Iterable[Combination]) -> list[Part]:
    """What is recorded for their rules along sampled texts, each part once; the overlap at the target's temperature is
    there for rules that draw nothing."""
    overlap = parts_of(None)
    for c in combinations:
        overlap += parts_of(None, c.drawn)
    recorded = [part for c in combinations if c.rule.replay == "record" for part in parts_of(c.rule, c.drawn)]
    return list({part.name: part for part in [*overlap, *recorded]}.values())


def _reliability(group: SameTexts, replayer: Replayer) -> pd.DataFrame | None:
    """How well the scores of this group's best-first trees tell what is accepted; None where it has no such trees."""
    texts = _texts_of(group) | {"repeat": group.repeats[0]}
    tables = [table.assign(**texts, scores=scores) for scores, table in replayer.reliabilities().items()]
    return pd.concat(tables)[RELIABILITY.columns] if tables else None


def _texts_of(group: SameTexts) -> dict[str, Any]:
    """What says which texts these are."""
    return {name: group.combinations[0].keys[name] for name in TEXTS}


def _rows_on(work: Work, combinations: Iterable[Combination], repeats: range, names: Container[str]) -> int:
    """How many rows are due on these prompts."""
    some = [prompt for prompt in work.prompts if prompt.prompt_id in names]
    return sum(work.is_due(c, prompt, repeat) for c in combinations for prompt in some for repeat in repeats)


def _rows_of(work: Work, group: SameTexts) -> int:
    return sum(work.due_rows(combination, group.repeats) for combination in group.combinations)


def _together(outcomes: Iterable[list[ReplayedRows] | Failed]) -> Iterator[Replayed | Failed]:
    """Combinations as they are replayed, in units that are worth a file, or that took long enough to be kept."""
    unit: list[ReplayedRows] = []
    rows, started = 0, time.perf_counter()
    try:
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                yield outcome
            else:
                unit += outcome
                rows += Replayed(outcome).prompts
            if rows >= MOST_ROWS or time.perf_counter() - started >= LONGEST_S:
                whole, unit, rows, started = unit, [], 0, time.perf_counter()
                if whole:
                    yield Replayed(whole)
    except GeneratorExit:
        raise
    except BaseException:  # what is done is kept, whatever ends the rest
        if unit:
            yield Replayed(unit)
        raise
    if unit:
        yield Replayed(unit)


def _replay_or_fail(
    work: Work, replayer: Replayer, combination: Combination, repeats: range
) -> list[ReplayedRows] | Failed:
    alike: dict[frozenset[str], list[int]] = {}  # repeats of one text, by the prompts that are due
    for repeat in repeats:
        alike.setdefault(work.due_prompts(combination, repeat), []).append(repeat)
    try:
        return [
            rows for due, which in alike.items() if due for rows in _replayed(work, replayer, combination, due, which)
        ]
    except ResultsError:
        raise
    except Exception as error:  # whatever goes wrong in one combination must not stop the others
        return _failed(work, combination, repeats, error)


def _replayed(
    work: Work, replayer: Replayer, combination: Combination, due: frozenset[str], repeats: Sequence[int]
) -> list[ReplayedRows]:
    """One text of each prompt that is due, once for each of the repeats that it stands for."""
    places = [place for place, prompt in enumerate(work.prompts) if prompt.prompt_id in due]
    prompts, plan = [work.prompts[place] for place in places], combination.together.plan
    policies = (combination.pruning, combination.length, combination.drawn)
    how = (combination.rule, work.with_steps, np.array(places), *policies)
    if plan is None:
        counted = replayer.run(combination.shape, combination.settings.budget, *how)
    else:
        counted = replayer.run_plan(plan, *how)
    ids, categories = tuple(p.prompt_id for p in prompts), tuple(p.category for p in prompts)
    name, weights = combination.identifier, combination.weights
    return [ReplayedRows(name, weights, repeat, ids, categories, counted) for repeat in repeats]


def _failed(work: Work, combination: Combination, repeats: range, error: Exception) -> Failed:
    return Failed(combination.identifier, None, explain(error), work.due_rows(combination, repeats))
