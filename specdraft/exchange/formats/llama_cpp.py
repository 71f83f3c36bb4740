"""llama.cpp's counters in its logs (tools/server/server-context.cpp, common/speculative.cpp and
examples/speculative-simple; mean length and positions since pull request 24536): of each request

    draft acceptance = 0.64479 (  167 accepted /   259 generated), mean acceptance length =  2.92, acceptance rate per
    position = (0.805, 0.632, 0.483)

(`draft acceptance rate =` before that), of each implementation since the start

    statistics draft-eagle3: #calls(b,g,a) = 1 87 87, #gen drafts = 87, #acc drafts = 70, #gen tokens = 259, ...

and at the end of an example `n_predict = 129`, `n_drafted = 132`, `n_accept = 47`, `accept = 35.606%`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import ClassVar

from specdraft.exchange.formats.base import NUMBER, NUMBERS, Format, pooled_rates
from specdraft.exchange.reading import Counts, Figure, Reading, mean_of_ratios, share
from specdraft.exchange.source import ForeignFile

REQUEST = re.compile(
    rf"draft acceptance(?: rate)?\s*=\s*{NUMBER}\s*\(\s*(?P<accepted>\d+) accepted /\s*(?P<drafted>\d+) generated\)"
    rf"(?:, mean (?:acceptance length|len)\s*=\s*(?P<length>{NUMBER}))?"
    rf"(?:, acceptance rate per position = \((?P<rates>{NUMBERS})\))?"
)
STATISTICS = re.compile(
    r"statistics\s+(?P<label>[\w.-]+):.*?#gen drafts\s*=\s*(?P<steps>\d+),.*?#gen tokens\s*=\s*(?P<drafted>\d+), "
    rf"#acc tokens\s*=\s*(?P<accepted>\d+)(?:.*?#acc rate/pos = \((?P<rates>{NUMBERS})\))?"
)
EXAMPLE = re.compile(r"^.*?\b(?P<name>n_predict|n_drafted|n_accept)\s*=\s*(?P<value>\d+)\s*$", re.MULTILINE)
LENGTH = "tokens of a draft, a bonus token in every one; steps without a draft are not counted"
RATE = "accepted over drafted tokens"


@dataclass
class LlamaCpp(Format):
    """What is known best is taken: statistics since the start, else requests, else the summary of an example."""

    kind: ClassVar[str] = "llama.cpp-log"
    about: ClassVar[str] = "llama.cpp's log"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return bool(REQUEST.search(file.text) or STATISTICS.search(file.text) or len(_example(file.text)) == 3)

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        requests = [match for match in REQUEST.finditer(file.text) if int(match["drafted"])]
        latest = {match["label"]: match for match in STATISTICS.finditer(file.text)}  # they run: the last one holds
        known = [match for match in latest.values() if int(match["steps"])]
        if known:
            return self._of_statistics(known, requests)
        if requests:
            return self._of_requests(requests)
        if len(example := _example(file.text)) == 3 and example["n_drafted"]:
            return self._of_example(example)
        raise file.refuse("nothing was drafted")

    def _of_statistics(self, known: Sequence[re.Match[str]], requests: Sequence[re.Match[str]]) -> Reading:
        parts = [Counts(*(float(match[name]) for name in ("steps", "drafted", "accepted"))) for match in known]
        total = Counts.total(one._replace(bonus_tokens=one.steps) for one in parts)
        notes = [f"the last statistics of {', '.join(match['label'] for match in known)}, since the start"]
        if len(known) > 1:
            notes.append("several implementations drafted: their drafts are summed")
        each = [_of_line(match) for match in requests]
        if Counts.total(each)[:3] != total[:3]:  # the log lacks some of the requests, or has the lines of others
            each = []
        marginal = _pooled([_rates(match) for match in known], [one.steps for one in parts])
        return Reading(
            self.kind, self.about, _figures(total, each), total, each, marginal, len(marginal) or None, notes
        )

    def _of_requests(self, requests: Sequence[re.Match[str]]) -> Reading:
        each = [_of_line(match) for match in requests]
        total = Counts.total(each)
        marginal = _pooled([_rates(match) for match in requests], [one.steps for one in each])
        notes = [f"{len(each)} requests, summed"] if len(each) > 1 else []
        if isnan(total.steps):
            what = "of a request that accepted nothing, how many drafts there were is not told"
            notes.append(
                f"{what}: only the acceptance rate of all is known"
                if len(each) > 1
                else "how many drafts there were is not told: only the acceptance rate is known"
            )
        else:
            notes.append("the number of drafts is computed from the rounded mean length")
        return Reading(
            self.kind, self.about, _figures(total, each), total, each, marginal, len(marginal) or None, notes
        )

    def _of_example(self, example: dict[str, int]) -> Reading:
        steps = float(example["n_predict"] - example["n_accept"])
        total = Counts(steps, example["n_drafted"], example["n_accept"], steps, example["n_predict"])
        notes = ["steps are n_predict - n_accept: every step emits one token of the target's own"]
        return Reading(self.kind, self.about, _figures(total, []), total, notes=notes)


def _example(text: str) -> dict[str, int]:
    return {match["name"]: int(match["value"]) for match in EXAMPLE.finditer(text)}


def _rates(match: re.Match[str]) -> list[float]:
    return [float(rate) for rate in (match["rates"] or "").split(",") if rate.strip()]


def _of_line(match: re.Match[str]) -> Counts:
    """Of a request; its drafts from its rounded mean length."""
    accepted, drafted = float(match["accepted"]), float(match["drafted"])
    length, rates = float(match["length"] or "nan"), _rates(match)
    if isnan(length):
        return Counts(nan, drafted, accepted, nan)
    if accepted == 0:
        steps = drafted / len(rates) if rates and drafted % len(rates) == 0 else nan
        return Counts(steps, drafted, accepted, steps)
    by_length, by_rates = accepted / (length - 1) if length > 1 else nan, accepted / sum(rates) if any(rates) else nan
    steps = float(round(by_length if isnan(by_rates) else by_rates))
    return Counts(steps, drafted, accepted, steps)


def _pooled(rates: Sequence[Sequence[float]], steps: Sequence[float]) -> list[float]:
    """`[depth]` the mean, weighted by drafts; nothing where a part has none."""
    known = all(map(len, rates)) and not any(map(isnan, steps))
    return pooled_rates(rates, steps) if known else []


def _figures(total: Counts, each: Sequence[Counts]) -> list[Figure]:
    rate = share(total.accepted_tokens, total.drafted_tokens)
    figures = [Figure("draft acceptance", rate, RATE, "acceptance_rate")]
    if not isnan(total.steps):
        length = 1 + share(total.accepted_tokens, total.steps)
        figures.insert(0, Figure("mean acceptance length", length, LENGTH, "block_efficiency"))
        if len(each) > 1:
            mean = 1 + mean_of_ratios(each, ("accepted_tokens",), "steps")
            figures.append(Figure("mean acceptance length, mean over requests", mean, "the same of each request"))
    return figures
