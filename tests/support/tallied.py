"""Replay prompt by prompt, each alone: what `Counted` says of it, as a `Tally` beside a live run's.

What all prompts came to together must be the sum of what each came to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from specdraft.replay import best_first, expected, static
from specdraft.results.counted import Counted
from specdraft.results.metrics import COUNTS, Tally
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import NestedPlan
from specdraft.trees.topology import Topology


def tally_of(counted: Counted, closed: bool = True) -> Tally:
    """What one prompt came to; `closed`: no tree had a child without its better siblings."""
    sums = {name: column.tolist() for name, column in counted.sums.items()}
    assert {len(column) for column in sums.values()} == {1}
    nodes = counted.nodes
    depths = zip(counted.reached.tolist(), counted.accepted.tolist(), strict=True)
    counts = zip(nodes.paths, nodes.reached.tolist(), nodes.accepted.tolist(), strict=True)
    assert nodes.drafted.tolist() == pytest.approx(sums["steps"] * len(nodes.paths))
    tried = dict(zip(nodes.paths, nodes.reached.tolist(), strict=True))
    below = [max((n for path, n in tried.items() if path[:-1] == above), default=0) for above in nodes.paths]
    if closed:
        assert nodes.continued.tolist() == pytest.approx(below)
    else:
        at_most = [sum(n for path, n in tried.items() if path[:-1] == above) for above in nodes.paths]
        assert ((below <= nodes.continued) & (nodes.continued <= at_most)).all()
    return Tally(
        **{name: column[0] for name, column in sums.items()},
        lengths=Counter({accepted: n for accepted, n in enumerate(counted.lengths.tolist()) if n}),
        sizes=Counter({drafted: n for drafted, n in enumerate(counted.sizes.tolist()) if n}),
        positions={depth: [reached, hit] for depth, (reached, hit) in enumerate(depths, start=1) if reached},
        nodes={path: [reached, hit] for path, reached, hit in counts},
        dynamic=counted.dynamic,
    )


def steps_of(counted: Counted) -> list[list[int]]:
    """The steps of one prompt as `steps.csv` lists them: number, drafted, accepted, bonus, cut."""
    assert counted.steps is not None
    assert not counted.steps.prompt.any()
    steps = zip(*(column.tolist() for column in counted.steps[1:]), strict=True)
    return [[number, drafted, hit, int(not cut), int(cut)] for number, (drafted, hit, cut) in enumerate(steps)]


def alike(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    assert found.keys() == expected.keys()
    assert np.allclose([*found.values()], [expected[key] for key in found], rtol=1e-9)


def each_alone(together: Counted, alone: Sequence[Counted], closed: bool = True) -> list[Tally]:
    """Tallies of prompts (see `tally_of`), once their sum is seen to be what all came to."""
    tallies = [tally_of(one, closed) for one in alone]
    for name in COUNTS:
        assert np.allclose(together.sums[name], [getattr(t, name) for t in tallies], rtol=1e-9)
    by_length: Counter[Any] = Counter()
    by_depth: Counter[Any] = Counter()
    by_node: Counter[Any] = Counter()
    for t in tallies:
        by_length.update(t.lengths)
        by_depth.update({(d, place): n for d, both in t.positions.items() for place, n in enumerate(both)})
        steps = 0 if together.dynamic else t.steps
        by_node.update({(p, place): n for p, both in t.nodes.items() for place, n in enumerate((*both, steps))})
    nodes = together.nodes
    drafted = np.zeros(len(nodes.paths)) if together.dynamic else nodes.drafted
    depths = enumerate(zip(together.reached.tolist(), together.accepted.tolist(), strict=True), start=1)
    listed = zip(nodes.paths, nodes.reached, nodes.accepted, drafted, strict=True)
    alike({length: n for length, n in enumerate(together.lengths.tolist()) if n}, by_length)
    alike({(d, place): n for d, both in depths for place, n in enumerate(both) if both[0]}, by_depth)
    alike({(path, place): n for path, *counts in listed for place, n in enumerate(counts)}, by_node)
    return tallies


def _prompt_by_prompt(packed: PackedRanks, replayed: Callable[[slice], Counted]) -> list[Tally]:
    prompts = len(packed.last)
    return each_alone(replayed(slice(None)), [replayed(slice(i, i + 1)) for i in range(prompts)])


def replay(topology: Topology, packed: PackedRanks) -> list[Tally]:
    """See `static.replay`."""
    return _prompt_by_prompt(packed, lambda some: static.replay(topology, packed.of(some)))


def replay_steps(topology: Topology, packed: PackedRanks) -> list[list[list[int]]]:
    """Each prompt's steps."""
    some = (packed.of(slice(i, i + 1)) for i in range(len(packed.last)))
    return [steps_of(static.replay(topology, one, with_steps=True)) for one in some]


def replay_sampled(topology: Topology, weights: list[np.ndarray], packed: PackedRanks) -> list[Tally]:
    """See `expected.replay_sampled`."""
    return _prompt_by_prompt(
        packed,
        lambda some: expected.replay_sampled(topology, [weight[some] for weight in weights], packed.of(some)),
    )


def replay_dynamic(
    packed: PackedRanks, expansions: Sequence[Any], plan: NestedPlan
) -> tuple[list[Tally], list[list[list[int]]]]:
    """See `best_first.replay_dynamic`; and each prompt's steps."""

    def replayed(some: slice) -> Counted:
        walked = best_first.walk(packed.of(some), expansions[some])
        return best_first.replay_dynamic(walked, packed.of(some), plan, with_steps=True)[0]

    alone = [replayed(slice(i, i + 1)) for i in range(len(packed.last))]
    return each_alone(replayed(slice(None)), alone, not plan.searched), list(map(steps_of, alone))
