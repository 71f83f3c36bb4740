"""A model whose rows each behave as a `CachedModel` of one sequence; what they ask for together is one forward.

Letters: r rows of a forward, q tokens that are fed to the row that feeds most, S slots of the row that holds most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward
from specdraft.models.slot_cache import Place, SlotCache
from specdraft.models.slot_row import SlotRow
from specdraft.models.tree_attention import TAIL, tails

if TYPE_CHECKING:
    from specdraft.attention.tree_decode import Tail

Masks = torch.Tensor | Mapping[str, torch.Tensor]


class Prefill(NamedTuple):
    """A row starts with a prompt; see `CachedModel.prefill`."""

    row: BatchRow
    token_ids: Sequence[int]
    layers: Sequence[int]


class Append(NamedTuple):
    """A row appends tokens; see `CachedModel.append`."""

    row: BatchRow
    tokens: torch.Tensor
    offsets: torch.Tensor
    tail: torch.Tensor
    layers: Sequence[int]


Request = Prefill | Append
Ask = Callable[[Request], Forward]


class BatchRow(SlotRow):
    """One sequence of a batch: what needs a forward is asked for.

    Args:
        batch: the model.
        number: of the row.
        ask: gives what a request comes to, once somebody has run it.
    """

    def __init__(self, batch: BatchedModel, number: int, ask: Ask) -> None:
        self.batch, self.number, self._ask = batch, number, ask
        super().__init__(batch.model)

    def _begin(self, token_ids: Sequence[int], layers: Sequence[int]) -> Forward:
        return self._ask(Prefill(self, token_ids, layers))

    def read(self, request: Prefill) -> Forward:
        """Run the prefill that was asked for: as one sequence alone, whose states then fill the row."""
        return super()._begin(request.token_ids, request.layers)

    def _filled(self, states: Any) -> None:
        self.batch.cache.fill(self.number, states)

    def append(
        self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor, layers: Sequence[int] = ()
    ) -> Forward:
        """See `CachedModel.append`."""
        return self._ask(Append(self, tokens, offsets, tail, layers))

    def masks(self, positions: torch.Tensor, tail: torch.Tensor) -> Masks:
        """`[1, 1, q, slots]` what new tokens at positions `[q]` see of the row, themselves included."""
        return self._masks(positions, tail)

    def appended(self, positions: torch.Tensor) -> None:
        """There are pending tokens more, at these positions."""
        self._pending_positions = torch.cat([self._pending_positions, positions])

    def _gather(self, slots: Sequence[int]) -> None:
        """See `CachedModel._gather`: with those of other rows, before the next forward."""
        to = range(self.length, self.length + len(slots))
        self.batch.cache.move(self.number, [self.length + slot for slot in slots], to)


class BatchedModel:
    """Rows of one model.

    Args:
        model: whose weights they share; its own sequence is left alone.
        rows: how many.
        ask: see `BatchRow`.
    """

    def __init__(self, model: CachedModel, rows: int, ask: Ask) -> None:
        self.model, self.cache = model, SlotCache(rows)
        self.rows = [BatchRow(self, number, ask) for number in range(rows)]

    @torch.inference_mode()
    def run(self, requests: Sequence[Request]) -> list[Forward]:
        """What requests of different rows come to: a prefill alone, all that is appended in one forward."""
        appends = sorted((r for r in requests if isinstance(r, Append)), key=lambda request: request.row.number)
        said = dict(zip(map(id, appends), self._append(appends), strict=True)) if appends else {}
        return [r.row.read(r) if isinstance(r, Prefill) else said[id(r)] for r in requests]

    def _append(self, requests: Sequence[Append]) -> list[Forward]:
        """All of them want the states of the same layers. A row that feeds fewer tokens than others is filled up
        behind its own: in slots that nobody sees, and that its next tokens take."""
        rows, device = [request.row for request in requests], self.model.device
        positions = [request.offsets + request.row.length for request in requests]
        tokens = pad_sequence([request.tokens for request in requests], batch_first=True)
        fed, ends = tokens.shape[1], [row.length + row.pending for row in rows]
        count = max(ends) + fed
        slots = torch.tensor(ends, device=device)[:, None] + torch.arange(fed, device=device)
        self.cache.turn_to(Place(torch.tensor([row.number for row in rows], device=device), slots, count))
        masks = [row.masks(at, request.tail) for row, at, request in zip(rows, positions, requests, strict=True)]
        logits, hidden = self.model.forward(
            tokens,
            requests[0].layers,
            position_ids=pad_sequence(positions, batch_first=True),
            attention_mask=_together(masks, fed, count),
            cache=self.cache,
            **self._tails(requests),
        )
        said = []
        for place, (row, at) in enumerate(zip(rows, positions, strict=True)):
            row.appended(at)
            said.append(Forward(logits[place, : len(at)], None if hidden is None else hidden[place, : len(at)]))
        return said

    def _tails(self, requests: Sequence[Append]) -> dict[str, Tail]:
        """See `CachedModel._tails`."""
        if not self.model.takes_tails:
            return {}
        starts = [request.row.length for request in requests]
        return {TAIL: tails([request.tail for request in requests], starts, max(starts))}


def _together(masks: Sequence[Masks], fed: int, count: int) -> Masks:
    """Masks `[1, 1, q, slots]` of rows as `[r, 1, fed, count]`, for each kind of layers if there are kinds."""
    if isinstance(masks[0], Mapping):
        each: Sequence[Any] = masks
        return {kind: _stacked([mask[kind] for mask in each], fed, count) for kind in masks[0]}
    return _stacked(masks, fed, count)


def _stacked(masks: Sequence[Any], fed: int, count: int) -> torch.Tensor:
    hidden = torch.finfo(masks[0].dtype).min
    return torch.cat([F.pad(m, (0, count - m.shape[3], 0, fed - m.shape[2]), value=hidden) for m in masks])
