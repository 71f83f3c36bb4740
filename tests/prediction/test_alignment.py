"""Affine maps between states: closed forms beside the obvious ways, on states that are made up."""

from __future__ import annotations

from functools import reduce
from operator import add

import pytest
import torch

from specdraft.errors import ConfigError
from specdraft.prediction.alignment import Affine, RidgeFits, StateSums, choose_ridge, reduced_rank
from specdraft.prediction.alignment_quality import HeldOut
from specdraft.prediction.alignment_refine import Training, refine

DRAFT, TARGET = 6, 4


def made_up(count: int, noise: float = 0.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Affine]:
    """Draft states far from 0 and unlike in size, and the target's as an affine map of them."""
    rng = torch.Generator().manual_seed(seed)
    true = Affine(*(torch.randn(*shape, generator=rng).double() for shape in ((TARGET, DRAFT), (TARGET,))))
    x = torch.randn(count, DRAFT, generator=rng).double() * torch.arange(1, DRAFT + 1) + 20
    y = x @ true.weight.T + true.bias + noise * torch.randn(count, TARGET, generator=rng)
    return x, y, true


def close(first: Affine, second: Affine, atol: float) -> None:
    torch.testing.assert_close(first.weight, second.weight, atol=atol, rtol=0)
    torch.testing.assert_close(first.bias, second.bias, atol=atol, rtol=0)


def by_rows(x: torch.Tensor, y: torch.Tensor, ridge: float) -> Affine:
    """The slow way: a ridge as rows that are added to the centred states."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    scale = (x - mean_x).square().sum() / len(x) / DRAFT
    more = (len(x) * ridge * scale).sqrt() * torch.eye(DRAFT, dtype=x.dtype)
    rows, wanted = torch.cat([x - mean_x, more]), torch.cat([y - mean_y, torch.zeros(DRAFT, TARGET, dtype=y.dtype)])
    weight = torch.linalg.lstsq(rows, wanted).solution.T
    return Affine(weight, mean_y - weight @ mean_x)


def test_a_map_is_recovered() -> None:
    x, y, true = made_up(200)
    close(RidgeFits(StateSums.of(x, y)).fit(0.0), true, atol=1e-6)


def test_noise_is_left_over_as_it_was() -> None:
    x, y, _ = made_up(4000, noise=0.5)
    sums = StateSums.of(x, y)
    errors = RidgeFits(sums).fit(0.0).squared_errors(sums)
    assert errors.tolist() == pytest.approx([0.25] * TARGET, rel=0.1)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1.0])
def test_a_ridge_is_rows_that_are_added(ridge: float) -> None:
    x, y, _ = made_up(50, noise=1.0)
    close(RidgeFits(StateSums.of(x, y)).fit(ridge), by_rows(x, y, ridge), atol=1e-9)


def test_chunks_and_workers_say_what_one_look_says() -> None:
    x, y, _ = made_up(500, noise=1.0)
    chunks = [
        StateSums.of(*both) for both in zip(*(s.split([1, 2, 50, 7, 140, 200, 100]) for s in (x, y)), strict=True)
    ]
    workers = reduce(add, chunks[:3]) + reduce(add, chunks[3:])
    together = StateSums.of(x, y)
    assert workers.positions == 500
    close(RidgeFits(workers).fit(1e-3), RidgeFits(together).fit(1e-3), atol=1e-10)
    close(RidgeFits(workers - chunks[0] - chunks[5]).fit(0.1), by_rows(*rest(x, y), ridge=0.1), atol=1e-9)


def rest(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Without the first chunk and the sixth."""
    kept = torch.cat([torch.arange(1, 200), torch.arange(400, 500)])
    return x[kept], y[kept]


def test_errors_are_those_of_every_state() -> None:
    x, y, _ = made_up(60, noise=1.0)
    others = made_up(30, noise=2.0, seed=1)[:2]
    affine = RidgeFits(StateSums.of(x, y)).fit(0.01)
    missed = others[1] - others[0] @ affine.weight.T - affine.bias
    sums = StateSums.of(*others)
    torch.testing.assert_close(affine.squared_errors(sums), missed.square().mean(0), rtol=1e-9, atol=0)
    variance = others[1].var(0, correction=0)
    assert affine.r2(sums) == pytest.approx(float(1 - missed.square().mean(0).sum() / variance.sum()))
    torch.testing.assert_close(affine.r2_by_dimension(sums), 1 - missed.square().mean(0) / variance)


def test_the_ridge_is_the_one_that_predicts_folds_best() -> None:
    x, y, _ = made_up(30, noise=30.0)
    parts = [slice(0, 5), slice(5, 17), slice(17, 30)]
    ridges = (0.0, 0.01, 0.1, 1.0, 10.0)
    slow = {}
    for ridge in ridges:
        squares = []
        for part in parts:
            others = torch.ones(30, dtype=torch.bool)
            others[part] = False
            fitted = by_rows(x[others], y[others], ridge)
            squares.append((y[part] - x[part] @ fitted.weight.T - fitted.bias).square().sum())
        slow[ridge] = float(sum(squares)) / 30
    chosen = choose_ridge([StateSums.of(x[part], y[part]) for part in parts], ridges)
    assert chosen.errors == pytest.approx(slow, rel=1e-8)
    assert chosen.ridge == min(slow, key=slow.__getitem__) > 0


def test_states_that_span_too_little_need_a_ridge() -> None:
    x, _, true = made_up(100)
    x[:, 5] = x[:, 0] - 2 * x[:, 1]
    y = x @ true.weight.T + true.bias
    sums = StateSums.of(x, y)
    fits = RidgeFits(sums)
    with pytest.raises(ConfigError, match=r"fit.ridge=0: the 100 draft states span only 5 of their 6 dimensions"):
        fits.fit(0.0)
    assert fits.condition(0.0) == float("inf") > fits.condition(1e-6)
    assert fits.fit(1e-9).r2(sums) > 0.999999
    assert choose_ridge([sums, StateSums.of(*made_up(50)[:2])]).ridge > 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_lower_rank_loses_what_the_singular_values_say(rank: int) -> None:
    """In the metric of the output layer, and no more: the theorem of Eckart and Young."""
    x, y, _ = made_up(300, noise=2.0)
    output = torch.randn(9, TARGET, generator=torch.Generator().manual_seed(3)).double() * torch.tensor([5, 1, 1, 0.2])
    fits = RidgeFits(StateSums.of(x, y))
    fitted = fits.fit(0.0)
    lower = reduced_rank(fitted, fits.about, 0.0, rank, output)
    assert torch.linalg.matrix_rank(lower.weight) == rank
    values = torch.linalg.svdvals(output @ fitted.weight @ torch.linalg.cholesky(fits.about.xx))
    lost = (((fitted.weight - lower.weight) @ (x - x.mean(0)).T).T @ output.T).square().sum(1).mean()
    assert float(lost) == pytest.approx(float(values[rank:].square().sum()))
    torch.testing.assert_close(lower.weight @ x.mean(0) + lower.bias, y.mean(0))


def test_a_full_rank_is_no_limit() -> None:
    x, y, _ = made_up(100, noise=1.0)
    fits = RidgeFits(StateSums.of(x, y))
    output = torch.randn(9, TARGET, generator=torch.Generator().manual_seed(3)).double()
    close(reduced_rank(fits.fit(0.1), fits.about, 0.1 * fits.scale, TARGET, output), fits.fit(0.1), atol=1e-8)


def test_refining_finds_the_target_from_wherever_it_starts() -> None:
    """The target is a softmax of an affine map itself, so the one smallest divergence is 0."""
    x, y, true = made_up(600)
    output = torch.randn(7, TARGET, generator=torch.Generator().manual_seed(1)) * 0.3

    def logits(states: torch.Tensor) -> torch.Tensor:
        return (states.float() - true.bias.float()) @ output.T * 0.1

    about = StateSums.of(x, y).centred()
    for start in (Affine(true.weight * 0.5, true.bias), Affine(true.weight + 1.0, true.bias + 1)):
        refined = refine(start, about, x.float(), y.float(), logits, logits, Training(steps=200, batch=200, rate=0.3))
        assert refined.kl_before > 0.01
        assert refined.kl_after < 0.02 * refined.kl_before
        assert refined.gradient < 0.2
        wrong = logits(x @ refined.affine.weight.T + refined.affine.bias).softmax(-1) - logits(y).softmax(-1)
        assert float(wrong.abs().max()) < 0.1


def test_too_few_steps_are_not_called_converged() -> None:
    x, y, true = made_up(300)
    output = torch.randn(7, TARGET, generator=torch.Generator().manual_seed(1))

    def logits(states: torch.Tensor) -> torch.Tensor:
        return (states.float() - true.bias.float()) @ output.T * 0.1

    start, about = Affine(true.weight * 0, true.bias), StateSums.of(x, y).centred()
    few = refine(Affine(true.weight * 0.2, start.bias), about, x, y, logits, logits, Training(8, 100, 0.02))
    assert few.kl_after < few.kl_halfway < few.kl_before
    assert not few.converged


def test_figures_are_those_of_all_states() -> None:
    x, y, _ = made_up(40, noise=3.0)
    affine = RidgeFits(StateSums.of(x, y)).fit(0.1)
    output = torch.randn(9, TARGET, generator=torch.Generator().manual_seed(2)).double() * 0.2
    own = torch.randn(9, DRAFT, generator=torch.Generator().manual_seed(4)).double() * 0.2
    heads = {
        "aligned": lambda states: (states @ affine.weight.T + affine.bias) @ output.T,
        "own": lambda states: states @ own.T,
    }
    held_out = HeldOut(affine, heads, lambda states: states @ output.T)
    for first, last in ((0, 3), (3, 40)):
        held_out.add(x[first:last], y[first:last])
    found, mapped = held_out.figures(), x @ affine.weight.T + affine.bias
    wanted = (y @ output.T).log_softmax(-1)
    assert found.positions == 40
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(mapped, y).mean()))
    assert found.r2 == pytest.approx(float(1 - (y - mapped).square().sum() / (y - y.mean(0)).square().sum()))
    assert found.r2_by_dimension["least"] <= found.r2_by_dimension["median"] <= found.r2_by_dimension["most"]
    for name, head in heads.items():
        said = head(x).log_softmax(-1)
        assert found.heads[name].agreement == int((said.argmax(-1) == wanted.argmax(-1)).sum()) / 40
        assert found.heads[name].kl == pytest.approx(float((wanted.exp() * (wanted - said)).sum() / 40))
    assert 0 < found.heads["aligned"].agreement != found.heads["own"].agreement
