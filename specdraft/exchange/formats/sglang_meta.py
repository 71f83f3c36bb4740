"""What SGLang says of a request: `meta_info` of `/generate`, or `sglext.spec_tokens_details` of the OpenAI-like API
(sglang/srt/managers/tokenizer_manager.py and entrypoints/openai/protocol.py of 0.5.23).

`spec_accept_length` is `completion_tokens / spec_verify_ct`: emitted tokens, each request's first one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, ClassVar

from specdraft.exchange.formats.base import Format, number, pooled_histogram, survival, whole_numbers
from specdraft.exchange.reading import Counts, Figure, Reading, mean_of_ratios, share
from specdraft.exchange.source import ForeignFile, Row

STEPS, EMITTED, LENGTH = "spec_verify_ct", "completion_tokens", "spec_accept_length"
ACCEPTED = ("spec_num_correct_drafts", "spec_accepted_drafts", "spec_accept_token_num")  # newest first
DRAFTED = ("spec_num_proposed_drafts", "spec_proposed_drafts", "spec_draft_token_num")
HISTOGRAMS = ("spec_correct_drafts_histogram", "spec_accept_histogram")
PREFILL = "emitted tokens over steps, the bonus token and each request's first token included"


@dataclass
class SGLangMeta(Format):
    """Responses, or their `meta_info` alone, one a line or in a list."""

    kind: ClassVar[str] = "sglang-meta-info"
    about: ClassVar[str] = "SGLang's responses (meta_info)"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return any(STEPS in _meta(row) for row in file.rows)

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        metas = [meta for row in file.rows if (meta := _meta(row)).get(STEPS)]
        if not metas:
            raise file.refuse(f"has no {STEPS} above 0: nothing was drafted")
        requests = [_counts(meta, file) for meta in metas]
        total = Counts.total(requests)
        each = mean_of_ratios(requests, ("new_tokens",), "steps")
        overall = total.new_tokens / total.steps
        rate = share(total.accepted_tokens, total.drafted_tokens)
        figures = [
            Figure("spec_accept_length, weighted by steps", overall, PREFILL),
            Figure("spec_accept_length, mean over requests", each, f"{PREFILL}; of each request, then their mean"),
            Figure("spec_accept_rate", rate, "accepted over steps times (draft tokens - 1): all that could be sent",
                   "acceptance_rate"),
        ]  # fmt: skip
        notes = [f"{lacking} of {len(file.rows)} responses have no {STEPS}"] if (
            lacking := len(file.rows) - len(metas)
        ) else []  # fmt: skip
        if any(not _known(meta, ACCEPTED) for meta in metas):
            notes.append(
                f"accepted tokens are not told: {EMITTED} less {STEPS} and the first token, as if none was cut"
            )
        marginal = survival(_histogram(metas, file))
        most = max(round(one.drafted_tokens / one.steps) for one in requests) if total.drafted_tokens > 0 else None
        return Reading(self.kind, self.about, figures, total, requests, marginal, most, notes)


def _meta(row: Row) -> dict[str, Any]:
    """Of a response of `/generate`, of one of the OpenAI-compatible API, or alone."""
    choice, extension, usage = _first(row.get("choices")), _first(row.get("sglext")), _first(row.get("usage"))
    holders = (extension.get("spec_tokens_details"), row.get("meta_info"), choice.get("meta_info"))
    return {EMITTED: usage.get(EMITTED)} | next(filter(None, map(_first, holders)), row)


def _first(value: Any) -> dict[str, Any]:
    """An object, or a list's first one; empty where it is neither."""
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, dict) else {}


def _known(meta: dict[str, Any], names: Sequence[str]) -> bool:
    return any(meta.get(name) is not None for name in names)


def _counts(meta: dict[str, Any], file: ForeignFile) -> Counts:
    steps, emitted = number(meta, STEPS, file, None), number(meta, EMITTED, file)
    if isnan(emitted):
        emitted = float(round(number(meta, LENGTH, file, None) * steps))
    accepted, drafted = number(meta, ACCEPTED, file), number(meta, DRAFTED, file)
    if isnan(accepted):
        accepted = max(0.0, emitted - steps - 1)
    return Counts(steps, drafted, accepted, min(steps, max(0.0, emitted - 1 - accepted)), emitted)


def _histogram(metas: Sequence[dict[str, Any]], file: ForeignFile) -> list[float]:
    """`[accepted]` steps; nothing where a request lacks it."""
    listed = [
        whole_numbers(meta, name, file)
        for meta in metas
        if (name := next((name for name in HISTOGRAMS if meta.get(name)), None)) is not None
    ]
    return pooled_histogram(listed) if len(listed) == len(metas) else []
