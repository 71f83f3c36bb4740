"""vLLM's counters at `/metrics` (vllm/v1/spec_decode/metrics.py: `SpecDecodingProm`)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import nan
from typing import ClassVar

from specdraft.exchange.formats.base import Format
from specdraft.exchange.prometheus import Sample, models, samples, summed
from specdraft.exchange.reading import Counts, Figure, Reading, cut_last_steps, emitted_bonus, share
from specdraft.exchange.source import ForeignFile

LENGTH = "tokens of a step, with a bonus token in every step, also where the text ended"
RATE = "accepted over drafted tokens, those behind the end of a text too"


@dataclass
class VLLMMetrics(Format):
    """Counters since the server started, of all its engines and models."""

    kind: ClassVar[str] = "vllm-metrics"
    about: ClassVar[str] = "vLLM's /metrics"
    prefix: ClassVar[str] = "vllm:"  # of all its names
    emitted: ClassVar[str] = "generation_tokens"
    requests: ClassVar[str] = "request_success"

    def _named(self, what: str) -> str:
        return f"{self.prefix}spec_decode_num_{what}"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return any(sample.name == self._named("drafts") for sample in samples(file.text, self._named("")))

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        found = samples(file.text, self.prefix)
        names = [self._named(what) for what in ("drafts", "draft_tokens", "accepted_tokens")]
        steps, drafted, accepted = (summed(found, name) for name in names)
        if steps is None or drafted is None or accepted is None:
            raise file.refuse(f"lacks one of {', '.join(names[:2])} and {names[2]}; expected all three")
        if steps == 0:
            raise file.refuse(f"{names[0]} is 0: nothing was drafted yet")
        by_position = _by_position(found, self._named("accepted_tokens_per_pos"))
        marginal = [accepted_there / steps for accepted_there in by_position]
        emitted, requests = (summed(found, self.prefix + name) or nan for name in (self.emitted, self.requests))
        counts = Counts(steps, drafted, accepted, emitted_bonus(steps, accepted, emitted, requests), emitted)
        figures = [
            Figure("1 + num_accepted_tokens / num_drafts", 1 + accepted / steps, LENGTH, "block_efficiency"),
            Figure("num_accepted_tokens / num_draft_tokens", share(accepted, drafted), RATE, "acceptance_rate"),
        ]
        notes = [
            "counters run since the server started: subtract those of before the run",
            *cut_last_steps(counts, requests),
        ]
        if len(named := models(found)) > 1:
            notes.append(f"summed over the models {', '.join(named)}")
        most = len(marginal) or None
        return Reading(self.kind, self.about, figures, counts, (), marginal, most, notes)


def _by_position(found: list[Sample], name: str) -> list[float]:
    """`[depth]` accepted tokens, over all engines."""
    at: defaultdict[int, float] = defaultdict(float)
    for sample in found:
        if sample.name == name and sample.labels.get("position", "").isdigit():
            at[int(sample.labels["position"])] += sample.value
    return [at[position] for position in range(max(at, default=-1) + 1)]
