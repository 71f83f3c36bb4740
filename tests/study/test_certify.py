"""When a rule is certified, wrong, or neither."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from specdraft.losslessness.live_texts import Checked
from specdraft.study.certify import RuleVerdict, Verdict


def verdict(passed: bool = True, tested: bool = True, proof: tuple[bool, bool] | None = (True, True)) -> RuleVerdict:
    checked = Checked("zoo", "topk", "kary", "temperature 1", "chi-square", passed, "", [], tested)
    known: Any = None if proof is None else SimpleNamespace(lossless=proof[0], exact=proof[1])
    return RuleVerdict(checked, known)


@pytest.mark.parametrize(
    ("rule", "certified", "wrong"),
    [
        (verdict(), True, False),
        (verdict(proof=None), True, False),
        (verdict(tested=False), False, False),
        (verdict(passed=False), False, True),
        (verdict(passed=False, tested=False), False, True),
        (verdict(passed=False, proof=None), False, True),
        (verdict(proof=(True, False)), False, True),
        (verdict(proof=(False, True)), False, True),
    ],
)
def test_a_rule_is_certified_where_all_that_was_looked_at_could_and_does_speak_for_it(
    rule: RuleVerdict, certified: bool, wrong: bool
) -> None:
    assert (rule.certified, rule.wrong) == (certified, wrong)


def test_one_rule_that_is_not_certified_is_enough() -> None:
    assert Verdict([verdict(), verdict()], []).certified
    assert not Verdict([verdict(), verdict(tested=False)], []).certified
    assert not Verdict([verdict(passed=False), verdict()], []).certified
