"""Whether measured costs can be trusted: the laws that they break on a machine that was not left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from specdraft.bench.load import Elsewhere
from specdraft.bench.measuring import Timing

Key = tuple[str, int]  # a quantity, and of how many tokens
TWIN = "verify_again_s"  # the duplicate of one verification: what differs between the two is drift


def doubts(timings: Mapping[Key, Timing], elsewhere: Elsewhere) -> list[str]:
    """A line for each reason not to trust these costs.

    Args:
        timings: with the quantities of `costs.measure_costs`.
        elsewhere: what others used of the processor meanwhile.
    """
    return [*_load(elsewhere), *_order(timings), *_drift(timings)]


def _load(elsewhere: Elsewhere) -> Iterator[str]:
    if elsewhere.disturbs:
        cores = f"{elsewhere.cores} core{'s' * (elsewhere.cores > 1)}"
        yield f"other work used {elsewhere.used:.1f} of {cores} while costs were measured"


def _order(timings: Mapping[Key, Timing]) -> Iterator[str]:
    """A step that verifies one node does all that a step of plain decoding does."""
    size = min(size for quantity, size in timings if quantity == "verify_s" and size >= 2)
    plain, node = timings["plain_s", 0], timings["verify_s", size].plus(timings["other_s", 0])
    if plain.exceeds(node):
        yield (
            f"a token of plain decoding ({milliseconds(plain.median)}) took longer than a step that verifies "
            f"{size} tokens ({milliseconds(node.median)})"
        )


def _drift(timings: Mapping[Key, Timing]) -> Iterator[str]:
    for (quantity, size), again in timings.items():
        if quantity == TWIN and again.differs(timings["verify_s", size]):
            first = timings["verify_s", size]
            yield (
                f"verifying {size} tokens, timed twice in each round, took {milliseconds(first.median)} and "
                f"{milliseconds(again.median)}"
            )


def milliseconds(seconds: float) -> str:
    """For people."""
    return f"{1000 * seconds:.3g} ms"
