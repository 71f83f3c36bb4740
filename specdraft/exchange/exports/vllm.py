"""vLLM's records of requests (see `formats.per_request`), and its synthetic acceptance (`rejection_sample_method` of
`speculative_config`, vllm/config/speculative.py of 0.33): one file of each a combination."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from specdraft.exchange.exports.base import Export, Exported, names, records_of, steps_of
from specdraft.exchange.formats.per_request import ACCEPTED, DRAFTED, SENT, STEPS, TAKEN
from specdraft.results.study_tables import StudyTables

TEXT = ["prompt_id", "turn", "repeat"]


@dataclass
class VLLMRecords(Export):
    """Every step of every text, as the level `detailed` has it."""

    kind: ClassVar[str] = "vllm"
    about: ClassVar[str] = "vLLM's per-request records and synthetic acceptance rates"

    def make(self, study: StudyTables, rows: pd.DataFrame) -> Exported:
        """See `Export`."""
        steps, notes = steps_of(study, rows, self.kind)
        made = Exported(notes=notes)
        called, records = names(study, rows), records_of(study)
        emitted = {key: own.set_index(TEXT)["new_tokens"].to_dict() for key, own in records.groupby("combination")}
        for _, row in rows[rows["combination"].isin([*steps])].iterrows():
            name, slug = row["combination"], called[row["combination"]]
            lines = map(json.dumps, _records(steps[name], emitted[name], int(row["depth"])))
            made.files[f"{slug}.jsonl"] = "\n".join(lines) + "\n"
            made.files[f"{slug}.synthetic.json"] = json.dumps(_synthetic(study, row)) + "\n"
        if (rows["nodes"] > rows["depth"]).any():
            made.notes.append("vLLM drafts chains: of a tree, num_spec_tokens and positions are its levels")
        return made


def _records(steps: pd.DataFrame, emitted: dict[Any, float], depth: int) -> Iterator[dict[str, Any]]:
    """A text a line."""
    for text, own in steps.sort_values([*TEXT, "step"]).groupby(TEXT, sort=False):
        accepted, drafted = (own[name].to_numpy(np.int64) for name in ("accepted_tokens", "drafted_tokens"))
        histogram = np.bincount(accepted, minlength=depth + 1)
        record = {
            "mean_acceptance_length": 1 + accepted.sum() / len(accepted),
            "draft_acceptance_rate": accepted.sum() / max(drafted.sum(), 1),
            "acceptance_histogram": histogram.tolist(),
            STEPS: len(accepted),
            ACCEPTED: int(accepted.sum()),
            DRAFTED: int(drafted.sum()),
            "num_spec_tokens": depth,
            TAKEN: accepted.tolist(),
            SENT: drafted.tolist(),
        }
        named = {
            name: value.item() if hasattr(value, "item") else value for name, value in zip(TEXT, text, strict=True)
        }
        yield named | {"usage": {"completion_tokens": int(emitted[text])}, "metrics": {"speculative_decoding": record}}


def _synthetic(study: StudyTables, row: pd.Series[Any]) -> dict[str, Any]:
    """What makes vLLM accept at the measured rates: the share of steps that accept each position and all before it."""
    positions = study.positions
    own = positions[positions["combination"] == row["combination"]].sort_values("depth")
    rates = [round(accepted / row["steps"], 6) for accepted in own["accepted"]]
    return {"num_speculative_tokens": len(rates), "rejection_sample_method": "synthetic",
            "synthetic_acceptance_rates": rates}  # fmt: skip
