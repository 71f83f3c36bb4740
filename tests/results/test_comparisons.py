from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from specdraft.results.comparisons import COLUMNS, GROUP_KEYS, METRICS, comparisons
from specdraft.results.intervals import Prompts, Resampler, ratio_of_sums
from specdraft.results.metrics import COUNTS

KEYS = dict.fromkeys(GROUP_KEYS, "same") | {"budget": 4, "temperature": 0.0}
DEPTH = 4
Counts = tuple[int, int, int]  # steps, drafted, accepted; every step has a bonus


def records(trees: dict[str, dict[str, Counts]], categories: dict[str, str] | None = None, **keys: Any) -> pd.DataFrame:
    """tree -> prompt -> counts."""
    rows: list[dict[str, Any]] = []
    for tree, prompts in trees.items():
        for prompt, (steps, drafted, accepted) in prompts.items():
            counts = dict(zip(COUNTS, (steps, drafted, accepted, steps, 1 + accepted + steps), strict=True))
            rows.append(
                KEYS
                | {"tree": tree, "depth": DEPTH, "prompt_id": prompt, "category": (categories or {}).get(prompt, "all")}
                | counts
                | keys
            )
    return pd.DataFrame(rows)


def random_records(prompts: int, seed: int = 0, trees: str = "xyz") -> pd.DataFrame:
    rng, listed = np.random.default_rng(seed), {}
    for tree in trees:
        steps = rng.integers(5, 30, prompts)
        listed[tree] = {str(p): (int(n), int(4 * n), int(rng.binomial(4 * n, 0.3))) for p, n in enumerate(steps)}
    return records(listed, {str(p): f"c{p % 2}" for p in range(prompts)})


def row(table: pd.DataFrame, a: str, b: str, metric: str) -> Any:
    (found,) = table[(table["tree_a"] == a) & (table["tree_b"] == b) & (table["metric"] == metric)].itertuples()
    return found


def numbers(table: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """`[2, P]` numerators and denominators of the trees x and y."""
    above, below = [], []
    for tree in "xy":
        own = table[table["tree"] == tree]
        terms = {
            "acceptance_rate": ("accepted_tokens", "drafted_tokens"),
            "acceptance_length": ("accepted_tokens", "steps"),
        }
        if metric == "block_efficiency":
            above.append(own["accepted_tokens"] + own["bonus_tokens"])
            below.append(own["steps"])
        else:
            above.append(own[terms[metric][0]])
            below.append(own[terms[metric][1]])
    return np.array(above, dtype=float), np.array(below, dtype=float)


def bootstrap_t(above: np.ndarray, below: np.ndarray, categories: np.ndarray) -> tuple[float, float, float]:
    """The linearised difference by loops: categories' means shrunk, resamples listed prompt by prompt."""
    ratios = [sum(above[tree]) / sum(below[tree]) for tree in range(2)]
    count, names = above.shape[1], sorted(set(categories))
    moves = []
    for p in range(count):
        first, second = ((above[tree, p] - ratios[tree] * below[tree, p]) / sum(below[tree]) for tree in range(2))
        moves.append(first - second)
    means = {name: np.mean([m for m, c in zip(moves, categories, strict=True) if c == name]) for name in names}
    between = sum(means[c] ** 2 for c in categories) / (len(names) - 1)
    within = sum((m - means[c]) ** 2 for m, c in zip(moves, categories, strict=True)) / (count - len(names))
    kept = max(0.0, 1 - stats.f.ppf(0.9, len(names) - 1, count - len(names)) * within / between)
    moves = [m - kept * means[c] for m, c in zip(moves, categories, strict=True)]
    distances = []
    for sample in Resampler(0).weights(count).astype(int).tolist():
        drawn = [moves[p] for p, times in enumerate(sample) for _ in range(times)]
        distances.append(abs(np.mean(drawn)) / (np.std(drawn, ddof=1) / np.sqrt(count)))
    freedom, student = count - 1 - kept * (len(names) - 1), stats.t.ppf(0.975, count - 1)
    quantile = max(sorted(distances)[949], student) * stats.t.ppf(0.975, freedom) / student
    reach = quantile * np.sqrt(sum(m**2 for m in moves) * count / freedom)
    estimate = ratios[0] - ratios[1]
    return estimate, estimate - reach, estimate + reach


def test_by_hand() -> None:
    table = comparisons(
        records({"x": {"1": (10, 40, 12), "2": (5, 20, 3)}, "y": {"1": (8, 32, 14), "2": (6, 24, 2)}}), 0
    )
    assert list(table.columns) == COLUMNS
    assert table["metric"].tolist() == list(METRICS)
    assert row(table, "x", "y", "acceptance_rate").difference == pytest.approx(15 / 60 - 16 / 56)
    assert row(table, "x", "y", "acceptance_length").difference == pytest.approx(15 / 15 - 16 / 14)
    assert row(table, "x", "y", "block_efficiency").difference == pytest.approx(30 / 15 - 30 / 14)
    assert table[["difference_lo", "difference_hi"]].isna().all(axis=None)  # fewer than 5 prompts


@pytest.mark.parametrize("prompts", [5, 40])
def test_antisymmetric(prompts: int) -> None:
    given = random_records(prompts)
    first, second = comparisons(given, 3), comparisons(given.iloc[::-1], 3)
    assert len(first) == len(second) == 3 * len(METRICS)
    assert set(zip(first["tree_a"], first["tree_b"], strict=True)) == {("x", "y"), ("x", "z"), ("y", "z")}
    for found in first.itertuples():
        mirror = row(second, found.tree_b, found.tree_a, found.metric)
        assert found.difference == pytest.approx(-mirror.difference, abs=1e-12)
        assert (found.difference_lo, found.difference_hi) == pytest.approx(
            (-mirror.difference_hi, -mirror.difference_lo), abs=1e-12
        )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("prompts", [8, 19])
def test_against_the_obvious_loop(metric: str, prompts: int) -> None:
    given = random_records(prompts)
    found = row(comparisons(given, 0), "x", "y", metric)
    first = given[given["tree"] == "x"].sort_values(["category", "prompt_id"])
    order = first["prompt_id"].tolist()
    sorted_by = given.set_index("prompt_id").loc[order].reset_index()
    above, below = numbers(sorted_by, metric)
    expected = bootstrap_t(above, below, first["category"].to_numpy())
    assert (found.difference, found.difference_lo, found.difference_hi) == pytest.approx(expected, rel=1e-4)


def test_never_beyond_what_is_possible() -> None:
    prompts = {"x": {str(p): (9, 36, 36 * (p != 1)) for p in range(5)}, "y": {str(p): (9, 36, 0) for p in range(5)}}
    table = comparisons(records(prompts), 0)
    ends = {metric: row(table, "x", "y", metric)[-2:] for metric in METRICS}
    assert ends["acceptance_rate"][1] == 1.0
    assert ends["acceptance_length"][1] == ends["block_efficiency"][1] == 4.0


def test_pairing_is_what_makes_the_interval_narrow() -> None:
    """Prompts differ much, trees differ by hardly more or less than 0.1 on each prompt."""
    rng = np.random.default_rng(0)
    base = rng.integers(10, 90, 30)
    extra = {"x": [10 + p % 2 for p in range(30)], "y": [0] * 30}
    given = records({t: {str(p): (100, 400, int(a) + extra[t][p]) for p, a in enumerate(base)} for t in "xy"})
    found = row(comparisons(given, 0), "x", "y", "acceptance_length")
    assert found.difference == pytest.approx(0.105)
    assert 0.1 < found.difference_lo < 0.105 < found.difference_hi < 0.11


def test_alike_everywhere() -> None:
    """Equal on every prompt is a difference of 0, whatever the prompts; another that never varies has no interval."""
    given = records(
        {t: {str(p): (100, 400, 40 + p + extra) for p in range(8)} for t, extra in zip("xyz", (0, 0, 10), strict=True)}
    )
    table = comparisons(given, 0)
    same, other = (row(table, "x", tree, "acceptance_length") for tree in "yz")
    assert (same.difference, same.difference_lo, same.difference_hi) == (0, 0, 0)
    assert other.difference == pytest.approx(-0.1)
    assert np.isnan(other.difference_lo) and np.isnan(other.difference_hi)


def test_the_order_of_the_rows_does_not_matter() -> None:
    given = random_records(6)
    shuffled = pd.concat([given[given["tree"] == t].sample(frac=1, random_state=i) for i, t in enumerate("xyz")])
    pd.testing.assert_frame_equal(comparisons(given, 0), comparisons(shuffled, 0))


def test_repeats_of_a_prompt_are_one_prompt() -> None:
    given = random_records(6)
    twice = pd.concat([given.assign(repeat=0), given.assign(repeat=1)])
    pd.testing.assert_frame_equal(comparisons(given, 0), comparisons(twice, 0))


def test_different_prompts_are_not_compared() -> None:
    one = {"1": (10, 40, 12), "2": (5, 20, 3)}
    for other in ({"1": (8, 32, 14)}, {"1": (8, 32, 14), "3": (6, 24, 2)}, one | {"3": (6, 24, 2)}):
        for pair in ({"x": one, "y": other}, {"x": other, "y": one}):
            table = comparisons(records(pair), 0)
            assert table.empty
            assert list(table.columns) == COLUMNS
    three = comparisons(records({"x": one, "y": {"1": (8, 32, 14)}, "z": one}), 0)
    assert set(zip(three["tree_a"], three["tree_b"], strict=True)) == {("x", "z")}


@pytest.mark.parametrize(("sizes", "at"), [((16, 64), 64), ((32, 94), 94), ((16, 63), 63), ((16, 50), 50)])
def test_a_published_size_competes_at_the_nearest_budget(sizes: tuple[int, int], at: int) -> None:
    prompts = {str(p): (9, 36, 4 + p) for p in range(5)}
    listed = [records({"chain": prompts, "kary": prompts}, budget=budget) for budget in sizes]
    published = records({"medusa": prompts, "medusa/zephyr_stage2": prompts}, budget=63)
    found = comparisons(pd.concat([*listed, published]), 0)
    with_medusa = found[(found["tree_a"] == "medusa") | (found["tree_b"] == "medusa")]
    assert set(with_medusa["budget"]) == {at}
    assert len(with_medusa) == 3 * len(METRICS)
    alone = comparisons(published, 0)
    assert set(alone["budget"]) == {63} and len(alone) == len(METRICS)


@pytest.mark.parametrize("key", KEYS)
def test_only_like_is_compared_with_like(key: str) -> None:
    one, other = (records({tree: {"1": (10, 40, 12), "2": (5, 20, 3)}}) for tree in "xy")
    assert comparisons(pd.concat([one, other.assign(**{key: "other"})]), 0).empty
    assert len(comparisons(pd.concat([one, other]), 0)) == len(METRICS)


def test_one_prompt_has_no_interval() -> None:
    for found in comparisons(records({"x": {"1": (10, 40, 12)}, "y": {"1": (8, 32, 14)}}), 0).itertuples():
        assert not np.isnan(found.difference)
        assert np.isnan(found.difference_lo)
        assert np.isnan(found.difference_hi)


def test_no_steps_no_number() -> None:
    none = {"1": (0, 0, 0), "2": (0, 0, 0)}
    table = comparisons(records({"x": none, "y": {"1": (8, 32, 14), "2": (3, 12, 2)}, "z": none}), 0)
    assert len(table) == 3 * len(METRICS)
    assert table[COLUMNS[-3:]].isna().all(axis=None)
    some = comparisons(records({"x": {"1": (0, 0, 0), "2": (4, 16, 3)}, "y": {"1": (0, 0, 0), "2": (3, 12, 2)}}), 0)
    assert row(some, "x", "y", "acceptance_length").difference == pytest.approx(3 / 4 - 2 / 3)


def test_hardly_any_prompt_with_a_step() -> None:
    """Prompts without a step say nothing, so that these are two."""
    listed = {str(p): (0, 0, 0) for p in range(8)}
    given = {"x": listed | {"0": (10, 40, 20), "1": (10, 40, 10)}, "y": listed | {"0": (10, 40, 10), "1": (10, 40, 10)}}
    found = row(comparisons(records(given), 0), "x", "y", "acceptance_length")
    assert found.difference == pytest.approx(0.5)
    assert np.isnan(found.difference_lo) and np.isnan(found.difference_hi)


def test_nothing_to_compare() -> None:
    assert list(comparisons(records({"x": {"1": (10, 40, 12)}}), 0).columns) == COLUMNS
    assert comparisons(records({"x": {"1": (10, 40, 12)}}).iloc[:0], 0).empty


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [8, 12, 48])
def test_coverage(prompts: int) -> None:
    """Prompts differ in how easy they are, and trees by an amount that differs between prompts."""
    rng, runs = np.random.default_rng(5), 2000
    codes = np.repeat([0, 1], prompts // 2)
    over = Prompts(codes, Resampler(0))

    def simulate(count: int, category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        easy = rng.beta(4, 3 + 2 * category, count)
        better = np.clip(easy + rng.normal(0.05, 0.04, count), 0.01, 0.99)
        tokens = rng.integers(60, 140, count)
        accepted = np.stack([rng.binomial(tokens, p) for p in (better, easy)])
        return accepted.astype(float), tokens[None] + 40 - accepted * 0.25

    many = 400_000
    above, below = simulate(many, np.repeat([0, 1], many // 2))
    ratios = above.sum(1) / below.sum(1)
    truth = ratios[0] - ratios[1]
    covered = 0
    for _ in range(runs):
        above, below = simulate(prompts, codes)
        low, high = over.interval_of_difference(*map(ratio_of_sums, above, below))
        covered += low <= truth <= high
    assert 0.93 <= covered / runs <= 0.97
