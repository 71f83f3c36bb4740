"""What the report says of batches."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from support.made_studies import write_study

from specdraft.report.figures.base import Figure
from specdraft.report.figures.batches import PLAIN, batches
from specdraft.report.figures.canvas import canvas_of
from specdraft.report.findings import findings_of
from specdraft.report.study_files import read_study
from specdraft.report.words import plain

Speedups = dict[int, dict[str, float]]  # batch -> tree at its better budget; at the other one it is half as fast
FALLING = {1: {"chain": 1.2, "kary": 1.5}, 2: {"chain": 1.1, "kary": 1.05}, 4: {"chain": 0.9, "kary": 0.6}}


def figure_of(folder: Path, speedups: Speedups, pairs: tuple[str, ...] = ("zoo",)) -> Figure | None:
    write_study(folder, pairs=pairs, trees=("chain", "kary"), budgets=(2, 4), live=True)
    summary = pd.read_csv(folder / "summary.csv", dtype={"combination": str})
    parts = []
    for batch, of_trees in speedups.items():
        factor = summary["tree"].map(of_trees) * summary["budget"].map({2: 1.0, 4: 0.5})
        names = [f"{batch}{name[1:]}" for name in summary["combination"]]
        tokens = {"speedup": factor, "tokens_per_s": 100 * batch * factor}
        parts.append(summary.assign(combination=names, batch=batch, **tokens))
    pd.concat(parts).to_csv(folder / "summary.csv", index=False)
    return batches(canvas_of(findings_of(read_study(folder))))


def said(figure: Figure | None) -> str:
    assert figure is not None
    return plain(figure.caption).split(" Each shape at")[0]


def test_trees_pay_up_to_some_batch(tmp_path: Path) -> None:
    figure = figure_of(tmp_path / "s", FALLING)
    assert said(figure) == (
        "zoo: trees gain most in batches of 1 (kary, 2 nodes: 1.50 times plain decoding); from 4 texts on, none is "
        "faster."
    )
    assert figure is not None
    table = figure.tables["batches"]
    assert sorted(table.loc[table["way"] == PLAIN, "tokens_per_s"].round(6)) == [100, 200, 400]
    kary = table[table["way"] == "kary"].set_index("batch")
    assert kary["budget"].tolist() == [2, 2, 2]
    assert kary.loc[4, "tokens_per_s"] == 240


def test_or_in_all_or_in_none(tmp_path: Path) -> None:
    always = {batch: {"chain": 1.1, "kary": 1 + batch / 10} for batch in (1, 2)}
    assert said(figure_of(tmp_path / "always", always)) == (
        "zoo: trees gain most in batches of 2 (kary, 2 nodes: 1.20 times plain decoding), and are faster in every "
        "batch up to 2."
    )
    never = {batch: {"chain": 0.5, "kary": 0.6} for batch in (1, 2)}
    assert said(figure_of(tmp_path / "never", never)) == "zoo: no tree is faster than plain decoding in any batch."


def test_every_pair_has_a_panel(tmp_path: Path) -> None:
    figure = figure_of(tmp_path / "s", FALLING, ("zoo", "zoo-tiny"))
    assert figure is not None and set(figure.tables["batches"]["panel"]) == {"zoo", "zoo-tiny"}


def test_texts_alone_are_no_figure(tmp_path: Path) -> None:
    assert figure_of(tmp_path / "s", {1: FALLING[1]}) is None
