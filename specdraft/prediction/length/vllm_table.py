"""vLLM's dynamic speculative decoding: the length by the size of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from specdraft.prediction.length.base import LengthPolicy, Lengths
from specdraft.prediction.length.constant import Always

DEFAULT = ((1, 4, 5), (5, 16, 3), (17, 64, 1))


@dataclass
class VllmTable(LengthPolicy):
    """The length of the row whose batch sizes hold the batch; between rows and beyond the last one that of the row
    before (vLLM 0.33, `num_speculative_tokens_per_batch_size`). Nothing that was accepted changes it. The batch is
    `cost.batch`.

    Attributes:
        table: rows of a first and a last batch size and a length, ascending from 1.
    """

    kind: str = "vllm_table"
    table: list[list[int]] = field(default_factory=lambda: [list(row) for row in DEFAULT])

    def fixed(self, budget: int, batch: int) -> int:
        """See `LengthPolicy.fixed`."""
        return min(budget, next(row[2] for row in reversed(self.table) if row[0] <= batch))

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """See `LengthPolicy.begin`."""
        return Always(self.fixed(budget, 1))

    def misfit(self, budget: int, batch: int) -> str | None:
        """See `LengthPolicy.misfit`."""
        if self.fixed(budget, batch):
            return None
        return (
            f"length.table drafts nothing at a batch of {batch}: that is plain decoding, which stands beside live rows"
        )

    @property
    def label(self) -> str:
        """See `LengthPolicy.label`."""
        if self == VllmTable():
            return self.kind
        return "-".join([self.kind, *(f"{first}to{last}x{length}" for first, last, length in self.table)])

    def check(self) -> None:
        """See `LengthPolicy.check`."""
        if not self.table or any(len(row) != 3 for row in self.table):
            raise self.refuse("table", "rows of a first and a last batch size and a length")
        if self.table[0][0] != 1:
            raise self.refuse("table", "a first row that begins at a batch of 1")
        ends = [size for first, last, _ in self.table for size in (first, last + 1)]
        if sorted(ends) != ends or any(first > last or length < 0 for first, last, length in self.table):
            raise self.refuse("table", "rows in ascending order that do not overlap, lengths of 0 or more")
