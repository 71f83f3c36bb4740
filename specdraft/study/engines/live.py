"""Rows from decoding with the models, prompt by prompt, each beside plain decoding of the target."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

from specdraft.decoding.batch import Batch, Ended
from specdraft.decoding.decode import Decoding, decode, plain_tokens
from specdraft.decoding.ending import Ending
from specdraft.decoding.lengths import Sizing
from specdraft.decoding.pruning import Pruning
from specdraft.decoding.seat import Caches, Seat
from specdraft.decoding.text_seeds import text_generator
from specdraft.drafters.pair import Pair
from specdraft.errors import ResultsError
from specdraft.losslessness.ties import compare_greedy
from specdraft.models.likelihood import nll
from specdraft.prompts import Prompt
from specdraft.results.journal import Row
from specdraft.results.metrics import tally
from specdraft.sampling.randomness import RandomSource
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Done, Event, Failed, GivenUp, Measured, Work
from specdraft.study.engines.fitted_trees import FittedTrees
from specdraft.study.engines.predictors import predictors_used
from specdraft.study.engines.pruning import LiveNeeds
from specdraft.study.failures import explain
from specdraft.study.turns import read_prompts
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes import Plan
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
        sizing: how long chains are.
        earlier: see `Prefilled`.
    """

    plan: Plan
    pruning: Pruning
    sizing: Sizing
    earlier: list[list[int]]


@dataclass(frozen=True)
class LiveEngine:
    """Prompt by prompt, all combinations on each, so that the time left can be told from the time spent; those in
    batches after that, one after the other, each on all prompts of a repeat.

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
        failed, caches = set[str](), Caches(pair)
        texts = [
            Text(prompt, prompt_ids[prompt.prompt_id], repeat, work.draw(repeat))
            for prompt in work.prompts
            for repeat in range(work.repeats)
        ]
        alone = [twins for twins in runs if twins[0].settings.batch == 1]
        together = [twins for twins in runs if twins[0].settings.batch > 1]
        for text, twins in product(texts, alone):
            due = work.due_of(twins, text.prompt, text.repeat)
            yield from _noting(
                self._decode_twins(pair, caches, due, text, trees, needs, failed, work.with_steps), failed
            )
        for repeat, twins in product(range(work.repeats), together):
            dues = [(text, work.due_of(twins, text.prompt, repeat)) for text in texts if text.repeat == repeat]
            some = [(text, due) for text, due in dues if due]
            yield from _noting(self._decode_batch(pair, some, trees, needs, failed, work.with_steps), failed)
        for said in caches.notes:
            self.note(said)
        used = predictors_used(pair, work.combinations, trees.predictors)
        if trees.calibrations or needs.costs or used:
            yield Measured(pair.label, needs.costs, calibrations=trees.calibrations, predictors=used)

    def _decode_twins(
        self,
        pair: Pair,
        caches: Caches,
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
            seat = caches.seat(first.cache)
            plain = self._plain_text(pair, first, text, seat)
            decoded = _decode(pair, first, how, text, seat)
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
        dues: list[Due],
        trees: FittedTrees,
        needs: LiveNeeds,
        failed: Container[str],
        with_steps: bool,
    ) -> Iterator[Event]:
        """Texts side by side, each with the combinations, which decode the same thing, that its row is due of: where
        one of them fails, all of them do."""
        first = next((due[0] for _, due in dues), None)
        if first is None or first.identifier in failed:
            yield from _given_up(dues)
            return
        begun = 0
        try:
            hows = [_drafting(first, text, trees, needs) for text, _ in dues]
            plain = self._plain_texts(pair, first, [text for text, _ in dues])
            batch = Batch[Decoded](pair.target, pair.drafter, first.settings.batch)
        except ResultsError:
            raise
        except Exception as error:  # see `_decode_twins`
            yield from _failed(dues[0], explain(error))
            yield from _given_up(dues[1:])
            return

        def texts() -> Iterator[Callable[[Seat], Decoded]]:
            nonlocal begun
            for how, (text, _) in zip(hows, dues, strict=True):
                if first.identifier in failed:
                    return
                begun += 1
                yield partial(_decode, pair, first, how, text)

        for ended in batch.decode(texts()):
            text, due = dues[ended.number]
            try:
                row = _row_of(pair, first, text, hows[ended.number], ended, plain[ended.number], with_steps)
            except Exception as error:
                again = first.identifier in failed
                yield from _given_up([dues[ended.number]]) if again else _failed(dues[ended.number], explain(error))
            else:
                yield Done([replace(row, combination=c.identifier, weights=c.weights) for c in due])
        yield from _given_up(dues[begun:])

    def _plain_text(self, pair: Pair, combination: Combination, text: Text, seat: Seat) -> PlainText:
        """The target alone on this prompt, once for all pairs that share the target."""
        key = _plain_key(pair, combination, text)
        if key not in self.plain:
            timed = _decode_plainly(pair, combination, text, seat)
            self.plain[key] = _scored(pair, text, timed)
        return self.plain[key]

    def _plain_texts(self, pair: Pair, combination: Combination, texts: Sequence[Text]) -> list[PlainText | Exception]:
        """The same side by side, as many as the combination's own: or what went wrong in one of them. What a text
        takes depends on all that go with it."""
        beside = (combination.settings.batch, tuple((text.prompt.prompt_id, text.draw) for text in texts))
        keys = [(*_plain_key(pair, combination, text), *beside) for text in texts]
        wrong: dict[Any, Exception] = {}
        if not self.plain.keys() >= set(keys):
            plainly = [partial(_decode_plainly, pair, combination, text) for text in texts]
            for ended in Batch[TimedTokens](pair.target, None, combination.settings.batch).decode(plainly):
                key, text = keys[ended.number], texts[ended.number]
                if ended.error is not None:
                    wrong[key] = ended.error
                else:
                    assert ended.result is not None
                    self.plain[key] = _scored(pair, text, ended.result)
        return [wrong[key] if key in wrong else self.plain[key] for key in keys]


TimedTokens = tuple[list[int], list[float]]


def _scored(pair: Pair, text: Text, timed: TimedTokens) -> PlainText:
    return PlainText(*timed, nll(pair.target, text.ids, timed[0]))


Due = tuple[Text, list[Combination]]


def _noting(events: Iterable[Event], failed: set[str]) -> Iterator[Event]:
    """Events, whose failures are noted before anything else is done."""
    for event in events:
        if isinstance(event, Failed):
            failed.add(event.combination)
        yield event


def _failed(due: Due, why: str) -> list[Failed]:
    return [Failed(combination.identifier, due[0].prompt.prompt_id, why, 1) for combination in due[1]]


def _given_up(dues: Iterable[Due]) -> list[GivenUp]:
    rows = sum(len(due) for _, due in dues)
    return [GivenUp(rows)] if rows else []


def _drafting(combination: Combination, text: Text, trees: FittedTrees, needs: LiveNeeds) -> Drafting:
    of_text = (combination, text.prompt, text.repeat)
    plan = trees.plan(*of_text)
    temperature = trees.temperature(*of_text) if combination.pruning.fits_scores else 1.0
    predictor = trees.predictor(*of_text) if combination.pruning.fits_predictor else None
    pruning = needs.pruning(combination, temperature, plan.dynamic, predictor)
    return Drafting(plan, pruning, Sizing(combination.length, needs.costs), trees.earlier(*of_text))


def _row_of(
    pair: Pair,
    combination: Combination,
    text: Text,
    how: Drafting,
    ended: Ended[Decoded],
    plain: PlainText | Exception,
    with_steps: bool,
) -> Row:
    """Of a text that was decoded beside others. Raises whatever went wrong in it."""
    for wrong in (plain, ended.error):
        if isinstance(wrong, Exception):
            raise wrong
    assert ended.result is not None and isinstance(plain, PlainText)
    return _row(pair, combination, text, how, ended.result, plain, with_steps)


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
    dynamic = how.plan.dynamic or how.pruning.prunes or combination.length.sizes
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
    return (*model, tuple(text.ids), ending, repr(sampling), text.draw, combination.cache)


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


def _twins(combinations: Iterable[Combination]) -> list[list[Combination]]:
    """Combinations that decode the same thing, as many texts side by side, stand together."""
    runs: dict[Any, list[Combination]] = {}
    for combination in combinations:
        runs.setdefault((combination.run_key, combination.settings.batch, combination.cache), []).append(combination)
    return list(runs.values())


def _decode(pair: Pair, combination: Combination, how: Drafting, text: Text, seat: Seat) -> Decoded:
    assert seat.drafter is not None
    source = _source(pair, combination, text, pair.files.weights[1], repr(combination.run_key))
    (share, passed, _), limit_s = seat.times, combination.settings.max_time_s
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
        how.pruning,
        how.sizing,
        drawn=combination.drawn,
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
