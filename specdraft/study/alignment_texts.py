"""Texts that an alignment is fitted to, in parts that share no text, and both models' states along them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, PairFiles
from specdraft.errors import ConfigError
from specdraft.prompts import load_prompts
from specdraft.study.combination import Combination
from specdraft.study.recorded import record_texts
from specdraft.traces.last_states import last_states

LEAST_WINDOW = 8  # tokens of a last window that is not whole


class FitTexts(NamedTuple):
    """Texts, each in one part.

    Attributes:
        texts: token ids.
        parts: `[texts]` the part of each, from 0.
        source: what they are, for people.
    """

    texts: list[list[int]]
    parts: np.ndarray
    source: str

    @property
    def tokens(self) -> int:
        """Of all texts; a state is read after each but the first of a text."""
        return sum(map(len, self.texts))


class States(NamedTuple):
    """Both models' last states at the same positions of one text: `[n, d_d]` and `[n, d_t]`."""

    part: int
    draft: torch.Tensor
    target: torch.Tensor


def recorded_texts_to_fit(
    pair: Pair, combination: Combination, parts: int, recorded: Callable[[str], None]
) -> FitTexts:
    """The pair's prompts with the target's own continuations, which are recorded where they are missing; prompts go to
    the parts in turn."""
    prompts, template = load_prompts(combination.prompts), combination.prompts.chat_template
    setting = (combination.sampling, combination.settings)
    found = record_texts(pair, prompts, template, *setting, 0, recorded)
    written = found.traces.trajectories
    texts = [[*found.prompt_ids[name], *written[name].tokens.tolist()] for name in found.names]
    source = f"{len(texts)} prompts ({combination.prompts.label}) with the target's continuations"
    return FitTexts(_enough(texts, parts, "prompts"), np.arange(len(texts)) % parts, source)


def windows_to_fit(files: PairFiles, named: str, window: int, most: int | None, parts: int) -> FitTexts:
    """A file's text in windows, each with the tokenizer's beginning mark if it has one; each part is one stretch of the
    file.

    Args:
        files: the pair, whose tokenizer reads it.
        named: the file, UTF-8 text.
        window: tokens of a window.
        most: tokens of the file that are read, from its beginning; None: all.
        parts: how many parts there are.

    Raises:
        ConfigError: the file cannot be read, or is too short.
    """
    tokenizer = files.target.tokenizer
    ids = [
        i
        for i in tokenizer.encode(plain_text("fit.text", named), add_special_tokens=False)
        if i < files.target.known_ids
    ][:most]
    mark = [tokenizer.bos_token_id] if tokenizer.encode("")[:1] == [tokenizer.bos_token_id] else []
    step = window - len(mark)
    texts = [[*mark, *ids[first : first + step]] for first in range(0, len(ids), step)]
    texts = [text for text in texts if len(text) >= LEAST_WINDOW]
    where = np.arange(len(texts)) * parts // max(1, len(texts))
    return FitTexts(_enough(texts, parts, f"windows of {window} tokens"), where, Path(named).name)


def plain_text(key: str, named: str | Path, expected: str = "a file of plain text") -> str:
    """What a file holds that a key names. Raises `ConfigError` where it cannot be read."""
    try:
        return Path(named).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"{key}={named}: {reason}; expected {expected}") from error


def _enough(texts: list[list[int]], parts: int, of: str) -> list[list[int]]:
    if len(texts) < parts:
        raise ConfigError(
            f"{len(texts)} {of} are too few to fit an alignment and to score it: expected {parts} or more "
            "(fit.folds + 1)"
        )
    return texts


def states_of(pair: Pair, texts: FitTexts, some: Sequence[int]) -> Iterator[States]:
    """Both models' states along the texts of these parts, text by text; of a text's first token, before which nothing
    stands, none."""
    assert isinstance(pair.drafter, ModelDrafter)
    ids = {str(i): text for i, text in enumerate(texts.texts) if int(texts.parts[i]) in some}
    for name, (draft, target) in last_states((pair.drafter.model, pair.target), pair.files.target, ids):
        yield States(int(texts.parts[int(name)]), draft[1:], target[1:])
