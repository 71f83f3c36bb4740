"""The kinds of caches that live decoding can keep keys and values in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specdraft.errors import UnsupportedModelError

if TYPE_CHECKING:
    from specdraft.models.cached_model import CachedModel

USUAL = "dynamic"
# Type of device -> what `scripts/bench_decode.py` found to be the fastest there, with what making it takes: on a CPU
# compiled code is faster once it is made, which takes as long as a short study.
FASTEST = {"cpu": USUAL}
TIMES_ROUNDING = 8  # by so many times the rounding may another cache's logits differ


def resolved(cache: str, device_type: str) -> str:
    """What `auto` is on a device; where none was measured, what a cache usually is."""
    return FASTEST.get(device_type, USUAL) if cache == "auto" else cache


def with_cache(model: CachedModel, cache: str, name: str) -> CachedModel:
    """A model of the same weights that keeps a sequence of its own in another kind of cache.

    Args:
        model: with a growing cache.
        cache: `dynamic`, `static` or `graph`.
        name: the model's, for people.

    Raises:
        UnsupportedModelError: in that cache it does not give what it gives in its own.
    """
    from specdraft.models.graph_model import GraphModel
    from specdraft.models.self_check import tree_error
    from specdraft.models.static_model import StaticModel

    if cache == USUAL:
        return model
    other = {"static": StaticModel, "graph": GraphModel}[cache](model)
    usual, error = tree_error(model), tree_error(other)
    if not error <= TIMES_ROUNDING * usual:
        raise UnsupportedModelError(
            f"{name}: cache={cache} changes what the model says: tree logits differ from sequential ones by "
            f"{error:.2g}, in a growing cache by {usual:.2g}; expected cache={USUAL}"
        )
    return other
