"""Parts: what is written is read; what a crash tore or somebody changed is never a row."""

from __future__ import annotations

import random
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specdraft.errors import ResultsError
from specdraft.results.counted import REPLAYED, Counted, NodeCounts, StepCounts, joined
from specdraft.results.files import to_csv
from specdraft.results.parts import Parts, ReplayedRows, remove_parts
from specdraft.results.tables import build_tables

KEYS = {"pair": "p", "target": "t", "draft": "d", "drafter": "model", "dtype": "float32", "tree": "chain", "budget": 2,
        "nodes": 2, "depth": 2, "pruning": "none", "length": "constant", "acceptance": "greedy", "temperature": 0.0,
        "top_k": 0, "top_p": 1.0, "max_new_tokens": 8, "prompts": "made", "seed": 0, "engine": "replay"}  # fmt: skip


def counted(
    prompts: int, steps: int = 3, dynamic: bool = False, listed: bool = False, path: tuple[int, ...] = (0,)
) -> Counted:
    """Every prompt took so many steps, each accepting one of two nodes."""
    sums = {name: np.arange(prompts) + 0.25 for name in REPLAYED}
    sums |= {"steps": np.full(prompts, steps), "drafted_tokens": np.full(prompts, 2 * steps)}
    sums |= {"accepted_tokens": np.full(prompts, steps), "bonus_tokens": np.full(prompts, steps - 1)}
    total = prompts * steps
    both, first = np.array([total, total]), np.array([total, 0])
    nodes = NodeCounts([path, (0, 0)], both, both, first, first)
    prompt = np.repeat(np.arange(prompts), steps)
    cut = np.arange(total) % steps == steps - 1
    taken = StepCounts(prompt, np.full(total, 2), np.ones(total, dtype=np.int64), cut)
    depths = np.array([total, total]), np.array([total, 0])
    sizes = np.array([0, 1, total - 1]) if dynamic else np.zeros(0)
    return Counted(sums, np.array([0, total, 0]), *depths, nodes, dynamic, taken if listed else None, sizes)


def rows(name: str = "a", ids: str = "xyz", repeat: int = 0, **how: object) -> ReplayedRows:
    return ReplayedRows(name, ("w", "v"), repeat, tuple(ids), ("c",) * len(ids), counted(len(ids), **how))  # type: ignore[arg-type]


def tables(parts: Parts, *names: str) -> dict[str, pd.DataFrame]:
    named = {name: {"combination": name} | KEYS for name in names}
    return build_tables([], named, parts.read(parts))


def test_sizes_of_trees_that_differ_are_written(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts")
    parts.add([rows("a"), rows("b", dynamic=True)])
    parts.add([rows("b", repeat=1, dynamic=True)])
    made = tables(parts, "a", "b")["sizes.csv"]
    assert made[["combination", "drafted_tokens", "steps"]].to_numpy().tolist() == [["b", 1, 2], ["b", 2, 16]]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts")
    parts.add([rows("b", listed=True), rows("a")])
    parts.add([rows("a", repeat=1)])
    for kept in (parts, Parts(tmp_path / "parts")):
        made = tables(kept, "a", "b")
        records = made["records.csv"]
        assert records["combination"].tolist() == ["a"] * 6 + ["b"] * 3
        assert records["prompt_id"].tolist() == list("xyzxyzxyz")
        assert records["repeat"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
        assert records["steps"].tolist() == [3] * 9
        assert records["steps"].dtype == np.int64
        assert records["alpha"].tolist() == [1.0] * 9
        assert records["wall_s"].isna().all()
        nodes = made["nodes.csv"].set_index(["combination", "rank_path"])
        assert nodes.loc[("a", "0")].tolist()[-3:] == [18, 18, 1.0]
        assert nodes.loc[("b", "0/0")].tolist()[-3:] == [9, 0, 0.0]
        assert made["positions.csv"].query("combination == 'b'")[
            ["depth", "reached", "accepted"]
        ].to_numpy().tolist() == [
            [1, 9, 9],
            [2, 9, 0],
        ]
        assert made["lengths.csv"][["acceptance_length", "steps"]].to_numpy().tolist() == [[1, 18], [1, 9]]
        steps = made["steps.csv"].query("prompt_id == 'y'")
        listed = [["y", 1, 0, s, 2, 1, int(s < 2), int(s == 2)] for s in range(3)]
        assert steps.iloc[:, -8:].to_numpy().tolist() == listed


def test_a_node_of_a_dynamic_tree_is_weighed_over_all_steps(tmp_path: Path) -> None:
    """Also over those of rows that never had it, in another part."""
    parts = Parts(tmp_path)
    parts.add([rows("a", ids="xy", dynamic=True, path=(1,))])
    parts.add([rows("a", ids="z", dynamic=True)])
    made = tables(parts, "a")["nodes.csv"].set_index("rank_path")["mean_weight"]
    assert made.to_dict() == {"0": 3 / 9, "1": 6 / 9, "0/0": 0.0}


def test_a_row_that_is_made_again_is_there_once(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.add([rows("a"), rows("b")])
    parts.add([rows("a", steps=5, listed=True)])
    for kept in (parts, Parts(tmp_path)):
        made = tables(kept, "a", "b")["records.csv"]
        assert made[["combination", "steps"]].to_numpy().tolist() == [["a", 5]] * 3 + [["b", 3]] * 3
        (stored,) = kept.of(("a", ("w", "v"), 0))
        assert (stored.prompt_ids, stored.with_steps) == (frozenset("xyz"), True)


def test_new_prompts_stand_beside_the_old_ones(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.add([rows("a")])
    parts.add([rows("a", ids="u")])
    assert tables(Parts(tmp_path), "a")["records.csv"]["prompt_id"].tolist() == list("xyzu")


@pytest.mark.parametrize("where", ["cut", "changed", "emptied", "another file"])
def test_a_damaged_file_is_no_row(tmp_path: Path, where: str) -> None:
    parts = Parts(tmp_path)
    parts.add([rows("a", listed=True), rows("b")])
    parts.add([rows("c")])
    expected = parts.read(parts)
    file, rng = tmp_path / "000001.parquet", random.Random(0)
    whole = file.read_bytes()
    for _ in range(40):
        place = rng.randrange(4, len(whole) - 8)
        content = {
            "cut": whole[:place],
            "changed": whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :],
            "emptied": b"",
            "another file": b"PAR1" + bytes(place) + b"PAR1",
        }[where]
        file.write_bytes(content)
        kept = Parts(tmp_path)
        if kept.damaged:
            assert [key[0] for key in kept] == ["c"]
            (line,) = kept.damaged.values()
            assert line.startswith(f"{file}: ")
        else:  # what was changed says nothing of the rows
            assert where == "changed"
            assert kept.read(kept).equals(expected)
    file.write_bytes(whole[:50])
    kept = Parts(tmp_path)
    assert len(kept.remove_damaged()) == 1
    kept.add([rows("a")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000002.parquet", "000003.parquet"]


def test_a_part_that_is_gone_meanwhile(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.add([rows("a")])
    (tmp_path / "000001.parquet").unlink()
    with pytest.raises(ResultsError, match=r"000001\.parquet: is gone; run the same command again"):
        parts.read(parts)


def test_removing_leaves_what_is_foreign(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts")
    parts.add([rows("a")])
    (tmp_path / "parts" / "notes.txt").write_text("mine")
    remove_parts(tmp_path / "parts")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["notes.txt"]


def test_joining_is_counting_together() -> None:
    """Two sets of prompts, told apart by where they stand among all."""
    first, second = counted(2, steps=2, listed=True), counted(1, steps=4, listed=True, path=(1,))
    both = joined([first, second], [np.array([0, 2]), np.array([1])])
    assert both.sums["steps"].tolist() == [2, 4, 2]
    assert both.lengths.tolist() == [0, 8, 0]
    assert (both.reached.tolist(), both.accepted.tolist()) == ([8, 8], [8, 0])
    found = dict(zip(both.nodes.paths, zip(*(c.tolist() for c in both.nodes[1:]), strict=True), strict=True))
    assert found == {(0,): (4, 4, 4, 4), (1,): (4, 4, 4, 4), (0, 0): (8, 8, 0, 0)}
    assert both.steps is not None
    assert both.steps.prompt.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert both.steps.cut.tolist() == [False, True, False, False, False, True, False, True]


texts = st.text(st.sampled_from('ab,"\n=é '), max_size=4).filter(lambda text: not text.startswith(("=", "'")))


@given(st.lists(st.tuples(texts, st.floats(allow_nan=True, allow_infinity=False), st.integers(-5, 5)), max_size=8))
@settings(max_examples=60)
def test_tables_are_written_as_pandas_writes_them(listed: list[tuple[str, float, int]]) -> None:
    table = pd.DataFrame(listed, columns=["a,b", "fraction", "whole"]).assign(nothing=nan)
    expected = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    assert to_csv(table).replace("-0,", "0,") == expected.replace("-0,", "0,")
    assert to_csv(table.astype({"a,b": "category"})) == to_csv(table)
