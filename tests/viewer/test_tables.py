"""Plans and results as tables in a terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from support.made_studies import write_study
from support.viewing import STUDY

from specdraft.viewer.tables import MOST_LINES, depth_table, summary_tables


def summary_of(folder: Path, trees: tuple[str, ...], budgets: tuple[int, ...] = (2, 4)) -> pd.DataFrame:
    return pd.read_csv(write_study(folder, trees=trees, budgets=budgets) / "summary.csv")


def printed(summary: pd.DataFrame, width: int = 120, coloured: bool = True) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=coloured, color_system="standard" if coloured else None)
    for table in summary_tables(summary):
        console.print(table)
    return stream.getvalue()


def test_few_combinations_have_a_line_each_with_their_interval(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "s", ("chain", "kary"))
    text = printed(summary)
    for row in summary.to_dict("records"):
        low, high = row["block_efficiency_lo"], row["block_efficiency_hi"]
        told = f"{row['block_efficiency']:.2f} [{low:.2f}, {high:.2f}]"
        (cells,) = [line.partition(told)[2].split() for line in text.splitlines() if told in line]
        names = ("acceptance_length", "acceptance_rate", "est_speedup")
        assert cells == [f"{row[name]:.2f}" for name in names]


def test_depths_of_the_best_tree_of_each_pair() -> None:
    keys = {"drafter": "model", "nodes": 4, "depth": 2}
    listed = [
        ("a", "one", "chain", 2.0),
        ("b", "one", "kary", 2.5),
        ("c", "one", "hindsight", 3.0),
        ("d", "two", "chain", 1.5),
    ]
    summary = pd.DataFrame(
        [keys | {"combination": c, "pair": p, "tree": t, "block_efficiency": e} for c, p, t, e in listed]
    )
    rates = {"a": (0.9, 0.9), "b": (0.8, 0.4), "c": (1.0, 1.0), "d": (0.3, 0.03)}
    positions = pd.DataFrame(
        [
            {"combination": name, "depth": deep, "conditional_rate": 0.7, "marginal_rate": rate}
            for name, of in rates.items()
            for deep, rate in enumerate(of, start=1)
        ]
    )
    stream = StringIO()
    Console(file=stream, width=80).print(depth_table(summary, positions))
    cells = [line.split() for line in stream.getvalue().splitlines()]
    assert ["kary", "4", "conditional", "0.70", "0.70"] in cells and ["marginal", "0.80", "0.40"] in cells
    assert ["marginal", "0.30", "0.03"] in cells and ["marginal", "0.90", "0.90"] not in cells
    assert depth_table(summary, positions[:0]) is None
    assert depth_table(pd.concat([summary.assign(pair=f"p{n}") for n in range(7)]), positions) is None


def test_without_intervals_and_without_steps_the_cells_say_so(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "s", ("chain",))
    summary.loc[0, ["block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]] = float("nan")
    summary.loc[1, ["block_efficiency_lo", "block_efficiency_hi"]] = float("nan")
    first, second = [line.split() for line in printed(summary).splitlines() if "chain" in line]
    assert first[2] == "-" and second[2] == f"{summary['block_efficiency'][1]:.2f}"


@pytest.mark.parametrize("reference", ["hindsight", "hindsight-md4"])
def test_a_reference_is_never_the_most_of_its_column(tmp_path: Path, reference: str) -> None:
    trees = ("chain", *(f"kary-k{k}" for k in range(2, 2 + MOST_LINES // 2)), reference)
    lines = printed(summary_of(tmp_path / "s", trees)).splitlines()
    shown = {line.split()[0]: line for line in lines if line.strip()}
    assert "\x1b[1;32m" not in shown[reference]
    assert sum("\x1b[1;32m" in line for line in shown.values()) >= 1


def test_the_default_study_is_a_grid_for_each_pair() -> None:
    summary = pd.read_csv(STUDY / "summary.csv")
    grids = summary_tables(summary)
    assert [str(grid.title).partition(":")[0] for grid in grids] == ["zoo", "zoo-distilled", "zoo-tiny"]
    for grid, (pair, rows) in zip(grids, summary.groupby("pair", sort=False), strict=True):
        trees, *columns = ([*column.cells] for column in grid.columns)
        counts = [int(str(column.header)) for column in grid.columns[1:]]
        values = rows.set_index(["tree", "nodes"])["block_efficiency"]
        assert len(values) == sum(str(cell) != "" for column in columns for cell in column)
        for nodes, column in zip(counts, columns, strict=True):
            there = {tree: values[tree, nodes] for tree in trees if (tree, nodes) in values}
            most = max((value for tree, value in there.items() if tree != "hindsight"), default=None)
            for tree, cell in zip(trees, column, strict=True):
                assert str(cell) == (f"{there[tree]:.2f}" if tree in there else ""), (pair, tree, nodes)
                assert bool(cell.style) == (tree != "hindsight" and there.get(tree) == most is not None)


def test_pairs_and_trees_do_not_wrap_at_80_columns(tmp_path: Path) -> None:
    summary = pd.concat(
        [summary_of(tmp_path / name, ("chain",)).assign(pair=name) for name in ("zoo-distilled", "zoo")]
    )
    summary["tree"] = "best_first-calibrated"
    lines = [line.split() for line in printed(summary, 80, coloured=False).splitlines()]
    assert [line for line in lines if line in (["zoo-distilled"], ["zoo"])] == [["zoo-distilled"], ["zoo"]]
    assert sum(line[:1] == ["best_first-calibrated"] for line in lines) == len(summary)


def test_a_sweep_without_rows_has_no_depths(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", trees=("chain",), budgets=(2,))
    summary, positions = (pd.read_csv(folder / name)[:0] for name in ("summary.csv", "positions.csv"))
    assert depth_table(summary.astype({"tree": "str"}), positions) is None
