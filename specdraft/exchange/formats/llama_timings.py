"""The `timings` in responses of llama.cpp's server (tools/server/server-task.cpp: `draft_n`, `draft_n_accepted`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from specdraft.exchange.formats.base import Format, number
from specdraft.exchange.formats.llama_cpp import RATE
from specdraft.exchange.reading import Counts, Figure, Reading, mean_of_ratios
from specdraft.exchange.source import ForeignFile, Row


@dataclass
class LlamaTimings(Format):
    """It does not say how many drafts there were: steps follow from the emitted tokens."""

    kind: ClassVar[str] = "llama.cpp-timings"
    about: ClassVar[str] = "responses of llama.cpp's server (timings)"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return any("draft_n" in _timings(row) for row in file.rows)

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        timings = [one for row in file.rows if (one := _timings(row)).get("draft_n")]
        if not timings:
            raise file.refuse("draft_n is 0: nothing was drafted")
        requests = [_counts(one, file) for one in timings]
        total = Counts.total(requests)
        return Reading(self.kind, self.about, _figures(requests, total), total, requests, notes=NOTES)


NOTES = (
    "steps are predicted_n - 1 - draft_n_accepted: one token of the target's own each, with or without a draft; "
    "llama.cpp's mean acceptance length is over drafts only, and is larger where some steps had none",
)


def _timings(row: Row) -> dict[str, Any]:
    timings = row.get("timings")
    return timings if isinstance(timings, dict) else row


def _counts(timings: dict[str, Any], file: ForeignFile) -> Counts:
    emitted, drafted, accepted = (
        number(timings, name, file, None) for name in ("predicted_n", "draft_n", "draft_n_accepted")
    )
    steps = emitted - 1 - accepted
    if steps <= 0:
        raise file.refuse(f"draft_n_accepted={accepted:g} leaves no step of predicted_n={emitted:g} tokens")
    return Counts(steps, drafted, accepted, steps, emitted)


def _figures(requests: Sequence[Counts], total: Counts) -> list[Figure]:
    rate = total.accepted_tokens / total.drafted_tokens
    each = mean_of_ratios(requests, ("accepted_tokens",), "drafted_tokens")
    length = 1 + total.accepted_tokens / total.steps
    return [
        Figure("draft_n_accepted / draft_n", rate, RATE, "acceptance_rate"),
        Figure("the same, mean over requests", each, "the same of each request"),
        Figure("(predicted_n - 1) / steps", length, "tokens of a step, with or without a draft", "block_efficiency"),
    ]
