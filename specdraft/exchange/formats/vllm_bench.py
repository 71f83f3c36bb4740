"""The JSON of `vllm bench serve --save-result` (vllm/benchmarks/serve.py): differences of the counters of
`/metrics` over the run, the rate in per cent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from specdraft.exchange.formats.base import Format, number
from specdraft.exchange.formats.vllm_metrics import LENGTH, RATE
from specdraft.exchange.reading import Counts, Figure, Reading, cut_last_steps, emitted_bonus, share, stated_otherwise
from specdraft.exchange.source import ForeignFile

PREFIX = "spec_decode_"


@dataclass
class VLLMBench(Format):
    """One object for a run."""

    kind: ClassVar[str] = "vllm-bench"
    about: ClassVar[str] = "the JSON of vLLM's benchmark"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return any(f"{PREFIX}acceptance_length" in row or f"{PREFIX}num_drafts" in row for row in file.rows)

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        runs = [row for row in file.rows if row.get(f"{PREFIX}num_drafts")]
        if not runs:
            raise file.refuse(f"has no {PREFIX}num_drafts above 0: nothing was drafted")
        if len(runs) > 1:
            raise file.refuse(f"holds {len(runs)} runs; expected one (its last line, say)")
        (run,) = runs
        steps, drafted, accepted = (
            number(run, f"{PREFIX}{name}", file, None) for name in ("num_drafts", "draft_tokens", "accepted_tokens")
        )
        emitted, requests = (number(run, name, file) for name in ("total_output_tokens", "completed"))
        counts = Counts(steps, drafted, accepted, emitted_bonus(steps, accepted, emitted, requests), emitted)
        length, rate = (number(run, f"{PREFIX}acceptance_{name}", file) for name in ("length", "rate"))
        figures = [
            Figure(f"{PREFIX}acceptance_length", length, LENGTH, "block_efficiency"),
            Figure(f"{PREFIX}acceptance_rate", rate, f"{RATE}, in per cent", "acceptance_rate", rate / 100),
        ]
        notes = [
            *cut_last_steps(counts, requests),
            *stated_otherwise(f"{PREFIX}acceptance_length", length, 1 + accepted / steps, 5e-4),
            *stated_otherwise(f"{PREFIX}acceptance_rate", rate, 100 * share(accepted, drafted), 5e-2),
        ]
        rates = run.get(f"{PREFIX}per_position_acceptance_rates") or []
        if not isinstance(rates, list):
            raise file.refuse(f"{PREFIX}per_position_acceptance_rates is no list; expected shares of drafts")
        marginal = [number({"rate": value}, "rate", file, None) for value in rates]
        return Reading(self.kind, self.about, figures, counts, (), marginal, len(marginal) or None, notes)
