from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdraft.errors import ConfigError
from specdraft.losslessness.enumeration import EnumeratingSource, outcomes
from specdraft.sampling import randomness
from specdraft.sampling.randomness import Draw, NoSource, RandomSource, Source, draw_children


def seeded(seed: int = 0) -> RandomSource:
    return RandomSource(torch.Generator().manual_seed(seed))


def test_choose_follows_the_weights() -> None:
    weights = torch.tensor([[1.0, 0.0, 3.0, 4.0], [0.0, 5.0, 0.0, 0.0]]).repeat(20_000, 1)
    drawn = seeded().choose(weights)
    counts = drawn[::2].bincount(minlength=4).double() / 20_000
    assert torch.allclose(counts, torch.tensor([0.125, 0, 0.375, 0.5]).double(), atol=0.015)
    assert (drawn[1::2] == 1).all()


@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]))
def test_choose_never_gives_an_id_without_weight(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(50, 30, generator=generator, dtype=dtype).exp() ** 4 * (
        torch.rand(50, 30, generator=generator) < 0.2
    )
    weights[:, 7] += 1e-30
    assert (weights.gather(-1, seeded(seed).choose(weights)[:, None]) > 0).all()


@pytest.mark.parametrize(("uniform", "chosen"), [(0.0, 1), (1 - 2**-53, 3)])
def test_choose_at_the_edges(monkeypatch: pytest.MonkeyPatch, uniform: float, chosen: int) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, uniform, dtype=torch.float64))
    weights = torch.tensor([[0.0, 0.1, 0.7, 0.3, 0.0], [0.0, 1e-12, 1e12, 1e-12, 0.0]])
    assert seeded().choose(weights)[0] == chosen
    assert weights[1, seeded().choose(weights)[1]] > 0
    assert flips(seeded(), 0.0, 1.0) == [False, True]


def test_a_row_without_weight_gives_some_id() -> None:
    assert 0 <= int(seeded().choose(torch.zeros(1, 4))) < 4


def flips(source: Source, *chances: float) -> list[bool]:
    """All of them matter."""
    every = torch.tensor(chances, dtype=torch.float64)
    said: list[bool] = source.flips(every, lambda flip: [flip(coin) for coin in range(len(every))]).tolist()
    return said


def test_each_flip_follows_its_probability() -> None:
    often, seldom = torch.tensor([flips(source, 0.8, 0.3) for source in [seeded()] * 20_000]).double().mean(0).tolist()
    assert (often, seldom) == (pytest.approx(0.8, abs=0.015), pytest.approx(0.3, abs=0.015))


def test_a_seed_repeats() -> None:
    weights = torch.rand(20, 9)
    draws = [(source.choose(weights).tolist(), flips(source, 0.5, 0.5)) for source in (seeded(3), seeded(3), seeded(4))]
    assert draws[0] == draws[1] != draws[2]


def test_a_generator_is_its_parts_and_nothing_else() -> None:
    def first(*parts: object) -> float:
        return float(torch.rand(1, generator=randomness.seeded(*parts)))

    others = [("a", 1, "d"), ("a", 2, "c"), ("b", 1, "c"), ("a", "1c"), ("a1", "c"), ("a", 1, "c", "")]
    assert len({first("a", 1, "c"), *(first(*parts) for parts in others)}) == 1 + len(others)
    assert first("a", 1, "c") == first("a", "1", "c")


def test_no_source_refuses() -> None:
    with pytest.raises(ConfigError, match="randomness"):
        flips(NoSource(), 0.5)
    with pytest.raises(ConfigError, match="randomness"):
        NoSource().choose(torch.ones(1, 2))


DRAFT = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.25, 0.75]], dtype=torch.float64)


def drawn_law(draw: Draw, count: int) -> Counter[tuple[tuple[int, ...], ...]]:
    def experiment(source: EnumeratingSource) -> tuple[tuple[int, ...], ...]:
        tokens, valid = draw_children(DRAFT, count, draw, source)
        return tuple(tuple(t[v].tolist()) for t, v in zip(tokens, valid, strict=True))

    law: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for outcome, chance in outcomes(experiment):
        law[outcome] += chance  # type: ignore[assignment]
    assert sum(law.values()) == pytest.approx(1, abs=1e-12)
    return law


def test_independent_draws_may_repeat() -> None:
    law = drawn_law("iid", 2)
    assert law[(0, 0), (2, 1)] == pytest.approx(0.5 * 0.5 * 0.75 * 0.25)
    assert all(len(row) == 2 for rows in law for row in rows)


def test_draws_without_replacement_end_with_the_support() -> None:
    law = drawn_law("without_replacement", 3)
    assert law[(2, 0, 1), (2, 1)] == pytest.approx(0.2 * 0.5 / 0.8 * 0.75)
    assert all(sorted(first) == [0, 1, 2] and sorted(second) == [1, 2] for first, second in law)


def test_ranks_are_not_drawn() -> None:
    with pytest.raises(ValueError, match="rank"):
        draw_children(DRAFT, 2, "rank", seeded())


def test_the_enumeration_is_complete() -> None:
    def experiment(source: EnumeratingSource) -> tuple[bool, int]:
        return (heads := flips(source, 0.25)[0]), int(source.choose(torch.tensor([[1.0, 0.0, 3.0 if heads else 1.0]])))

    found = list(outcomes(experiment))
    assert found == [((False, 0), 0.375), ((False, 2), 0.375), ((True, 0), 0.0625), ((True, 2), 0.1875)]


def test_coins_that_nobody_asks_for_are_not_enumerated() -> None:
    def experiment(source: EnumeratingSource) -> bool:
        said = source.flips(torch.full((9,), 0.5), lambda flip: flip(7) and flip(2)).tolist()
        return said[7] and said[2]

    assert list(outcomes(experiment)) == [(False, 0.5), (False, 0.25), (True, 0.25)]
