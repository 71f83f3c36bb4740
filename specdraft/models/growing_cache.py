"""Keys and values of sequences that grow: they are written behind those that are there, and nothing else is copied.

Layers that are alike stand in one tensor, so that what a step keeps is moved by one call for all of them.

Letters in shapes: N layers, B rows, H heads, M slots there is room for, S slots that are taken, q new ones, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache, CacheLayerMixin

BUCKET = 256  # slots by which there is more room


class Room:
    """Keys, or values, of layers that are alike: `[N, B, H, M, d]`.

    Args:
        states: `[B, H, S, d]` of each layer, which it begins with.
        slots: M.
    """

    def __init__(self, states: Sequence[torch.Tensor], slots: int) -> None:
        rows, heads, _, width = states[0].shape
        self._all = states[0].new_empty(len(states), rows, heads, slots, width)
        self._each = self._all.unbind(0)
        for here, given in zip(self._each, states, strict=True):
            here[:, :, : given.shape[2]] = given

    def write(self, layer: int, first: int, states: torch.Tensor) -> torch.Tensor:
        """States `[B, H, q, d]` from this slot on: `[B, H, first + q, d]` all of the layer."""
        end = first + states.shape[2]
        if end > self._all.shape[3]:
            grown = Room([here[:, :, :first] for here in self._each], slots_for(end))
            self._all, self._each = grown._all, grown._each
        self._each[layer][:, :, first:end] = states
        return self.of_layer(layer, end)

    def of_layer(self, layer: int, count: int) -> torch.Tensor:
        """`[B, H, count, d]` its first slots."""
        return self._each[layer][:, :, :count]

    def repeat_rows(self, repeats: int) -> None:
        """Each row so many times."""
        self._all = self._all.repeat_interleave(repeats, 1)
        self._each = self._all.unbind(0)

    def move(self, slots: torch.Tensor, to: int) -> None:
        """What these slots `[m]` hold is held by those from `to` on."""
        self._all[:, :, :, to : to + len(slots)] = self._all[:, :, :, slots.to(self._all.device)]


def slots_for(count: int) -> int:
    """Room for so many, and for some more."""
    return -(-count // BUCKET) * BUCKET


class Place(NamedTuple):
    """Keys, or values, of one layer: number `number` of a room."""

    room: Room
    number: int


class GrowingLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, `[B, H, S, d]` each.

    Attributes:
        places: of its keys and of its values; none before there are any.
    """

    is_sliding, is_croppable = False, True

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []
        self._taken = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """In rooms of its own that hold these states `[B, H, q, d]` and no more."""
        self.places = [Place(Room([states], states.shape[2]), 0) for states in (key_states, value_states)]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the states `[B, H, q, d]` of new tokens: `[B, H, S, d]` all keys and values."""
        if self.is_initialized:
            keys, values = self.places
            self.keys = keys.room.write(keys.number, self._taken, key_states)
            self.values = values.room.write(values.number, self._taken, value_states)
            self._taken += key_states.shape[2]
        else:
            self.lazy_initialization(key_states, value_states)
            self._taken = key_states.shape[2]
            self.look_again()
        return self.keys, self.values

    @property
    def kind(self) -> tuple[Any, ...]:
        """What layers have in common that can stand in one tensor."""
        return tuple((*states.shape, states.dtype, states.device) for states in (self.keys, self.values))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens: so many, counted below 0, as `transformers` counts them; else `ValueError`."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): tokens to forget are counted below 0")
        if tokens_to_remove and self.is_initialized:
            self._taken += tokens_to_remove
            self.look_again()

    def look_again(self) -> None:
        """The rooms, or what is taken of them, changed."""
        self.keys, self.values = (at.room.of_layer(at.number, self._taken) for at in self.places)

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
    """The layers of a model. After the first forward those that are alike move together; only then is it known which
    have states of their own, and on which device.

    Args:
        layers: how many.
    """

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[GrowingLayer() for _ in range(layers)])
        self._apart = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `GrowingLayer.update`."""
        if self._apart and self.layers[layer_idx].is_initialized:
            self._move_together(key_states.shape[2])
        said: tuple[torch.Tensor, torch.Tensor] = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return said

    def _move_together(self, more: int) -> None:
        """With room for so many more tokens."""
        alike: dict[Any, list[GrowingLayer]] = {}
        for layer in self.layers:
            if layer.is_initialized:
                alike.setdefault(layer.kind, []).append(layer)
        for layers in alike.values():
            slots = slots_for(layers[0].get_seq_length() + more)
            for side in range(2):  # one after the other: what a layer had alone is free before the next is made
                together = Room([(one.keys, one.values)[side] for one in layers], slots)
                for number, layer in enumerate(layers):
                    layer.places[side] = Place(together, number)
                    layer.look_again()
        self._apart = False

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
        return {id(room): room for layer in self.layers for room, _ in layer.places}.values()
