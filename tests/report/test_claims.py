"""What a report claims, part by part, without drawing it."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report.answer import against_one, answer
from specdraft.report.confidence import confidence, gaps
from specdraft.report.findings import Findings, findings_of
from specdraft.report.leads import VERDICTS, Lead, difference, headlines
from specdraft.report.run_facts import run_facts
from specdraft.report.study_files import StudyFiles, read_study
from specdraft.report.tables import tables, winners_table
from specdraft.report.words import plain
from specdraft.results.intervals import Interval


def study_of(folder: Path, **options: Any) -> StudyFiles:
    return read_study(write_study(folder / "study", **options))


def with_values(study: StudyFiles, column: str, values: dict[tuple[str, int], float]) -> Findings:
    """Findings of a study in which trees have these values, and intervals 0.05 around them."""
    summary = study.summary.copy()
    for (tree, budget), value in values.items():
        rows = (summary["tree"] == tree) & (summary["budget"] == budget)
        summary.loc[rows, [column, f"{column}_lo", f"{column}_hi"]] = value, value - 0.05, value + 0.05
    return findings_of(replace(study, summary=summary))


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((1.2, 0.95, 1.4), "its interval holds 1, so neither"),
        ((1.2, 1.0, 1.4), "its interval holds 1, so neither"),
        ((1.2, 1.01, 1.4), "lies above 1, a gain"),
        ((0.9, 0.8, 1.0), "its interval holds 1, so neither"),
        ((0.9, 0.8, 1.05), "its interval holds 1, so neither"),
        ((0.9, 0.8, 0.99), "lies below 1, a loss"),
        ((1.2, nan, nan), "there is no interval"),
    ],
)
def test_a_gain_is_one_whose_whole_interval_is_above_one(interval: tuple[float, float, float], word: str) -> None:
    assert word in against_one(Interval(*interval))


@pytest.mark.parametrize(("low", "verdict"), [(0.001, "clear"), (0.0, "open"), (-0.001, "open"), (nan, "no interval")])
def test_a_lead_is_clear_above_zero_only(tmp_path: Path, low: float, verdict: str) -> None:
    study = study_of(tmp_path, trees=("chain", "kary"), budgets=(4,))
    compared = study.details["comparisons.csv"].assign(tree_a="kary", tree_b="chain", difference=0.2)
    study.details["comparisons.csv"] = compared.assign(difference_lo=low, difference_hi=low + 0.4)
    (lead,) = with_values(study, "block_efficiency", {("kary", 4): 2.5, ("chain", 4): 2.3}).leads
    assert (lead.tree, lead.runner, lead.verdict) == ("kary", "chain", verdict)
    assert "holds 0" in VERDICTS["open"] and VERDICTS["clear"].endswith("lies above 0")


def test_a_difference_is_turned_with_its_ends() -> None:
    table = pd.DataFrame(
        [{"tree_a": "a", "tree_b": "b", "difference": 0.5, "difference_lo": 0.1, "difference_hi": 1.5}]
    )
    known = {("zoo", 4): table}
    assert difference(known, "zoo", 4, "a", "b") == (0.5, 0.1, 1.5)
    assert difference(known, "zoo", 4, "b", "a") == (-0.5, -1.5, -0.1)
    assert not difference(known, "zoo", 8, "a", "b").known and not difference(known, "zoo", 4, "a", "c").known


def lead(budget: int, shapes: int, verdict: str = "clear", sizes: dict[str, int] | None = None) -> Lead:
    value, ahead = Interval(2.0, 1.9, 2.1), Interval(0.2, 0.1, 0.3)
    return Lead("zoo", budget, ("kary",), value, "chain", ahead, verdict, 2.2, shapes, sizes or {})


def test_leads_are_of_block_efficiency_whatever_else_was_compared(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", trees=("chain", "kary"), budgets=(4,))
    table = pd.read_csv(folder / "comparisons.csv")
    both = pd.concat([table.assign(metric="acceptance_rate", difference=9.0), table])
    both.to_csv(folder / "comparisons.csv", index=False)
    (first,) = findings_of(read_study(folder)).leads
    assert first.lead.known and abs(first.lead.value) < 1


def test_the_headline_is_of_the_most_shapes_then_of_the_largest_budget() -> None:
    few, many, larger = lead(64, 2), lead(4, 3), lead(8, 3)
    for order in ([few, many, larger], [larger, few, many]):
        assert headlines(order) == {"zoo": larger}
    assert headlines([few, many]) == {"zoo": many}


def test_references_are_shown_and_win_nothing(tmp_path: Path) -> None:
    study = study_of(tmp_path, trees=("chain", "kary", "beam", "hindsight"), budgets=(4,))
    values = {("hindsight", 4): 3.0, ("beam", 4): 2.6, ("kary", 4): 2.5, ("chain", 4): 2.4}
    (first,) = with_values(study, "block_efficiency", values).leads
    assert (first.tree, first.runner, first.hindsight, first.shapes) == ("beam", "kary", 3.0, 3)
    for live, column in ((True, "speedup"), (False, "est_speedup")):
        timed = study_of(tmp_path / column, trees=("chain", "kary", "hindsight"), budgets=(2, 4), live=live)
        speeds = {("hindsight", 4): 9.0, ("kary", 2): 1.8, ("kary", 4): 1.5, ("chain", 2): 1.2}
        said = " ".join(map(plain, answer(with_values(timed, column, speeds))))
        assert "1.80 [1.75, 1.85]" in said and "kary" in said and "9.0" not in said


def test_equals_lead_together_only_where_they_are_equal_on_every_prompt(tmp_path: Path) -> None:
    study = study_of(tmp_path, trees=("chain", "kary"), budgets=(4,))
    for low, trees in ((0.0, 2), (-0.1, 1)):
        study.details["comparisons.csv"] = study.details["comparisons.csv"].assign(
            difference=0.0, difference_lo=low, difference_hi=-low
        )
        (first,) = with_values(study, "block_efficiency", {("kary", 4): 2.5, ("chain", 4): 2.5}).leads
        assert len(first.trees) == trees


@pytest.mark.parametrize(
    ("verdicts", "prompts", "word"),
    [
        (("clear", "clear"), 20, "High: "),
        (("clear", "clear"), 19, "Fair: every lead is clear at the 95 % level, but on few prompts"),
        (("clear", "open"), 30, "Mixed: "),
        (("clear", "no interval"), 30, "Mixed: "),
        (("open", "no interval"), 30, "Low: "),
        (("no interval", "no interval"), 3, "Unknown: "),
        (("alone", "all equal"), 30, "Nothing to compare"),
    ],
)
def test_confidence_in_a_word(tmp_path: Path, verdicts: tuple[str, str], prompts: int, word: str) -> None:
    findings = findings_of(study_of(tmp_path, prompts=prompts))
    heads = {str(place): lead(4, 3, verdict) for place, verdict in enumerate(verdicts)}
    known = confidence(replace(findings, headlines=heads))
    assert known.word.startswith(word)
    few = any("That is few" in plain(reason) for reason in known.reasons)
    assert few == (5 <= prompts < 20)


def test_what_lowers_confidence_is_said(tmp_path: Path) -> None:
    findings = findings_of(study_of(tmp_path))
    looping, rows = findings.rows.copy(), findings.rows.assign(loop_share=0.3)
    looping.loc[looping.index[0], "loop_share"] = 0.31
    texts = [" ".join(map(plain, confidence(replace(findings, rows=table)).reasons)) for table in (looping, rows)]
    assert "Up to 31% of the text repeats itself" in texts[0] and "repeats itself" not in texts[1]
    failed = replace(findings.study, failures=[{"error": "x"}, {"error": "y"}])
    said = " ".join(map(plain, confidence(replace(findings, study=failed)).reasons))
    assert "2 combinations failed and are missing here" in said
    alone = findings_of(study_of(tmp_path / "one", trees=("chain",), budgets=(4,)))
    lacks = " ".join(map(plain, gaps(alone)))
    assert "A single shape (chain) was measured" in lacks and "A single budget (4 nodes) was measured" in lacks


def test_the_certificate_and_the_source_are_told_whole(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    certificate = {
        "kind": "greedy: compared",
        "compared": 12,
        "identical": 9,
        "replayed": 1234,
        "ties": [1, 2],
        "bugs": [3],
    }
    for dirty, word in ((True, "changed since"), (False, "unchanged")):
        manifest = study.manifest | {"certificate": certificate, "source": {"commit": "abc", "dirty": dirty}}
        facts = {fact.label: plain(fact.text) for fact in run_facts(replace(study, manifest=manifest))}
        assert facts["certificate"] == (
            "12 greedy texts were decoded live and compared with plain greedy decoding of the target: 9 identical, "
            "2 differences at a near-tie of two tokens, 1 difference that should not be. 1,234 rows are replayed along "
            "the target's own recorded texts, which no tree changes."
        )
        assert facts["source"] == f"abc, {word}"


def test_the_time_of_stages_is_told_over_pairs_longest_first(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    stages = {"a": {"record": 3.0, "load": 0.2, "costs": 30.2}, "b": {"record": 4.0, "load": 0.2}, "": {"tables": 1.6}}
    manifest = study.manifest | {"wall_s": 1234.4, "stages_s": stages}
    facts = {fact.label: plain(fact.text) for fact in run_facts(replace(study, manifest=manifest))}
    assert facts["time"] == "1,234 s, costs 30 s, record 7 s, tables 2 s"


def test_tables_say_what_estimates_and_sizes_are(tmp_path: Path) -> None:
    notes = {}
    for live in (False, True):
        listed = tables(findings_of(study_of(tmp_path / str(live), live=live)))
        notes[live] = next(plain(table.note) for table in listed if table.name == "summary")
    assert "Columns that begin with est_ are estimates." in notes[False] and "est_" not in notes[True]
    sized, plain_lead = lead(64, 2, sizes={"kary": 63}), lead(64, 2)
    assert "compete at the nearest budget" in plain(winners_table("x", "x", [sized], 1).note)
    assert "nearest budget" not in plain(winners_table("x", "x", [plain_lead], 1).note)
    assert winners_table("x", "x", [sized], 1).rows[0][2] == "kary (63 nodes)"
