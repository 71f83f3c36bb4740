"""Result folders for the report's tests, written in a blink: the columns of real ones, made-up numbers."""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from specdraft.results.comparisons import COLUMNS
from specdraft.results.files import to_csv
from specdraft.results.metrics import COUNTS, OVERHEAD, PRUNED, RATIOS, TIMES
from specdraft.results.tables import COMBINATION_KEYS, DETAIL_KEYS, DETAILS

RATIO_COLUMNS = [name for ratio in RATIOS for name in (ratio, f"{ratio}_lo", f"{ratio}_hi")]


def write_study(
    folder: Path,
    pairs: tuple[str, ...] = ("zoo",),
    trees: tuple[str, ...] = ("chain", "kary", "hindsight"),
    budgets: tuple[int, ...] = (2, 4),
    settings: tuple[tuple[str, float], ...] = (("greedy", 0),),
    prompts: int = 30,
    live: bool = False,
    seed: int = 0,
) -> Path:
    """A study: every tree at every budget. With fewer than 5 prompts there are no intervals, as in a real one."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    details: dict[str, list[dict[str, Any]]] = {
        file: [] for file in ("lengths.csv", "positions.csv", "nodes.csv", "siblings.csv")
    }
    compared = []
    for pair, (rule, temperature), budget in product(pairs, settings, budgets):
        own = {}
        for place, tree in enumerate(trees):
            keys: dict[str, Any] = dict.fromkeys(COMBINATION_KEYS, "")
            keys |= {
                "combination": f"{len(rows):012x}",
                "pair": pair,
                "target": f"{pair}:t",
                "draft": f"{pair}:d",
                "dtype": "float32",
            }
            keys |= {
                "tree": tree,
                "budget": budget,
                "nodes": budget,
                "depth": 2,
                "pruning": "none",
                "length": "constant",
                "acceptance": rule,
                "temperature": temperature,
                "top_k": 0,
            }
            keys |= {
                "top_p": 1,
                "max_new_tokens": 64,
                "prompts": "bundled",
                "seed": 0,
                "engine": "live" if live else "replay",
            }
            steps, accepted = 1000, int(300 + 200 * np.log2(budget) + 7 * place + rng.integers(5))
            row = keys | dict(zip(COUNTS, (steps, steps * budget, accepted, 990, accepted + 991), strict=True))
            row |= dict.fromkeys((*TIMES, *RATIO_COLUMNS), np.nan) | dict.fromkeys((*PRUNED, *OVERHEAD), 0)
            row |= {
                "acceptance_rate": accepted / steps / budget,
                "acceptance_length": accepted / steps,
                "loop_share": 0.1,
            }
            row |= {"block_efficiency": (accepted + 990) / steps}
            row |= (
                {"wall_s": 2.0, "draft_s": 0.5, "verify_s": 1.2, "other_s": 0.3, "speedup": 1.4}
                if live
                else {"est_speedup": 1.4}
            )
            if temperature:
                row["alpha"] = 0.6
            if prompts >= 5:
                for ratio in RATIOS:
                    row |= {f"{ratio}_lo": row[ratio] * 0.95, f"{ratio}_hi": row[ratio] * 1.05}
            rows.append(row)
            own[tree] = row
            short = {key: row[key] for key in DETAIL_KEYS}
            details["lengths.csv"] += [
                short | {"acceptance_length": a, "steps": n} for a, n in ((0, 500), (1, 300), (2, 200))
            ]
            details["positions.csv"] += [
                short | {"depth": d, "reached": n, "accepted": n // 2} for d, n in ((1, 1000), (2, 500))
            ]
            for rank in (0, 1):
                counts = {"reached": 1000, "accepted": 400, "next_reached": 400, "next_accepted": 100}
                details["siblings.csv"].append(short | {"depth": 1, "rank": rank} | counts)
            for path in ("0", "1", "0/0"):
                details["nodes.csv"].append(
                    short | {"rank_path": path, "reached": 1000, "accepted": 400, "mean_weight": 0.4}
                )
        for a, b in combinations(trees, 2):
            keys = {key: value for key, value in own[a].items() if key in COLUMNS}
            difference = own[a]["block_efficiency"] - own[b]["block_efficiency"]
            ends = (difference - 0.003, difference + 0.003) if prompts >= 5 else (np.nan, np.nan)
            compared.append(keys | {"tree_a": a, "tree_b": b, "metric": "block_efficiency", "difference": difference,
                                    "difference_lo": ends[0], "difference_hi": ends[1]})  # fmt: skip
    columns = [*COMBINATION_KEYS, *COUNTS, *PRUNED, *OVERHEAD, *TIMES, *RATIO_COLUMNS]
    (folder / "summary.csv").write_text(to_csv(pd.DataFrame(rows, columns=columns)), encoding="utf-8")
    (folder / "comparisons.csv").write_text(to_csv(pd.DataFrame(compared, columns=COLUMNS)), encoding="utf-8")
    for file, listed in details.items():
        (folder / file).write_text(
            to_csv(pd.DataFrame(listed, columns=[*DETAIL_KEYS, *DETAILS[file]])), encoding="utf-8"
        )
    manifest = {
        "study": {"name": folder.name, "seed": 0, "prompts": "0", "schema": 1},
        "prompts": prompts,
        "python": "3.11",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "failures.jsonl").write_text("", encoding="utf-8")
    return folder
