"""Keys and values of sequences that grow: they are written behind those that are there, and nothing else is copied.

Layers that are alike stand in one tensor, so that what a step keeps is moved by one call for all of them.

Letters in shapes: N layers, B rows, H heads, M slots there is room for, S slots that are taken, q new ones, d width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import Cache, CacheLayerMixin

BUCKET = 256  # slots by which there is more room


class Room:
    """Keys, or values, of some layers: `[N, B, H, M, d]`. Args: layers: N."""

    def __init__(self, layers: int) -> None:
        self._count = layers
        self._all = torch.empty(0)
        self._each: tuple[torch.Tensor, ...] = ()

    def takes(self, states: torch.Tensor) -> bool:
        """Whether states `[B, H, ., d]` are like those that are there."""
        if not self._each:
            return True
        here = self._all
        kept = (*here.shape[1:3], here.shape[4], here.dtype, here.device)
        return kept == (*states.shape[:2], states.shape[3], states.dtype, states.device)

    def write(self, layer: int, first: int, states: torch.Tensor) -> torch.Tensor:
        """States `[B, H, q, d]` from this slot on: `[B, H, first + q, d]` all of the layer."""
        end = first + states.shape[2]
        if not self._each or end > self._all.shape[3]:
            self._make_room(end, first, states)
        self._each[layer][:, :, first:end] = states
        return self.of_layer(layer, end)

    def _make_room(self, count: int, filled: int, like: torch.Tensor) -> None:
        (rows, heads, _, width), slots = like.shape, -(-count // BUCKET) * BUCKET
        grown = like.new_empty(self._count, rows, heads, slots, width)
        if self._each:
            grown[:, :, :, :filled] = self._all[:, :, :, :filled]
        self._all, self._each = grown, grown.unbind(0)

    def of_layer(self, layer: int, count: int) -> torch.Tensor:
        """`[B, H, count, d]` its first slots."""
        return self._each[layer][:, :, :count]

    def repeat_rows(self, repeats: int) -> None:
        """Each row so many times."""
        if self._each:
            self._all = self._all.repeat_interleave(repeats, 1)
            self._each = self._all.unbind(0)

    def move(self, slots: torch.Tensor, to: int) -> None:
        """What these slots `[m]` hold is held by those from `to` on."""
        if self._each:
            self._all[:, :, :, to : to + len(slots)] = self._all[:, :, :, slots.to(self._all.device)]


class GrowingLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, `[B, H, S, d]` each.

    Args:
        number: of the layer in these rooms.
        rooms: of the keys and of the values of all layers.
    """

    is_sliding, is_croppable = False, True

    def __init__(self, number: int, rooms: tuple[Room, Room]) -> None:
        super().__init__()
        self._number, self.rooms, self._taken = number, rooms, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Among the other layers, or alone where they are not like these states `[B, H, ., d]`."""
        if not (self.rooms[0].takes(key_states) and self.rooms[1].takes(value_states)):
            self._number, self.rooms = 0, (Room(1), Room(1))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the states `[B, H, q, d]` of new tokens: `[B, H, S, d]` all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.rooms
        self.keys = keys.write(self._number, self._taken, key_states)
        self.values = values.write(self._number, self._taken, value_states)
        self._taken += key_states.shape[2]
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens: so many, counted below 0, as `transformers` counts them."""
        if tokens_to_remove and self.is_initialized:
            self._taken += tokens_to_remove
            self.look_again()

    def look_again(self) -> None:
        """The rooms, or what is taken of them, changed."""
        self.keys, self.values = (room.of_layer(self._number, self._taken) for room in self.rooms)

    def get_seq_length(self) -> int:
        """S."""
        return self._taken

    def get_max_length(self) -> int:
        """None: it grows."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots that are read, from the first one on."""
        return self._taken + query_length, 0


class GrowingCache(Cache):  # type: ignore[misc]
    """The layers of a model. Args: layers: how many."""

    def __init__(self, layers: int) -> None:
        rooms = Room(layers), Room(layers)
        super().__init__(layers=[GrowingLayer(number, rooms) for number in range(layers)])

    def move(self, slots: torch.Tensor, to: int) -> None:
        """What these slots `[m]` hold is held by those from `to` on, in every layer."""
        for room in self._rooms:
            room.move(slots, to)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence stands there so many times."""
        for room in self._rooms:
            room.repeat_rows(repeats)
        for layer in self.layers:
            if layer.is_initialized:
                layer.look_again()

    @property
    def _rooms(self) -> Iterable[Room]:
        return {id(room): room for layer in self.layers for room in layer.rooms}.values()
