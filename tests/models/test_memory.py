"""How much of which device's memory a batch may take."""

from __future__ import annotations

import pytest
import torch
from support.tiny_models import byte_tokenizer, tiny_llama

from specdraft.models.files import ModelInMemory
from specdraft.models.memory import out_of_gpu_memory, tokens_that_fit
from specdraft.models.placement import device_type_of
from specdraft.models.spec import ModelSpec


@pytest.mark.parametrize(("dtype", "tokens"), [(torch.float32, 10), (torch.float16, 20)])
def test_a_model_in_memory_is_sized_by_the_device_it_is_on(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tokens: int
) -> None:
    """A GPU beside it does not count, nor the type that a model would have there."""
    files = ModelInMemory(ModelSpec("target"), tiny_llama().to(dtype), byte_tokenizer())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: True)
    free = {"cpu": 4 * 10 * 384, "cuda": 2**40}  # a token takes 3 layers x keys and values x 2 heads x 8 x 4 bytes
    monkeypatch.setattr("specdraft.models.self_check.free_memory", lambda device: free[device.type])
    assert tokens_that_fit(files) == tokens
    assert device_type_of(files) == "cpu"


def test_only_a_gpu_runs_out_of_gpu_memory() -> None:
    assert out_of_gpu_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_gpu_memory(MemoryError())
