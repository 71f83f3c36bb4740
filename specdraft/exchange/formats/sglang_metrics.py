"""SGLang's gauges at `/metrics` (sglang/srt/observability/metrics_collector.py of 0.5.23), and the same two figures in
its log, `accept len: 2.31, accept rate: 0.44` (managers/scheduler_components/metrics_reporter.py): both of the last
decoding interval, the bonus token included."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np

from specdraft.exchange.formats.base import NUMBER, Format
from specdraft.exchange.prometheus import Sample, samples, summed
from specdraft.exchange.reading import Counts, Figure, Reading
from specdraft.exchange.source import ForeignFile

LENGTH, RATE = "sglang:spec_accept_length", "sglang:spec_accept_rate"
DRAFT_TOKENS, LEVELS = "sglang:spec_num_draft_tokens", "sglang:spec_num_steps"
CALLS, EMITTED = "sglang:spec_verify_calls", "sglang:generation_tokens"
LINE = re.compile(rf"\baccept len: (?P<length>{NUMBER})(?:, accept rate: (?P<rate>{NUMBER}))?")
MEANS_LENGTH = "tokens of a step, the bonus token included"
MEANS_RATE = "accepted over drafted tokens; the root, which `num_draft_tokens` counts, is left out"
AS_PRINTED = 0.005


@dataclass
class SGLangMetrics(Format):
    """Means of an interval: without counts there is no interval over requests, and nothing to sum."""

    kind: ClassVar[str] = "sglang-metrics"
    about: ClassVar[str] = "SGLang's /metrics"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return any(sample.name == LENGTH for sample in samples(file.text, "sglang:"))

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        found = samples(file.text, "sglang:")
        lengths, rates = (_values(found, name) for name in (LENGTH, RATE))
        if not lengths:
            raise file.refuse(f"{LENGTH} is 0: nothing was drafted yet")
        figures = _figures(LENGTH, RATE, lengths, rates, 0.0)
        notes = ["its gauges are of the last decoding interval, not of the whole run"]
        if (sent := _values(found, DRAFT_TOKENS)) and (levels := _values(found, LEVELS)):
            notes.append(f"{sent[0] - 1:g} draft tokens a step, the root not counted, on {levels[0]:g} levels")
        calls, emitted = (summed(found, name) for name in (CALLS, EMITTED))
        counts = Counts(steps=calls, new_tokens=emitted) if calls and emitted else Counts()
        if calls and emitted:
            means = "all emitted tokens, also each request's first, over verification passes, since the server started"
            figures.append(Figure("generation_tokens / spec_verify_calls", emitted / calls, means))
        return Reading(self.kind, self.about, figures, counts, notes=notes)


@dataclass
class SGLangLog(Format):
    """Lines of the scheduler, one an interval."""

    kind: ClassVar[str] = "sglang-log"
    about: ClassVar[str] = "SGLang's log lines with `accept len`"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return LINE.search(file.text) is not None

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        lines = [*LINE.finditer(file.text)]
        lengths = [float(line["length"]) for line in lines]
        rates = [float(line["rate"]) for line in lines if line["rate"]]
        notes = [f"the mean of {len(lines)} lines: how many steps each is of is not printed"]
        return Reading(
            self.kind, self.about, _figures("accept len", "accept rate", lengths, rates, AS_PRINTED), notes=notes
        )


def _values(found: Sequence[Sample], name: str) -> list[float]:
    """A gauge of each rank that has drafted."""
    return [sample.value for sample in found if sample.name == name and sample.value > 0]


def _figures(
    length: str, rate: str, lengths: Sequence[float], rates: Sequence[float], half_unit: float
) -> list[Figure]:
    figures = [Figure(length, float(np.mean(lengths)), MEANS_LENGTH, "block_efficiency", nan, half_unit)]
    if rates:
        figures.append(Figure(rate, float(np.mean(rates)), MEANS_RATE, "acceptance_rate", nan, half_unit))
    return figures
