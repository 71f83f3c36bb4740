"""How probable it is that a step of the chosen candidate accepts 1, 2, ... draft tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from specdraft.results.bounds import bounds, ratios_of_sums
from specdraft.results.intervals import Interval
from specdraft.study.combination import Combination
from specdraft.study.plan import plan_study
from specdraft.study.progress import Progress
from specdraft.study.run import run_study

FOLDER = "steps"  # of the study of its steps


def rates_of(
    combination: Combination, overrides: Sequence[str], config_dir: Path | None, out: Path, progress: Progress
) -> list[Interval]:
    """`[depth]` intervals over prompts, down to the deepest level that was ever accepted, from every single step.

    Replayed; decoded live under a rule of which replay has expected values only.

    Args:
        combination: the chosen one.
        overrides: that make it and no other candidate.
        config_dir: the user's configs.
        out: the folder of the tuning.
        progress: of the study.
    """
    known = combination.sampling.greedy or combination.rule.kind == "topk"
    engine = ["engine=replay", "cost.measure=off"] if known else ["engine=live"]
    asked = ["name=tune-steps", "report=false", "output.steps=true", *engine]
    plan = plan_study([*asked, *overrides], config_dir)
    mine = next(one.identifier for one in plan.combinations if not one.shape.reference)
    study = run_study(plan, out / FOLDER, progress=progress)
    tables = study.tables_of([mine])
    return by_depth(tables["steps.csv"], tables["records.csv"])


def by_depth(steps: pd.DataFrame, records: pd.DataFrame) -> list[Interval]:
    """The share of steps that accept at least 1, 2, ... tokens."""
    categories = records.drop_duplicates("prompt_id").set_index("prompt_id")["category"].astype(str)
    by_prompt = steps.groupby(["prompt_id", "accepted_tokens"], observed=True).size().unstack(fill_value=0)
    counts = by_prompt.reindex(columns=range(int(steps["accepted_tokens"].max()) + 1), fill_value=0).to_numpy(float)
    at_least = counts[:, ::-1].cumsum(1)[:, ::-1].T  # [depth + 1, P]
    ratios = ratios_of_sums(at_least[1:], np.broadcast_to(at_least[0], at_least[1:].shape))
    kinds = np.unique(categories[by_prompt.index].to_numpy(str), return_inverse=True)[1]
    ends = bounds(ratios, kinds, (0.0, 1.0))
    return [Interval(*map(float, row)) for row in np.column_stack([ratios.estimates, ends])]
