"""How often a step waits for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import Decoding, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Caches
from specdraft.drafters.loaded.ranking import rank_by_key
from specdraft.drafters.pair import load_pair
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes.base import Plan
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


def begun(plan: Plan) -> Decoding:
    """A prompt after its first step, which makes what a tree needs on the device."""
    pair = load_pair("zoo")
    seat = Caches(pair).seat("dynamic")
    assert seat.drafter is not None
    coming = decode(seat.verifier, seat.drafter, plan, Greedy(), Sampling(), pair.encode("Once upon"), Ending(24))
    next(iter(coming))
    return coming


@pytest.fixture(autouse=True)
def ranked_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor children are ranked by a way that looks at the result."""
    monkeypatch.setattr("specdraft.drafters.loaded.tree_in_work.rank_tokens", rank_by_key)


@pytest.mark.parametrize("plan", [Chain().at(4), Kary().at(6)])
def test_a_greedy_step_waits_once(plan: Plan) -> None:
    coming = begun(plan)
    for _ in range(3):
        with counted() as reads:
            next(iter(coming))
        assert reads == {"tolist": 1}
