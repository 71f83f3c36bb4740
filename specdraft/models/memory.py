"""How much of a device's memory the texts of a batch may take."""

from __future__ import annotations

import sys

from specdraft.models.files import ModelFiles
from specdraft.models.placement import device_of, dtype_of

SHARE = 4  # of what is free, a fourth may go into cached states: weights of another model, logits and masks come on top


def out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory ran out: a CPU's allocator says so in words only."""
    if isinstance(error, MemoryError) or out_of_gpu_memory(error):
        return True
    return isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "allocate memory" in str(error))


def out_of_gpu_memory(error: BaseException) -> bool:
    """Whether it was a GPU's memory; only torch can say so."""
    if "torch" not in sys.modules:
        return False
    import torch

    return isinstance(error, torch.OutOfMemoryError)


def free_cached() -> None:
    """Give back what torch keeps of a GPU's memory."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tokens_that_fit(files: ModelFiles) -> int:
    """How many tokens of a batch, padding included, a model may cache in the memory that is free now; the model need
    not be loaded."""
    from specdraft.models.self_check import free_memory
    from specdraft.models.sizes import state_bytes

    per_token = state_bytes(files.config.get_text_config(), dtype_of(files).itemsize)
    return free_memory(device_of(files)) // SHARE // per_token
