"""Texts of several lengths, each decoded in a seat by a target and a draft model of its architecture."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from specdraft.acceptance import AcceptanceRule, Greedy
from specdraft.decoding.decode import Decoding, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Seat
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource, seeded
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from support.tiny_models import random_model

VOCAB = 90
KARY, CHAIN, DYNAMIC = Kary(k=2).at(6), Chain().at(3), BestFirst(max_depth=4).at(6)
LENGTHS = (3, 17, 9, 5, 30)
NEW = (12, 5, 14, 1, 9)  # so that places become free one by one


class Asked:
    """A text as it is asked for, and what of it does not depend on time."""

    def __init__(self, ids: Sequence[int], new: int, plan: Plan, rule: AcceptanceRule, sampling: Sampling) -> None:
        self.ids, self.ending, self.plan, self.rule, self.sampling = list(ids), Ending(new), plan, rule, sampling

    def __call__(self, seat: Seat) -> list[Any]:
        assert seat.drafter is not None
        source = RandomSource(seeded("text", self.ids))
        given = (self.plan, self.rule, self.sampling, self.ids, self.ending, source)
        return said(decode(seat.verifier, seat.drafter, *given, times=seat.times).finish())


def said(decoding: Decoding) -> list[Any]:
    steps = [(step.tree.token_list(), step.accepted, step.tokens, step.cut) for step in decoding.steps]
    return [decoding.tokens, *steps]


def texts_of(plan: Plan, rule: AcceptanceRule | None = None, sampling: Sampling | None = None) -> list[Asked]:
    choose = random.Random(1)
    prompts = [[choose.randrange(VOCAB) for _ in range(length)] for length in LENGTHS]
    how = (plan, rule or Greedy(), sampling or Sampling())
    return [Asked(ids, new, *how) for ids, new in zip(prompts, NEW, strict=True)]


@cache
def models(name: str) -> tuple[CachedModel, CachedModel]:
    """A target, and a draft model with noise on all its weights."""
    target, draft = random_model(name), random_model(name)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(0.1 * weight.std() * torch.randn_like(weight))
    return CachedModel(target, VOCAB), CachedModel(draft, VOCAB)
