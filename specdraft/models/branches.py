"""Many short continuations of texts that were read: what hangs below their tokens, fed in rows of a few contexts each.

A row holds the keys of its text, and of what was fed here only what its contexts see: attention over everything that
was ever fed would cost more than the layers do.

Letters in shapes: m contexts, R rows of a forward, q contexts of a row, A fed tokens that a row needs, S slots of a
text, H heads, d width of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from specdraft.models.batch import Batch, additive_masks
from specdraft.models.language_model import LanguageModel

ROW = 64  # contexts of a row at most, if its text is short
LEAST_ROOM = 1024  # fed tokens


class Rows(NamedTuple):
    """Where contexts are in a forward.

    Attributes:
        text: `[R]` each row's.
        row, column: `[m]` each context's.
    """

    text: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """R, q."""
        return len(self.text), int(self.column.max()) + 1


class Logits(NamedTuple):
    """What a forward gave, padding included, which is little: to copy the others out would take longer.

    Attributes:
        padded: `[R * q, vocab]` float32.
        place: `[m]` where the contexts' are.
    """

    padded: torch.Tensor
    place: np.ndarray


def most_of_row(slots: int) -> int:
    """Contexts of a row at most: the keys of a long text are not copied for a few."""
    return max(ROW, slots // 2)


def in_rows(text: np.ndarray, most: int) -> Rows:
    """Contexts, sorted by their texts `[m]`, in rows of one text and at most so many, as even as can be."""
    texts, count = np.unique(text, return_counts=True)
    rows = -(-count // most)
    size, first = np.repeat(-(-count // rows), count), np.repeat(np.cumsum(rows) - rows, count)
    turn = np.arange(len(text)) - np.repeat(np.cumsum(count) - count, count)
    return Rows(np.repeat(texts, rows), first + turn // size, turn % size)


class Branches:
    """Tokens that hang below those of a batch, numbered in the order in which they were fed.

    Args:
        model: the model that read the batch.
        batch: the texts: prompts, and tokens that were appended to them, each seeing all before it.
    """

    def __init__(self, model: LanguageModel, batch: Batch) -> None:
        self._model, self._texts, self._cache_beside = model, batch.states(), batch.cache_beside
        self._lengths, self._width, self._slots = batch.prompt_lengths, batch.width, batch.slots
        self._most = most_of_row(batch.width + batch.slots)
        self._fed = [[states.new_empty(0, *states.shape[1::2]) for states in layer] for layer in self._texts]
        self._positions = np.empty(0, dtype=np.int64)

    def forget(self) -> None:
        """Drop all of them; the room stays."""
        self._positions = self._positions[:0]

    @torch.inference_mode()
    def feed(self, tokens: np.ndarray, text: np.ndarray, trunk: np.ndarray, above: np.ndarray) -> Logits:
        """Logits after new tokens, which do not see each other.

        Args:
            tokens: `[m]` ids.
            text: `[m]` each one's row of the batch, ascending.
            trunk: `[m]` how many of the tokens that were appended to its text it sees.
            above: `[m, depth]` the numbers of the tokens that it sees beyond them, -1 where there is none.
        """
        rows, new = in_rows(text, self._most), self._lengths[text] + trunk + (above >= 0).sum(1)
        ids, positions = np.zeros((2, *rows.shape), dtype=np.int64)
        ids[rows.row, rows.column], positions[rows.row, rows.column] = tokens, new
        needed, seen = self._seen(rows, text, trunk, above)
        slots = np.concatenate([self._slot_positions(rows.text), self._positions[needed], positions], 1)
        cache = self._cache(torch.from_numpy(rows.text), torch.from_numpy(needed))
        fed, at, visible, slot_at = (
            torch.from_numpy(array).to(self._model.device) for array in (ids, positions, seen, slots)
        )
        logits, _ = self._model.forward(
            fed,
            position_ids=at,
            attention_mask=additive_masks(self._model, visible, at, slot_at),
            cache=cache,
        )
        place = rows.row * rows.shape[1] + rows.column
        self._keep(cache, torch.from_numpy(place), rows.shape[1])
        self._positions = np.append(self._positions, new)
        return Logits(logits.flatten(0, 1), place)

    def _seen(
        self, rows: Rows, text: np.ndarray, trunk: np.ndarray, above: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`[R, A]` numbers of the fed tokens that each row needs, and `[R, q, S + A + q]` what each context sees."""
        context, step = np.nonzero(above >= 0)
        row, number = rows.row[context], above[context, step]
        keys, which = np.unique(row * (len(self._positions) + 1) + number, return_inverse=True)
        owner, numbers = np.divmod(keys, len(self._positions) + 1)
        place = np.arange(len(keys)) - np.searchsorted(owner, owner)
        needed = np.zeros((len(rows.text), int(place.max(initial=-1)) + 1), dtype=np.int64)
        needed[owner, place] = numbers
        texts, q = self._width + self._slots, rows.shape[1]
        seen = np.zeros((*rows.shape, texts + needed.shape[1] + q), dtype=bool)
        seen[:, np.arange(q), np.arange(seen.shape[2] - q, seen.shape[2])] = True
        seen[rows.row, rows.column, : self._width] = np.arange(self._width) < self._lengths[text, None]
        seen[rows.row, rows.column, self._width : texts] = np.arange(self._slots) < trunk[:, None]
        seen[row, rows.column[context], texts + place[which]] = True
        return needed, seen

    def _slot_positions(self, text: np.ndarray) -> np.ndarray:
        """`[R, S]` of texts."""
        prompt = np.broadcast_to(np.arange(self._width), (len(text), self._width))
        return np.concatenate([prompt, self._lengths[text, None] + np.arange(self._slots)], 1)

    def _cache(self, text: torch.Tensor, needed: torch.Tensor) -> Any:
        """Of these texts `[R]` and fed tokens `[R, A]`."""
        cache = self._cache_beside(text)
        for number, (texts, fed) in enumerate(zip(self._texts, self._fed, strict=True)):
            text, needed = text.to(texts[0].device), needed.to(texts[0].device)
            pairs = zip(texts, fed, strict=True)  # keys, values
            states = [torch.cat([own[text], more[needed].transpose(1, 2)], 2) for own, more in pairs]
            cache.update(*states, number)
        return cache

    def _keep(self, cache: Any, place: torch.Tensor, q: int) -> None:
        """The states of new tokens, at these places `[m]` of the rows."""
        first, count = len(self._positions), len(place)
        for layer, fed in zip(cache.layers, self._fed, strict=True):
            for i, states in enumerate((layer.keys, layer.values)):
                if first + count > len(fed[i]):
                    room = max(LEAST_ROOM, 2 * (first + count))
                    fed[i] = torch.cat([fed[i][:first], fed[i].new_empty(room - first, *fed[i].shape[1:])])
                new = states[:, :, -q:].transpose(1, 2).flatten(0, 1)  # [R * q, H, d]
                fed[i][first : first + count] = new[place.to(new.device)]
