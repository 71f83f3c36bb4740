from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from specdraft.errors import ResultsError
from specdraft.results.files import check_file_writable, check_folder_writable, to_csv, write_atomically
from specdraft.results.intervals import Prompts, Resampler, intervals, ratio_of_sums
from specdraft.results.journal import Journal, Row, read_rows
from specdraft.results.metrics import HELPERS, Tally
from specdraft.results.tables import build_tables

COMBINATION_FIRST = [
    "combination",
    "pair",
    "target",
    "draft",
    "drafter",
    "dtype",
    "tree",
    "budget",
    "nodes",
    "depth",
    "acceptance",
    "temperature",
]
KEYS = [
    *COMBINATION_FIRST,
    "top_k",
    "top_p",
    "max_new_tokens",
    "prompts",
    "prompt_id",
    "category",
    "repeat",
    "seed",
    "engine",
]
COMBINATION_KEYS = [key for key in KEYS if key not in ("prompt_id", "category", "repeat")]
COUNTS = ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens"]
TIMES = ["wall_s", "draft_s", "verify_s", "other_s"]
MEASURED = ["acceptance_rate", "acceptance_length", "block_efficiency", "tokens_per_s", "speedup", "loop_share"]
RATIOS = [*MEASURED[:5], "est_tokens_per_s", "est_speedup", "alpha", "loop_share"]
DETAIL_KEYS = ["combination", "pair", "drafter", "tree", "budget", "acceptance", "temperature", "engine"]
WITH_INTERVALS = [f"{name}{end}" for name in RATIOS for end in ("", "_lo", "_hi")]
COLUMNS = {
    "records.csv": [*KEYS, *COUNTS, *TIMES, *RATIOS],
    "summary.csv": [*COMBINATION_KEYS, *COUNTS, *TIMES, *WITH_INTERVALS],
    "by_category.csv": [*COMBINATION_KEYS, "category", *COUNTS, *TIMES, *WITH_INTERVALS],
    "lengths.csv": [*DETAIL_KEYS, "acceptance_length", "steps"],
    "positions.csv": [*DETAIL_KEYS, "depth", "reached", "accepted"],
    "nodes.csv": [*DETAIL_KEYS, "rank_path", "reached", "accepted", "mean_weight"],
}
OWN_KEYS = {
    "records.csv": ["prompt_id", "repeat"],
    "summary.csv": [],
    "by_category.csv": ["category"],
    "lengths.csv": ["acceptance_length"],
    "positions.csv": ["depth"],
    "nodes.csv": ["rank_path"],
    "steps.csv": ["prompt_id", "repeat", "step"],
}


def combination(name: str, **changes: Any) -> dict[str, Any]:
    keys = dict.fromkeys(COMBINATION_KEYS, 0) | {
        "pair": "p",
        "target": "t",
        "draft": "d",
        "dtype": "float32",
        "tree": "chain",
    }
    return (
        keys
        | {"combination": name, "acceptance": "greedy", "engine": "live", "budget": 3, "nodes": 3, "depth": 3}
        | changes
    )


def row(
    name: str, prompt: int, category: str = "a", repeat: int = 0, lengths: tuple[int, ...] = (0, 1, 3, 1), **more: Any
) -> Row:
    """A row of chain steps with these accepted lengths, and seconds that differ from row to row."""
    tally = Tally(
        len(lengths), 3 * len(lengths), sum(lengths), len(lengths), 1 + sum(lengths) + len(lengths), prompt % 2
    )
    tally.wall_s, tally.draft_s, tally.verify_s, tally.plain_s = 1 + prompt / 8, 0.25, 0.5, 2.0
    tally.lengths = Counter(lengths)
    for depth in range(1, 4):
        reached = sum(a >= depth - 1 for a in lengths)
        tally.positions[depth] = tally.nodes[(0,) * depth] = [reached, sum(a >= depth for a in lengths)]
    return Row(name, ("w1", "w2"), f"q{prompt}", category, repeat, tally, **more)


def rows_of(names: str = "xy", prompts: int = 20, repeats: int = 1) -> list[Row]:
    """Rows of varied steps: some prompts have none, categories are `a` and `b`."""
    rng = np.random.default_rng(0)
    shape = [tuple(rng.integers(0, 4, rng.integers(0, 9)).tolist()) for _ in range(prompts)]
    return [
        row(n, p, "ab"[p % 2], r, shape[p][: 9 - 3 * r]) for n in names for r in range(repeats) for p in range(prompts)
    ]


def tables_of(rows: list[Row]) -> dict[str, list[dict[str, str]]]:
    """The tables as a reader of the files sees them."""
    named = {name: combination(name, tree=f"tree-{name}") for name in dict.fromkeys(r.combination for r in rows)}
    return {
        file: list(csv.DictReader(io.StringIO(to_csv(table))))
        for file, table in build_tables(rows, named, seed=0).items()
    }


def reopened(path: Path) -> Journal:
    """What a journal holds when it is opened again."""
    journal = Journal(path)
    journal.close()
    return journal


def open_journal(path: Path, names: str = "x") -> Journal:
    journal = Journal(path)
    for name in names:
        journal.add_combination(combination(name), ("w1", "w2"))
    return journal


class TestJournal:
    def test_round_trip(self, tmp_path: Path) -> None:
        rows = [
            row("x", 1),
            row("x", 2, tie={"position": 3, "gap": 1e-5}),
            row("y", 1, steps=[[0, 3, 1, 1, 0]]),
            row("x", 1, repeat=1),
        ]
        journal = open_journal(tmp_path / "j", "xy")
        for one in rows:
            journal.add_row(one)
        journal.close()
        again = reopened(tmp_path / "j")
        assert list(again.rows.values()) == rows == list(journal.rows.values()) == list(read_rows(tmp_path / "j"))
        assert again.combinations == {"x": combination("x"), "y": combination("y")}
        assert again.weights == dict.fromkeys("xy", ("w1", "w2"))

    def test_nothing_is_written_twice(self, tmp_path: Path) -> None:
        for _ in range(2):
            open_journal(tmp_path / "j").close()
        assert len((tmp_path / "j").read_bytes().splitlines()) == 1
        journal = Journal(tmp_path / "j")
        journal.add_combination(combination("x"), ("w1", "other"))
        journal.close()
        assert reopened(tmp_path / "j").weights == {"x": ("w1", "other")}

    def test_row_is_there_once_added(self, tmp_path: Path) -> None:
        journal = open_journal(tmp_path / "j")
        journal.add_row(row("x", 1))
        assert list(read_rows(tmp_path / "j")) == [row("x", 1)]  # flushed before it is closed
        journal.close()

    def test_last_line_torn_at_every_byte(self, tmp_path: Path) -> None:
        path = tmp_path / "j"
        journal = open_journal(path)
        journal.add_row(row("x", 1))
        before = path.stat().st_size
        journal.add_row(row("x", 2, steps=[[0, 3, 1, 1, 0]]))
        journal.close()
        whole = path.read_bytes()
        for end in range(before, len(whole)):
            path.write_bytes(whole[:end])
            assert list(read_rows(path)) == [row("x", 1)]
            torn = Journal(path)
            assert list(torn.rows.values()) == [row("x", 1)]
            torn.add_row(row("x", 2, steps=[[0, 3, 1, 1, 0]]))
            torn.close()
            assert path.read_bytes() == whole

    @pytest.mark.parametrize(
        "garbage",
        [
            *(
                b"",
                b"{",
                b"[]",
                b"7",
                b"null",
                b'"keys"',
                b'{"keys": 3}',
                b'{"keys": {}}',
                b'{"row": "x"}',
                b"\xff\x00",
                b"[" * 100_000,
            ),
            b'{"row":"x","weights":[],"prompt_id":"q","category":"c","repeat":0,"tally":{"x":1,"lengths":[],"positions":[],"nodes":[]}}',
        ],
    )
    def test_garbage_between_the_lines_costs_no_row(self, tmp_path: Path, garbage: bytes) -> None:
        path = tmp_path / "j"
        journal = open_journal(path)
        journal.add_row(row("x", 1))
        journal.close()
        with path.open("ab") as handle:
            handle.write(garbage + b"\n" + row("x", 2).to_json().encode() + b"\n" + garbage)
        assert list(read_rows(path)) == list(reopened(path).rows.values()) == [row("x", 1), row("x", 2)]

    def test_row_of_an_unknown_combination_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "j").write_text(row("x", 1).to_json() + "\n")
        assert not reopened(tmp_path / "j").rows

    def test_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        journal = open_journal(tmp_path / "j")
        journal.add_row(row("x", 1))

        def full(text: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(journal, "_handle", SimpleNamespace(write=full))
            with pytest.raises(
                ResultsError, match="j: cannot be written: No space left on device; what was written before is kept"
            ):
                journal.add_row(row("x", 2))
        journal.close()
        assert list(journal.rows.values()) == list(read_rows(tmp_path / "j")) == [row("x", 1)]

    def test_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(ResultsError, match="none/j: cannot be written: No such file"):
            Journal(tmp_path / "none" / "j")


class TestWriteAtomically:
    def test_bytes_stay_as_they_are(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "f", b"\x00\xff\r\n")
        assert (tmp_path / "f").read_bytes() == b"\x00\xff\r\n"

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("")
        with pytest.raises(ResultsError, match="f/below: cannot be written: Not a directory"):
            write_atomically(tmp_path / "f" / "below", "new")

    def test_text_that_cannot_be_encoded_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(UnicodeEncodeError):
            write_atomically(tmp_path / "f", "\ud800")
        assert os.listdir(tmp_path) == []

    def test_replaces(self, tmp_path: Path) -> None:
        for text in ("one\r\n\u00e9", "two"):
            write_atomically(tmp_path / "f", text)
            assert (tmp_path / "f").read_bytes() == text.encode()
        assert os.listdir(tmp_path) == ["f"]

    def test_a_failure_keeps_the_old_text(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_atomically(tmp_path / "f", "old")

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResultsError, match="f: cannot be written: No space left"):
            write_atomically(tmp_path / "f", "new")
        assert (tmp_path / "f").read_text() == "old"
        assert os.listdir(tmp_path) == ["f"]

    def test_onto_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "f").mkdir()
        with pytest.raises(ResultsError, match="Is a directory"):
            write_atomically(tmp_path / "f", "new")
        assert os.listdir(tmp_path) == ["f"]


class TestCheckWritable:
    def test_a_folder_is_made_and_stays_empty(self, tmp_path: Path) -> None:
        check_folder_writable(tmp_path / "a" / "b")
        assert os.listdir(tmp_path / "a" / "b") == []

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("")
        with pytest.raises(ResultsError, match="f: cannot be written: File exists; what was written before is kept"):
            check_folder_writable(tmp_path / "f")

    def test_a_file_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("old")
        for name in ("f", "new"):
            check_file_writable(tmp_path / name)
        assert os.listdir(tmp_path) == ["f"]
        assert (tmp_path / "f").read_text() == "old"

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("/nowhere/f", "--html /nowhere/f: there is no folder /nowhere"),
            ("/", "--html /: this is a folder; expected a file"),
            ("/proc/f", "--html /proc/f: cannot be written: "),
        ],
    )
    def test_a_file_that_cannot_be_written(self, path: str, message: str) -> None:
        with pytest.raises(ResultsError, match=f"^{message}"):
            check_file_writable(Path(path), "--html")
        with pytest.raises(ResultsError, match=f"^{message.removeprefix('--html ')}"):
            check_file_writable(Path(path))

    @pytest.mark.parametrize("name", ["x.pdf", "x", "html"])
    def test_what_is_written_belongs_to_the_ending(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ResultsError, match=rf"^--html .*{name}: expected a file that ends in \.html or \.htm$"):
            check_file_writable(tmp_path / name, "--html", (".html", ".htm"))
        check_file_writable(tmp_path / "x.HTML", "--html", (".html", ".htm"))


class TestTables:
    def test_columns_and_unique_keys(self) -> None:
        steps = [row("x", p, steps=[[s, 3, 1, 1, 0] for s in range(2)]) for p in range(2)]
        for rows, files in ((rows_of(repeats=2), COLUMNS.keys()), (steps, {*COLUMNS, "steps.csv"})):
            tables = tables_of(rows)
            assert tables.keys() == set(files)
            for file, listed in tables.items():
                assert listed
                assert list(listed[0]) == COLUMNS.get(file, list(listed[0]))
                keys = [tuple(r[key] for key in ["combination", *OWN_KEYS[file]]) for r in listed]
                assert len(keys) == len(set(keys))

    def test_steps_table(self) -> None:
        (listed,) = tables_of([row("x", 1, steps=[[0, 3, 2, 1, 0]])])["steps.csv"]
        assert list(listed) == [
            *DETAIL_KEYS,
            "prompt_id",
            "repeat",
            "step",
            "drafted_tokens",
            "accepted_tokens",
            "bonus_tokens",
            "cut",
        ]
        assert list(listed.values())[-7:] == ["q1", "0", "0", "3", "2", "1", "0"]

    def test_without_rows(self) -> None:
        for file, table in build_tables([], {"x": combination("x")}, seed=0).items():
            assert list(table.columns) == COLUMNS[file]
            assert table.empty

    @pytest.mark.parametrize(
        ("file", "keys"), [("summary.csv", ["combination"]), ("by_category.csv", ["combination", "category"])]
    )
    def test_summaries_are_sums_and_ratios_of_sums(self, file: str, keys: list[str]) -> None:
        tables = tables_of(rows_of(repeats=2))
        sums: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for record in tables["records.csv"]:
            group = sums[tuple(record[key] for key in keys)]
            for name in (*COUNTS, *TIMES):
                group[name] += float(record[name])
            group["plain_s"] += float(record["speedup"]) * float(record["wall_s"])
            group["looped"] += float(record["loop_share"]) * float(record["new_tokens"])
        assert len(tables[file]) == len(sums)
        for listed in tables[file]:
            s = sums[tuple(listed[key] for key in keys)]
            expected = {name: s[name] for name in (*COUNTS, *TIMES)} | {
                "acceptance_rate": s["accepted_tokens"] / s["drafted_tokens"],
                "acceptance_length": s["accepted_tokens"] / s["steps"],
                "block_efficiency": (s["accepted_tokens"] + s["bonus_tokens"]) / s["steps"],
                "tokens_per_s": s["new_tokens"] / s["wall_s"],
                "speedup": s["plain_s"] / s["wall_s"],
                "loop_share": s["looped"] / s["new_tokens"],
            }
            assert {name: float(listed[name]) for name in expected} == pytest.approx(expected, rel=2e-5)
            for name in MEASURED:
                ends = listed[f"{name}_lo"], listed[f"{name}_hi"]
                values = [
                    r[name] for r in tables["records.csv"] if all(r[key] == listed[key] for key in keys) and r[name]
                ]
                if ends == ("", ""):
                    assert len(set(values)) == 1  # prompts that are all alike
                else:
                    assert float(ends[0]) <= float(listed[name]) <= float(ends[1])

    def test_details_are_sums_over_prompts(self) -> None:
        rows = rows_of()
        tables = tables_of(rows)
        for name in "xy":
            own = {file: [r for r in listed if r["combination"] == name] for file, listed in tables.items()}
            lengths = sum((r.tally.lengths for r in rows if r.combination == name), Counter[int]())
            assert {int(r["acceptance_length"]): int(r["steps"]) for r in own["lengths.csv"]} == dict(lengths)
            steps = sum(lengths.values())
            (summary,) = own["summary.csv"]
            assert (int(summary["steps"]), summary["tree"]) == (steps, f"tree-{name}")
            assert int(summary["accepted_tokens"]) == sum(int(r["accepted"]) for r in own["positions.csv"])
            for position, node in zip(own["positions.csv"], own["nodes.csv"], strict=True):
                assert (node["reached"], node["accepted"]) == (position["reached"], position["accepted"])
                assert node["rank_path"] == "/".join("0" * int(position["depth"]))
                assert float(node["mean_weight"]) == pytest.approx(int(node["accepted"]) / steps, rel=1e-5)

    def test_prompt_without_steps(self) -> None:
        record, other = tables_of([row("x", 1, lengths=()), row("x", 2, lengths=(2,))])["records.csv"]
        assert [record[name] for name in ("acceptance_rate", "acceptance_length", "block_efficiency")] == ["", "", ""]
        assert (record["new_tokens"], record["steps"], other["acceptance_length"]) == ("1", "0", "2")

    def test_awkward_text_survives_the_file(self) -> None:
        awkward = 'a,"b"\nc\u00e9'
        one = row("x", 1, category=awkward)
        assert tables_of([one])["records.csv"][0]["category"] == awkward


def frame(above: list[float], below: list[float], categories: list[str]) -> pd.DataFrame:
    columns = {name: np.zeros(len(above)) for name in (*COUNTS, *TIMES, *HELPERS)}
    return pd.DataFrame(columns | {"accepted_tokens": above, "steps": below, "category": categories})


def bootstrap_t(
    above: Sequence[float], below: Sequence[float], categories: str, resampler: Resampler
) -> tuple[float, float]:
    """The interval by loops: prompts moved by their category's shrunk mean, resamples listed prompt by prompt."""
    count, names = len(above), sorted(set(categories))
    ratio = sum(above) / sum(below)
    off = [y - ratio * x for y, x in zip(above, below, strict=True)]
    freedom = float(count - 1)
    if len(names) > 1 and count - len(names) >= 3:
        members = {name: [r for r, c in zip(off, categories, strict=True) if c == name] for name in names}
        means = {name: sum(own) / len(own) for name, own in members.items()}
        f = (sum(len(own) * means[name] ** 2 for name, own in members.items()) / (len(names) - 1)) / (
            sum((r - means[c]) ** 2 for r, c in zip(off, categories, strict=True)) / (count - len(names))
        )
        kept = max(0.0, 1 - stats.f.ppf(0.9, len(names) - 1, count - len(names)) / f)
        off = [r - kept * means[c] for r, c in zip(off, categories, strict=True)]
        freedom -= kept * (len(names) - 1)
    distances = []
    for sample in resampler.weights(count).astype(int).tolist():
        drawn = [p for p, times in enumerate(sample) for _ in range(times)]
        moved = sum(off[p] for p in drawn) / sum(below[p] for p in drawn)
        left = sum((off[p] - moved * below[p]) ** 2 for p in drawn)
        error = math.sqrt(left * count / (count - 1)) / sum(below[p] for p in drawn)
        distances.append(abs(moved) / error)
    student = stats.t.ppf(0.975, count - 1)
    quantile = min(max(sorted(distances)[949], student), 4 * student) * stats.t.ppf(0.975, freedom) / student
    reach = quantile * math.sqrt(sum(r**2 for r in off) * count / freedom) / sum(below)
    return max(0.0, ratio - reach), ratio + reach


class TestIntervals:
    @pytest.mark.parametrize("categories", ["a" * 12, "ab" * 6, "abcde" * 3, "abcdefgh"])
    def test_against_the_obvious_loop(self, categories: str) -> None:
        rng = np.random.default_rng(len(categories))
        above = [float(x) for x in rng.integers(0, 60, len(categories))]
        below = [float(x) for x in rng.integers(10, 30, len(categories))]
        found = intervals(frame(above, below, list(categories)), Resampler(5))["acceptance_length"]
        assert found == pytest.approx(bootstrap_t(above, below, categories, Resampler(5)), rel=1e-4)

    def test_as_many_are_drawn_as_there_are_prompts(self) -> None:
        weights = Resampler(0).weights(8)
        assert weights.shape == (999, 8)
        assert set(weights.sum(axis=1).tolist()) == {8.0}
        assert set(np.unique(weights).tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}
        assert abs(float(weights.var()) - 0.875) < 0.03  # of a count in 8 draws from 8: 1 - 1 / 8
        assert np.array_equal(weights, Resampler(0).weights(8))
        assert not np.array_equal(weights, Resampler(1).weights(8))

    @pytest.mark.parametrize(("prompts", "there"), [(2, False), (4, False), (5, True)])
    def test_fewer_than_five_prompts_have_none(self, prompts: int, there: bool) -> None:
        given = frame([3.0, 8.0, 5.0, 6.0, 4.0][:prompts], [4.0] * prompts, ["a"] * prompts)
        low, high = intervals(given, Resampler(0))["acceptance_length"]
        assert (low < high) if there else (math.isnan(low) and math.isnan(high))

    def test_prompts_that_are_all_alike_have_none(self) -> None:
        """Nothing says how far another prompt would be from them."""
        found = intervals(frame([7.0] * 8, [4.0] * 8, ["a"] * 8), Resampler(0))
        assert all(math.isnan(end) for end in found["acceptance_length"])

    def test_one_that_differs_makes_it_wide(self) -> None:
        low, high = intervals(frame([0.0] * 7 + [8.0], [4.0] * 8, ["a"] * 8), Resampler(0), depth=4)[
            "acceptance_length"
        ]
        assert (low, high) == pytest.approx((0, 0.25 + 4 * 2.3646 * 0.25), rel=1e-3)  # 4 times Student's

    def test_never_beyond_what_is_possible(self) -> None:
        counts = {"steps": 9.0, "drafted_tokens": 36.0, "bonus_tokens": 9.0}
        accepted = [0.0, 36.0, 0.0, 36.0, 36.0]
        new = [1 + taken + 9 for taken in accepted]
        given = frame(accepted, [9.0] * 5, ["a"] * 5).assign(
            **counts, new_tokens=new, looped_tokens=[0.0, *new[1:2], 0.0, 0.0, 0.0], judged_tokens=9.0,
            overlap=[0.0, 9.0, 9.0, 9.0, 0.0])  # fmt: skip
        found = intervals(given, Resampler(0), depth=4.0)
        assert found["acceptance_rate"] == (0.0, 1.0)
        assert found["acceptance_length"] == (0.0, 4.0)
        assert found["block_efficiency"] == (1.0, 5.0)
        assert found["alpha"] == (0.0, 1.0)
        assert found["loop_share"][0] == 0.0 and found["loop_share"][1] <= 1.0

    def test_one_prompt_has_none(self) -> None:
        assert all(math.isnan(v) for pair in intervals(frame([3], [4], ["a"]), Resampler(0)).values() for v in pair)
        (summary,) = tables_of([row("x", 1), row("x", 1, repeat=1)])["summary.csv"]
        assert {summary[f"{name}{end}"] for name in RATIOS for end in ("_lo", "_hi")} == {""}
        assert summary["steps"] == "8"

    def test_repeats_are_no_further_prompts(self) -> None:
        once, twice = (
            tables_of([row("x", p, "ab"[p % 2], r, lengths=(p % 4,) * 5) for p in range(20) for r in range(repeats)])[
                "summary.csv"
            ][0]
            for repeats in (1, 2)
        )
        assert int(twice["steps"]) == 2 * int(once["steps"])
        for end in ("", "_lo", "_hi"):
            assert twice[f"acceptance_length{end}"] == once[f"acceptance_length{end}"]

    def test_prompts_without_a_step_do_not_count(self) -> None:
        some = [5.0, 7.0, 6.0, 9.0, 6.0]
        alone = intervals(frame(some, [4.0] * 5, ["a"] * 5), Resampler(0))["acceptance_length"]
        among = intervals(frame([*some, 0, 0], [4.0] * 5 + [0, 0], ["a"] * 7), Resampler(0))["acceptance_length"]
        assert alone == among and alone.lo < 1.65 < alone.hi
        low, high = intervals(frame([0] * 7 + [6], [0] * 7 + [4], ["a"] * 8), Resampler(0))["acceptance_length"]
        assert math.isnan(low) and math.isnan(high)

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.sampled_from("ab")), min_size=1, max_size=24))
    def test_are_ordered_and_never_negative(self, prompts: list[tuple[int, int, str]]) -> None:
        above, below, categories = (list(column) for column in zip(*prompts, strict=True))
        for low, high in intervals(frame(above, below, categories), Resampler(0)).values():
            assert (math.isnan(low) and math.isnan(high)) or 0 <= low <= high

    @pytest.mark.slow
    @pytest.mark.parametrize("sizes", [(16,) * 5, (4, 3, 3, 3, 3), (3, 3, 2, 2, 2)])
    def test_coverage_with_prompts_that_differ(self, sizes: tuple[int, ...]) -> None:
        """Categories differ, prompts within them differ more than their steps do; 64 tokens each."""
        codes = np.repeat(np.arange(5), sizes)
        rng = np.random.default_rng(3)

        def draw(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rate = rng.beta(4, 6 - codes)  # a prompt's own
            steps = np.maximum(1, np.rint(64 / (1 + 3 * rate))).astype(int)
            return rng.binomial(3 * steps, rate).astype(float), steps.astype(float)

        means = np.array([[part.mean() for part in draw(np.full(400_000, code))] for code in range(5)])
        truth = np.dot(sizes, means[:, 0]) / np.dot(sizes, means[:, 1])
        over, trials, hits = Prompts(codes, Resampler(0)), 2000, 0
        for _ in range(trials):
            low, high = over.interval(ratio_of_sums(*draw(codes)))
            hits += low <= truth <= high
        assert 0.93 <= hits / trials <= 0.97, f"{sum(sizes)} prompts: a 95 % interval covers {hits / trials:.1%}"


def test_row_json_is_one_line() -> None:
    text = row("x", 1, category="a\nb").to_json()
    assert "\n" not in text
    assert Row.from_json(json.loads(text)) == row("x", 1, category="a\nb")


def test_a_node_of_a_dynamic_tree_is_weighed_over_all_steps() -> None:
    """Any step could have held it, also those of prompts whose trees never did; a static tree's node by its own."""
    seen, unseen = row("x", 1), row("x", 2, lengths=(0, 0, 0, 0, 0, 0))
    for one, nodes in ((seen, {(0,): [4, 2], (1,): [4, 1]}), (unseen, {(0,): [6, 0]})):
        one.tally.nodes, one.tally.dynamic = nodes, True
    assert [float(node["mean_weight"]) for node in tables_of([seen, unseen])["nodes.csv"]] == [2 / 10, 1 / 10]
    for one in (seen, unseen):
        one.tally.dynamic = False  # as of a fitted shape: the second prompt's tree has no such node
    assert [float(node["mean_weight"]) for node in tables_of([seen, unseen])["nodes.csv"]] == [2 / 10, 1 / 4]
