"""How often a step waits for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from specdraft.acceptance import AcceptanceRule, registry
from specdraft.decoding.decode import Decoding, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Caches
from specdraft.drafters.loaded.ranking import rank_by_key
from specdraft.drafters.pair import load_pair
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource
from specdraft.trees.shapes.base import StaticPlan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

READS = ("tolist", "item", "cpu", "numpy", "__int__", "__float__", "__bool__", "__index__", "__array__")


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """By what a tensor's numbers were read on the host meanwhile: on a GPU each waits for what is queued."""
    reads: Counter[str] = Counter()

    def counting(name: str) -> object:
        plain = getattr(torch.Tensor, name)

        def read(self: torch.Tensor, *args: object, **kwargs: object) -> object:
            reads[name] += 1
            return plain(self, *args, **kwargs)

        return read

    with pytest.MonkeyPatch.context() as patched:
        for name in READS:
            patched.setattr(torch.Tensor, name, counting(name))
        yield reads


def fits(rule: AcceptanceRule, plan: StaticPlan) -> bool:
    return plan.topology.is_chain or not rule.chain_only


def begun(plan: StaticPlan, rule: AcceptanceRule) -> Decoding:
    """A prompt after its first step, which makes what a tree needs on the device."""
    pair = load_pair("zoo")
    seat = Caches(pair).seat("dynamic")
    assert seat.drafter is not None
    sampling = Sampling(0.0 if rule.greedy_only else 1.0)
    ids, source = pair.encode("Once upon"), RandomSource(torch.Generator().manual_seed(1))
    coming = decode(seat.verifier, seat.drafter, plan, rule, sampling, ids, Ending(64), source)
    next(iter(coming))
    return coming


@pytest.fixture(autouse=True)
def ranked_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor children are ranked by a way that looks at the result."""
    monkeypatch.setattr("specdraft.drafters.loaded.tree_in_work.rank_tokens", rank_by_key)


RULES = [rule() for rule in registry().values()]
FITTING = [(rule, plan) for plan in (Chain().at(4), Kary().at(6)) for rule in RULES if fits(rule, plan)]


@pytest.mark.parametrize(("rule", "plan"), FITTING)
def test_a_step_waits_once(rule: AcceptanceRule, plan: StaticPlan) -> None:
    coming = begun(plan, rule)
    for _ in range(3):
        with counted() as reads:
            next(iter(coming))
        there = rule.draw == "without_replacement"  # whether there are as many tokens left as children
        assert reads == {"tolist": 1 + there}
