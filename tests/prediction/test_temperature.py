from __future__ import annotations

import numpy as np
import pytest
import torch

from specdraft.prediction.temperature import INVERSES, Losses, fit_temperature, losses


def said(temperature: float, count: int = 4000, vocab: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and tokens that are drawn from softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, vocab, generator=generator)
    tokens = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)[:, 0]
    return logits, tokens


def test_losses_are_the_log_losses_at_each_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, tokens = said(0.6, count=37)
    monkeypatch.setattr("specdraft.prediction.temperature.ENTRIES", 8 * 50)
    found = losses(logits, tokens)
    assert found.tokens.tolist() == [37]
    for inverse, nats in zip(INVERSES, found.nats, strict=True):
        expected = torch.nn.functional.cross_entropy(logits.double() * inverse, tokens, reduction="sum")
        assert nats == pytest.approx(float(expected), rel=1e-5)


def test_the_grid_holds_temperature_one_and_goes_from_four_to_a_tenth() -> None:
    assert (1 / INVERSES[[0, 3, -1]]).tolist() == [4, 1, 0.1]


@pytest.mark.parametrize("temperature", [0.3, 0.45, 0.9, 1.0, 2.2])
def test_the_temperature_that_made_the_text_is_found(temperature: float) -> None:
    logits, tokens = said(temperature)
    fitted = fit_temperature([losses(logits[:1000], tokens[:1000]), losses(logits[1000:], tokens[1000:])])
    assert fitted.tokens == 4000

    def loss(value: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits.double() / value, tokens))

    assert fitted.value == pytest.approx(temperature, rel=0.08)
    assert all(loss(fitted.value) < loss(fitted.value * factor) for factor in (0.98, 1.02))
    assert fitted.loss == pytest.approx(loss(fitted.value), abs=1e-3)
    assert fitted.plain_loss == pytest.approx(loss(1), rel=1e-5)


def test_tokens_that_the_drafter_does_not_have_are_left_out() -> None:
    logits, tokens = said(1.0, count=20)
    logits[torch.arange(5), tokens[:5]] = -torch.inf
    found, rest = losses(logits, tokens), losses(logits[5:], tokens[5:])
    assert found.tokens.tolist() == [15] and np.allclose(found.nats, rest.nats)


def test_at_the_ends_of_the_grid_it_stays_there_and_without_tokens_it_is_one() -> None:
    logits, _ = said(1.0, count=50)
    assert fit_temperature([losses(logits, logits.argmax(-1))]).value == 0.1
    assert fit_temperature([losses(logits, logits.argmin(-1))]).value == 4
    assert fit_temperature([Losses(np.zeros(40), np.array([0]))]) == (1.0, 0.0, 0.0, 0)
