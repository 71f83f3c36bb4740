"""Predictors that a study fits to its own texts: each half of the prompts is scored with the other half's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from specdraft.drafters.pair import Pair
from specdraft.prompts import Prompt
from specdraft.replay.calibration import Calibration
from specdraft.replay.folds import FOLDS, folds
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import Expansions, PairTraces, recorded_texts
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes.base import Scorer
from specdraft.trees.shapes.best_first import BestFirst

if TYPE_CHECKING:
    from specdraft.prediction.predictor import Predictor

MODEL, CALIBRATION = "mlp", "none"
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
    from specdraft.prediction.rows import Recorded, collect

    names = [prompt.prompt_id for prompt in prompts]
    largest = BestFirst(scores="calibrated").at(NODES)
    plans = {name: largest.at_temperature(calibration.of_prompt[name]) for name in names}
    trees = Expansions(pair, prompt_ids, traces, plans, store, described=True)
    trees.record(note, watch)
    texts = recorded_texts(pair, [(prompt_ids[name], traces.trajectories[name]) for name in names])
    rows = collect(
        [Recorded(text, trees.of(name), trees.nodes_of(name)) for text, name in zip(texts, names, strict=True)]
    )
    fold = folds([prompt.category for prompt in prompts], seed)
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
