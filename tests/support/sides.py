"""Studies to set side by side, made in code: few combinations, many prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from specdraft.results.files import to_csv
from specdraft.results.metrics import HELPERS, LATENCY, add_ratios
from specdraft.results.study_side import StudySide
from specdraft.results.study_tables import COLUMNS
from specdraft.results.summary import SUMS, summarise
from specdraft.results.tables import COMBINATION_KEYS, KEYS

USUAL: dict[str, Any] = dict.fromkeys(KEYS, "same") | {
    "budget": 4, "nodes": 4, "depth": 4, "batch": 1, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64,
    "cost_context": 128, "cost_batch": 1, "turn": 1, "repeat": 0, "seed": 0,
}  # fmt: skip


def made_side(
    name: str,
    rates: Mapping[str, float],
    prompts: int = 20,
    seed: int = 0,
    live: bool = False,
    digests: Mapping[str, str] | None = None,
    **keys: Any,
) -> StudySide:
    """tree -> chance of a draft token; prompts differ alike in every study with the same `seed`."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(10, 40, prompts)
    ease = rng.uniform(0.7, 1.3, prompts)
    rows: list[dict[str, Any]] = []
    for tree, rate in rates.items():
        for prompt in range(prompts):
            accepted = int(4 * steps[prompt] * min(rate * ease[prompt], 1))
            wall_s = float(steps[prompt] / (1 + rate)) if live else np.nan
            counts = {"steps": steps[prompt], "drafted_tokens": 4 * steps[prompt], "accepted_tokens": accepted}
            counts |= {"bonus_tokens": steps[prompt], "new_tokens": 1 + accepted + steps[prompt]}
            times = {"wall_s": wall_s, "plain_s": float(steps[prompt]) if live else np.nan}
            named = {"combination": f"{name}-{tree}", "tree": tree, "engine": "live" if live else "replay"}
            where = {"prompt_id": str(prompt), "category": f"c{prompt % 2}"}
            rows.append(dict.fromkeys((*SUMS, *HELPERS, LATENCY), 0.0) | USUAL | named | where | counts | times | keys)
    table = pd.DataFrame(rows)
    known = digests or {str(prompt): f"d{prompt}" for prompt in range(prompts)}
    manifest = {"study": {"name": name, "seed": 0, "prompts": "p"}, "prompt_digests": known, "prompts": prompts}
    return StudySide(Path(name), name, summarise(table, COMBINATION_KEYS), add_ratios(table), manifest, {})


def write_side(side: StudySide, folder: Path, records: bool = True, lacking: tuple[str, ...] = ()) -> Path:
    """The files that comparing reads; `lacking`: columns that an earlier version did not write."""
    folder.mkdir(parents=True)
    tables = {"summary.csv": side.summary, **({"records.csv": side.records} if records else {})}
    for file, table in tables.items():
        assert table is not None
        (folder / file).write_text(to_csv(table[[name for name in COLUMNS[file] if name not in lacking]]))
    (folder / "manifest.json").write_text(json.dumps(side.manifest))
    return folder
