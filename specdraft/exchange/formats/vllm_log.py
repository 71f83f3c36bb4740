"""The line that vLLM logs every few seconds (vllm/v1/spec_decode/metrics.py: `SpecDecodingLogging`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from specdraft.exchange.formats.base import NUMBER, NUMBERS, Format, pooled_rates
from specdraft.exchange.formats.vllm_metrics import LENGTH, RATE
from specdraft.exchange.reading import Counts, Figure, Reading
from specdraft.exchange.source import ForeignFile

LINE = re.compile(
    rf"SpecDecoding metrics: Mean acceptance length: (?P<length>{NUMBER}|nan),.*?"
    r"Accepted: (?P<accepted>\d+) tokens, Drafted: (?P<drafted>\d+) tokens, "
    rf"Per-position acceptance rate: (?P<rates>{NUMBERS}), Avg Draft acceptance rate: (?P<rate>{NUMBER}|nan)%"
)


class Interval(NamedTuple):
    """One line: what happened since the one before."""

    length: float
    accepted: int
    drafted: int
    rates: list[float]


@dataclass
class VLLMLog(Format):
    """Each line is of an interval of its own; several are summed. It does not print how many drafts there were."""

    kind: ClassVar[str] = "vllm-log"
    about: ClassVar[str] = "vLLM's log lines `SpecDecoding metrics`"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return LINE.search(file.text) is not None

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        lines = [
            Interval(float(line["length"]), int(line["accepted"]), int(line["drafted"]), _numbers(line["rates"]))
            for line in LINE.finditer(file.text)
        ]
        lines = [line for line in lines if line.drafted]
        if not lines:
            raise file.refuse("nothing was drafted in any of its lines")
        steps = [_steps(line) for line in lines]
        counts = Counts(sum(steps), sum(x.drafted for x in lines), sum(x.accepted for x in lines), sum(steps))
        length, rate = 1 + counts.accepted_tokens / counts.steps, counts.accepted_tokens / counts.drafted_tokens
        figures = [
            Figure("Mean acceptance length", length, LENGTH, "block_efficiency"),
            Figure("Avg Draft acceptance rate", 100 * rate, f"{RATE}, in per cent", "acceptance_rate", rate),
        ]
        notes = [f"{len(lines)} lines, each of its own interval, summed"] if len(lines) > 1 else []
        if any(line.drafted % len(line.rates) for line in lines):
            notes.append("the number of drafts is not printed: it is computed from the rounded mean length")
        marginal = pooled_rates([line.rates for line in lines], steps)
        return Reading(self.kind, self.about, figures, counts, (), marginal, len(marginal), notes)


def _numbers(listed: str) -> list[float]:
    return [float(number) for number in listed.split(",") if number.strip()]


def _steps(line: Interval) -> int:
    """Drafts of an interval: of constant length as the tokens say, else by the mean, whose rounding is what it is."""
    whole, rest = divmod(line.drafted, len(line.rates))
    by_length = 1 + line.accepted / whole if whole else 0.0
    if not rest and abs(by_length - line.length) <= 0.005 + 1e-9:
        return whole
    if any(line.rates):  # they have three digits, and their sum is the mean length less the bonus
        return max(1, round(line.accepted / sum(line.rates)))
    return max(1, round(line.accepted / (line.length - 1))) if line.length > 1 else max(1, whole)
