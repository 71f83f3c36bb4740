from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from specdraft.errors import ResultsError
from specdraft.results.files import check_file_writable, check_folder_writable, to_csv, write_atomically
from specdraft.results.journal import Journal, Row, read_rows
from specdraft.results.metrics import Tally
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
    "pruning",
    "length",
    "batch",
    "cache",
    "acceptance",
    "temperature",
]
KEYS = [
    *COMBINATION_FIRST,
    "top_k",
    "top_p",
    "max_new_tokens",
    "draft_temperature",
    "cost_context",
    "cost_batch",
    "prompts",
    "prompt_id",
    "turn",
    "category",
    "repeat",
    "seed",
    "engine",
]
COMBINATION_KEYS = [key for key in KEYS if key not in ("prompt_id", "turn", "category", "repeat")]
COUNTS = [
    "steps",
    "drafted_tokens",
    "accepted_tokens",
    "bonus_tokens",
    "new_tokens",
    "pruned_tokens",
    "overhead_tokens",
]
TIMES = ["wall_s", "prefill_s", "draft_s", "predict_s", "verify_s", "other_s"]
MEASURED = ["acceptance_rate", "acceptance_length", "block_efficiency", "tokens_per_s", "speedup", "loop_share"]
RATIOS = [
    *MEASURED[:5],
    "est_tokens_per_s",
    "est_speedup",
    "alpha",
    "loop_share",
    "pruned_share",
    "regret_tokens",
    "nll",
    "plain_nll",
]
DETAIL_KEYS = ["combination", "pair", "drafter", "tree", "budget", "pruning", "length", "acceptance", "temperature",
               "draft_temperature", "engine"]  # fmt: skip
WITH_INTERVALS = [f"{name}{end}" for name in [*RATIOS, "perplexity", "nll_over_plain"] for end in ("", "_lo", "_hi")]
COLUMNS = {
    "records.csv": [*KEYS, *COUNTS, *TIMES, "latency_s", *RATIOS, "perplexity"],
    "summary.csv": [*COMBINATION_KEYS, *COUNTS, *TIMES, *WITH_INTERVALS, "latency_s_p50", "latency_s_p95"],
    "by_category.csv": [
        *COMBINATION_KEYS,
        "category",
        *COUNTS,
        *TIMES,
        *WITH_INTERVALS,
        "latency_s_p50",
        "latency_s_p95",
    ],
    "lengths.csv": [*DETAIL_KEYS, "acceptance_length", "steps"],
    "positions.csv": [*DETAIL_KEYS, "depth", "reached", "accepted", "conditional_rate", "marginal_rate"],
    "nodes.csv": [*DETAIL_KEYS, "rank_path", "reached", "accepted", "mean_weight"],
    "siblings.csv": [*DETAIL_KEYS, "depth", "rank", "reached", "accepted", "next_reached", "next_accepted"],
}
OWN_KEYS = {
    "records.csv": ["prompt_id", "turn", "repeat"],
    "summary.csv": [],
    "by_category.csv": ["category"],
    "lengths.csv": ["acceptance_length"],
    "positions.csv": ["depth"],
    "nodes.csv": ["rank_path"],
    "siblings.csv": ["depth", "rank"],
    "steps.csv": ["prompt_id", "turn", "repeat", "step"],
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
    tally.wall_s, tally.prefill_s, tally.draft_s, tally.verify_s, tally.plain_s = 1 + prompt / 8, 0.125, 0.25, 0.5, 2.0
    tally.predict_s = 0.0625
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
    return {file: list(csv.DictReader(io.StringIO(to_csv(table)))) for file, table in build_tables(rows, named).items()}


def reopened(path: Path) -> Journal:
    """What a journal holds when it is opened again."""
    journal = Journal(path)
    journal.close()
    return journal


def kept(journal: Journal) -> list[Row]:
    """Every row of a journal, as it is read."""
    return [one for key in journal for one in journal.read(journal.of(key).values())]


def open_journal(path: Path, names: str = "x") -> Journal:
    journal = Journal(path)
    for name in names:
        journal.add_combinations([(combination(name), ("w1", "w2"))])
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
        assert kept(again) == rows == kept(journal) == list(read_rows(tmp_path / "j"))
        assert again.combinations == {"x": combination("x"), "y": combination("y")}
        assert again.weights == dict.fromkeys("xy", ("w1", "w2"))

    def test_nothing_is_written_twice(self, tmp_path: Path) -> None:
        for _ in range(2):
            open_journal(tmp_path / "j").close()
        assert len((tmp_path / "j").read_bytes().splitlines()) == 1
        journal = Journal(tmp_path / "j")
        journal.add_combinations([(combination("x"), ("w1", "other"))])
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
            assert kept(torn) == [row("x", 1)]
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
        assert list(read_rows(path)) == kept(reopened(path)) == [row("x", 1), row("x", 2)]

    def test_row_of_an_unknown_combination_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "j").write_text(row("x", 1).to_json() + "\n")
        assert not len(reopened(tmp_path / "j"))

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
        assert kept(journal) == list(read_rows(tmp_path / "j")) == [row("x", 1)]

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
    def test_repeats_are_no_further_prompts(self) -> None:
        once, twice = (
            tables_of([row("x", p, "ab"[p % 2], r, lengths=(p % 4,) * 5) for p in range(20) for r in range(repeats)])[
                "summary.csv"
            ][0]
            for repeats in (1, 2)
        )
        assert int(twice["steps"]) == 2 * int(once["steps"])
        for end in ("", "_lo", "_hi"):
            assert twice[f"acceptance_length{end}"] == once[f"acceptance_length{end}"] != ""

    def test_one_prompt_has_no_interval(self) -> None:
        (summary,) = tables_of([row("x", 1), row("x", 1, repeat=1)])["summary.csv"]
        assert {summary[f"{name}{end}"] for name in RATIOS for end in ("_lo", "_hi")} == {""}
        assert summary["steps"] == "8"

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
            "turn",
            "repeat",
            "step",
            "drafted_tokens",
            "accepted_tokens",
            "bonus_tokens",
            "cut",
        ]
        assert list(listed.values())[-8:] == ["q1", "1", "0", "0", "3", "2", "1", "0"]

    def test_without_rows(self) -> None:
        for file, table in build_tables([], {"x": combination("x")}).items():
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
            for position in own["positions.csv"]:
                accepted, reached = int(position["accepted"]), int(position["reached"])
                assert float(position["conditional_rate"]) == pytest.approx(accepted / reached, rel=1e-5)
                assert float(position["marginal_rate"]) == pytest.approx(accepted / steps, rel=1e-5)
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
