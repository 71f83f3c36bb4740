from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from specdraft.results.bounds import bounds_of_differences, ratios_of_sums
from specdraft.results.comparisons import COLUMNS, GROUP_KEYS, METRICS, comparisons, competing_budgets
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


def test_by_hand() -> None:
    table = comparisons(records({"x": {"1": (10, 40, 12), "2": (5, 20, 3)}, "y": {"1": (8, 32, 14), "2": (6, 24, 2)}}))
    assert list(table.columns) == COLUMNS
    assert table["metric"].tolist() == list(METRICS)
    assert row(table, "x", "y", "acceptance_rate").difference == pytest.approx(15 / 60 - 16 / 56)
    assert row(table, "x", "y", "acceptance_length").difference == pytest.approx(15 / 15 - 16 / 14)
    assert row(table, "x", "y", "block_efficiency").difference == pytest.approx(30 / 15 - 30 / 14)
    assert table[["difference_lo", "difference_hi"]].isna().all(axis=None)  # fewer than 5 prompts


@pytest.mark.parametrize("prompts", [5, 40])
def test_antisymmetric(prompts: int) -> None:
    given = random_records(prompts)
    first, second = comparisons(given), comparisons(given.iloc[::-1])
    assert len(first) == len(second) == 3 * len(METRICS)
    assert set(zip(first["tree_a"], first["tree_b"], strict=True)) == {("x", "y"), ("x", "z"), ("y", "z")}
    for found in first.itertuples():
        mirror = row(second, found.tree_b, found.tree_a, found.metric)
        assert found.difference == pytest.approx(-mirror.difference, abs=1e-12)
        assert (found.difference_lo, found.difference_hi) == pytest.approx(
            (-mirror.difference_hi, -mirror.difference_lo), abs=1e-12
        )


def one_by_one(given: pd.DataFrame) -> pd.DataFrame:
    """The same table, two trees at a time."""
    terms = {
        "acceptance_rate": (["accepted_tokens"], "drafted_tokens"),
        "acceptance_length": (["accepted_tokens"], "steps"),
        "block_efficiency": (["accepted_tokens", "bonus_tokens"], "steps"),
    }
    rows = []
    for keys, group in given.groupby(GROUP_KEYS, sort=False):
        sums = {
            tree: rows.groupby(["category", "prompt_id"])[list(COUNTS)].sum() for tree, rows in group.groupby("tree")
        }
        for metric, (above, below) in terms.items():
            for a, b in combinations(group["tree"].unique(), 2):
                sides = sums[a], sums[b]
                if not sides[0].index.equals(sides[1].index):
                    continue
                numbers = [(side[above].sum(axis=1), side[below]) for side in sides]
                ratios = [ratios_of_sums(*(part.to_numpy(float)[None] for part in parts)) for parts in numbers]
                most = {"acceptance_rate": 1.0}.get(metric, float(group["depth"].max()))
                codes = pd.factorize(sides[0].index.get_level_values("category"))[0]
                ends = bounds_of_differences(*ratios, codes, (-most, most))[0]
                rows.append((*keys, a, b, metric, (ratios[0].estimates - ratios[1].estimates)[0], *ends))
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize("categorical", [False, True])
def test_all_at_once_are_as_two_at_a_time(categorical: bool) -> None:
    """Settings, prompts that trees lack, prompts without a step, repeats, in any order of the rows."""
    listed = [random_records(9, seed, "xyzw").assign(pair=f"p{seed}", budget=2 + seed % 2) for seed in range(4)]
    given = pd.concat([*listed, listed[0].assign(repeat=1)], ignore_index=True)
    given = given[~((given["tree"] == "z") & (given["prompt_id"] == "3") & (given["pair"] == "p1"))]
    given.loc[given["prompt_id"] == "5", ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens"]] = 0
    given = given.sample(frac=1, random_state=0)
    expected = one_by_one(given)
    assert len(expected) == 3 * (4 * 6 - 3) and expected["difference_lo"].notna().all()
    if categorical:
        texts = [key for key in (*GROUP_KEYS, "tree", "category", "prompt_id") if given[key].dtype == "str"]
        given = given.astype(dict.fromkeys(texts, "category"))
    pd.testing.assert_frame_equal(comparisons(given), expected, rtol=1e-9, check_dtype=False, check_categorical=False)


def test_never_beyond_what_is_possible() -> None:
    prompts = {"x": {str(p): (9, 36, 36 * (p != 1)) for p in range(5)}, "y": {str(p): (9, 36, 0) for p in range(5)}}
    table = comparisons(records(prompts))
    ends = {metric: row(table, "x", "y", metric)[-2:] for metric in METRICS}
    assert ends["acceptance_rate"][1] == 1.0
    assert ends["acceptance_length"][1] == ends["block_efficiency"][1] == 4.0


def test_pairing_is_what_makes_the_interval_narrow() -> None:
    """Prompts differ much, trees differ by hardly more or less than 0.1 on each prompt."""
    rng = np.random.default_rng(0)
    base = rng.integers(10, 90, 30)
    extra = {"x": [10 + p % 2 for p in range(30)], "y": [0] * 30}
    given = records({t: {str(p): (100, 400, int(a) + extra[t][p]) for p, a in enumerate(base)} for t in "xy"})
    found = row(comparisons(given), "x", "y", "acceptance_length")
    assert found.difference == pytest.approx(0.105)
    assert 0.1 < found.difference_lo < 0.105 < found.difference_hi < 0.11


def test_alike_everywhere() -> None:
    """Equal on every prompt is a difference of 0, whatever the prompts; another that never varies has no interval."""
    given = records(
        {t: {str(p): (100, 400, 40 + p + extra) for p in range(8)} for t, extra in zip("xyz", (0, 0, 10), strict=True)}
    )
    table = comparisons(given)
    same, other = (row(table, "x", tree, "acceptance_length") for tree in "yz")
    assert (same.difference, same.difference_lo, same.difference_hi) == (0, 0, 0)
    assert other.difference == pytest.approx(-0.1)
    assert np.isnan(other.difference_lo) and np.isnan(other.difference_hi)


def test_the_order_of_the_rows_does_not_matter() -> None:
    given = random_records(6)
    shuffled = pd.concat([given[given["tree"] == t].sample(frac=1, random_state=i) for i, t in enumerate("xyz")])
    pd.testing.assert_frame_equal(comparisons(given), comparisons(shuffled))


def test_repeats_of_a_prompt_are_one_prompt() -> None:
    given = random_records(6)
    twice = pd.concat([given.assign(repeat=0), given.assign(repeat=1)])
    pd.testing.assert_frame_equal(comparisons(given), comparisons(twice))


def test_different_prompts_are_not_compared() -> None:
    one = {"1": (10, 40, 12), "2": (5, 20, 3)}
    for other in ({"1": (8, 32, 14)}, {"1": (8, 32, 14), "3": (6, 24, 2)}, one | {"3": (6, 24, 2)}):
        for pair in ({"x": one, "y": other}, {"x": other, "y": one}):
            table = comparisons(records(pair))
            assert table.empty
            assert list(table.columns) == COLUMNS
    three = comparisons(records({"x": one, "y": {"1": (8, 32, 14)}, "z": one}))
    assert set(zip(three["tree_a"], three["tree_b"], strict=True)) == {("x", "z")}


@pytest.mark.parametrize(("sizes", "at"), [((16, 64), 64), ((32, 94), 94), ((16, 63), 63), ((16, 50), 50)])
def test_a_published_size_competes_at_the_nearest_budget(sizes: tuple[int, int], at: int) -> None:
    prompts = {str(p): (9, 36, 4 + p) for p in range(5)}
    listed = [records({"chain": prompts, "kary": prompts}, budget=budget) for budget in sizes]
    published = records({"medusa": prompts, "medusa/zephyr_stage2": prompts}, budget=63)
    found = comparisons(pd.concat([*listed, published]))
    with_medusa = found[(found["tree_a"] == "medusa") | (found["tree_b"] == "medusa")]
    assert set(with_medusa["budget"]) == {at}
    assert len(with_medusa) == 3 * len(METRICS)
    alone = comparisons(published)
    assert set(alone["budget"]) == {63} and len(alone) == len(METRICS)


def test_a_named_tree_competes_at_the_nearest_budget() -> None:
    """A name says nothing of a size: a tree at one budget only is its own; one at several is an unknown shape."""
    prompts = {str(p): (9, 36, 4 + p) for p in range(5)}
    shapes = [records({"chain": prompts, "kary-k3": prompts}, budget=budget) for budget in (16, 64)]
    mine = [
        records({name: prompts}, budget=budget) for name, budget in (("mine", 27), ("paths-0a1b2c", 40), ("other", 7))
    ]
    foreign = [records({"foreign-x2": prompts}, budget=budget) for budget in (16, 64)]
    table = pd.concat([*shapes, *mine, *foreign], ignore_index=True)
    found = competing_budgets(table, ["pair"])
    assert found.tolist() == [16] * 10 + [64] * 10 + [16] * 5 + [64] * 5 + [16] * 5 + [16] * 5 + [64] * 5
    assert competing_budgets(table.astype({"tree": "category"}), ["pair"]).tolist() == found.tolist()
    with_mine = comparisons(table).query("tree_a == 'mine' or tree_b == 'mine'")
    assert set(with_mine["budget"]) == {16} and len(with_mine) == 4 * len(METRICS)


def test_the_budgets_of_another_setting_do_not_count() -> None:
    prompts = {str(p): (9, 36, 4 + p) for p in range(5)}
    a = records({"chain": prompts, "medusa": prompts}, budget=63)
    b = records({"chain": prompts}, budget=64).assign(pair="other")
    only = records({"medusa": prompts}, budget=63).assign(pair="third")
    table = pd.concat([a[a["tree"] == "medusa"], records({"chain": prompts}, budget=8), b, only])
    assert competing_budgets(table, ["pair"]).tolist() == [8] * 10 + [64] * 5 + [63] * 5


@pytest.mark.parametrize("key", KEYS)
def test_only_like_is_compared_with_like(key: str) -> None:
    one, other = (records({tree: {"1": (10, 40, 12), "2": (5, 20, 3)}}) for tree in "xy")
    assert comparisons(pd.concat([one, other.assign(**{key: 8 if key == "budget" else "other"})])).empty
    assert len(comparisons(pd.concat([one, other]))) == len(METRICS)


def test_one_prompt_has_no_interval() -> None:
    for found in comparisons(records({"x": {"1": (10, 40, 12)}, "y": {"1": (8, 32, 14)}})).itertuples():
        assert not np.isnan(found.difference)
        assert np.isnan(found.difference_lo)
        assert np.isnan(found.difference_hi)


def test_no_steps_no_number() -> None:
    none = {"1": (0, 0, 0), "2": (0, 0, 0)}
    table = comparisons(records({"x": none, "y": {"1": (8, 32, 14), "2": (3, 12, 2)}, "z": none}))
    assert len(table) == 3 * len(METRICS)
    assert table[COLUMNS[-3:]].isna().all(axis=None)
    some = comparisons(records({"x": {"1": (0, 0, 0), "2": (4, 16, 3)}, "y": {"1": (0, 0, 0), "2": (3, 12, 2)}}))
    assert row(some, "x", "y", "acceptance_length").difference == pytest.approx(3 / 4 - 2 / 3)


def test_hardly_any_prompt_with_a_step() -> None:
    """Prompts without a step say nothing, so that these are two."""
    listed = {str(p): (0, 0, 0) for p in range(8)}
    given = {"x": listed | {"0": (10, 40, 20), "1": (10, 40, 10)}, "y": listed | {"0": (10, 40, 10), "1": (10, 40, 10)}}
    found = row(comparisons(records(given)), "x", "y", "acceptance_length")
    assert found.difference == pytest.approx(0.5)
    assert np.isnan(found.difference_lo) and np.isnan(found.difference_hi)


def test_nothing_to_compare() -> None:
    assert list(comparisons(records({"x": {"1": (10, 40, 12)}})).columns) == COLUMNS
    assert comparisons(records({"x": {"1": (10, 40, 12)}}).iloc[:0]).empty


class TestManyTrees:
    NAMES = ("chain", *(f"kary-k{k}" for k in range(2, 17)), *(f"beam-w{w}" for w in range(2, 16)))  # 1, 15 and 14

    @staticmethod
    def made(names: tuple[str, ...]) -> pd.DataFrame:
        """On six prompts."""
        rng, listed = np.random.default_rng(3), {}
        for tree in names:
            listed[tree] = {str(p): (20, 80, int(rng.integers(10, 60))) for p in range(6)}
        return records(listed)

    def pairs(self, given: pd.DataFrame) -> list[tuple[str, str]]:
        table = comparisons(given).query("metric == 'block_efficiency'")
        return [*zip(table["tree_a"], table["tree_b"], strict=True)]

    def test_up_to_so_many_every_two_are_compared(self) -> None:
        assert self.pairs(self.made(self.NAMES[:24])) == [*combinations(self.NAMES[:24], 2)]

    def test_of_more_the_chain_and_the_best_of_each_kind_stand_beside_all(self) -> None:
        given = self.made(self.NAMES)
        accepted = given.groupby("tree")["accepted_tokens"].sum()
        best = {"chain", *(max((n for n in self.NAMES if n.startswith(k)), key=accepted.get) for k in ("kary", "beam"))}
        found = self.pairs(given)
        assert found == [pair for pair in combinations(self.NAMES, 2) if best & {*pair}]
        assert len(found) == 84
        whole = comparisons(given)
        for a, b in (found[5], found[-5]):  # as if these two were all there is
            alone = comparisons(given[given["tree"].isin([a, b])]).reset_index(drop=True)
            both = whole[(whole["tree_a"] == a) & (whole["tree_b"] == b)].reset_index(drop=True)
            pd.testing.assert_frame_equal(alone, both)

    def test_equal_trees_are_the_best_together(self) -> None:
        """Whichever of them a reader takes for the leader stands beside all others."""
        given = self.made(self.NAMES)
        for tree in ("kary-k3", "kary-k9"):
            given.loc[given["tree"] == tree, ["accepted_tokens", "new_tokens"]] = [70, 91]
        found = self.pairs(given)
        assert {b for a, b in found if a == "kary-k3"} | {a for a, b in found if b == "kary-k3"} == {*self.NAMES} - {
            "kary-k3"
        }
        assert {b for a, b in found if a == "kary-k9"} | {a for a, b in found if b == "kary-k9"} == {*self.NAMES} - {
            "kary-k9"
        }

    def test_named_trees_are_of_one_kind(self) -> None:
        names = ("chain", *(f"mine{n}" for n in range(29)))
        assert len(self.pairs(self.made(names))) == 29 + 28  # the chain, and the best of them

    def test_each_budget_for_itself(self) -> None:
        many, few = self.made(self.NAMES), self.made(self.NAMES[:5]).assign(budget=8)
        assert len(comparisons(pd.concat([many, few]))) == len(METRICS) * (84 + 10)
