"""Trees for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from specdraft.trees.topology import Topology


@st.composite
def topologies(draw: st.DrawFn, max_nodes: int = 12) -> Topology:
    """Random trees in any listing order that keeps parents first, with gaps in the child ranks."""
    parents, ranks = [-1], [0]
    for node in range(1, draw(st.integers(0, max_nodes)) + 1):
        parent = draw(st.integers(0, node - 1))
        taken = {ranks[i] for i in range(1, node) if parents[i] == parent}
        parents.append(parent)
        ranks.append(draw(st.integers(0, max_nodes).filter(lambda rank, taken=taken: rank not in taken)))
    return Topology(parents, ranks)
