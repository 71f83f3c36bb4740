"""How often 95 % intervals hold the truth: coverage over simulated studies, for a single block efficiency and for the
paired difference of two trees, beside plain Student's t of the linearised ratio without categories.

    python scripts/bench_intervals.py [--studies 10000] [--out FILE.csv]

A study draws prompts from a population whose truth is known, spread over one or five categories. Populations:

- even: prompts differ a little, categories a lot; every text has 63 tokens;
- skewed: tokens per step are log-normal, a third of the texts end early;
- looping: in a third of the texts a share repeats itself and is accepted almost wholly;
- heavy: a fifth of the texts loop throughout, and lengths are log-normal, 8 to 256 tokens;
- wide: tokens per step are log-normal with a long tail, a few prompts have many times what others have;
- binomial: steps accept by a beta-binomial law, half the texts end early;
- reference: prompts of the reference study with replacement, `zoo`, 16 nodes, `chain` and `sequoia`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from specdraft.results.bounds import Ratios, bounds, bounds_of_differences, ratios_of_sums, students

RECORDS = Path(__file__).parents[1] / "results" / "reference" / "records.csv"
SIZES = (5, 8, 12, 16, 30, 80)
CATEGORIES = (1, 5)
LARGE = 200_000  # prompts that stand for the population
POSSIBLE = (1.0, 17.0)  # tokens per step of a tree of 16 levels


class Population(NamedTuple):
    """Prompts by the hundred thousand: `[2, P]` tokens and steps of two trees, `[P]` the category (0 to 4)."""

    tokens: np.ndarray
    steps: np.ndarray
    category: np.ndarray

    def of(self, chosen: np.ndarray) -> list[Ratios]:
        """Both trees' block efficiency over the prompts of each row."""
        return [ratios_of_sums(self.tokens[tree, chosen], self.steps[tree, chosen]) for tree in range(2)]

    def truth(self, categories: int, prompts: int) -> list[float]:
        """Both trees' block efficiency where categories have the shares that a study of so many prompts gives them."""
        share = np.bincount(np.arange(prompts) % categories, minlength=5) / prompts
        groups = [self.category == code if categories > 1 else slice(None) for code in range(categories)]
        return [
            sum(float(share[c] * self.tokens[tree, group].mean()) for c, group in enumerate(groups))
            / sum(float(share[c] * self.steps[tree, group].mean()) for c, group in enumerate(groups))
            for tree in range(2)
        ]


def made(length: np.ndarray, first: np.ndarray, second: np.ndarray, category: np.ndarray) -> Population:
    """Texts of these lengths at these tokens per step of two trees."""
    steps = np.maximum(1.0, np.stack([length / np.maximum(first, 1), length / np.maximum(second, 1)]))
    return Population(np.stack([length, length]), steps, category)


def even(rng: np.random.Generator, category: np.ndarray, easy: np.ndarray) -> Population:
    rate = np.clip(rng.normal(0.55 + 0.2 * easy, 0.08), 0.05, 0.95)
    first = 1 + 3 * rate**2
    return made(np.full(len(easy), 63.0), first, first + rng.normal(0.12, 0.1, len(easy)), category)


def skewed(rng: np.random.Generator, category: np.ndarray, easy: np.ndarray) -> Population:
    first = 1 + np.exp(rng.normal(0.2 + 0.6 * easy, 0.6))
    length = np.where(rng.random(len(easy)) < 0.3, rng.integers(4, 63, len(easy)), 63).astype(float)
    return made(length, first, 1 + (first - 1) * np.exp(rng.normal(-0.1, 0.2, len(easy))), category)


def looping(rng: np.random.Generator, category: np.ndarray, easy: np.ndarray) -> Population:
    share = np.where(rng.random(len(easy)) < 0.35 + 0.3 * easy, rng.random(len(easy)), 0.0)
    first = 1 + np.exp(rng.normal(0.1 + 0.3 * easy, 0.25))
    second = np.maximum(1, first + rng.normal(0.1, 0.1, len(easy)))
    first, second = (1 / ((1 - share) / plain + share / loop) for plain, loop in ((first, 8.0), (second, 5.0)))
    return made(np.full(len(easy), 127.0), first, second, category)


def heavy(rng: np.random.Generator, category: np.ndarray, easy: np.ndarray) -> Population:
    length = np.clip(np.exp(rng.normal(4, 0.8, len(easy))), 8, 256).round()
    usual = 1 + np.exp(rng.normal(0.3 + 0.4 * easy, 0.3))
    first = np.where(rng.random(len(easy)) < 0.2, rng.uniform(3, 8, len(easy)), usual)
    return made(length, first, 1 + (first - 1) * np.exp(rng.normal(-0.1, 0.15, len(easy))), category)


def wide(rng: np.random.Generator, category: np.ndarray, easy: np.ndarray) -> Population:
    first = 1 + np.exp(rng.normal(-0.3 + 0.3 * easy, 1.1))
    return made(np.full(len(easy), 63.0), first, 1 + (first - 1) * np.exp(rng.normal(0.1, 0.2, len(easy))), category)


def binomial(rng: np.random.Generator, category: np.ndarray, easy: np.ndarray) -> Population:
    rate = rng.beta(3 + 2 * easy, 4)
    length = np.where(rng.random(len(easy)) < 0.5, rng.integers(8, 64, len(easy)), 63)
    steps = np.maximum(1, np.rint(length / (1 + 3 * rate))).astype(int)
    rates = rate, np.clip(rate + rng.normal(-0.03, 0.05, len(easy)), 0.01, 0.99)
    tokens = np.stack([rng.binomial(3 * steps, rate) + steps for rate in rates])
    return Population(tokens.astype(float), np.stack([steps, steps]).astype(float), category)


def reference() -> Population:
    """The prompts of the reference study."""
    records = pd.read_csv(RECORDS, low_memory=False)
    records = records[(records["pair"] == "zoo") & (records["budget"] == 16)]
    trees = [records[records["tree"] == tree].sort_values("prompt_id") for tree in ("chain", "sequoia")]
    tokens = np.stack([(tree["accepted_tokens"] + tree["bonus_tokens"]).to_numpy(float) for tree in trees])
    steps = np.stack([tree["steps"].to_numpy(float) for tree in trees])
    return Population(tokens, steps, trees[0]["category"].astype("category").cat.codes.to_numpy())


def populations(seed: int) -> dict[str, Population]:
    """All of them."""
    rng, category = np.random.default_rng(seed), np.arange(LARGE) % 5
    easy = (category - 2) / 5  # how much easier a category is
    makers: tuple[Callable[[np.random.Generator, np.ndarray, np.ndarray], Population], ...] = (
        even,
        skewed,
        looping,
        heavy,
        wide,
        binomial,
    )
    return {maker.__name__: maker(rng, category, easy) for maker in makers} | {"reference": reference()}


def student(values: np.ndarray, influence: np.ndarray) -> np.ndarray:
    """`[studies, 2]` Student's t."""
    prompts = influence.shape[1]
    reach = students(prompts - 1) * np.sqrt(prompts / (prompts - 1) * np.sum(influence**2, 1))
    return np.stack([values - reach, values + reach], 1)


def coverage(
    population: Population, prompts: int, categories: int, studies: int, rng: np.random.Generator
) -> dict[str, float]:
    """How many of the studies' intervals hold the truth; a study without an interval counts as one that does not."""
    codes = np.arange(prompts) % categories
    pools = [
        np.flatnonzero(population.category == code) if categories > 1 else np.arange(len(population.category))
        for code in range(categories)
    ]
    a, b = population.of(np.stack([rng.choice(pools[code], studies) for code in codes], axis=1))
    first, second = population.truth(categories, prompts)
    ends = {
        "single": (*bounds(a, codes, POSSIBLE).T, first),
        "difference": (*bounds_of_differences(a, b, codes).T, first - second),
        "single_student": (*student(a.estimates, a.influence).T, first),
        "difference_student": (*student(a.estimates - b.estimates, a.influence - b.influence).T, first - second),
    }
    return {name: float(np.mean((low <= truth) & (truth <= high))) for name, (low, high, truth) in ends.items()}


def main(
    studies: Annotated[int, typer.Option(help="simulated studies for each row", min=100)] = 10_000,
    seed: Annotated[int, typer.Option(help="of the simulation")] = 0,
    out: Annotated[Path | None, typer.Option(help="also write the table as CSV")] = None,
) -> None:
    rng, rows = np.random.default_rng(seed), []
    for name, population in populations(seed).items():
        for categories in CATEGORIES:
            for prompts in SIZES:
                held = coverage(population, prompts, categories, studies, rng)
                rows.append({"population": name, "categories": categories, "prompts": prompts} | held)
    table = Table(*rows[0], title=f"coverage of nominal 95 % intervals, {studies:,} studies a row")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if out is not None:
        out.write_text(pd.DataFrame(rows).to_csv(index=False, float_format="%.3f"), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
