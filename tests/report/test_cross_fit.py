"""What is best, picked on one half of the prompts and measured on the other: the same as by hand, and not flattered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report.cross_fit import Halves, best_row, halves_of
from specdraft.report.findings import findings_of
from specdraft.report.leads import Lead, lead_sentence
from specdraft.report.study_files import read_study
from specdraft.report.words import plain
from specdraft.results.comparisons import comparisons
from specdraft.results.files import RECORDS, RECORDS_PARQUET
from specdraft.results.intervals import Interval
from specdraft.results.metrics import HELPERS
from specdraft.results.study_tables import COLUMNS, read_records
from specdraft.results.summary import summarise
from specdraft.results.tables import COMBINATION_KEYS, EARLIER_KEYS

TREES = ("chain", "kary", "beam", "wide", "medusa")


def made(means: dict[str, float], prompts: int = 20, seed: int = 0, turns: int = 1) -> pd.DataFrame:
    """Records of trees that accept so many tokens a step, more or less, on prompts of two categories."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(0, 0.4, prompts)
    rows = [
        {
            "combination": tree,
            "tree": tree,
            "prompt_id": f"p{prompt:03d}",
            "category": "ab"[prompt % 2],
            "turn": turn,
            "steps": float(rng.integers(20, 60)),
        }
        | {"accepted_tokens": mean + texts[prompt] + rng.normal(0, 0.3)}
        for tree, mean in means.items()
        for prompt in range(prompts)
        for turn in range(1, turns + 1)
    ]
    table = pd.DataFrame(rows).assign(bonus_tokens=lambda rows: rows["steps"], new_tokens=50.0)
    table["accepted_tokens"] = table["accepted_tokens"].clip(0) * table["steps"]
    speeds = {"est_tokens_per_s": rng.uniform(80, 120, len(table)), "est_speedup": rng.uniform(0.8, 1.6, len(table))}
    return table.assign(**speeds, wall_s=np.nan, speedup=np.nan)


def efficiency(rows: pd.DataFrame) -> float:
    return float((rows["accepted_tokens"] + rows["bonus_tokens"]).sum() / rows["steps"].sum())


def test_halves_are_picked_and_measured_as_by_hand() -> None:
    records = made(dict.fromkeys(TREES, 1.5), seed=3, turns=2)
    halves = Halves(records)
    half = dict(zip(sorted(records["prompt_id"].unique()), halves.half, strict=True))
    side = records["prompt_id"].map(half)
    standing, leaders, runners = halves.standing(TREES), [], []
    for own in (0, 1):
        other = records[side != own]
        ranked = sorted(TREES, key=lambda tree: -efficiency(other[other["tree"] == tree]))
        leaders.append(ranked[0])
        runners.append(ranked[1])
    assert [TREES[place] for place in standing.leaders] == leaders
    assert [TREES[place] for place in standing.runners] == runners
    assert len(set(leaders)) == 2, "this seed has halves that differ"
    own = [
        pd.concat([records[(side == number) & (records["tree"] == tree)] for number, tree in enumerate(picked)])
        for picked in (leaders, runners)
    ]
    assert standing.value.value == pytest.approx(efficiency(own[0]))
    assert standing.lead.value == pytest.approx(efficiency(own[0]) - efficiency(own[1]))
    picked, least = halves.best("block_efficiency", TREES, lowest=True)
    for number, place in enumerate(picked):
        other = records[side != number]
        assert TREES[place] == min(TREES, key=lambda tree: efficiency(other[other["tree"] == tree]))
    assert least.value < standing.value.value + 0.5


def test_every_prompt_with_its_turns_is_in_one_half_and_categories_are_split() -> None:
    records = made({"chain": 1.0}, prompts=10, turns=3)
    halves = Halves(records)
    assert len(halves.half) == 10 and sorted(halves.half) == [0] * 5 + [1] * 5
    odd = [half for place, half in enumerate(halves.half) if place % 2]
    assert set(odd) == {0, 1}


def test_the_best_of_equals_is_not_flattered() -> None:
    """Forty shapes that are alike: the best looks better than it is, but not when it is measured elsewhere."""
    names = [f"kary-k{number}" for number in range(40)]
    naive, crossed, above = [], [], 0
    for seed in range(40):
        halves = Halves(made(dict.fromkeys(names, 1.5), prompts=16, seed=seed))
        own = [halves.over_prompts("block_efficiency", name).value for name in names]
        standing = halves.standing(names)
        naive.append(max(own) - np.mean(own))
        crossed.append(standing.value.value - np.mean(own))
        above += standing.lead.low > 0
    assert np.mean(naive) > 0.12
    assert abs(np.mean(crossed)) < 3 * np.std(crossed) / np.sqrt(len(crossed)) < 0.08
    assert above <= 5


def test_equal_shapes_are_no_rivals() -> None:
    records = made({"chain": 2.0, "beam": 1.0})
    twin = records[records["tree"] == "chain"].assign(combination="kary", tree="kary")
    standing = Halves(pd.concat([records, twin])).standing(["chain", "kary", "beam"])
    assert (standing.leaders, standing.runners) == ((0, 0), (2, 2))
    alone = Halves(pd.concat([records, twin])).standing(["chain", "kary"])
    assert alone.runners == (-1, -1) and not alone.lead.known


def test_where_both_halves_pick_one_row_its_own_interval_stands() -> None:
    rows = pd.DataFrame({"combination": ["chain", "beam"], "block_efficiency": [3.0, 2.0]})
    rows = rows.assign(block_efficiency_lo=2.9, block_efficiency_hi=3.1)
    halves = Halves(made({"chain": 2.0, "beam": 1.0}))
    for known in (halves, None, Halves(made({"kary": 1.0}))):
        top, value = best_row(known, rows, "block_efficiency")
        assert top["combination"] == "chain" and value == Interval(3.0, 2.9, 3.1)


def test_an_estimate_keeps_the_error_of_its_costs() -> None:
    records = made(dict.fromkeys(TREES, 1.5), seed=5)
    halves = Halves(records)
    own = pd.DataFrame([halves.over_prompts("est_speedup", tree)._asdict() for tree in TREES])
    wide = 1.5  # what costs may be wrong by
    rows = pd.DataFrame({"combination": TREES, "est_speedup": own["value"], "est_speedup_lo": own["low"] / wide,
                         "est_speedup_hi": own["high"] * wide})  # fmt: skip
    picked, narrow = halves.best("est_speedup", list(rows.sort_values("est_speedup", ascending=False)["combination"]))
    assert picked != (0, 0)
    _, value = best_row(halves, rows, "est_speedup")
    assert value.value == narrow.value and value.low < narrow.low / 1.2 and value.high > narrow.high * 1.2


def leads_of(folder: Path, records: pd.DataFrame) -> list[Lead]:
    """Of a study with these records at one budget."""
    write_study(folder, trees=tuple(records["tree"].unique()), budgets=(4,))
    keys = pd.read_csv(folder / "summary.csv")[COMBINATION_KEYS].assign(**EARLIER_KEYS)
    records = records.drop(columns="combination").merge(keys, on="tree").assign(repeat=0)
    records.reindex(columns=COLUMNS["records.csv"]).to_csv(folder / "records.csv", index=False)
    full = records.reindex(columns=[*dict.fromkeys([*COLUMNS["records.csv"], *HELPERS])])
    summarise(full, COMBINATION_KEYS).to_csv(folder / "summary.csv", index=False)
    comparisons(full).to_csv(folder / "comparisons.csv", index=False)
    return findings_of(read_study(folder)).leads


def test_without_records_leaders_are_picked_and_measured_on_the_same_prompts(tmp_path: Path) -> None:
    findings = findings_of(read_study(write_study(tmp_path / "study", trees=TREES, budgets=(4,))))
    assert findings.halves is None and all(lead.picked == () and lead.agreed for lead in findings.leads)
    assert halves_of(tmp_path) is None


def test_halves_that_pick_different_leaders_leave_it_open(tmp_path: Path) -> None:
    records = made(dict.fromkeys(TREES, 1.5), seed=3)
    (lead,) = leads_of(tmp_path / "study", records)
    assert len(set(lead.picked)) == 2 and not lead.agreed and lead.verdict == "open"
    standing = Halves(records).standing(TREES)
    assert lead.value.value == pytest.approx(standing.value.value, abs=1e-4)
    assert lead.lead.value == pytest.approx(standing.lead.value, abs=1e-4)
    assert "the halves of the prompts pick " in plain(lead_sentence(lead))


def test_a_lead_above_0_of_two_different_leaders_is_open_too(tmp_path: Path) -> None:
    """What each half picks is ahead of its runner-up on the whole, but it is not one shape that is ahead."""
    records = made({"chain": 0.0, "beam": 0.0, "wide": 0.0})
    half = dict(zip(sorted(records["prompt_id"].unique()), Halves(records).half, strict=True))
    rates = {
        ("chain", 0): 10.0,
        ("wide", 0): 9.5,
        ("beam", 0): 9.4,
        ("beam", 1): 8.01,
        ("chain", 1): 8.0,
        ("wide", 1): 1.0,
    }
    own = [rates[tree, half[prompt]] for tree, prompt in zip(records["tree"], records["prompt_id"], strict=True)]
    noise = np.random.default_rng(1).normal(0, 1e-3, len(own))
    (lead,) = leads_of(tmp_path / "study", records.assign(accepted_tokens=(own + noise) * records["steps"]))
    assert set(lead.picked) == {"chain", "beam"} and lead.lead.low > 0 and lead.verdict == "open"


def test_halves_that_pick_one_leader_leave_the_numbers_of_the_tables(tmp_path: Path) -> None:
    records = made({"chain": 2.0, "kary": 1.0, "beam": 0.2})
    (lead,) = leads_of(tmp_path / "study", records)
    summary = pd.read_csv(tmp_path / "study" / "summary.csv").set_index("tree").loc["chain"]
    assert lead.value == Interval.of(summary, "block_efficiency") and lead.verdict == "clear"
    assert lead.picked == ("chain", "chain") and lead.agreed


def test_records_may_be_parquet(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    of_csv = leads_of(folder, made(dict.fromkeys(TREES, 1.5), seed=3))
    read_records(folder).to_parquet(folder / RECORDS_PARQUET)
    (folder / RECORDS).unlink()
    assert findings_of(read_study(folder)).leads == of_csv
    (folder / RECORDS_PARQUET).write_bytes(b"torn")
    assert halves_of(folder) is None
