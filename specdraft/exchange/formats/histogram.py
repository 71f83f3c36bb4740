"""A histogram of accepted tokens: how many steps accepted exactly 0, 1, 2, ... (vLLM's `acceptance_histogram` alone, or
AIPerf's `profile_export_aiperf.json` with `pooled_spec_decode_acceptance_histogram`, AIPerf 0.13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar

from specdraft.exchange.formats.base import Format, number, survival, whole_numbers
from specdraft.exchange.formats.vllm_metrics import LENGTH, RATE
from specdraft.exchange.reading import Counts, Figure, Reading
from specdraft.exchange.source import ForeignFile

NAMES = ("pooled_spec_decode_acceptance_histogram", "acceptance_histogram", "histogram")


@dataclass
class Histogram(Format):
    """An interior zero is no end: depths beyond it count."""

    kind: ClassVar[str] = "histogram"
    about: ClassVar[str] = "a histogram of accepted tokens per step, AIPerf's summary among them"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return _holder(file.whole) is not None

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        holder = _holder(file.whole)
        assert holder is not None
        name = next(name for name in NAMES if name in holder)
        histogram = [float(count) for count in whole_numbers(holder, name, file)]
        steps = sum(histogram)
        if not steps:
            raise file.refuse(f"{name} has no step")
        accepted = float(sum(place * count for place, count in enumerate(histogram)))
        drafted = _total(holder, "total_draft_tokens", file)
        figures = [Figure("mean acceptance length", 1 + accepted / steps, LENGTH, "block_efficiency")]
        if drafted > 0:
            figures.append(Figure("draft acceptance rate", accepted / drafted, RATE, "acceptance_rate"))
        notes = [] if drafted > 0 else ["how many tokens were drafted is not told: there is no acceptance rate"]
        counts = Counts(steps, drafted, accepted, steps)
        return Reading(self.kind, self.about, figures, counts, (), survival(histogram), len(histogram) - 1, notes)


def _holder(whole: Any) -> Mapping[str, Any] | None:
    """What the histogram stands in, under one of its names."""
    if isinstance(whole, list) and len(whole) > 1 and all(type(count) is int for count in whole):
        return {"histogram": whole}
    if isinstance(whole, dict) and "num_spec_steps" not in whole and any(name in whole for name in NAMES):
        return whole
    return None


def _total(holder: Mapping[str, Any], name: str, file: ForeignFile) -> float:
    """A total of AIPerf's summary: its `avg`, of one run."""
    value = holder.get(name)
    return number(value, "avg", file) if isinstance(value, dict) else number(holder, name, file) if value else nan
