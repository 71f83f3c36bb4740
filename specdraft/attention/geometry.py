"""The heads of real models, as data."""

from __future__ import annotations

from typing import NamedTuple


class Geometry(NamedTuple):
    """One attention layer; `heads` is a multiple of `kv_heads`."""

    heads: int
    kv_heads: int
    head_dim: int


GEOMETRIES = {
    "zoo": Geometry(5, 5, 32),
    "smollm2-135m": Geometry(9, 3, 64),
    "llama-3.2-1b": Geometry(32, 8, 64),
    "llama-3.1-8b": Geometry(32, 8, 128),
    "llama-3.1-70b": Geometry(64, 8, 128),
}
