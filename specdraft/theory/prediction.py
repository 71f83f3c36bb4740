"""The closed forms for a real pair: what they predict from its measured alpha and cost, beside what chains do."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.bench.curve import CostCurve
from specdraft.config import override_groups, override_keys, unless_said
from specdraft.errors import ConfigError
from specdraft.results.intervals import Interval
from specdraft.study.plan import plan_study
from specdraft.study.progress import Progress
from specdraft.study.run import run_study
from specdraft.theory.formulas import alpha_for, best_gamma, endless, expected_steps, expected_tokens, speedup

GAMMAS = "1,2,4,8,16"
FIXED = ("tree", "pruning", "length", "acceptance", "engine", "batch", "cache", "experiment", "repeats", "certify",
         "output")  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One chain length.

    Attributes:
        predicted_tokens: per target call, bonus included, at the measured alpha (and at the ends of its interval).
        predicted_in_texts: the same for texts as long as these, whose last step is cut short by the end.
        measured_tokens: `block_efficiency` of the replayed chain.
        implied_alpha: the alpha at which the closed form would give what was measured.
        predicted_speedup: from alpha and the cost ratio.
        estimated_speedup: of the replayed chain, from the whole cost curve.
    """

    gamma: int
    predicted_tokens: Interval
    predicted_in_texts: float
    measured_tokens: Interval
    implied_alpha: float | None
    predicted_speedup: Interval
    estimated_speedup: Interval


@dataclass(frozen=True)
class Prediction:
    """A pair under one sampling setting.

    Attributes:
        alpha: mean of `sum min(target_probs, draft_probs)` along the target's own texts.
        alpha_of_prompts: 5 %, 50 % and 95 % quantile of the prompts' own alphas.
        cost: seconds of one draft step over seconds of one target step.
        verify_cost: gamma -> seconds of verifying gamma + 1 tokens over those of one (the closed form says 1).
        best_gamma: None where longer is always better.
        accepted_at_depth: depth -> share of the steps that got there and accepted a token there, on the longest chain
            (independent acceptances would give alpha everywhere).
    """

    pair: str
    temperature: float
    top_k: int
    top_p: float
    prompts: int
    alpha: Interval
    alpha_of_prompts: tuple[float, float, float]
    cost: float
    verify_cost: dict[int, float]
    best_gamma: int | None
    table: list[Compared]
    accepted_at_depth: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self, dict_factory=_with_plain_intervals) | {"why": self.why()}

    def why(self) -> list[str]:
        """Why prediction and measurement differ, in sentences."""
        low, _, high = self.alpha_of_prompts
        depths = ", ".join(
            f"{depth}: {share:.2f}" for depth, share in self.accepted_at_depth.items() if depth & (depth - 1) == 0
        )
        longest, first = self.table[-1], self.accepted_at_depth.get(1, 0.0)
        alpha, tokens = self.alpha.value, longest.measured_tokens.value
        return [
            f"Ends. A text's last step is cut short: for texts as long as these the formula itself gives "
            f"{longest.predicted_in_texts:.2f} in place of {longest.predicted_tokens.value:.2f} at gamma "
            f"{longest.gamma}. "
            f"Measured: {tokens:.2f}. What is left is dependence.",
            "Acceptances are not independent coins of one chance. By depth, of the steps that got there, "
            f"accepted are {depths}; "
            f"independent ones would give {alpha:.2f} everywhere. What differs at depth 1 ({first:.2f}) is where "
            "steps start: right after "
            "a token that was not drafted, not at the average position, over which alpha is taken. Deeper, it is "
            "that easy and hard "
            "stretches of a text come in runs.",
            f"Texts differ: nine of ten prompts have an alpha of their own between {low:.2f} and {high:.2f}.",
            f"Time. The formula lets verifying {longest.gamma + 1} tokens cost as much as one; here it takes "
            f"{self.verify_cost[longest.gamma]:.2f} times as long, and a step has other work besides. Both "
            "speed-ups are estimates.",
        ]


def predict(overrides: list[str], config_dir: Path | None = None, progress: Progress | None = None) -> Prediction:
    """Measure a pair's alpha, cost ratio and replayed chains (budgets are the gammas), and set the closed forms
    beside them.

    Raises:
        ConfigError: more than one pair or sampling setting, or a key that has no meaning here.
        UserError: as `plan_study` and `run_study`.
    """
    for key, group in zip(override_keys(overrides), override_groups(overrides), strict=True):
        if group in FIXED:
            raise ConfigError(
                f"{key}: theory is about replayed chains; it takes pair, sampling, prompts, max_new_tokens, "
                "seed, budget (gammas)"
            )
    defaults = unless_said(overrides, {"pair": "zoo", "budget": GAMMAS, "name": "theory"})
    defaults += [] if "sampling" in override_keys(overrides) else ["sampling=sample"]
    first = [*defaults, *overrides, "tree=chain", "engine=replay"]
    greedy = all(
        c.sampling.greedy
        for c in plan_study([*first, "acceptance=greedy,rejection"], config_dir, weights=False).combinations
    )
    plan = plan_study([*first, f"acceptance={'greedy' if greedy else 'rejection'}"], config_dir)
    if plan.settings.cost.measure == "off":
        raise ConfigError("cost.measure=off: theory compares with estimated times; leave it out")
    plan = type(plan)(
        plan.settings,
        plan.prompts,
        [c for c in plan.combinations if c.shape.kind == "chain"],
        plan.skipped,
        plan.config,
    )
    if (
        len(
            {
                (c.pair.spec.name, repr(c.pair.spec), repr(c.sampling), c.settings.max_new_tokens, c.drawn)
                for c in plan.combinations
            }
        )
        > 1
    ):
        raise ConfigError("theory looks at one pair under one sampling setting at a time; the overrides make several")
    if len(plan.combinations[0].drawn.temperatures) > 1:
        raise ConfigError("theory has one alpha for all depths; expected one sampling.draft_temperature, not a list")
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_study(plan, Path(folder) / "study", progress=progress)
        if outcome.failures:
            raise ConfigError(f"the pair could not be measured: {outcome.failures[0].error}")
        (costs,) = outcome.costs.values()
        summary = outcome.tables["summary.csv"].sort_values("nodes")
        return _prediction(summary, outcome.tables_of([summary["combination"].iloc[-1]]), costs)


def _prediction(summary: pd.DataFrame, of_last: dict[str, pd.DataFrame], costs: CostCurve) -> Prediction:
    """`of_last`: the tables of the longest chain, which stands last in the summary."""
    rows = summary.to_dict("records")
    last = rows[-1]
    alpha, cost = Interval.of(last, "alpha"), costs.draft_level_s[0] / costs.verify_s[0]
    if isnan(alpha.value):
        raise ConfigError("every text ends with its first token, so nothing was drafted; try a larger max_new_tokens")
    records, positions = of_last["records.csv"], of_last["positions.csv"]
    lengths = Counter((records["new_tokens"] - 1).tolist())
    of_prompts = records["alpha"].quantile([0.05, 0.5, 0.95]).tolist()
    deep = positions[positions["reached"] > 0]
    verify = dict(zip(costs.sizes, costs.verify_s, strict=True))
    return Prediction(
        pair=str(last["pair"]),
        temperature=float(last["temperature"]),
        top_k=int(last["top_k"]),
        top_p=float(last["top_p"]),
        prompts=int(records["prompt_id"].nunique()),
        alpha=alpha,
        alpha_of_prompts=(of_prompts[0], of_prompts[1], of_prompts[2]),
        cost=cost,
        verify_cost={
            int(row["nodes"]): _interpolated(int(row["nodes"]) + 1, verify) / verify[costs.sizes[0]] for row in rows
        },
        best_gamma=None if endless(alpha.value, cost) else best_gamma(alpha.value, cost),
        table=[_compared(row, alpha, cost, lengths) for row in rows],
        accepted_at_depth={
            int(d): float(a / r) for d, a, r in zip(deep["depth"], deep["accepted"], deep["reached"], strict=True)
        },
    )


def _compared(row: dict[Any, Any], alpha: Interval, cost: float, lengths: Counter[int]) -> Compared:
    """`lengths`: how many texts have so many tokens after the first."""
    gamma, measured = int(row["nodes"]), Interval.of(row, "block_efficiency")
    steps = sum(times * expected_steps(alpha.value, gamma, length) for length, times in lengths.items())
    inside = 1 <= measured.value <= gamma + 1
    return Compared(
        gamma,
        _each(alpha, lambda a: expected_tokens(a, gamma)),
        sum(length * times for length, times in lengths.items()) / steps,
        measured,
        alpha_for(measured.value, gamma) if inside else None,
        _each(alpha, lambda a: speedup(a, gamma, cost)),
        Interval.of(row, "est_speedup"),
    )


def _each(alpha: Interval, form: Any) -> Interval:
    """A rising function of alpha, at its value and at the ends of its interval."""
    low, high = (end if isnan(end) else form(min(max(end, 0.0), 1.0)) for end in (alpha.low, alpha.high))
    return Interval(form(alpha.value), low, high)


def _with_plain_intervals(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.as_dict() if isinstance(value, Interval) else value for name, value in fields}


def _interpolated(size: int, seconds: dict[int, float]) -> float:
    import numpy as np

    return float(np.interp(size, list(seconds), list(seconds.values())))
