"""The trees of live decoding that are fitted, or ranked by what is, each prompt's on the texts of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.prediction.predictor import Predictor
from specdraft.prompts import Prompt
from specdraft.replay.calibration import Calibration, FittedScores, cross_fit
from specdraft.replay.fit import resolve
from specdraft.replay.redraft import earlier_texts
from specdraft.replay.static import pack_traces
from specdraft.study.combination import Combination
from specdraft.study.engines.base import TextCalibration, Work
from specdraft.study.engines.predictors import cross_fit_predictors, scorers_of
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.score_losses import score_losses
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.base import Scorer


class FittedTrees:
    """The trees of a unit of work that are fitted, or that are ranked by what is: a prompt's on the traces of others.

    Args:
        work, pair: see `Engine.run`.
        prompt_ids: prompt id -> token ids.
        store: where traces are kept.
        note: called with a line of text for each batch that had to be recorded.
        watch: told of every stage.
    """

    def __init__(
        self,
        work: Work,
        pair: Pair,
        prompt_ids: Mapping[str, Sequence[int]],
        store: TraceStore,
        note: Callable[[str], None],
        watch: Watch = UNWATCHED,
    ) -> None:
        self._work, self._pair, self._prompt_ids, self._store, self._note = work, pair, prompt_ids, store, note
        self._watch = watch
        self._names = [prompt.prompt_id for prompt in work.prompts]
        self._fold = work.halves
        self._traces: dict[Any, PairTraces] = {}
        self._packed: dict[Any, PackedRanks] = {}
        self._calibrated: dict[Any, TextCalibration] = {}
        self._fitted: dict[Any, dict[str, Predictor]] = {}
        self._rankers: dict[Any, dict[str, Scorer]] = {}
        self._plans: dict[Any, dict[str, Plan]] = {}

    def plan(self, combination: Combination, prompt: Prompt, repeat: int) -> Plan:
        """What a prompt is decoded with."""
        if combination.shape.fits_scores:
            nested, name = combination.plan.nested, prompt.prompt_id
            assert nested is not None, "only nested trees have scores"
            scorers = self._scorers(combination, repeat) if combination.shape.fits_predictor else {}
            return FittedScores(self._calibration(combination, repeat).of_prompt, scorers).complete(nested, name)
        if not combination.shape.fitted:
            return combination.plan
        key = (combination.identifier, _text_of(combination, repeat))
        if key not in self._plans:
            parts = resolve(
                combination.shape, combination.settings.budget, self._ranks(combination, repeat), self._fold
            )
            self._plans[key] = {self._names[index]: plan for plan, members in parts for index in members.tolist()}
        return self._plans[key][prompt.prompt_id]

    def earlier(self, combination: Combination, prompt: Prompt, repeat: int) -> list[list[int]]:
        """What the target made of the prompts before this one, if the drafter reads it: as recorded."""
        if not self._pair.traits.earlier:
            return []
        texts = self._texts(combination, repeat).trajectories
        return earlier_texts(prompt.prompt_id, {name: texts[name].tokens.tolist() for name in self._names})

    def temperature(self, combination: Combination, prompt: Prompt, repeat: int) -> float:
        """Of a prompt's calibrated scores."""
        return self._calibration(combination, repeat).of_prompt[prompt.prompt_id]

    def predictor(self, combination: Combination, prompt: Prompt, repeat: int) -> Predictor:
        """Of a prompt, fitted to the texts of the others."""
        return self._predictors(combination, repeat)[prompt.prompt_id]

    def _scorers(self, combination: Combination, repeat: int) -> dict[str, Scorer]:
        if (key := _same_text(combination, repeat)) not in self._rankers:
            self._rankers[key] = scorers_of(self._predictors(combination, repeat))
        return self._rankers[key]

    def _predictors(self, combination: Combination, repeat: int) -> dict[str, Predictor]:
        if (key := _same_text(combination, repeat)) not in self._fitted:
            texts, calibration = self._texts(combination, repeat), self._calibration(combination, repeat)
            given = (self._prompt_ids, texts, combination.sampling, calibration, self._work.seed)
            where = (self._store, self._note, self._watch)
            self._fitted[key] = cross_fit_predictors(self._pair, self._work.prompts, *given, *where)
        return self._fitted[key]

    @property
    def predictors(self) -> list[Predictor]:
        """What was fitted so far to rank or prune."""
        return [predictor for of_prompt in self._fitted.values() for predictor in of_prompt.values()]

    @property
    def calibrations(self) -> list[TextCalibration]:
        """What scores were fitted so far."""
        return list(self._calibrated.values())

    def _calibration(self, combination: Combination, repeat: int) -> Calibration:
        sampling, new = combination.sampling, combination.settings.max_new_tokens
        if (key := _same_text(combination, repeat)) not in self._calibrated:
            given = (self._prompt_ids, self._texts(combination, repeat), self._store, self._note, self._watch)
            fitted = cross_fit(score_losses(self._pair, *given), self._names, self._fold)
            self._calibrated[key] = TextCalibration.of(sampling, new, self._work.draw(repeat), fitted)
        return self._calibrated[key].fitted

    def _ranks(self, combination: Combination, repeat: int) -> PackedRanks:
        if (key := _same_text(combination, repeat)) not in self._packed:
            self._packed[key] = pack_traces(self._texts(combination, repeat), self._names)
        return self._packed[key]

    def _texts(self, combination: Combination, repeat: int) -> PairTraces:
        """Recorded once for all combinations that decode the same texts."""
        if (key := _same_text(combination, repeat)) not in self._traces:
            ending = Ending(combination.settings.max_new_tokens, self._pair.eos_ids)
            given = (self._prompt_ids, combination.sampling, ending, self._store, self._note, self._work.draw(repeat))
            self._traces[key] = pair_traces(self._pair, *given, watch=self._watch)
        return self._traces[key]


def _text_of(combination: Combination, repeat: int) -> int | None:
    """Which text a repeat decodes: greedy ones are all equal."""
    return None if combination.sampling.greedy else repeat


def _same_text(combination: Combination, repeat: int) -> tuple[Any, ...]:
    """Combinations and repeats with equal ones decode the same texts."""
    return repr(combination.sampling), combination.settings.max_new_tokens, _text_of(combination, repeat)
