"""Keys and values of several sequences: each row has slots of its own, and rows need not be equally long.

Letters: B rows, M slots of a row, S slots that are read, r rows of a forward, q tokens that are fed to each, H heads,
d numbers of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache, CacheLayerMixin

BUCKET = 128  # slots by which rows grow


class Place(NamedTuple):
    """Where a forward writes, and what it reads.

    Attributes:
        rows: `[r]` rows.
        slots: `[r, q]` where the new tokens of each go.
        read: S, slots from the first one.
    """

    rows: torch.Tensor
    slots: torch.Tensor
    read: int


class Move(NamedTuple):
    """Slots of one row whose content goes to others."""

    row: int
    sources: Sequence[int]
    to: Sequence[int]


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, `[B, H, M, d]` each.

    Args:
        rows: B.
    """

    is_sliding = False

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows
        self.place: Place | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make room for states like these `[., H, ., d]`."""
        self.keys, self.values = (
            states.new_zeros(self._rows, states.shape[1], 0, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def fill(self, row: int, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """A row begins with these states `[1, H, n, d]`."""
        self._make_room(key_states.shape[2], key_states, value_states)
        self.keys[row, :, : key_states.shape[2]] = key_states[0]
        self.values[row, :, : value_states.shape[2]] = value_states[0]

    def _make_room(self, count: int, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if count > self.keys.shape[2]:
            more = -(-count // BUCKET) * BUCKET - self.keys.shape[2]
            self.keys, self.values = (
                torch.nn.functional.pad(states, (0, 0, 0, more)) for states in (self.keys, self.values)
            )

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the states `[r, H, q, d]` of new tokens: `[r, H, S, d]` keys and values of their rows."""
        assert self.place is not None
        rows, slots, read = self.place
        self._make_room(read, key_states, value_states)
        rows, slots = rows.to(key_states.device), slots.to(key_states.device)
        self.keys[rows[:, None], :, slots] = key_states.transpose(1, 2)
        self.values[rows[:, None], :, slots] = value_states.transpose(1, 2)
        if len(rows) == self._rows:  # all of them, in their order
            return self.keys[:, :, :read], self.values[:, :, :read]
        return self.keys[rows, :, :read], self.values[rows, :, :read]

    def move(self, rows: torch.Tensor, sources: torch.Tensor, to: torch.Tensor) -> None:
        """Slots `[m]` of rows `[m]` go to others, all at once."""
        if self.is_initialized:
            rows, sources, to = (index.to(self.keys.device) for index in (rows, sources, to))
            for states in (self.keys, self.values):
                states[rows, :, to] = states[rows, :, sources]

    def get_seq_length(self) -> int:
        """Slots that are read."""
        return 0 if self.place is None else self.place.read

    def get_max_length(self) -> int:
        """There is no limit."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots that are read, from the first one on; masks are made elsewhere."""
        return self.get_seq_length(), 0


class SlotCache(Cache):  # type: ignore[misc]
    """The layers of a model with rows of slots.

    Args:
        rows: how many sequences there can be.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(layers=[])
        self._rows = rows
        self._moves: list[Move] = []

    def fill(self, row: int, states: Cache) -> None:
        """A row begins anew, with what another cache holds of one sequence."""
        self._moves = [move for move in self._moves if move.row != row]
        for number, layer in enumerate(states.layers):
            if number == len(self.layers):
                self.layers.append(SlotLayer(self._rows))
            if layer.is_initialized:
                self.layers[number].fill(row, layer.keys, layer.values)

    def move(self, row: int, sources: Sequence[int], to: Sequence[int]) -> None:
        """Slots of a row go to others, before the next forward."""
        self._moves.append(Move(row, sources, to))

    def turn_to(self, place: Place) -> None:
        """What the next forward is of."""
        if self._moves:
            moved = [(move.row, *slots) for move in self._moves for slots in zip(move.sources, move.to, strict=True)]
            index = torch.tensor(moved).T
            for layer in self.layers:
                layer.move(*index)
            self._moves = []
        for layer in self.layers:
            layer.place = place
