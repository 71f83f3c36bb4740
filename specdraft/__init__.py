"""Measure which draft tree gets how many tokens accepted in speculative decoding."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdraft.decoding.generate import Generation, SpeculativeDecoder
    from specdraft.drafters.pair import load_pair

__all__ = ["Generation", "SpeculativeDecoder", "__version__", "load_pair"]

try:
    __version__ = version("specdraft")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import the heavy parts only when they are asked for."""
    if name == "load_pair":
        from specdraft.drafters.pair import load_pair

        return load_pair
    if name in ("SpeculativeDecoder", "Generation"):
        from specdraft.decoding import generate

        return getattr(generate, name)
    raise AttributeError(f"module 'specdraft' has no attribute {name!r}")
