"""Summaries of many groups at once against those of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from specdraft.results.bounds import bounds, bounds_of_differences, ratios_of_sums
from specdraft.results.metrics import HELPERS
from specdraft.results.summary import ends, summarise

COUNTS = ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens"]
SUMS = [
    *COUNTS,
    "pruned_tokens",
    "overhead_tokens",
    "wall_s",
    "prefill_s",
    "draft_s",
    "predict_s",
    "verify_s",
    "other_s",
]
TERMS = {
    "acceptance_rate": (["accepted_tokens"], "drafted_tokens"),
    "acceptance_length": (["accepted_tokens"], "steps"),
    "block_efficiency": (["accepted_tokens", "bonus_tokens"], "steps"),
    "tokens_per_s": (["new_tokens"], "wall_s"),
    "speedup": (["plain_s"], "wall_s"),
    "est_tokens_per_s": (["new_tokens"], "est_s"),
    "est_speedup": (["est_plain_s"], "est_s"),
    "alpha": (["overlap"], "judged_tokens"),
    "loop_share": (["looped_tokens"], "new_tokens"),
    "pruned_share": (["pruned_tokens"], "proposed_tokens"),
    "regret_tokens": (["lost_tokens"], "starts"),
    "nll": (["nll_sum"], "scored_tokens"),
    "plain_nll": (["plain_nll_sum"], "plain_tokens"),
}
LEAST_AND_MOST = {
    "acceptance_rate": (0, 1),
    "acceptance_length": (0, 3),
    "block_efficiency": (1, 4),
    "alpha": (0, 1),
    "loop_share": (0, 1),
    "pruned_share": (0, 1),
    "regret_tokens": (0, 3),
}


def records(groups: int = 5, prompts: int = 9, seed: int = 0) -> pd.DataFrame:
    """Trees of three levels; every second group has times, a prompt has no step, one group lacks a prompt."""
    rng, rows = np.random.default_rng(seed), []
    for group in range(groups):
        for prompt in range(prompts):
            steps = int(rng.integers(3, 20)) * (prompt != 4)
            accepted, looped = int(rng.binomial(3 * steps, 0.4)), int(rng.integers(0, 3))
            seconds = float(rng.uniform(1, 2)) if group % 2 else np.nan
            counts = (steps, 3 * steps, accepted, steps, 1 + accepted + steps, steps, 2 * steps, *[seconds] * 6)
            helpers = (
                2 * seconds,
                looped,
                0.1 * steps + 0.1,
                0.5,
                0.4 * steps,
                steps,
                4 * steps,
                0.3 * steps,
                2 * steps,
                seconds * (steps + 1),
                (steps + 1) * seconds / seconds,
                2.0 + seconds + prompt,
                9.0 * seconds / seconds,
                0.0,
                0.0,
            )
            keys = {"combination": f"c{group}", "tree": "kary", "depth": 3}
            keys |= {"prompt_id": f"q{prompt}", "category": "ab"[prompt % 2]}
            rows.append(keys | dict(zip((*SUMS, *HELPERS), (*counts, *helpers), strict=True)))
    table = pd.DataFrame(rows)
    table["latency_s"] = table["wall_s"] * (1 + np.arange(len(table)) % 4)
    return table[(table["combination"] != "c3") | (table["prompt_id"] != "q1")].sample(frac=1, random_state=seed)


def one_by_one(given: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    rows = []
    for values, group in given.groupby(keys, sort=False):
        prompts = group.groupby(["category", "prompt_id"])[[*SUMS, *HELPERS]].sum(min_count=1)
        row = dict(zip(keys, values, strict=True)) | group[SUMS].sum(min_count=1).to_dict()
        for ratio, (terms, below) in TERMS.items():
            above, under = (
                prompts[names].sum(axis=1, skipna=False).to_numpy(float)[None] for names in (terms, [below])
            )
            ratios = ratios_of_sums(np.nan_to_num(above), under)
            codes = pd.factorize(prompts.index.get_level_values("category"))[0]
            low, high = bounds(ratios, codes, LEAST_AND_MOST.get(ratio, (0, np.inf)))[0]
            value = above.sum() / under.sum() if under.sum() > 0 else np.nan
            row |= {ratio: value, f"{ratio}_lo": low, f"{ratio}_hi": high}
        row |= {f"perplexity{end}": np.exp(row[f"nll{end}"]) for end in ("", "_lo", "_hi")}
        both = (("nll_sum", "scored_tokens"), ("plain_nll_sum", "plain_tokens"))
        sides = [ratios_of_sums(*prompts[list(names)].to_numpy(float).T[:, None]) for names in both]
        low, high = bounds_of_differences(*sides, pd.factorize(prompts.index.get_level_values("category"))[0])[0]
        row |= {"nll_over_plain": row["nll"] - row["plain_nll"], "nll_over_plain_lo": low, "nll_over_plain_hi": high}
        row |= {f"latency_s_p{share}": group["latency_s"].quantile(share / 100) for share in (50, 95)}
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("keys", [["combination", "tree", "depth"], ["combination", "tree", "depth", "category"]])
@pytest.mark.parametrize("categorical", [False, True])
def test_all_at_once_are_as_one_by_one(keys: list[str], categorical: bool) -> None:
    given = records(prompts=9 if len(keys) == 3 else 14)
    expected = one_by_one(given, keys)
    assert expected["block_efficiency_lo"].notna().all() and expected["speedup_lo"].isna().any()
    assert (expected["nll_over_plain_hi"] > expected["nll_over_plain_lo"]).any()
    if categorical:
        given = given.astype(dict.fromkeys(["combination", "tree", "category", "prompt_id"], "category"))
    found = summarise(given, keys)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, check_dtype=False, check_categorical=False)


def test_intervals_of_estimates_hold_the_spread_of_costs() -> None:
    keys = ["combination", "depth"]
    plain = summarise(records(1), keys).iloc[0]
    known = records(1)
    known["est_s_spread"], known["est_speedup_spread"] = 0.1 * known["est_s"], 0.05 * known["est_s"]
    found = summarise(known, keys).iloc[0]
    for ratio, share in (("est_tokens_per_s", 0.1), ("est_speedup", 0.05)):
        value = found[ratio]
        assert value == plain[ratio]
        for end in ("_lo", "_hi"):
            over_prompts, both = (np.log(row[ratio + end] / value) for row in (plain, found))
            assert both**2 == pytest.approx(over_prompts**2 + (1.959964 * share) ** 2, rel=1e-6)
    assert found["block_efficiency_lo"] == plain["block_efficiency_lo"]


def test_no_interval_of_an_estimate_exceeds_that_of_the_block_efficiency() -> None:
    given = records(1)
    given["est_plain_s"] = given["est_s"] * 1.5
    given["est_speedup_spread"] = 2 * given["est_s"]
    (row,) = summarise(given, ["combination", "depth"]).to_dict("records")
    assert 1.5 < row["est_speedup_hi"] == row["block_efficiency_hi"] < 4


def test_repeats_are_summed_by_prompt() -> None:
    given = records(1)
    halves = given.assign(repeat=0, steps=given["steps"] * 0.25), given.assign(repeat=1, steps=given["steps"] * 0.75)
    once, twice = (
        summarise(given, ["combination", "depth"]),
        summarise(pd.concat(halves), ["combination", "depth"]),
    )
    assert twice["accepted_tokens"].tolist() == [2 * n for n in once["accepted_tokens"]]
    for end in ("_lo", "_hi"):
        assert twice[f"loop_share{end}"][0] == pytest.approx(once[f"loop_share{end}"][0])
    assert twice["steps"][0] == once["steps"][0]


def test_what_is_possible_depends_on_each_tree() -> None:
    assert ends("block_efficiency", np.array([2.0, 7.0, 2.0, np.nan])).tolist() == [[1, 3], [1, 8], [1, 3], [1, np.inf]]
    assert ends("acceptance_length", np.array([2.0])).tolist() == [[0, 2]]
    assert ends("alpha", np.array([2.0])).tolist() == ends("loop_share", np.array([9.0])).tolist() == [[0, 1]]
