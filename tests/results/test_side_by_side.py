"""What changed between two studies: the fast way is the obvious one, and nothing is called a change that is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.sides import made_side, write_side

from specdraft.errors import ConfigError, ResultsError
from specdraft.results.bounds import bounds_of_differences, ratios_of_sums
from specdraft.results.manifest_differences import Differing, differing
from specdraft.results.metrics import RATIOS
from specdraft.results.side_by_side import (
    BETTER,
    GONE,
    METRICS,
    NEW,
    NOISE,
    PAIRED,
    UNKNOWN,
    UNPAIRED,
    WORSE,
    SideBySide,
    independent_ends,
    side_by_side,
)
from specdraft.results.study_side import StudySide, read_side, refuse_twice, tell_apart

A = made_side("a", {"chain": 0.3, "kary": 0.4, "wide": 0.2})
B = made_side("b", {"chain": 0.35, "kary": 0.4, "beam": 0.3})
RESULTS = Path(__file__).parents[2] / "results"


def row(found: SideBySide, tree: str, metric: str = "block_efficiency") -> Any:
    (one,) = found.rows[(found.rows["tree"] == tree) & (found.rows["metric"] == metric)].to_dict("records")
    return one


def of_prompts(side: StudySide, tree: str, metric: str, prompts: list[str]) -> Any:
    """One combination's ratio over some prompts, prompt by prompt."""
    assert side.records is not None
    records = side.records[side.records["tree"] == tree].set_index("prompt_id").loc[prompts]
    above, below = RATIOS[metric]
    return ratios_of_sums(records[list(above)].sum(axis=1).to_numpy(float)[None], records[below].to_numpy(float)[None])


def test_the_paired_difference_is_that_of_each_combination_alone() -> None:
    found = side_by_side(A, B)
    prompts = sorted(A.digests, key=lambda prompt: (int(prompt) % 2, prompt))
    categories = np.array([int(prompt) % 2 for prompt in prompts])
    for tree in ("chain", "kary"):
        for metric in METRICS[:3]:
            first, second = (of_prompts(side, tree, metric, prompts) for side in (A, B))
            ((low, high),) = bounds_of_differences(second, first, categories)
            got = row(found, tree, metric)
            expected = (second.estimates[0] - first.estimates[0], low, high)
            assert (got["difference"], got["difference_lo"], got["difference_hi"]) == pytest.approx(expected)
            assert (got["a"], got["b"]) == pytest.approx((first.estimates[0], second.estimates[0]))
            assert (got["how"], got["prompts_compared"]) == (PAIRED, 20)


def test_verdicts() -> None:
    found = side_by_side(A, B)
    verdicts = {tree: row(found, tree)["verdict"] for tree in ("chain", "kary", "wide", "beam")}
    assert verdicts == {"chain": BETTER, "kary": NOISE, "wide": GONE, "beam": NEW}
    assert row(found, "kary")["difference_lo"] == row(found, "kary")["difference_hi"] == 0
    assert found.counts("block_efficiency") == {BETTER: 1, WORSE: 0, NOISE: 1, UNKNOWN: 0, NEW: 1, GONE: 1}
    assert (found.common, found.shared, found.unchanged("block_efficiency")) == (2, 20, 1)
    assert found.by_chance("block_efficiency") == pytest.approx(0.05)  # of the one that is not equal
    assert "speedup" not in set(found.rows["metric"])


def test_the_other_way_round_signs_turn() -> None:
    found, back = side_by_side(A, B), side_by_side(B, A)
    for tree, verdict in (("chain", WORSE), ("kary", NOISE), ("wide", NEW), ("beam", GONE)):
        one, other = row(found, tree), row(back, tree)
        assert other["verdict"] == verdict
        assert (other["a"], other["b"]) == pytest.approx((one["b"], one["a"]), nan_ok=True)
        ends = (-one["difference"], -one["difference_hi"], -one["difference_lo"])
        assert (other["difference"], other["difference_lo"], other["difference_hi"]) == pytest.approx(ends, nan_ok=True)


def test_the_order_of_rows_does_not_matter() -> None:
    assert A.records is not None and B.records is not None
    shuffled = replace(B, records=B.records.sample(frac=1, random_state=1), summary=B.summary.iloc[::-1])
    keys = ["tree", "metric"]
    tables = [side_by_side(A, b).rows.sort_values(keys, ignore_index=True) for b in (B, shuffled)]
    pd.testing.assert_frame_equal(*tables)


def test_only_prompts_with_the_same_text_are_paired() -> None:
    changed = {prompt: (digest if int(prompt) < 12 else "other") for prompt, digest in B.digests.items()}
    found = side_by_side(A, replace(B, manifest=dict(B.manifest) | {"prompt_digests": changed}))
    prompts = sorted((p for p in A.digests if int(p) < 12), key=lambda prompt: (int(prompt) % 2, prompt))
    first, second = (of_prompts(side, "chain", "block_efficiency", prompts) for side in (A, B))
    got = row(found, "chain")
    assert (found.shared, got["prompts_compared"]) == (12, 12)
    assert (got["a"], got["b"]) == pytest.approx((first.estimates[0], second.estimates[0]))
    assert any("the 12 prompts that both have (of 20 and 20)" in note for note in found.notes)


@pytest.mark.parametrize("why", ["records", "prompts"])
def test_without_pairs_the_intervals_are_independent(why: str) -> None:
    slightly = made_side("b", {"chain": 0.315})
    manifest = {**slightly.manifest, "prompt_digests": dict.fromkeys(slightly.digests, "other")}
    b = replace(slightly, records=None) if why == "records" else replace(slightly, manifest=manifest)
    found = side_by_side(A, b)
    got, paired = row(found, "chain"), row(side_by_side(A, slightly), "chain")
    assert got["how"] == UNPAIRED and np.isnan(got["prompts_compared"])
    below = np.hypot(got["b"] - got["b_lo"], got["a_hi"] - got["a"])
    above = np.hypot(got["b_hi"] - got["b"], got["a"] - got["a_lo"])
    ends = (got["b"] - got["a"] - below, got["b"] - got["a"] + above)
    assert (got["difference_lo"], got["difference_hi"]) == pytest.approx(ends)
    assert got["difference_hi"] - got["difference_lo"] > paired["difference_hi"] - paired["difference_lo"]
    assert (got["verdict"], paired["verdict"]) == (NOISE, BETTER)
    assert any("not paired over prompts" in note for note in found.notes)


def test_independent_intervals_hold_the_difference_as_often_as_they_say() -> None:
    rng, trials = np.random.default_rng(0), 20_000
    values = [rng.normal(mean, error, trials) for mean, error in ((2.0, 0.1), (2.5, 0.2))]
    sides = [np.stack([v, v - 1.96 * e, v + 1.96 * e], 1) for v, e in zip(values, (0.1, 0.2), strict=True)]
    ends = independent_ends(*sides)
    assert np.mean((ends[:, 0] <= 0.5) & (ends[:, 1] >= 0.5)) == pytest.approx(0.95, abs=0.005)


def test_with_few_prompts_nothing_is_called_a_change() -> None:
    found = side_by_side(made_side("a", {"chain": 0.2}, prompts=4), made_side("b", {"chain": 0.8}, prompts=4))
    assert row(found, "chain")["verdict"] == UNKNOWN


def test_times_are_compared_where_both_were_live() -> None:
    a, b = (made_side(name, {"chain": rate}, live=True) for name, rate in (("a", 0.3), ("b", 0.5)))
    found = side_by_side(a, b)
    got = row(found, "chain", "speedup")
    assert (got["a"], got["b"]) == pytest.approx((1.3, 1.5)) and got["how"] == PAIRED
    assert row(found, "chain", "tokens_per_s")["verdict"] == BETTER
    assert any("the machine" in note for note in found.notes)


def test_keys_that_may_differ() -> None:
    other = made_side("b", {"chain": 0.35, "kary": 0.4}, seed=0, dtype="bfloat16")
    with pytest.raises(ResultsError) as error:
        side_by_side(A, other)
    assert str(error.value).endswith("(dtype: same and bfloat16); --across dtype compares them all the same")
    found = side_by_side(A, other, ["dtype"])
    assert (found.common, "dtype" in found.rows) == (2, False)
    with pytest.raises(ConfigError, match="--across 'dtyp' is no key column; did you mean 'dtype'"):
        side_by_side(A, other, ["dtyp"])
    with pytest.raises(ResultsError, match="several of its combinations share all other key columns"):
        side_by_side(A, other, ["tree", "dtype"])


def test_repeats_are_summed() -> None:
    assert A.records is not None
    twice = replace(A, records=pd.concat([A.records, A.records.assign(repeat=1)], ignore_index=True))
    assert row(side_by_side(A, twice), "chain")["difference_hi"] == 0


def test_an_earlier_version_has_its_defaults(tmp_path: Path) -> None:
    older = write_side(
        made_side("old", {"chain": 0.3}, length="constant"), tmp_path / "old", lacking=("length", "batch")
    )
    newer = write_side(made_side("new", {"chain": 0.3}, length="constant"), tmp_path / "new")
    found = side_by_side(read_side(older), read_side(newer))
    assert found.unchanged("block_efficiency") == 1
    assert f"{older}: an earlier version's, without the columns of length=constant, batch=1" in found.notes


def test_the_studies_of_this_repository_can_be_read() -> None:
    folders = sorted({path.parent for path in RESULTS.glob("**/manifest.json")})
    sides = [read_side(folder) for folder in folders]
    assert len(sides) >= 8 and len(set(tell_apart([(side.name, side.folder) for side in sides]))) == len(sides)
    reference, drafters = (read_side(RESULTS / name) for name in ("reference", "drafters/zoo"))
    found = side_by_side(reference, drafters)
    assert found.common == found.unchanged("block_efficiency") == 21  # the same models and texts


def test_a_benchmark_of_methods_is_a_side_too() -> None:
    smaller, heads = (read_side(RESULTS / "methods" / name) for name in ("smollm2", "smollm2-heads"))
    found = side_by_side(smaller, heads)
    plain = row(found, "autoregressive", "tokens_per_s")
    assert (plain["how"], plain["verdict"]) == (UNPAIRED, NOISE)
    assert row(found, "eagle tree", "block_efficiency")["verdict"] == NEW
    assert row(found, "medusa", "speedup")["a"] == pytest.approx(0.79, abs=0.005)
    with pytest.raises(ResultsError, match="--across pair,target"):
        side_by_side(smaller, read_side(RESULTS / "methods" / "zoo"))


def test_names_that_tell_studies_apart(tmp_path: Path) -> None:
    assert tell_apart([("x", Path("a/b")), ("y", Path("a/b"))]) == ["x", "y"]
    assert tell_apart([("x", Path("a/b")), ("x", Path("a/c"))]) == ["b", "c"]
    assert tell_apart([("x", Path("a/b")), ("x", Path("c/b"))]) == ["a/b", "c/b"]
    refuse_twice([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ResultsError, match="are the same folder"):
        refuse_twice([tmp_path, tmp_path / "b" / ".."])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("manifest.json", None, "holds no study"),
        ("summary.csv", None, "there is no such file"),
        ("summary.csv", "pair,tree\n", "has no column"),
        ("records.csv", b"\xff\xfe\x00broken", "cannot be read as a table"),
        ("manifest.json", "{", "cannot be read"),
        ("config.yaml", "a: [", "cannot be read"),
    ],
)
def test_what_is_no_study(file: str, content: str | bytes | None, said: str, tmp_path: Path) -> None:
    folder = write_side(A, tmp_path / "study")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ResultsError, match=said):
        read_side(folder)


def test_what_differs_beside_the_numbers() -> None:
    model = {"path": "m", "weights": "1", "dtype": "float32"}
    facts: dict[str, Any] = {"python": "3.11", "libraries": {"torch": "2.1", "numpy": "2.0"}, "threads": 2}
    a = replace(
        A,
        manifest={**A.manifest, **facts, "models": {"zoo": {"target": model}, "x": {"target": model}}},
        config={"grid": {"tree": ["chain"]}, "name": "a"},
    )
    b = replace(
        A,
        manifest={**A.manifest, **facts, "libraries": {"torch": "2.2", "numpy": "2.0"},
                  "models": {"zoo": {"target": model | {"weights": "2"}}}, "source": {"commit": "abc", "dirty": True}},
        config={"grid": {"tree": ["chain", "kary"]}, "name": "b"},
    )  # fmt: skip
    assert differing(a, a) == []
    assert differing(a, b) == [
        Differing("torch", "2.1", "2.2"),
        Differing("zoo target", "m 1 float32", "m 2 float32"),
        Differing("source", "–", "abc with changes"),
        Differing("setting grid.tree", "chain", "chain, kary"),
    ]
