"""Predictors that a study fits to its own texts: each half of the prompts is scored with the other half's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specdraft.drafters.pair import Pair
from specdraft.prediction.overhead import overhead
from specdraft.prompts import Prompt
from specdraft.replay.calibration import Calibration
from specdraft.replay.folds import FOLDS, halves
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import Combination
from specdraft.study.engines.pruning import predictor_of
from specdraft.traces.library import PairTraces
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes.base import Scorer
from specdraft.trees.shapes.best_first import BestFirst

if TYPE_CHECKING:
    from specdraft.prediction.predictor import Predictor

MODEL, CALIBRATION = "mlp", "none"
FITTED = "fitted to the other half of the prompts"
NODES = 64  # of the trees that it learns from


def cross_fit_predictors(
    pair: Pair,
    prompts: Sequence[Prompt],
    prompt_ids: Mapping[str, Sequence[int]],
    traces: PairTraces,
    sampling: Sampling,
    calibration: Calibration,
    seed: int,
    store: TraceStore,
    note: Callable[[str], None] = lambda text: None,
    watch: Watch = UNWATCHED,
) -> dict[str, Predictor]:
    """Each prompt's predictor, fitted on the prompts of the other half.

    Args:
        pair, prompt_ids, traces, store, note, watch: see `Expansions`.
        prompts: whose texts they are.
        sampling: how the texts were made.
        calibration: of the trees' scores.
        seed: of the halves, and of what is drawn while it learns.

    Raises:
        ConfigError: there are too few prompts, or all outcomes are equal.
    """
    from specdraft.prediction.cross_fitting import fit
    from specdraft.prediction.predictor import About, Predictor
    from specdraft.prediction.rows import collect
    from specdraft.study.recorded_trees import recorded_trees

    names = [prompt.prompt_id for prompt in prompts]
    largest = BestFirst(scores="calibrated").at(NODES)
    plans = {name: largest.at_temperature(calibration.of_prompt[name]) for name in names}
    rows = collect(recorded_trees(pair, names, prompt_ids, traces, plans, sampling, store, note, watch))
    fold = halves(prompts, seed)
    fitted = []
    for number in range(FOLDS):
        others = np.flatnonzero(fold != number)
        found, temperature = fit(MODEL, rows, others, seed), calibration.folds[number].value
        named = (pair.files.spec.name, pair.files.drafter.label, *pair.files.weights, sampling, temperature)
        learnt = (MODEL, CALIBRATION, found.model.groups, len(others), int(rows.of(others).reached.sum()))
        fitted.append(Predictor(found.model, found.calibrations[CALIBRATION], About(*named, *learnt)))
    return {name: fitted[half] for name, half in zip(names, fold.tolist(), strict=True)}


def scorers_of(predictors: Mapping[str, Predictor]) -> dict[str, Scorer]:
    """What ranks the nodes of each prompt's trees by its predictor."""
    if not predictors:
        return {}
    from specdraft.prediction.tree_scores import PredictedScores

    return {
        name: PredictedScores(predictor.digest, predictor.about.scores_temperature, predictor)
        for name, predictor in predictors.items()
    }


def predictors_used(
    pair: Pair, combinations: Iterable[Combination], fitted: Collection[Predictor] = ()
) -> dict[str, dict[str, Any]]:
    """What the manifest says of the predictors that rank or prune these combinations' trees, with their memory.

    Args:
        pair: beside whose models they are.
        combinations: which may name files.
        fitted: those that no file holds; the halves' are of one size.
    """
    used = {FITTED: next(iter(fitted))} if fitted else {}
    for combination in combinations:
        ranking = combination.scorer.predictor if combination.scorer else None
        for named, predictor in ((combination.shape, ranking), (combination.pruning, predictor_of(combination))):
            used |= {Path(named.predictor).name: predictor} if predictor else {}  # type: ignore[union-attr]
    return {name: _described(predictor, pair) for name, predictor in used.items()}


def _described(predictor: Predictor, pair: Pair) -> dict[str, Any]:
    memory = asdict(overhead(predictor.held_bytes, pair.files.models))
    about = predictor.about
    return {"model": about.model, "calibration": about.calibration, "prompts": about.prompts, "memory": memory}
