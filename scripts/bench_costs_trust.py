"""How often costs are refused as not reliable: with two busy processes beside the measuring, and without.

    python scripts/bench_costs_trust.py [--pair zoo] [--times 10] [--busy 2] [--limit-s 30]

Must: with two busy processes, every time; on a quiet machine, once in ten times at most. Where the machine is not
quiet by itself, the first half says so: `other work used ...` is then true.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from specdraft import load_pair
from specdraft.bench.costs import measure_costs
from specdraft.drafters.pair import Pair

LARGEST = 65  # tokens of the largest forward


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def refusals(pair: Pair, times: int, limit_s: float) -> int:
    """How many of so many measurements are refused; a line is printed for each."""
    refused = 0
    for number in range(times):
        curve = measure_costs(pair, LARGEST, limit_s)
        assert curve.measured is not None
        refused += bool(curve.doubts)
        used = curve.measured.elsewhere
        print(f"  {number + 1}: {curve.measured.seconds:.0f} s, elsewhere {used} cores: {curve.doubts or 'reliable'}")
    return refused


def main(
    pair: Annotated[str, typer.Option(help="a pair config")] = "zoo",
    times: Annotated[int, typer.Option(help="measurements of each half")] = 10,
    processes: Annotated[int, typer.Option("--busy", help="busy processes beside the second half")] = 2,
    limit_s: Annotated[float, typer.Option(help="seconds of one measurement")] = 30.0,
) -> None:
    loaded = load_pair(pair)
    alone = refusals(loaded, times, limit_s)
    print(f"alone: refused in {alone} of {times}")
    with busy(processes):
        beside = refusals(loaded, times, limit_s)
    print(f"beside {processes} busy processes: refused in {beside} of {times}")


if __name__ == "__main__":
    typer.run(main)
