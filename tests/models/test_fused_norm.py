"""RMS norms in one call: those that are one, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.tiny_models import random_model

from specdraft.models.fused_norm import FusedNorm, fuse_norms

IDS = torch.arange(5, 13)[None]


def norms(model: Any) -> int:
    return sum(isinstance(layer, FusedNorm) for layer in model.modules())


@pytest.mark.parametrize(
    ("name", "fused"), [("llama", True), ("qwen3", True), ("gemma2", False), ("gpt2", False), ("gpt_neox", False)]
)
def test_outputs_are_the_models_own(name: str, fused: bool) -> None:
    model = random_model(name, "eager")
    one = fuse_norms(copy.deepcopy(model))
    assert bool(norms(one)) == fused
    assert one.state_dict().keys() == model.state_dict().keys()
    with torch.inference_mode():
        own, said = model(IDS).logits, one(IDS).logits
    assert (said - own).abs().max() <= 1e-5 * own.abs().max()


class OtherRMSNorm(torch.nn.Module):
    """Nearly one."""

    def __init__(self, shift: float = 0.0, eps: float = 1e-6, bias: bool = False) -> None:
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(torch.linspace(0.5, 2, 8)), 1e-6
        self.bias = torch.nn.Parameter(torch.zeros(8)) if bias else None
        self._shift, self._own = shift, eps

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        square = states.pow(2).mean(-1, keepdim=True)
        return states * torch.rsqrt(square + self._own) * (self.weight + self._shift)


@pytest.mark.parametrize(
    ("given", "fused"), [({}, True), ({"shift": 1.0}, False), ({"eps": 2e-6}, False), ({"bias": True}, False)]
)
def test_what_is_nearly_one_stays_as_it_is(given: dict[str, Any], fused: bool) -> None:
    model = torch.nn.Sequential(OtherRMSNorm(**given))
    assert norms(fuse_norms(model)) == fused


def test_other_types_stay_as_they_are() -> None:
    assert norms(fuse_norms(random_model("llama", "eager").bfloat16())) == 0
