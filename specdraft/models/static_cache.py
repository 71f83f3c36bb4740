"""Keys and values of one sequence in a fixed number of slots, all of which every forward reads."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, CacheLayerMixin


class StaticLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, `[1, H, M, d]` each.

    Args:
        room: M, slots.
        slots: `[q]` where the next forward writes; whoever runs it fills them in.
    """

    is_compileable, is_sliding = True, False

    def __init__(self, room: int, slots: torch.Tensor) -> None:
        super().__init__()
        self._room, self.slots = room, slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make room for states like these `[1, H, ., d]`."""
        self.keys, self.values = (
            states.new_zeros(1, states.shape[1], self._room, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def fill(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Begin with these states `[1, H, n, d]`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = min(key_states.shape[2], self._room)
        self.keys[:, :, :count], self.values[:, :, :count] = key_states[:, :, :count], value_states[:, :, :count]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the states `[1, H, q, d]` of new tokens: `[1, H, M, d]` all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self.slots.to(key_states.device)
        self.keys.index_copy_(2, slots, key_states)
        self.values.index_copy_(2, slots, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Slots that are read."""
        return self._room

    def get_max_length(self) -> int:
        """As many as there are."""
        return self._room

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots that are read, from the first one on; masks are made elsewhere."""
        return self._room, 0


class StaticCache(Cache):  # type: ignore[misc]
    """The layers of a model.

    Args:
        layers: how many.
        room: M, slots of each.
        device: of the model's first layer.
    """

    def __init__(self, layers: int, room: int, device: torch.device) -> None:
        self.room, self._device = room, device
        self._slots: dict[int, torch.Tensor] = {}  # number of tokens -> where they go
        super().__init__(layers=[StaticLayer(room, torch.empty(0)) for _ in range(layers)])

    def fill(self, states: Cache) -> None:
        """Begin with what another cache holds of one sequence, as far as there is room."""
        for layer, filled in zip(self.layers, states.layers, strict=False):
            if filled.is_initialized:
                layer.fill(filled.keys, filled.values)

    def turn_to(self, first: int, count: int) -> None:
        """The next forward writes so many tokens from this slot on; for each number of them it is the same tensor."""
        if count not in self._slots:
            self._slots[count] = torch.empty(count, dtype=torch.long, device=self._device)
        slots = torch.arange(first, first + count, out=self._slots[count])
        for layer in self.layers:
            if layer.slots is not slots:
                layer.slots = slots

    def move(self, slots: torch.Tensor, to: int) -> None:
        """What these slots `[m]` hold is held by those from `to` on. Layers that read another one's have none."""
        for layer in self.layers:
            for states in (layer.keys, layer.values) if layer.is_initialized else ():
                states[:, :, to : to + len(slots)] = states[:, :, slots.to(states.device)]
