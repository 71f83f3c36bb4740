from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from support.recorded import expansions, small

from specdraft.replay.best_first import walk
from specdraft.replay.reliability import calibration_error, merged, reliability
from specdraft.trees.shapes.best_first import BestFirst

PLAN = BestFirst(scores="calibrated", temperature=0.4).at(12)
Found = dict[tuple[str, str, int, int, int], list[float]]


def by_hand() -> Found:
    """[nodes, summed prediction, accepted], node by node in plain Python."""
    pair, found = small(), defaultdict(lambda: [0.0, 0.0, 0.0])
    for ranks, last, grown in zip(pair.packed.ranks, pair.packed.last.tolist(), expansions(pair, PLAN), strict=True):
        for start in range(last):
            depth, on_text = {0: 0}, {0: True}
            for place in range(12):
                parent, rank = int(grown.parent[start, place]), int(grown.rank[start, place])
                if parent < 0:
                    break
                depth[place + 1] = deep = depth[parent] + 1
                hit = start + deep <= last and on_text[parent] and rank == ranks[start + deep]
                on_text[place + 1] = bool(hit)
                if start + deep > last:
                    continue
                reached = grown.log_prob[start, place]
                above = grown.log_prob[start, parent - 1] if parent else 0.0
                said = {"survival": np.exp(reached)} | (
                    {"conditional": np.exp(reached - above)} if on_text[parent] else {}
                )
                for what, predicted in said.items():
                    score = (what, "score", -1, -1, min(int(predicted * 20), 19))
                    for key in (score, (what, "place", deep, rank, -1)):
                        found[key] = [a + b for a, b in zip(found[key], (1, predicted, hit), strict=True)]
    return dict(found)


def as_found(table: pd.DataFrame) -> Found:
    return {
        (row.what, row.by, row.depth, row.rank, row.bin): [row.nodes, row.predicted * row.nodes, row.accepted]
        for row in table.rename(columns={"rank": "rank"}).itertuples(index=False)
    }


def test_it_is_what_a_loop_over_the_nodes_counts() -> None:
    pair = small()
    table = reliability(walk(pair.packed, expansions(pair, PLAN)), pair.packed)
    found, expected = as_found(table), by_hand()
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(expected[key]) for key in expected)
    assert sum(row[2] for key, row in found.items() if key[:2] == ("survival", "score")) > 20


def test_parts_are_added() -> None:
    pair, grown = small(), expansions(small(), PLAN)
    everyone = reliability(walk(pair.packed, grown), pair.packed)
    parts = []
    for block in (np.arange(2), np.arange(2, len(grown))):
        packed = pair.packed.of(block)
        parts.append(reliability(walk(packed, [grown[i] for i in block]), packed))
    whole, one = as_found(merged(parts)), as_found(everyone)
    assert whole.keys() == one.keys() and all(whole[key] == pytest.approx(one[key]) for key in one)
    pd.testing.assert_frame_equal(merged([everyone]), everyone)


def test_the_calibration_error_of_a_table_made_by_hand() -> None:
    table = pd.DataFrame({"nodes": [10, 30], "predicted": [0.5, 0.9], "accepted": [2, 24]})
    assert calibration_error(table) == pytest.approx((10 * 0.3 + 30 * 0.1) / 40)
