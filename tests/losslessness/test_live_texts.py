from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from specdraft.acceptance import AcceptanceRule, Greedy, Recursive, Rejection, TopK
from specdraft.acceptance.base import Accepted
from specdraft.acceptance.judging import Judged
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.pair import Pair
from specdraft.losslessness import live_texts
from specdraft.losslessness.live_texts import (
    Case,
    Cells,
    Checked,
    ChiSquare,
    check_live,
    fit,
    holm,
    pick,
    pooled,
    texts_needed,
)
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import RandomSource, seeded
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan, registry

PROMPTS = {"a": list(range(2, 12)), "b": list(range(40, 52))}
SAMPLED, PLAIN_TEXT = Sampling(1.0), Sampling(0.0)


def plan(kind: str, budget: int) -> Plan:
    return registry()[kind]().at(budget)


def case(rule: AcceptanceRule, sampling: Sampling = SAMPLED, tree: str = "kary", budget: int = 6) -> Case:
    return Case.of(registry()[tree](), budget, rule, sampling, 8)


def check(pair: Pair, *cases: Case, texts: int = 120, prompts: str = "ab") -> list[Checked]:
    return check_live(pair, cases, {name: PROMPTS[name] for name in prompts}, texts, 0, lambda what: None)


class TestCells:
    LAW = torch.tensor([0.5, 0.2, 0.2, 0.04, 0.03, 0.03])

    def test_they_are_all_that_can_happen(self) -> None:
        cells = Cells(lambda prefix: self.LAW, 2, 0.05, [1])
        assert sum(cells.chances.values()) == pytest.approx(1)
        assert cells.chances[1,] == pytest.approx(0.2)  # an end-of-sequence token ends the text
        assert cells.chances[0, 0] == pytest.approx(0.25)
        assert cells.chances[-4 - 1,] == pytest.approx(0.1)  # rare tokens share a cell
        assert [cells.of(text) for text in ([0, 0], [0, 0, 3], [1], [1, 4], [5, 0])] == [
            (0, 0),
            (0, 0),
            (1,),
            (1,),
            (-5,),
        ]

    def test_every_text_has_one(self) -> None:
        cells = Cells(lambda prefix: self.LAW.roll(len(prefix)), 3, 0.01, [])
        texts = torch.cartesian_prod(*[torch.arange(6)] * 3).tolist()
        mass = dict.fromkeys(cells.chances, 0.0)
        for text in texts:
            mass[cells.of(text)] += float(np.prod([self.LAW.roll(i)[token] for i, token in enumerate(text)]))
        assert mass == pytest.approx(cells.chances)


class TestFit:
    def test_rare_cells_are_put_together(self) -> None:
        expected, observed = pooled([(20.0, 18), (1.0, 3), (0.0, 1), (5.0, 4), (4.0, 4)])
        assert (expected.tolist(), observed.tolist()) == ([5.0, 5.0, 20.0], [8.0, 4.0, 18.0])
        assert pooled([(6.0, 5), (2.0, 3)])[0].tolist() == [8.0]

    def test_the_statistic(self) -> None:
        cells, statistic, p = fit([(50.0, 40), (50.0, 60)])
        assert (cells, statistic, p) == (2, 4.0, pytest.approx(0.0455, abs=1e-4))
        assert fit([(100.0, 100)])[2] == 1

    def test_what_cannot_happen_is_a_surprise(self) -> None:
        assert fit([(100.0, 99), (1e-9, 1)])[2] == 1e-9

    def test_holm(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert (holm([0.9, 0.8]), holm([])) == ([1.0, 1.0], [])


class TestPower:
    def test_the_limits(self) -> None:
        assert (live_texts.LEVEL, live_texts.FEWEST, live_texts.FEWEST_CELLS) == (0.001, 5, 3)

    def test_texts_that_would_do(self) -> None:
        law = torch.tensor([0.9, 0.06, 0.04])
        enough = texts_needed(law, 20)
        assert 125 <= enough <= 166  # the rarest token must be expected 5 times; a quarter more at most, in tens
        assert texts_needed(torch.tensor([0.5, 0.5]), 20) == 0

    def test_a_law_of_one_text_is_tested_by_any(self, tiny_pair: Pair) -> None:
        (checked,) = check(tiny_pair, case(TopK(), Sampling(1.0, top_k=1)), texts=20)
        assert (checked.passed, checked.tested, checked.tests[0]["cells"]) == (True, True, 1)

    def test_one_prompt_with_enough_cells_is_a_test(self, tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        def made(pair: Pair, case: Case, name: str, *more: Any) -> ChiSquare:
            return ChiSquare(name, 120, 1, 0.0, 1.0, 500) if name == "a" else ChiSquare(name, 120, 9, 4.0, 0.8, 120)

        monkeypatch.setattr(live_texts, "chi_square", made)
        (checked,) = check(tiny_pair, case(TopK()))
        assert checked.tested
        assert checked.verdict.startswith("120 texts on 1 prompts follow the target's own law")
        assert checked.verdict.endswith("; not tested on 1 more (too few cells)")


class TestPick:
    def test_the_smallest_tree_that_branches(self) -> None:
        cases = [
            case(TopK(), tree=tree, budget=n)
            for tree, n in (("chain", 4), ("wide", 2), ("kary", 14), ("kary", 6), ("best_first", 16))
        ]
        assert pick(cases) == [cases[3]]
        assert pick([*cases, case(Recursive(), tree="chain")])[1].tree == "chain"
        assert len(pick([cases[0], cases[0]._replace(sampling=Sampling(0.5))])) == 2

    def test_a_chain_stands_for_a_fitted_tree(self) -> None:
        (one,) = pick([case(TopK(), tree="sequoia", budget=8)])
        assert one.tree == "chain"
        assert one.plan.topology == plan("chain", 4).topology
        assert pick([case(TopK(), tree="sequoia"), case(TopK(), tree="wide", budget=9)])[0].tree == "wide"


class TakesAll(Rejection):
    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        judged = super().judge(tree, target_probs, draft_probs)
        return judged._replace(accept=torch.ones_like(judged.accept))


class Worst(Greedy):
    def accept(self, *given: Any) -> Accepted:
        return super().accept(*given)._replace(bonus=int(given[1][0].argmin()))


class TestLive:
    @pytest.mark.slow
    def test_sampled_text_follows_the_target(self, tiny_pair: Pair) -> None:
        found = check(tiny_pair, case(Recursive()))
        others = case(TopK(), Sampling(0.7, top_p=0.8)), case(Rejection(), tree="chain")
        found += check(tiny_pair, *others, prompts="a")
        assert [one.rule for one in found] == ["recursive", "topk", "rejection"]
        assert all(one.passed and one.kind == "chi-square" for one in found), found
        assert [test["prompt_id"] for test in found[0].tests] == ["a", "b"]
        assert "follow the target's own law" in found[0].verdict

    @pytest.mark.slow
    def test_a_fault_is_found(self, tiny_pair: Pair) -> None:
        wrong, right = check(
            tiny_pair,
            *(case(rule, Sampling(0.5), "chain") for rule in (TakesAll(), Rejection())),
            texts=150,
            prompts="a",
        )
        assert (wrong.passed, right.passed) == (False, True)
        assert wrong.verdict.startswith("NOT lossless: ")

    def test_the_text_of_another_temperature_is_found(self, tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            live_texts, "standardise", lambda logits, sampling: standardise(logits, replace(sampling, temperature=0.6))
        )
        assert not check(tiny_pair, case(Recursive()))[0].passed

    def test_greedy_text_is_compared(self, tiny_pair: Pair) -> None:
        cases = case(Greedy(), PLAIN_TEXT), case(Worst(), PLAIN_TEXT), case(TopK())
        right, wrong, sampled = check(tiny_pair, *cases, texts=20)
        assert (right.passed, right.kind, sampled.kind) == (True, "greedy", "chi-square")
        assert right.verdict == "the text of 2 of 2 prompts is that of transformers' own greedy decoding"
        assert not wrong.passed
        assert "NOT lossless: prompt a: bug: " in wrong.verdict

    def test_a_cache_that_is_kept_changes_nothing(self, tiny_pair: Pair) -> None:
        ids, own = PROMPTS["a"], (plan("kary", 6), Recursive(), SAMPLED)
        models = Verifier.of(tiny_pair), tiny_pair.drafter

        def texts(again: bool) -> list[list[int]]:
            given = [(*own, ids, Ending(8), RandomSource(seeded(i))) for i in range(4)]
            return [decode(*models, *one, again=again and i > 0).finish().tokens for i, one in enumerate(given)]

        assert texts(again=True) == texts(again=False)
