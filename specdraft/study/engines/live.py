"""Rows from decoding with the models, prompt by prompt, each beside plain decoding of the target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from specdraft.decoding.batch import Batch, Ended, Seat
from specdraft.decoding.decode import ALONE, Decoding, decode, plain_tokens
from specdraft.decoding.ending import Ending
from specdraft.decoding.pruning import Pruning
from specdraft.decoding.text_seeds import text_generator
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.pair import Pair
from specdraft.errors import ResultsError
from specdraft.losslessness.ties import compare_greedy
from specdraft.models.likelihood import nll
from specdraft.prediction.predictor import Predictor
from specdraft.prompts import Prompt
from specdraft.replay.calibration import Calibration, FittedScores, cross_fit
from specdraft.replay.fit import resolve
from specdraft.replay.redraft import earlier_texts
from specdraft.replay.static import pack_traces
from specdraft.results.journal import Row
from specdraft.results.metrics import tally
from specdraft.sampling.randomness import RandomSource
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Done, Event, Failed, GivenUp, Measured, TextCalibration, Work
from specdraft.study.engines.predictors import cross_fit_predictors, predictors_used, scorers_of
from specdraft.study.engines.pruning import LiveNeeds
from specdraft.study.failures import explain
from specdraft.study.turns import read_prompts
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.score_losses import score_losses
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.base import Scorer
from specdraft.trees.step import Step


class PlainText(NamedTuple):
    """What the target alone makes of a prompt, how many seconds each beginning of that takes, and its `nll`."""

    tokens: list[int]
    until_s: list[float]
    nll: float

    def wall_s(self, tokens: int) -> float:
        """Seconds of so many tokens, or of all of them where there are fewer."""
        return self.until_s[min(tokens, len(self.until_s)) - 1]


PlainTexts = dict[tuple[Any, ...], PlainText]  # by all that a plain text depends on


class Text(NamedTuple):
    """Which text of a prompt is decoded: `draw` names one of those that can be sampled."""

    prompt: Prompt
    ids: list[int]
    repeat: int
    draw: str


class Decoded(NamedTuple):
    """A text with its share of the time, and all the time from its beginning to its end."""

    decoding: Decoding
    wall_s: float
    latency_s: float


class Drafting(NamedTuple):
    """What a text is drafted with.

    Attributes:
        plan: of the trees.
        pruning: which of their nodes are sent.
        earlier: see `Prefilled`.
    """

    plan: Plan
    pruning: Pruning
    earlier: list[list[int]]


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


@dataclass(frozen=True)
class LiveEngine:
    """Prompt by prompt, all combinations on each, so that the time left can be told from the time spent; those in
    batches after that, one after the other, each on all prompts.

    Attributes:
        store: where traces are kept, which fitted trees are chosen by.
        note: called with a line of text for each batch that had to be recorded for them.
        plain: what the target alone made of the prompts so far. Whoever makes engines keeps it, so that pairs with
            one target decode plainly once. Only times depend on what is in it.
        watch: told of every stage.
    """

    store: TraceStore
    note: Callable[[str], None] = lambda text: None
    plain: PlainTexts = field(default_factory=dict)
    watch: Watch = UNWATCHED

    def run(self, work: Work, pair: Pair) -> Iterator[Event]:
        """See `Engine.run`."""
        prompt_ids = read_prompts(pair, work.prompts, work.combinations, self.store, self.note, self.watch)
        runs, trees = _twins(work.combinations), FittedTrees(work, pair, prompt_ids, self.store, self.note, self.watch)
        needs = LiveNeeds.of(pair, work.combinations, self.store, self.watch)
        self.watch.stage("decode", sum(map(len, work.due.values())), "rows")
        failed: set[str] = set()
        texts = [
            Text(prompt, prompt_ids[prompt.prompt_id], repeat, work.draw(repeat))
            for prompt in work.prompts
            for repeat in range(work.repeats)
        ]
        for text in texts:
            for twins in (twins for twins in runs if twins[0].settings.batch == 1):
                due = work.due_of(twins, text.prompt, text.repeat)
                for event in self._decode_twins(pair, due, text, trees, needs, failed, work.with_steps):
                    if isinstance(event, Failed):
                        failed.add(event.combination)
                    yield event
        for twins in (twins for twins in runs if twins[0].settings.batch > 1):
            dues = [(text, work.due_of(twins, text.prompt, text.repeat)) for text in texts]
            yield from self._decode_batch(pair, [due for due in dues if due[1]], trees, needs, work.with_steps)
        used = predictors_used(pair, work.combinations, trees.predictors)
        if trees.calibrations or needs.costs or used:
            yield Measured(pair.label, needs.costs, calibrations=trees.calibrations, predictors=used)

    def _decode_twins(
        self,
        pair: Pair,
        due: list[Combination],
        text: Text,
        trees: FittedTrees,
        needs: LiveNeeds,
        failed: set[str],
        with_steps: bool,
    ) -> list[Event]:
        """One text, a row for each of the combinations that decode the same thing."""
        trying = [combination for combination in due if combination.identifier not in failed]
        passed: list[Event] = [GivenUp(len(due) - len(trying))] if len(trying) < len(due) else []
        if not trying:
            return passed
        try:
            first, how = trying[0], _drafting(trying[0], text, trees, needs)
            (plain,) = self._plain_texts(pair, first, [text])
            decoded = _decode(pair, first, how, text, Seat(Verifier.of(pair), pair.drafter, ALONE))
            row = _row(pair, first, text, how, decoded, plain, with_steps)
        except ResultsError:
            raise
        except Exception as error:  # whatever goes wrong in one combination must not stop the others
            why = explain(error)
            return [*passed, *(Failed(c.identifier, text.prompt.prompt_id, why, 1) for c in trying)]
        return [*passed, Done([replace(row, combination=c.identifier, weights=c.weights) for c in trying])]

    def _decode_batch(
        self,
        pair: Pair,
        dues: list[tuple[Text, list[Combination]]],
        trees: FittedTrees,
        needs: LiveNeeds,
        with_steps: bool,
    ) -> Iterator[Event]:
        """Texts side by side, each with the combinations, which decode the same thing, that its row is due of."""
        if not dues:
            return
        begun, failed, (first, *_) = 0, False, dues[0][1]
        try:
            hows = [_drafting(first, text, trees, needs) for text, _ in dues]
            plain = self._plain_texts(pair, first, [text for text, _ in dues])
            batch = Batch[Decoded](pair.target, pair.drafter, first.settings.batch)
        except ResultsError:
            raise
        except Exception as error:  # see `_decode_twins`
            yield from _failed(dues[0], explain(error))
            yield GivenUp(sum(len(due) for _, due in dues[1:]))
            return

        def texts() -> Iterator[Callable[[Seat], Decoded]]:
            nonlocal begun
            for how, (text, _) in zip(hows, dues, strict=True):
                if failed:
                    return
                begun += 1
                yield partial(_decode, pair, first, how, text)

        for ended in batch.decode(texts()):
            text, due = dues[ended.number]
            try:
                if ended.error is not None:
                    raise ended.error
                assert ended.result is not None
                row = _row(pair, first, text, hows[ended.number], ended.result, plain[ended.number], with_steps)
            except Exception as error:
                yield from [GivenUp(len(due))] if failed else _failed(dues[ended.number], explain(error))
                failed = True
            else:
                yield Done([replace(row, combination=c.identifier, weights=c.weights) for c in due])
        if left := sum(len(due) for _, due in dues[begun:]):
            yield GivenUp(left)

    def _plain_texts(self, pair: Pair, combination: Combination, texts: Sequence[Text]) -> list[PlainText]:
        """The target alone on these prompts, in batches as large as the combination's, once for all pairs that share
        the target."""
        keys = [_plain_key(pair, combination, text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self.plain}
        plainly = [partial(_decode_plainly, pair, combination, text) for text in missing.values()]
        if combination.settings.batch == 1:
            found = [decode(Seat(Verifier.of(pair), None, ALONE)) for decode in plainly]
        else:
            found = _in_their_order(Batch[TimedTokens](pair.target, None, combination.settings.batch).decode(plainly))
        for (key, text), (tokens, until_s) in zip(missing.items(), found, strict=True):
            self.plain[key] = PlainText(tokens, until_s, nll(pair.target, text.ids, tokens))
        return [self.plain[key] for key in keys]


TimedTokens = tuple[list[int], list[float]]


def _in_their_order(ends: Iterable[Ended[TimedTokens]]) -> list[TimedTokens]:
    """What texts came to. Raises whatever went wrong in one of them."""
    found: dict[int, TimedTokens] = {}
    for ended in ends:
        if ended.error is not None:
            raise ended.error
        assert ended.result is not None
        found[ended.number] = ended.result
    return [found[number] for number in sorted(found)]


def _failed(due: tuple[Text, list[Combination]], why: str) -> list[Failed]:
    return [Failed(combination.identifier, due[0].prompt.prompt_id, why, 1) for combination in due[1]]


def _drafting(combination: Combination, text: Text, trees: FittedTrees, needs: LiveNeeds) -> Drafting:
    of_text = (combination, text.prompt, text.repeat)
    plan = trees.plan(*of_text)
    temperature = trees.temperature(*of_text) if combination.pruning.fits_scores else 1.0
    predictor = trees.predictor(*of_text) if combination.pruning.fits_predictor else None
    pruning = needs.pruning(combination, temperature, plan.dynamic, predictor)
    return Drafting(plan, pruning, trees.earlier(*of_text))


def _row(
    pair: Pair,
    combination: Combination,
    text: Text,
    how: Drafting,
    decoded: Decoded,
    plain: PlainText,
    with_steps: bool,
) -> Row:
    decoding, tie = decoded.decoding, None
    cut_off = decoding.timed_out
    alike = plain.tokens[: len(decoding.tokens) if cut_off else None]
    if combination.sampling.greedy and combination.rule.lossless:
        tie = compare_greedy(pair.target, pair.target_check, text.ids, alike, decoding.tokens)
    dynamic = how.plan.dynamic or how.pruning.prunes
    plain_s = plain.wall_s(len(alike))
    counted = tally(decoding.first, decoding.steps, decoded.wall_s, plain_s, dynamic, decoding.prefill_s)
    counted.latency_s = decoded.latency_s
    counted.score(_nll_of(pair, text, decoding.tokens, plain), _nll_of(pair, text, alike, plain), len(alike))
    steps = listed_steps(decoding.steps) if with_steps else None
    name, weights = combination.identifier, combination.weights
    named = (name, weights, text.prompt.prompt_id, text.prompt.category, text.repeat)
    return Row(*named, counted, tie, steps, cut_off)


def _plain_key(pair: Pair, combination: Combination, text: Text) -> tuple[Any, ...]:
    """All that a plain text and its time depend on."""
    target, sampling, ending = pair.files.target, combination.sampling, _ending(pair, combination)
    model = (target.weights_hash, repr(target.spec), pair.target.vocab)
    return (*model, tuple(text.ids), ending, repr(sampling), text.draw, combination.settings.batch)


def _decode_plainly(pair: Pair, combination: Combination, text: Text, seat: Seat) -> TimedTokens:
    """The target's tokens, and how many seconds each beginning of them takes."""
    share, tokens, until_s = seat.times.share, list[int](), list[float]()
    started = share()
    given = (combination.sampling, text.ids, _ending(pair, combination), _source(pair, combination, text))
    for token in plain_tokens(seat.verifier, *given):
        tokens.append(token)
        until_s.append(share() - started)
    return tokens, until_s


def _nll_of(pair: Pair, text: Text, tokens: list[int], plain: PlainText) -> float:
    """Of a text under the target; that of plain decoding is known."""
    return plain.nll if tokens == plain.tokens else nll(pair.target, text.ids, tokens)


def _text_of(combination: Combination, repeat: int) -> int | None:
    """Which text a repeat decodes: greedy ones are all equal."""
    return None if combination.sampling.greedy else repeat


def _same_text(combination: Combination, repeat: int) -> tuple[Any, ...]:
    """Combinations and repeats with equal ones decode the same texts."""
    return repr(combination.sampling), combination.settings.max_new_tokens, _text_of(combination, repeat)


def _twins(combinations: Iterable[Combination]) -> list[list[Combination]]:
    """Combinations that decode the same thing, as many texts side by side, stand together."""
    runs: dict[Any, list[Combination]] = {}
    for combination in combinations:
        runs.setdefault((combination.run_key, combination.settings.batch), []).append(combination)
    return list(runs.values())


def _decode(pair: Pair, combination: Combination, how: Drafting, text: Text, seat: Seat) -> Decoded:
    assert seat.drafter is not None
    source = _source(pair, combination, text, pair.files.weights[1], repr(combination.run_key))
    (share, passed), limit_s = seat.times, combination.settings.max_time_s
    began_passed, began = passed(), share()
    decoding = decode(
        seat.verifier,
        seat.drafter,
        how.plan,
        combination.rule,
        combination.sampling,
        text.ids,
        _ending(pair, combination),
        source,
        pruning=how.pruning,
        earlier=how.earlier,
        max_time_s=limit_s,
        times=seat.times,
    ).finish()
    return Decoded(decoding, share() - began, passed() - began_passed)


def listed_steps(steps: Iterable[Step]) -> list[list[int]]:
    """The rows of `steps.csv`: number, drafted, accepted, bonus, cut."""
    return [
        [number, step.tree.num_nodes, step.accepted_tokens, step.bonus_tokens, int(step.cut)]
        for number, step in enumerate(steps)
    ]


def _ending(pair: Pair, combination: Combination) -> Ending:
    return Ending(combination.settings.max_new_tokens, pair.eos_ids)


def _source(pair: Pair, combination: Combination, text: Text, *more: str) -> RandomSource:
    """The randomness of one decoded text; live decoding adds the draft model and what is decoded with."""
    return RandomSource(text_generator(pair, combination.sampling, text.ids, text.draw, *more))
