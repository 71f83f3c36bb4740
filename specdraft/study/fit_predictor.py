"""A predictor of acceptance for a pair, from traces: what `specdraft fit predictor` makes and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from specdraft.config import override_keys, unless_said
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError, did_you_mean
from specdraft.prediction.ablation import Step, ablate
from specdraft.prediction.calibration import CALIBRATIONS
from specdraft.prediction.cross_fitting import FEWEST, HeldOut, Scored, check_outcomes, cross_fit, fit, score_all
from specdraft.prediction.features import GROUPS
from specdraft.prediction.overhead import Overhead, overhead
from specdraft.prediction.predictor import About, Predictor
from specdraft.prediction.predictors import check_installed, models
from specdraft.prediction.rows import Recorded, Rows, collect, of_positions
from specdraft.prediction.scores import Bin, Place, by_place, even_edges, reliability, weights
from specdraft.prompts import Prompt, load_prompts
from specdraft.replay.folds import halves
from specdraft.study.ablation_table import ablation_table, check_same_texts
from specdraft.study.alignment_columns import alignment_columns
from specdraft.study.combination import Combination, encode_all
from specdraft.study.fitted_temperature import samples_texts
from specdraft.study.plan import one_combination
from specdraft.study.recorded import RecordedTexts, record_texts
from specdraft.study.recorded_trees import recorded_trees
from specdraft.study.refusals import refuse_engine
from specdraft.traces.store import default_folder
from specdraft.trees.shapes import NestedPlan

TREE, BUDGET = "tree=best_first-calibrated", {"budget": "64"}


@dataclass(frozen=True)
class Learnt:
    """What can be learnt of a pair.

    Attributes:
        combination: of the pair and the settings.
        prompts: in the order of their numbers in the rows.
        rows: every drafted node of every tree.
        fold: `[P]` the half of each prompt: the one that fitted trees are scored on.
        temperature: of the trees' scores, fitted on all prompts; each prompt's trees have that of the other half.
    """

    combination: Combination
    prompts: Sequence[Prompt]
    rows: Rows
    fold: np.ndarray
    temperature: float = 1.0


@dataclass(frozen=True)
class FittedPredictor:
    """A predictor fitted on all prompts, and how its like did on prompts that they were not fitted on.

    Attributes:
        learnt: what it was fitted on.
        scored: every model with every calibration, conditional and survival; the drafter's own probability first.
        held_out: what the chosen model and calibration said of every row from the other half; `raw` what the drafter's
            own probability did.
        ablation: what each feature group adds, if it was asked for.
    """

    learnt: Learnt
    predictor: Predictor
    scored: list[Scored]
    held_out: HeldOut
    raw: HeldOut
    ablation: list[Step]

    def places(self) -> list[Place]:
        """Survival by depth and child rank, predicted against observed."""
        rows = self.learnt.rows
        said = self.held_out.predictions(rows, "survival")
        return by_place(said, rows.features.depth, rows.features.rank, weights(len(self.learnt.fold)))

    def reliability(self, of: HeldOut, what: str) -> list[Bin]:
        """The reliability diagram of one of both, `conditional` or `survival`."""
        return reliability(of.predictions(self.learnt.rows, what), even_edges())

    def table(self) -> pd.DataFrame:
        """A row for each drafted node: everything that the scores are made of."""
        rows, names = self.learnt.rows, np.array([prompt.prompt_id for prompt in self.learnt.prompts], dtype=object)
        return pd.DataFrame(
            {
                "prompt_id": names[rows.prompt],
                "half": self.learnt.fold[rows.prompt],
                "start": rows.start,
                "depth": rows.features.depth,
                "rank": rows.features.rank,
                "reached": rows.reached.astype(int),
                "accepted": rows.accepted,
                "raw": self.raw.conditional,
                "raw_survival": self.raw.survival,
                "conditional": self.held_out.conditional,
                "survival": self.held_out.survival,
            }
        )

    @property
    def overhead(self) -> Overhead:
        """The memory that the predictor takes beside the models."""
        return overhead(self.predictor.held_bytes, self.learnt.combination.pair.models)

    def ablation_table(self) -> pd.DataFrame:
        """What each feature group adds, as a study's folder has it."""
        return ablation_table(self.ablation, self.learnt.combination, len(self.learnt.prompts))

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "predictor": asdict(self.predictor.about),
            "memory": asdict(self.overhead),
            "prompts": len(self.learnt.prompts),
            "rows": len(self.learnt.rows.prompt),
            "reached": int(self.learnt.rows.reached.sum()),
            "scores": [_scored(one) for one in self.scored],
            "places": [place._asdict() | {"scores": _intervals(place.scores)} for place in self.places()],
            "reliability": {
                f"{name} {what}": [part._asdict() for part in self.reliability(of, what)]
                for name, of in (("raw", self.raw), ("predictor", self.held_out))
                for what in ("conditional", "survival")
            },
            "ablation": [
                step._asdict()
                | {"scores": _intervals(step.scores), "gained": _intervals(step.gained), "says": step.says}
                for step in self.ablation
            ],
        }


def _scored(one: Scored) -> dict[str, Any]:
    return one._asdict() | {"scores": _intervals(one.scores), "against_raw": _intervals(one.against_raw)}


def _intervals(scores: Any) -> dict[str, Any]:
    return {name: value.as_dict() for name, value in scores.items()}


def default_file(combination: Combination) -> Path:
    """Beside the traces."""
    sampling = combination.sampling
    setting = "greedy" if sampling.greedy else f"t{sampling.temperature:g}-k{sampling.top_k}-p{sampling.top_p:g}"
    drafter = combination.pair.drafter.label
    return default_folder() / f"predictor-{combination.pair.spec.name}-{drafter}-{setting}.safetensors"


def check_choice(model: str, calibration: str, groups: Sequence[str] = ()) -> None:
    """Raise `ConfigError` for what is not known, or is not read."""
    chosen = [("--model", model, list(models())), ("--calibration", calibration, list(CALIBRATIONS))]
    chosen += [("--features", name, [name for name in GROUPS if name != "extra"]) for name in groups]
    for option, value, known in chosen:
        if value not in known:
            raise ConfigError(f"{option} {value!r} is not known{did_you_mean(value, known)}")
    if groups and not models()[model].default_groups:
        raise ConfigError(f"--features has no effect: --model {model} reads a draft probability alone; leave it out")


def learn(
    overrides: list[str],
    config_dir: Path | None = None,
    recorded: Callable[[str], None] = lambda what: None,
    alignment: Path | None = None,
    study: Path | None = None,
) -> Learnt:
    """The rows of a pair: trees along its texts; what is not in the store is recorded.

    Args:
        overrides: in Hydra's grammar; by default the bundled pair, greedy, and calibrated best-first trees of 64 nodes.
        config_dir: the user's configs.
        recorded: called with a line of text for what takes a while.
        alignment: what it tells of nodes below the text joins their features, as the group `extra`.
        study: the folder of a study, which must be of the same texts.

    Raises:
        ConfigError: trees have no probabilities, prompts are too few, or the overrides cannot be meant.
        UserError: as `load_prompts`, `encode_prompts` and `load_pair`.
    """
    check_installed()
    refuse_engine("fit predictor", overrides, "replay")
    tree = [] if "tree" in override_keys(overrides) else [TREE]
    rule = {"acceptance": "topk"} if samples_texts(overrides) else {}
    chosen = [*tree, *unless_said(overrides, BUDGET | rule), *overrides]
    combination = one_combination("fit predictor", chosen, config_dir)
    together = combination.together
    together.refuse()
    plan = together.plan.nested if together.plan else None
    if plan is None:
        raise ConfigError(f"tree={combination.shape.kind}: a predictor learns from best-first trees; leave it out")
    if why := together.no_predictor:
        raise ConfigError(why)
    prompts, settings = load_prompts(combination.prompts), combination.settings
    if len(prompts) < FEWEST:
        raise ConfigError(
            f"prompts: {len(prompts)}; a predictor is fitted on one half of them and scored on the other: expected "
            f"{FEWEST} or more"
        )
    if study is not None:
        check_same_texts(study, combination, prompts)
    template, depth = combination.prompts.chat_template, combination.limits.depth
    encode_all(combination.pair, prompts, template, settings, depth)  # what fails, fails at once
    pair = load_pair(combination.pair)
    texts = record_texts(pair, prompts, template, combination.sampling, settings, depth, recorded)
    plans, temperature = _plans(plan, texts)
    given = (texts.prompt_ids, texts.traces, plans, combination.sampling, texts.store, recorded)
    every = recorded_trees(pair, texts.names, *given)
    if alignment is not None:
        every = _aligned(every, pair, alignment, [texts.traces.annotations[name].top_ids for name in texts.names])
    fold = halves(prompts, settings.seed)
    return Learnt(combination, prompts, collect(every), fold, temperature)


def _aligned(every: Sequence[Recorded], pair: Pair, alignment: Path, children: Sequence[np.ndarray]) -> list[Recorded]:
    tables = alignment_columns(pair, str(alignment), [one.text for one in every], children)
    return [
        one._replace(extra=of_positions(table, one.expansion, one.text.tokens))
        for one, table in zip(every, tables, strict=True)
    ]


def _plans(plan: NestedPlan, texts: RecordedTexts) -> tuple[dict[str, NestedPlan], float]:
    """Each prompt's, at the temperature that was fitted on the other half; and the temperature of all."""
    if plan.temperature is not None:
        return dict.fromkeys(texts.names, plan), plan.temperature
    fitted = texts.calibrate()
    plans = {name: plan.at_temperature(temperature) for name, temperature in fitted.of_prompt.items()}
    return plans, fitted.everyone.value


def fit_predictor(
    learnt: Learnt,
    model: str = "mlp",
    calibration: str = "none",
    ablation: bool = False,
    groups: Sequence[str] | None = None,
) -> FittedPredictor:
    """Score every model on held-out prompts, then fit the chosen one on all.

    Args:
        learnt: see `learn`.
        model, calibration: what is kept.
        ablation: work out what each feature group adds.
        groups: of features that the chosen model reads; None: those that it reads by default.

    Raises:
        ConfigError: all outcomes are equal, or there are too few prompts.
    """
    rows, fold, seed = learnt.rows, learnt.fold, learnt.combination.settings.seed
    check_outcomes(rows.on_text)
    held_out = [
        one for kind in models() for one in cross_fit(kind, rows, fold, seed, groups if kind == model else None)
    ]
    drawn = weights(len(fold))
    chosen = next(one for one in held_out if (one.model, one.calibration) == (model, calibration))
    fitted = fit(model, rows, np.arange(len(fold)), seed, groups)
    about = _about(learnt, model, calibration, fitted.model.groups)
    return FittedPredictor(
        learnt,
        Predictor(fitted.model, fitted.calibrations[calibration], about),
        score_all(held_out, rows, drawn),
        chosen,
        held_out[0],
        ablate(rows, fold, drawn, seed=seed) if ablation else [],
    )


def _about(learnt: Learnt, model: str, calibration: str, groups: tuple[str, ...]) -> About:
    combination = learnt.combination
    files = combination.pair
    reached = int(learnt.rows.reached.sum())
    names = (files.spec.name, files.drafter.label, *files.weights)
    sampling, temperature, prompts = combination.sampling, learnt.temperature, len(learnt.prompts)
    return About(*names, sampling, temperature, model, calibration, groups, prompts, reached)
