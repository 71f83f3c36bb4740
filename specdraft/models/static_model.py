"""A cached model whose forwards have few shapes: a fixed number of slots, and trees that are filled up to one of a few
sizes. What runs a forward can then be made once for each of them.

Letters: q tokens that are fed, Q of them with those that fill up, M slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from specdraft.models.language_model import Forward
from specdraft.models.slot_row import SlotRow
from specdraft.models.static_cache import StaticCache
from specdraft.models.tree_attention import TAIL, tails

if TYPE_CHECKING:
    from specdraft.attention.tree_decode import Tail

BUCKET = 256  # slots by which the cache grows: attention reads all of them
SIZES = (1, 2, 3, 5, 9, 17, 33, 65)  # Q: the root with a power of two of nodes
TAIL_KEYS = 32  # the keys that a kernel is told of are a multiple of it
BEYOND = 64  # Q is a multiple of it, and a root, beyond those


class Shape(NamedTuple):
    """All that two forwards share which can run as one and the same.

    Attributes:
        fed: Q.
        room: M.
        layers: whose states are wanted.
        tail: keys that the kernel of a tree's attention is told of; 0: it has none.
    """

    fed: int
    room: int
    layers: tuple[int, ...]
    tail: int = 0


class Inputs(NamedTuple):
    """What a forward is given.

    Attributes:
        tokens, positions: `[1, Q]`.
        masks: `[1, 1, Q, M]`, for each kind of layers if there are kinds.
        tail: of the kernel of a tree's attention, if there is one.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    masks: torch.Tensor | Mapping[str, torch.Tensor]
    tail: Tail | None = None


Outputs = tuple[torch.Tensor, Any]  # [1, Q, vocab] logits, and [1, Q, L, width] states or None
Run = Callable[[Inputs], Outputs]


def padded_size(tokens: int) -> int:
    """Q for so many tokens."""
    beyond = 1 + -(-(tokens - 1) // BEYOND) * BEYOND
    return next((size for size in SIZES if size >= tokens), beyond)


class StaticModel(SlotRow):
    """A causal model with the key-value cache of one sequence, in a fixed number of slots.

    Slots are as many as the sequence has come to need, by `BUCKET`.
    """

    _slots: StaticCache | None = None

    @torch.inference_mode()
    def _filled(self, states: Any) -> StaticCache:
        slots = self._with_room(self.length)
        slots.fill(states)
        return slots

    def _with_room(self, count: int) -> StaticCache:
        """The slots, at least so many; what they hold stays."""
        if self._slots is None or self._slots.room < count:
            layers, before = int(self.model.config.get_text_config().num_hidden_layers), self._slots
            self._slots = StaticCache(layers, -(-count // BUCKET) * BUCKET, self.device)
            if before is not None:
                self._slots.fill(before)
        return self._slots

    @torch.inference_mode()
    def append(
        self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor, layers: Sequence[int] = ()
    ) -> Forward:
        """See `CachedModel.append`. What fills up goes to slots that nobody sees, and that the next tokens take."""
        positions, first, fed = offsets + self.length, self.length + self.pending, len(tokens)
        more = padded_size(fed) - fed
        self._cache = self._with_room(first + fed + more)
        self._cache.turn_to(first, fed + more)
        masks = self._masks(positions, tail)
        if isinstance(masks, Mapping):
            masks = {kind: self._whole(mask, more) for kind, mask in masks.items()}
        else:
            masks = self._whole(masks, more)
        known = self._tail_of_room(tail, more)
        inputs = Inputs(_filled_up(tokens, more)[None], _filled_up(positions, more)[None], masks, known)
        shape = Shape(fed + more, self._cache.room, tuple(layers), 0 if known is None else known.length)
        logits, hidden = self._run(shape)(inputs)
        self._pending_positions = torch.cat([self._pending_positions, positions])
        return Forward(logits[0, :fed], None if hidden is None else hidden[0, :fed])

    def _tail_of_room(self, tail: torch.Tensor, more: int) -> Tail | None:
        """What a kernel is told: of few lengths, and as if the prefix were as long as there is room."""
        if not self.takes_tails:
            return None
        tail = F.pad(tail, (0, 0, 0, more), value=torch.finfo(tail.dtype).min)
        return tails([tail], [self.length], self._cache.room, -(-tail.shape[1] // TAIL_KEYS) * TAIL_KEYS)

    def _whole(self, mask: Any, more: int) -> torch.Tensor:
        """A mask `[1, 1, q, seen]` over all slots, and for what fills up."""
        hidden = torch.finfo(mask.dtype).min
        return F.pad(mask, (0, self._cache.room - mask.shape[3], 0, more), value=hidden)

    def _run(self, shape: Shape) -> Run:
        """What runs a forward of this shape."""
        return lambda inputs: self._eager(inputs, shape.layers)

    def _eager(self, inputs: Inputs, layers: Sequence[int]) -> Outputs:
        given = {} if inputs.tail is None else {TAIL: inputs.tail}
        return self.forward(
            inputs.tokens,
            layers,
            position_ids=inputs.positions,
            attention_mask=inputs.masks,
            cache=self._cache,
            **given,
        )


def _filled_up(numbers: torch.Tensor, more: int) -> torch.Tensor:
    """`[q]` -> `[Q]`."""
    return F.pad(numbers, (0, more)) if more else numbers
