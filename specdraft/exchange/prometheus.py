"""Prometheus' text format: `name{label="value",...} number [time]`, comments begin with `#`
(prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

SAMPLE = re.compile(
    r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?[ \t]+"
    r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|NaN|[-+]?Inf)(?:[ \t]+-?\d+)?[ \t\r]*$",
    re.MULTILINE,
)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """One line."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples(text: str, prefix: str) -> list[Sample]:
    """The lines whose names begin with `prefix`; counters lose their `_total`."""
    found = []
    for match in SAMPLE.finditer(text):
        if match["name"].startswith(prefix):
            labels = dict(LABEL.findall(match["labels"] or ""))
            found.append(Sample(match["name"].removesuffix("_total"), labels, float(match["value"])))
    return found


def summed(found: list[Sample], name: str) -> float | None:
    """A counter over all engines and models; None where it is not there."""
    values = [sample.value for sample in found if sample.name == name]
    return sum(values) if values else None


def models(found: list[Sample]) -> list[str]:
    """The models that the lines are of."""
    return sorted({sample.labels["model_name"] for sample in found if "model_name" in sample.labels})
