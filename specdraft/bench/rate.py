"""How fast a device multiplies matrices now: what estimates of time go by before there are models to measure."""

from __future__ import annotations

import time

import torch

WIDTH = 4096  # of a weight matrix that no cache of a CPU holds
REPEATS = 2


@torch.inference_mode()
def flops_per_s(device: torch.device, dtype: torch.dtype, rows: int) -> float:
    """Floating-point operations a second of `[rows, WIDTH] x [WIDTH, WIDTH]`, the best of a few.

    Few rows are bound by memory, as decoding is; many by arithmetic, as reading a whole text is.
    """
    tokens, weights = (torch.ones(size, WIDTH, device=device, dtype=dtype) for size in (rows, WIDTH))
    seconds = min(_seconds(tokens, weights) for _ in range(REPEATS))
    return 2 * rows * WIDTH**2 / seconds


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    started = time.perf_counter()
    product = left @ right
    if product.is_cuda:
        torch.cuda.synchronize(product.device)
    return time.perf_counter() - started
