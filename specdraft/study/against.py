"""Texts of other engines under a target: `specdraft certify --against`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import torch

from specdraft.config import override_groups
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import PairFiles, find_pair
from specdraft.errors import ConfigError, PromptError
from specdraft.losslessness.against import BUG, VERDICTS, Given, Judged, Read, judge, read
from specdraft.losslessness.certificate import largest_tie
from specdraft.losslessness.rereading import MOST_READINGS, reread
from specdraft.models.facts import naming
from specdraft.models.loading import Checked, load_checked
from specdraft.models.memory import tokens_that_fit
from specdraft.models.self_check import rounding_in
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.prompts.answers import Answer, load_answers
from specdraft.sampling.distribution import Sampling
from specdraft.study.engine_texts import Encoded, Unjudged, encoded
from specdraft.study.points import few_points
from specdraft.study.progress import Progress
from specdraft.study.refusals import refuse_bundled_path, refuse_without_effect
from specdraft.traces.batches import READ_TOKENS, batches, in_memory, most_rows

LOOKED_AT = {"pair", "prompts", "sampling", "max_prompt_tokens"}
MOST_FILES = 2
LOW_PRECISION = ("bfloat16", "float16")


@dataclass(frozen=True)
class Texts:
    """The texts of one file: those that were judged, in its order, and the others; `nameless` ones say no prompt."""

    file: Path
    judged: list[Judged]
    unjudged: list[Unjudged]
    nameless: int = 0

    def count(self, verdict: str) -> int:
        """How many have this verdict."""
        return sum(text.verdict == verdict for text in self.judged)


@dataclass(frozen=True)
class Against:
    """What the target says of an engine's texts.

    Attributes:
        pair: whose target.
        sampling: how the texts were made.
        tolerance: logits that rounding may decide between; `usual` where nobody said another one.
        texts: of the engine, with speculation.
        control: of the same engine without; None where there is no such file.
    """

    pair: PairFiles
    sampling: Sampling
    tolerance: float
    usual: float
    texts: Texts
    control: Texts | None

    @property
    def certified(self) -> bool:
        """Some texts could be judged, and speculation changed none."""
        return bool(self.texts.judged) and not self.texts.count(BUG)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        counts = {verdict: self.texts.count(verdict) for verdict in VERDICTS}
        return {
            "certified": self.certified,
            "pair": self.pair.spec.name,
            "target": naming(self.pair.target)["path"],
            "tolerance": self.tolerance,
            "tolerance_default": self.usual,
            "files": [part.file.name for part in (self.texts, self.control) if part is not None],
            "counts": counts | {"unjudged": len(self.texts.unjudged)},
            "texts": [self._text(text) for text in self.texts.judged],
            "unjudged": [text._asdict() for text in self.texts.unjudged],
            "control": None if self.control is None else self._of_control(self.control),
        }

    def _of_control(self, control: Texts) -> dict[str, Any]:
        counts = {verdict: control.count(verdict) for verdict in VERDICTS if verdict != "engine"}
        return {"counts": counts, "unjudged": [text._asdict() for text in control.unjudged]}

    def _text(self, text: Judged) -> dict[str, Any]:
        given, first = text.read.given, text.first
        where = {} if first is None else first._asdict() | {"token_text": self.word(first.token)}
        where |= {"gap": None} if first is not None and isnan(first.gap) else {}
        where |= {} if first is None else {"own_text": self.word(first.own)}
        return {
            "prompt_id": text.name,
            "tokens": len(given.token_ids),
            "after_end": given.after_end,
            "reencoded": given.text is not None,
            "goes_on": text.read.goes_on,
            "verdict": text.verdict,
            "deviations": text.counts,
            "first": where or None,
            "control": text.control,
        }

    def word(self, token: int) -> str:
        """The text of one token; special tokens by their names."""
        return str(self.pair.target.tokenizer.decode([token]))


def certify_against(
    files: Sequence[Path],
    overrides: list[str],
    config_dir: Path | None = None,
    tolerance: str | None = None,
    progress: Progress | None = None,
) -> Against:
    """Read texts of another engine with a pair's target.

    Args:
        files: its texts with speculation; then, if there are such, without.
        overrides: which pair, prompts and sampling.
        config_dir: the user's configs.
        tolerance: logits that rounding may decide between, as a number, or the type of an engine of low precision:
            what two logits of the target differ by in it.
        progress: told of each text.

    Raises:
        UserError: a file or the overrides cannot be used.
    """
    if len(files) > MOST_FILES:
        expected = "one file, or two: the engine with speculation, then without"
        raise ConfigError(f"--against is given {len(files)} times; expected {expected}")
    apart = _parsed(tolerance)
    given = [load_answers(file) for file in files]
    point = few_points(overrides, {"tree": "chain"}, config_dir, "certify --against reads texts with one target", 1)[0]
    others = {*override_groups(overrides), "sampling.draft_temperature"} - LOOKED_AT
    refuse_without_effect("certify --against", overrides, others, "the texts are there already")
    sampling: Sampling = point.groups["sampling"]
    _check_sampling(sampling)
    refuse_bundled_path(overrides, point.groups["prompts"])
    pair = find_pair(point.groups["pair"], Ngram())
    pair.check()
    pair.check_memory()
    spec: PromptSpec = point.groups["prompts"]
    prompts, wanted = _prompts(spec, given), set(given[0])
    in_tokens = [encoded(pair, answers, prompts, spec, point.settings, wanted) for answers in given]
    reader = _Reader(pair, load_checked(pair.target), sampling, apart, progress or Progress())
    told = [reader.read(texts) for texts in in_tokens]
    control = told[1].reads if told[1:] else {}
    texts, *beside = (
        Texts(
            file,
            [judge(text, reader.tolerance, held.get(name)) for name, text in one.reads.items()],
            one.unjudged,
            sum(answer.nameless for answer in answers.values()),
        )
        for file, one, answers, held in zip(files, told, given, (control, {}), strict=False)
    )
    return Against(pair, sampling, reader.tolerance, reader.usual, texts, beside[0] if beside else None)


def _parsed(tolerance: str | None) -> float | str | None:
    """Logits, a type, or nothing. Raises `ConfigError` where it is none of them."""
    if tolerance is None or tolerance in LOW_PRECISION:
        return tolerance
    try:
        logits = float(tolerance)
    except ValueError:
        logits = float("nan")
    if not 0 <= logits < float("inf"):
        known = " or ".join(LOW_PRECISION)
        raise ConfigError(f"--tolerance {tolerance} is out of range; expected logits, 0 or more, or {known}")
    return logits


def _check_sampling(sampling: Sampling) -> None:
    """Raise `ConfigError` where nothing can be said of a text: every token could have been drawn."""
    sampling.check()
    if not sampling.greedy and not sampling.top_k and sampling.top_p == 1:
        raise ConfigError(
            f"sampling.temperature={sampling.temperature}: a sampled text cannot be judged token by token; expected "
            "greedy texts (temperature 0), or sampling.top_k or top_p, beyond which no token can be drawn"
        )


def _prompts(spec: PromptSpec, files: Sequence[Mapping[str, Answer]]) -> dict[str, Prompt]:
    """The study's, where a text does not say itself what it continues."""
    if all(answer.prompt_ids or answer.prompt is not None for answers in files for answer in answers.values()):
        return {}
    return {prompt.prompt_id: prompt for prompt in load_prompts(spec)}


class _Told(NamedTuple):
    reads: dict[str, Read]
    unjudged: list[Unjudged]


class _Reader:
    """Reads texts with the target, those that came without token ids until one way to write them is found."""

    def __init__(
        self, pair: PairFiles, target: Checked, sampling: Sampling, tolerance: float | str | None, progress: Progress
    ) -> None:
        self._pair, self._model, self._sampling, self._progress = pair, target.model, sampling, progress
        self.usual = largest_tie(target.check)
        if isinstance(tolerance, str):
            tolerance = 2 * rounding_in(target.model, getattr(torch, tolerance))
        self.tolerance = self.usual if tolerance is None else tolerance

    def read(self, texts: Encoded) -> _Told:
        reads: dict[str, Read] = {}
        due = {text.name: text for text in texts.given}
        self._progress.stage("certify", len(due), "texts")
        lost: dict[str, str] = {}
        for _ in range(MOST_READINGS):
            reads |= dict(self._once(due))
            again = {name: self._again(reads[name], lost) for name in due}
            self._progress.done(sum(text is None for text in again.values()))
            due = {name: text for name, text in again.items() if text is not None}
            if not due:
                break
        lost |= dict.fromkeys(due, "its text can be written in too many ways; token ids would do")
        known = {text.name: reads[text.name] for text in texts.given if text.name not in lost}
        return _Told(known, [*texts.unjudged, *(Unjudged(name, why) for name, why in lost.items())])

    def _again(self, text: Read, lost: dict[str, str]) -> Given | None:
        """What is to be read in its place; None where it stands as it is, or is `lost`."""
        try:
            return reread(text, self.tolerance, self._pair, self._model.after)
        except PromptError as error:
            lost[text.given.name] = str(error)
            return None

    def _once(self, texts: Mapping[str, Given]) -> Iterator[tuple[str, Read]]:
        """One forward over each text."""
        lengths = {name: len(text.prompt_ids) + len(text.token_ids) for name, text in texts.items()}
        fitting = min(tokens_that_fit(self._pair.target), READ_TOKENS)

        def some(names: Sequence[str]) -> Iterator[tuple[str, Read]]:
            batch = [texts[name] for name in names]
            yield from zip(names, read(self._model, batch, self._sampling, self._pair.target.eos_ids), strict=True)

        for names in batches(lengths, most_rows(self._model.device.type), fitting):
            yield from in_memory(some, names)
