"""Texts that a drafter learns from, and those that are held out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair, PairFiles
from specdraft.errors import ConfigError, PromptError
from specdraft.prompts import load_prompts
from specdraft.sampling.distribution import Sampling
from specdraft.study.alignment_texts import plain_text
from specdraft.study.combination import Combination, encode_all
from specdraft.traces.library import pair_trajectories
from specdraft.traces.store import TraceStore, default_folder
from specdraft.traces.watch import Watch
from specdraft.training.settings import Training

LEAST = 16  # tokens of a window that is not whole
MOST_HELD_OUT = 40  # texts; more make no interval much narrower


class TrainingText(NamedTuple):
    """Token ids `[n]`; what is said from place `first` on is learnt."""

    ids: list[int]
    first: int = 0


class Texts(NamedTuple):
    """Texts to learn from, and prompts, by name, that are continued to try what was learnt."""

    learnt: list[TrainingText]
    held_out: dict[str, list[int]]
    source: str


def gather_texts(
    pair: Pair, combination: Combination, asked: Training, prompts_said: bool, store: TraceStore, watch: Watch
) -> Texts:
    """The texts of `train.text` and the target's answers to `prompts`.

    Args:
        pair: whose target writes.
        combination: its prompts, sampling and settings.
        asked: what is learnt from.
        prompts_said: whether the user named prompts.
        store: of windows' continuations; answers to prompts are kept where studies have them.
        watch: told how far that is.

    Raises:
        ConfigError: nothing is named, or the text cannot be read or is too short.
        PromptError: prompts cannot be read, or do not fit.
        ResultsError: the store cannot be written.
    """
    if asked.text is None and not prompts_said:
        raise ConfigError(
            "nothing to learn from is named; expected train.text=FILE, or prompts=jsonl prompts.path=FILE (the bundled "
            "prompts are what studies measure)"
        )
    parts = []
    if asked.text is not None:
        parts.append(_of_text(pair, combination.sampling, asked, store, watch))
    if prompts_said:
        parts.append(_of_prompts(pair, combination, asked, watch))
    held_out = {name: ids for part in parts for name, ids in part.held_out.items()}
    return Texts([text for part in parts for text in part.learnt], held_out, ", ".join(part.source for part in parts))


def _of_text(pair: Pair, sampling: Sampling, asked: Training, store: TraceStore, watch: Watch) -> Texts:
    documents = list(_windows(pair.files, asked))
    if len(documents) < asked.held_out:
        documents = [[window] for windows in documents for window in windows]
    parts = _parted(documents, asked)
    learnt, held_out = ([window for windows in part for window in windows] for part in parts)
    if not learnt or not held_out:
        raise ConfigError(
            f"train.text={asked.text}: {len(learnt) + len(held_out)} windows of {asked.window} tokens are too few to "
            f"learn from and to try it: expected {asked.held_out} or more (train.held_out)"
        )
    some = np.random.default_rng(asked.seed).permutation(len(learnt))[: asked.continued]
    begun = {f"window-{i}": learnt[i][: asked.beginning] for i in some.tolist()}
    written = _written(pair, begun, sampling, asked.window - asked.beginning, store, watch)
    own = [TrainingText([*begun[name], *tokens], asked.beginning - 1) for name, tokens in written.items()]
    tried = {f"text-{i}": held_out[place][: asked.beginning] for i, place in enumerate(_spread(len(held_out)))}
    said = f", {len(own)} windows' beginnings with the target's continuations" if own else ""
    whole = map(TrainingText, learnt) if asked.whole else ()
    return Texts([*whole, *own], tried, f"{Path(asked.text or '').name}{said}")


def _of_prompts(pair: Pair, combination: Combination, asked: Training, watch: Watch) -> Texts:
    prompts, settings = load_prompts(combination.prompts), combination.settings
    ids = encode_all(pair.files, prompts, combination.prompts.chat_template, settings, 0)
    learnt, held_out = _parted(list(ids), asked)
    if not learnt or not held_out:
        raise PromptError(
            f"{len(ids)} prompts are too few to learn from and to try it: expected {asked.held_out} or more "
            "(train.held_out)"
        )
    some = {name: list(ids[name]) for name in learnt}
    store = TraceStore(default_folder())
    store.check_writable()
    written = _written(pair, some, combination.sampling, settings.max_new_tokens, store, watch)
    texts = [TrainingText([*some[name], *tokens], len(some[name]) - 1) for name, tokens in written.items()]
    tried = {f"prompt-{name}": list(ids[name]) for name in held_out[:MOST_HELD_OUT]}
    return Texts(texts, tried, f"{len(texts)} prompts ({combination.prompts.label}) with the target's answers")


def _parted(whole: list, asked: Training) -> tuple[list, list]:  # type: ignore[type-arg]
    """What is learnt from, and what is held out: one in `held_out`."""
    every = asked.held_out
    return [x for i, x in enumerate(whole) if i % every != every - 1], whole[every - 1 :: every]


def _written(
    pair: Pair, prompts: Mapping[str, Sequence[int]], sampling: Sampling, most: int, store: TraceStore, watch: Watch
) -> dict[str, list[int]]:
    """The target's continuations of prompts."""
    ending = Ending(most, pair.eos_ids)
    texts = pair_trajectories(pair, prompts, sampling, ending, store, draw="training", watch=watch)
    return {name: text.tokens.tolist() for name, text in texts.items()}


def _spread(count: int) -> list[int]:
    """At most so many of `count` places as are tried, from the first to the last."""
    some: list[int] = np.unique(np.linspace(0, count - 1, min(count, MOST_HELD_OUT)).round().astype(int)).tolist()
    return some


def _windows(files: PairFiles, asked: Training) -> Iterator[list[list[int]]]:
    """The text's documents, each cut into windows of token ids; as many as `tokens` allows, drawn from all of them."""
    documents = list(_documents(Path(asked.text or "").expanduser()))
    left, least = asked.tokens if asked.tokens is not None else np.inf, max(LEAST, asked.beginning + 1)
    for number in np.random.default_rng(asked.seed).permutation(len(documents)).tolist():
        ids = [i for i in files.target.tokenizer.encode(documents[number]) if i < files.target.known_ids]
        windows = []
        for first in range(0, len(ids), asked.window):
            window = ids[first : first + asked.window]
            window = window[: int(min(left, len(window)))]
            if len(window) >= least:
                left -= len(window)
                windows.append(window)
        if windows:
            yield windows
        if left < least:
            return


def _documents(path: Path) -> Iterator[str]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in (".txt", ".jsonl"))
        if not files:
            raise ConfigError(f"train.text={path}: there is no .txt and no .jsonl file in this folder")
        for file in files:
            yield from _documents(file)
        return
    text = plain_text("train.text", path, "a file or folder of text")
    if path.suffix == ".jsonl":
        yield from _rows(path, text)
    else:
        yield text


def _rows(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"train.text={path}, line {number}: not JSON: {error.msg}") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise ConfigError(f'train.text={path}, line {number}: expected an object with a "text"')
        yield row["text"]
