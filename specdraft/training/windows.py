"""Whole texts side by side, for what learns by reading them: a draft model, or a target with its heads.

Letters: B texts, L tokens of the longest, m places that are learnt from, V ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from specdraft.models.output_layer import OutputLayer
from specdraft.training.loop import NUMBERS, shuffled
from specdraft.training.states import TextStates


class Window(NamedTuple):
    """Some texts.

    Attributes:
        ids: `[B, L]` padded on the right with token 0.
        row, column: `[m]` the places that are learnt from.
        place: `[m]` the same among all texts' tokens.
        left: `[m]` how many tokens of its text follow each of them.
        begin, length, first: `[B]` where each text begins among all texts' tokens, its tokens, and from which of them
            on it is learnt from.
    """

    ids: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    place: np.ndarray
    left: torch.Tensor
    begin: np.ndarray
    length: np.ndarray
    first: np.ndarray


class Windows:
    """Texts in turn, each once before any comes again.

    Args:
        states: of the texts.
        positions: tokens of a step, about.
        vocab: V.
        device: where ids go.
        seed: of the order.
    """

    def __init__(self, states: TextStates, positions: int, vocab: int, device: torch.device, seed: int) -> None:
        self._states, self._device, self._seed = states, device, seed
        lengths = np.diff(states.starts)
        self._each = max(1, min(len(lengths), round(positions / float(lengths.mean()))))
        self._at_once = max(1, NUMBERS // vocab // int(lengths.max()))

    def of_step(self, step: int, further: int = 0) -> Iterator[tuple[Window, list[int]]]:
        """The texts of a step in parts, and of the whole step how many places are learnt from, and how many of them at
        least 1, 2, ... `further` tokens follow. A part is one text at least, however long it is."""
        turns = np.arange(step * self._each, (step + 1) * self._each)
        texts = shuffled(len(self._states.first), turns, self._seed)
        parts = [self._window(texts[at : at + self._at_once]) for at in range(0, len(texts), self._at_once)]
        left = torch.cat([part.left for part in parts])
        counts = [len(left), *(int((left > number).sum()) for number in range(further))]
        for part in parts:
            yield part, counts

    def _window(self, texts: np.ndarray) -> Window:
        begin, length, first = (
            self._states.starts[texts],
            np.diff(self._states.starts)[texts],
            self._states.first[texts],
        )
        ids = np.zeros((len(texts), int(length.max())), dtype=np.int64)
        columns = np.arange(ids.shape[1])
        there = columns < length[:, None]
        ids[there] = self._states.ids[(begin[:, None] + columns)[there]]
        row, column = np.nonzero(there & (columns >= first[:, None]))
        tensors = [torch.from_numpy(a).to(self._device) for a in (ids, row, column, length[row] - 1 - column)]
        whole, rows, columns_learnt, left = tensors
        return Window(whole, rows, columns_learnt, begin[row] + column, left, begin, length, first)


class Teacher:
    """What the target says along recorded texts.

    Args:
        output: its output layer.
        vocab: V.
        states: of the texts.
    """

    def __init__(self, output: OutputLayer, vocab: int, states: TextStates) -> None:
        self._output, self._vocab, self._states = output, vocab, states

    @torch.no_grad()
    def probs(self, place: np.ndarray) -> torch.Tensor:
        """`[m, V]` its distribution after these tokens."""
        return torch.softmax(self._output(self._states.at(place, self._output.weight.device))[:, : self._vocab], -1)
