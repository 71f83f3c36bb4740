"""Spec-Bench's answers, one question a line and one file a combination: what its evaluation/speed.py reads (see
`formats.spec_bench`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from specdraft.errors import ConfigError
from specdraft.exchange.exports.base import Export, Exported, names, records_of, steps_of
from specdraft.exchange.formats.spec_bench import OURS
from specdraft.results.study_tables import StudyTables


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
    of = {} if steps is None else dict([*steps.groupby(["prompt_id", "repeat"])])
    for prompt_id, own in records.groupby("prompt_id", sort=False):
        choices = [
            _choice(number, turns.sort_values("turn"), of.get((prompt_id, repeat)))
            for number, (repeat, turns) in enumerate(own.groupby("repeat"))
        ]
        name = str(prompt_id)
        yield {
            "question_id": int(name) if name.isdecimal() and str(int(name)) == name else name,
            "category": str(own["category"].iloc[0]),
            "answer_id": f"{records['combination'].iloc[0]}-{name}",
            "model_id": model,
            "choices": choices,
        }


def _choice(number: int, turns: pd.DataFrame, steps: pd.DataFrame | None) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": number,
        "turns": [],
        "decoding_steps": _whole(turns["steps"]),
        "new_tokens": _whole(turns["new_tokens"]),
    }
    if turns["wall_s"].notna().all():
        choice["wall_time"] = [float(wall) for wall in turns["wall_s"]]
    if steps is not None:
        ordered = steps.sort_values(["turn", "step"])
        choice["accept_lengths"] = _whole(ordered["accepted_tokens"] + ordered["bonus_tokens"])
    return choice | {name: _whole(turns[name]) for name in OURS}


def _whole(column: pd.Series[Any]) -> list[int]:
    return [int(value) for value in column]
