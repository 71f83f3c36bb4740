"""Records of requests in vLLM's form.

Of its responses (`metrics.speculative_decoding`, pull request 48915; at first `choices[].speculative_decoding_stats`),
and of AIPerf's `profile_export.jsonl` (`spec_decode_acceptance`, docs/reference/spec-decode-acceptance.md), which has
the same record for vLLM, SGLang and TensorRT-LLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, ClassVar

from specdraft.exchange.formats.base import Format, number, pooled_histogram, survival, whole_numbers
from specdraft.exchange.formats.vllm_metrics import LENGTH, RATE
from specdraft.exchange.reading import Counts, Figure, Reading, cut_last_steps, emitted_bonus, mean_of_ratios, share
from specdraft.exchange.source import ForeignFile, Row

STEPS, ACCEPTED, DRAFTED = "num_spec_steps", "num_accepted_draft_tokens", "num_draft_tokens"
TAKEN, SENT = "per_step_accepted", "per_step_drafted"


@dataclass
class PerRequest(Format):
    """One record a request; requests without one (failed, or nothing drafted) are passed over."""

    kind: ClassVar[str] = "per-request"
    about: ClassVar[str] = "records of requests: vLLM's responses, AIPerf's profile_export.jsonl"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return any(_record(row) is not None for row in file.rows)

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        found = [(row, record) for row in file.rows if (record := _record(row)) is not None]
        requests = [_counts(row, record, file) for row, record in found]
        drafting = [one for one in requests if one.steps]
        total = Counts.total(drafting)
        histogram = _histogram([record for _, record in found], file)
        most = [int(record["num_spec_tokens"]) for _, record in found if type(record.get("num_spec_tokens")) is int]
        notes = [*_left_out(file, found, drafting), *cut_last_steps(total, len(drafting))]
        if any("spec_decode_acceptance" in row for row in file.rows):
            notes.append("AIPerf writes one record for every engine: what `drafted` counts is the engine's")
        return Reading(
            self.kind, self.about, _figures(drafting, total), total, drafting, survival(histogram),
            max(most, default=None), notes,
        )  # fmt: skip


def _record(row: Row) -> dict[str, Any] | None:
    """The record that a row is, or holds."""
    choices = row.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    holders = [row, row.get("metrics"), choice]
    for name in ("spec_decode_acceptance", "speculative_decoding", "speculative_decoding_stats"):
        for holder in holders:
            if isinstance(holder, dict) and isinstance(record := holder.get(name), dict) and STEPS in record:
                return record
    return row if STEPS in row and ACCEPTED in row else None


def _counts(row: Row, record: dict[str, Any], file: ForeignFile) -> Counts:
    steps, accepted, drafted = (number(record, name, file, None) for name in (STEPS, ACCEPTED, DRAFTED))
    if record.get(TAKEN) is not None and record.get(SENT) is not None:
        taken, sent = whole_numbers(record, TAKEN, file), whole_numbers(record, SENT, file)
        if (len(taken), sum(taken)) != (steps, accepted) or (len(sent), sum(sent)) != (steps, drafted):
            raise file.refuse(f"{TAKEN} and {SENT} do not sum to {STEPS}={steps:g}, {ACCEPTED} and {DRAFTED}")
        if any(a > b for a, b in zip(taken, sent, strict=True)):
            raise file.refuse(
                f"a step of {TAKEN} has more tokens than were drafted; these counts contradict each other"
            )
    usage = row.get("usage")
    emitted = number(record, "completion_tokens", file)
    if isnan(emitted) and isinstance(usage, dict):
        emitted = number(usage, "completion_tokens", file)
    return Counts(steps, drafted, accepted, emitted_bonus(steps, accepted, emitted, 1), emitted)


def _histogram(records: Sequence[dict[str, Any]], file: ForeignFile) -> list[float]:
    """`[accepted]` steps of all requests that have a histogram; nothing where one has none."""
    if not all(record.get("acceptance_histogram") is not None for record in records):
        return []
    listed = [whole_numbers(record, "acceptance_histogram", file) for record in records]
    for record, one in zip(records, listed, strict=True):
        accepted = sum(place * count for place, count in enumerate(one))
        if (sum(one), accepted) != (record[STEPS], record[ACCEPTED]):
            raise file.refuse(
                f"acceptance_histogram has {sum(one)} steps and {accepted} accepted tokens, {STEPS} is {record[STEPS]} "
                f"and {ACCEPTED} is {record[ACCEPTED]}; these counts contradict each other"
            )
    return pooled_histogram(listed)


def _figures(requests: Sequence[Counts], total: Counts) -> list[Figure]:
    if not requests:
        return []
    length, rate = 1 + total.accepted_tokens / total.steps, share(total.accepted_tokens, total.drafted_tokens)
    each = 1 + mean_of_ratios(requests, ("accepted_tokens",), "steps")
    each_rate = mean_of_ratios(requests, ("accepted_tokens",), "drafted_tokens")
    figures = [
        Figure("mean acceptance length, weighted by steps", length, LENGTH, "block_efficiency"),
        Figure("mean acceptance length, mean over requests", each, "the same of each request, then their mean"),
        Figure("draft acceptance rate, overall", rate, RATE, "acceptance_rate"),
        Figure("draft acceptance rate, mean over requests", each_rate, "the same of each request, then their mean"),
    ]
    verified = (total.accepted_tokens + total.steps) / (total.drafted_tokens + total.steps)
    means = "accepted and bonus tokens over verified ones, the root included"
    return [*figures, Figure("accepted per verified", verified, means)]


def _left_out(file: ForeignFile, found: Sequence[object], drafting: Sequence[Counts]) -> Iterator[str]:
    if lacking := len(file.rows) - len(found):
        yield f"{lacking} of {len(file.rows)} records have no figures of speculative decoding"
    if idle := len(found) - len(drafting):
        yield f"{idle} of {len(found)} requests drafted nothing"
