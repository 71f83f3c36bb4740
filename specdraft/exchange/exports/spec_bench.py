"""Spec-Bench's answers, one question a line and one file a combination: what its evaluation/speed.py reads (see
`formats.spec_bench`)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import isnan
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from specdraft.errors import ConfigError
from specdraft.exchange.exports.base import Export, Exported, names, records_of, steps_of
from specdraft.exchange.formats.spec_bench import OURS
from specdraft.results.study_tables import StudyTables

TEXT = ("prompt_id", "repeat", "turn")
BY_TURN = {"decoding_steps": "steps", "new_tokens": "new_tokens"}


@dataclass
class SpecBenchAnswers(Export):
    """`accept_lengths` where steps were recorded, `wall_time` where a study is live; texts are not kept by a study."""

    kind: ClassVar[str] = "spec-bench"
    about: ClassVar[str] = "Spec-Bench's answers, one JSONL a combination"

    def make(self, study: StudyTables, rows: pd.DataFrame) -> Exported:
        """See `Export`."""
        records = records_of(study)
        counted = records[records["combination"].isin(rows["combination"])]
        whole = counted.groupby("combination")["steps"].apply(lambda steps: bool((steps == np.floor(steps)).all()))
        called = {name: slug for name, slug in names(study, rows).items() if whole.get(name, False)}
        if not called:
            raise ConfigError(
                f"{study.folder}: the chosen rows have no whole steps (replayed sampling has expected values); "
                "expected greedy or live rows"
            )
        made = Exported()
        if left := len(rows) - len(called):
            made.notes.append(f"{left} rows of replayed sampling have expected values, not steps, and are left out")
        steps: dict[str, pd.DataFrame] = {}
        if study.steps is None:
            made.notes.append("no steps were recorded (output.steps=true): accept_lengths are left out")
        else:
            steps, _ = steps_of(study, rows, self.kind)
        if counted["wall_s"].isna().all():
            made.notes.append("a replayed study measures no time: wall_time is left out")
        for name, slug in called.items():
            own = counted[counted["combination"] == name]
            lines = [json.dumps(line) for line in _lines(own, steps.get(name), slug)]
            made.files[f"{slug}.jsonl"] = "\n".join(lines) + "\n"
        return made


def _lines(records: pd.DataFrame, steps: pd.DataFrame | None, model: str) -> Iterator[dict[str, Any]]:
    """A question a line; a repeat is a choice."""
    listed = {} if steps is None else _accepted(steps)
    first = {name: place for place, name in enumerate(dict.fromkeys(records["prompt_id"]))}
    rows = sorted(records.to_dict("records"), key=lambda row: (first[row["prompt_id"]], row["repeat"], row["turn"]))
    for prompt_id, own in groupby(rows, itemgetter("prompt_id")):
        choices = [[*turns] for _, turns in groupby(own, itemgetter("repeat"))]
        name = str(prompt_id)
        yield {
            "question_id": int(name) if name.isdecimal() and str(int(name)) == name else name,
            "category": str(choices[0][0]["category"]),
            "answer_id": f"{choices[0][0]['combination']}-{name}",
            "model_id": model,
            "choices": [_choice(number, turns, listed) for number, turns in enumerate(choices)],
        }


def _accepted(steps: pd.DataFrame) -> dict[tuple[Any, ...], list[int]]:
    """Prompt, repeat and turn -> the tokens of each step, in order."""
    ordered = steps.sort_values("step", kind="stable")
    tokens = (ordered["accepted_tokens"] + ordered["bonus_tokens"]).tolist()
    found: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    for text, emitted in zip(zip(*(ordered[key] for key in TEXT), strict=True), tokens, strict=True):
        found[text].append(int(emitted))
    return found


def _choice(number: int, turns: list[dict[Any, Any]], listed: dict[tuple[Any, ...], list[int]]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": number, "turns": []}
    choice |= {name: [int(turn[column]) for turn in turns] for name, column in BY_TURN.items()}
    if not any(isnan(turn["wall_s"]) for turn in turns):
        choice["wall_time"] = [turn["wall_s"] for turn in turns]
    if listed:
        choice["accept_lengths"] = [tokens for turn in turns for tokens in listed[itemgetter(*TEXT)(turn)]]
    return choice | {name: [int(turn[name]) for turn in turns] for name in OURS}
