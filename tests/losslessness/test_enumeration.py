from __future__ import annotations

import json

import pytest
import torch

from specdraft.acceptance import Recursive, TopK, Typical, registry
from specdraft.acceptance.judging import Judged
from specdraft.losslessness.certificate import largest_tie
from specdraft.losslessness.enumeration import EXACT, FAMILIES, enumerate_case, family, prove
from specdraft.models.check_result import SelfCheck
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import registry as shapes
from specdraft.trees.topology import Topology

LOSSLESS = [kind for kind, rule in registry().items() if rule.lossless and not rule.greedy_only]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_lossless_rule_is_proven(kind: str) -> None:
    proof = prove(registry()[kind](), ["chain", "wide", "by rank"])
    assert proof.exact
    assert proof.largest < EXACT
    assert "chain" in proof.families
    assert proof.verdict().startswith("proven by enumeration")
    assert json.loads(json.dumps(proof.as_dict()))["lossless"] is True


def test_the_families_that_a_rule_fits() -> None:
    assert prove(registry()["block"]()).families == ["chain"]
    assert prove(TopK()).families == list(FAMILIES)
    assert "by rank" not in prove(registry()["membership"](), ["wide", "by rank"]).families


def test_a_lossy_rule_says_how_far_off_it_is() -> None:
    proof = prove(Typical())
    assert (proof.lossless, proof.as_dict()["lossless"]) == (False, False)
    assert proof.largest > 0.1
    assert proof.verdict().startswith("lossy: ")
    assert prove(Typical(epsilon=1, delta=3)).enumerated != proof.enumerated  # its parameters count


class FromTheTarget(Recursive):
    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        return super().judge(tree, target_probs, draft_probs)._replace(residual=target_probs)


def test_a_fault_is_found_and_named() -> None:
    proof = prove(FromTheTarget(), ["chain"])
    assert not proof.exact
    assert proof.verdict().startswith("NOT lossless: ")
    assert "chain tree" in proof.verdict()
    assert proof.as_dict()["lossless"] is False


class SlightlyShy(Recursive):
    """Takes a child a millionth less often than it should."""

    def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
        judged = super().judge(tree, target_probs, draft_probs)
        return judged._replace(accept=judged.accept * (1 - 1e-6))


def test_a_fault_of_a_millionth_is_found() -> None:
    proof = prove(SlightlyShy(), ["chain"])
    assert 1e-8 < proof.largest < 1e-5
    assert not proof.exact
    assert proof.verdict().startswith("NOT lossless: ")
    assert (proof.as_dict()["limit"], proof.as_dict()["lossless"]) == (1e-9, False)


def test_the_near_tie_limit() -> None:
    """Two logits may be 1e-4 apart, or ten times as far as the self-check's forwards are."""
    assert largest_tie(SelfCheck(0.0, 1.0, 0.0, 2)) == 1e-4
    assert largest_tie(SelfCheck(5e-5, 1.0, 5e-5, 2)) == pytest.approx(5e-4)


def test_a_case_is_gone_through_once() -> None:
    before = enumerate_case.cache_info().hits
    prove(TopK(), ["wide"])
    gone_through = enumerate_case.cache_info().misses
    prove(TopK(), ["wide"])
    assert enumerate_case.cache_info().misses == gone_through
    assert enumerate_case.cache_info().hits >= before + 4


@pytest.mark.parametrize(
    ("topology", "kin"),
    [
        (shapes()["chain"]().at(4).topology, "chain"),
        (shapes()["kary"]().at(1).topology, "chain"),
        (shapes()["wide"]().at(4).topology, "wide"),
        (shapes()["kary"]().at(6).topology, "k-ary"),
        (shapes()["kary"]().at(5).topology, "mixed"),
        (shapes()["beam"]().at(9).topology, "mixed"),
        (shapes()["best_first"]().at(4).topology, "by rank"),
        (None, "by rank"),  # a fitted one
        (Topology([-1, 0, 0], [0, 0, 2]), "by rank"),
        (Topology([-1, 0, 0, 1], [0, 0, 2, 1]), "by rank"),
        (Topology([-1, 0, 1], [0, 0, 1]), "by rank"),
    ],
)
def test_family(topology: Topology | None, kin: str) -> None:
    assert family(topology) == kin
