"""How far the answer can be trusted, why, and what the study lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from specdraft.report.findings import Findings
from specdraft.report.leads import CLEAR, OPEN, UNKNOWN
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, plural, say
from specdraft.results.intervals import FEWEST_PROMPTS
from specdraft.results.metrics import MOST_LOOPING

ENOUGH_PROMPTS = 20


class Confidence(NamedTuple):
    """One word with its meaning, and the reasons for it."""

    word: str
    reasons: list[Text]


def confidence(findings: Findings) -> Confidence:
    """How sure the headlines are."""
    word = _word(Counter(lead.verdict for lead in findings.headlines.values()))
    if word.startswith("High") and findings.prompts is not None and findings.prompts < ENOUGH_PROMPTS:
        word = "Fair: every lead is clear at the 95 % level, but on few prompts"
    return Confidence(word, list(_reasons(findings)))


def _word(verdicts: Counter[str]) -> str:
    contested = verdicts[CLEAR] + verdicts[OPEN] + verdicts[UNKNOWN]
    if not verdicts:
        return "None: there are no results"
    if not contested:
        return "Nothing to compare"
    if verdicts[UNKNOWN] == contested:
        return "Unknown: no intervals"
    if verdicts[CLEAR] == contested:
        return "High: every lead named here is clear at the 95 % level"
    if not verdicts[CLEAR]:
        return "Low: no lead named here is clear at the 95 % level"
    return "Mixed: some leads are clear at the 95 % level, others are not"


def _reasons(findings: Findings) -> Iterator[Text]:
    verdicts = Counter(lead.verdict for lead in findings.leads)
    if rated := verdicts[CLEAR] + verdicts[OPEN]:
        yield say(
            "In {} of {} comparisons (setting and budget) the 95 % interval of the leader's lead over the "
            "runner-up lies above 0. Both are scored on the same prompts, so what differs between prompts cancels.",
            verdicts[CLEAR],
            rated,
        )
    if picked := [lead for lead in findings.leads if lead.picked and lead.verdict in (CLEAR, OPEN)]:
        agreed = sum(lead.agreed for lead in picked)
        yield say(
            "Leaders are picked on one half of the prompts and measured on the other, both ways: both halves pick the "
            "same shape in {} of {}.",
            agreed,
            plural(len(picked), "comparison"),
        )
    elif rated:
        yield say(
            "Leaders are picked and measured on the same prompts, which flatters them: the numbers of single prompts "
            "(records) that could tell by how much are not there."
        )
    if verdicts[UNKNOWN]:
        yield say(
            "{} no interval of the lead: nothing says how far it would carry over.",
            plural(verdicts[UNKNOWN], "comparison has", "comparisons have"),
        )
    if findings.prompts is not None:
        yield _about_prompts(findings.prompts)
    loops = findings.rows["loop_share"].max()
    if loops > MOST_LOOPING:
        yield say("Up to {} of the text repeats itself: part of the acceptance measures loops.", f"{loops:.0%}")
    if failures := len(findings.study.failures):
        yield say("{} failed and {} missing here.", plural(failures, "combination"), "is" if failures == 1 else "are")
    if len(findings.estimated) and not findings.decoded_live.all():
        of = " of replayed rows" if findings.decoded_live.any() else ""
        counted = "Token counts{} are replayed from recorded texts (exact under greedy decoding); {} are estimates."
        yield say(counted, of, "their times" if of else "times")


def _about_prompts(prompts: int) -> Text:
    if prompts < FEWEST_PROMPTS:
        there = "There is one prompt" if prompts == 1 else f"There are {prompts} prompts"
        return say("{}: no interval: fewer than {} prompts.", there, FEWEST_PROMPTS)
    few = (
        f" That is few: expect other prompts to differ ({ENOUGH_PROMPTS} or more are better)."
        if prompts < ENOUGH_PROMPTS
        else ""
    )
    return say("{} give the intervals.{}", plural(prompts, "prompt"), few)


def gaps(findings: Findings) -> Iterator[Text]:
    """What the study lacks, in words."""
    rows, study = findings.rows, findings.study
    if rows.empty:
        failures = plural(len(study.failures), "failure is", "failures are")
        yield say("No combination has results; {} recorded below.", failures)
        return
    if rows["block_efficiency_lo"].isna().all() and (findings.prompts is None or findings.prompts >= FEWEST_PROMPTS):
        yield say("No intervals: summary.csv has none.")
    if rows["tree"].nunique() == 1:
        yield say("A single shape ({}) was measured: nothing can win.", Name(visible(rows["tree"].iloc[0])))
    if rows["budget"].nunique() == 1:
        yield say(
            "A single budget ({}) was measured: how results grow with the budget cannot be seen.",
            plural(int(rows["budget"].iloc[0]), "node"),
        )
    if stepless := int(study.summary["block_efficiency"].isna().sum()):
        yield say("{} took no step, so that its ratios are empty.", plural(stepless, "combination"))
    if rows.duplicated(["panel", "tree", "budget"]).any():
        yield say(
            "Some rows share all their key columns (they differ in a setting that has no column); figures show "
            "the first of each."
        )
    yield from (say("{}", note) for note in study.notes)
