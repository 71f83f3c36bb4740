from __future__ import annotations

import re
from io import StringIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.tree import Tree

from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.topology import Topology
from specdraft.viewer.trees import MOST_LEVELS, step_tree, topology_tree

COMB = Topology.from_paths([path for depth in range(40) for path in ((*(0,) * depth, 0), (*(0,) * depth, 1))])


def drawn(tree: Tree, width: int = 80) -> list[str]:
    console = Console(width=width, file=StringIO(), color_system=None)
    with console.capture() as said:
        console.print(tree)
    return [line.rstrip() for line in said.get().splitlines()]


@st.composite
def deep_trees(draw: st.DrawFn) -> Topology:
    """A parent is mostly one of the last few nodes."""
    nodes = draw(st.integers(1, 90))
    back = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 30]), min_size=nodes, max_size=nodes))
    return Topology([-1, *(max(0, node - steps) for node, steps in enumerate(back, start=1))])


def test_a_long_chain_is_one_line() -> None:
    assert drawn(topology_tree(Chain().at(64).topology)) == ["root", "\u2514\u2500\u2500 0 \u00d764"]
    assert len(drawn(topology_tree(Chain().at(MOST_LEVELS).topology))) == MOST_LEVELS + 1


def test_chains_side_by_side() -> None:
    lines = drawn(topology_tree(Beam(width=2).at(41).topology))
    assert [line.split("\u2500 ")[-1] for line in lines] == ["root", "0 \u00d721", "1 \u2192 0 \u00d719"]


def test_a_branch_at_every_level() -> None:
    lines = drawn(topology_tree(COMB))
    assert len(lines) == 1 + 80
    assert sum("\u22ef after 0 \u00d712: " in line for line in lines) == 2


@pytest.mark.parametrize("width", [60, 80])
@given(deep_trees())
@example(COMB)
@example(Chain().at(64).topology)
def test_every_node_is_drawn_once(width: int, topology: Topology) -> None:
    labels = [f"n{node}" for node in range(len(topology))]
    lines = drawn(topology_tree(topology, labels), width)
    assert sorted(re.findall(r"n\d+", "\n".join(lines)), key=lambda name: int(name[1:])) == labels
    assert max(map(cell_len, lines)) <= width


def test_a_step_of_a_deep_tree() -> None:
    topology = Chain().at(30).topology
    words = [f"w{node}" for node in range(31)]
    text = " ".join(drawn(step_tree(topology, words, [0.5] * 31, [1, 2], "bonus")))
    assert re.findall(r"w\d+", text) == words
    assert text.index("\u2713 w2") < text.index("bonus") < text.index("\u2717 w3")
