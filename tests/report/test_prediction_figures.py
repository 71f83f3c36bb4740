"""The figures of what is predicted and pruned: their numbers, and where they are absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report.figures.base import Figure
from specdraft.report.figures.canvas import Canvas, canvas_of
from specdraft.report.figures.pruning import pruning
from specdraft.report.figures.reliability import reliability, survival
from specdraft.report.figures.siblings import siblings
from specdraft.report.findings import findings_of
from specdraft.report.run_facts import run_facts
from specdraft.report.study_files import read_study
from specdraft.report.words import plain
from specdraft.results.kept_tables import RELIABILITY

TEXTS = {"pair": "zoo", "drafter": "model", "temperature": 0, "top_k": 0, "top_p": 1, "max_new_tokens": 64, "repeat": 0}
SCORES = [  # scores, bin, nodes, predicted, accepted
    ("raw", 0, 900, 0.02, 90),
    ("raw", 8, 100, 0.42, 80),
    ("calibrated", 0, 900, 0.05, 45),
    ("calibrated", 15, 100, 0.77, 75),
    ("calibrated", 19, 3, 0.97, 3),  # too few to draw
]
PLACES = [("calibrated", 1, 0, 50, 0.6, 33), ("calibrated", 2, 1, 40, 0.1, 4), ("raw", 1, 0, 50, 0.3, 33)]


def with_reliability(folder: Path) -> Path:
    rows = [
        TEXTS | {"scores": scores, "what": "survival", "by": "score", "depth": -1, "rank": -1, "bin": bin_}
        | {"nodes": nodes, "predicted": predicted, "accepted": accepted}
        for scores, bin_, nodes, predicted, accepted in SCORES
    ]  # fmt: skip
    rows += [
        TEXTS | {"scores": scores, "what": "survival", "by": "place", "depth": depth, "rank": rank, "bin": -1}
        | {"nodes": nodes, "predicted": predicted, "accepted": accepted}
        for scores, depth, rank, nodes, predicted, accepted in PLACES
    ]  # fmt: skip
    write_study(folder)
    pd.DataFrame(rows)[RELIABILITY.columns].to_csv(folder / "reliability.csv", index=False)
    return folder


def canvas(folder: Path) -> Canvas:
    return canvas_of(findings_of(read_study(folder)))


def drawn_by(figure: Figure | None) -> list[dict[str, str]]:
    """What each layer draws: its mark, and channel -> column."""
    assert figure is not None and figure.spec is not None
    layers = figure.spec["spec"].get("layer", [figure.spec["spec"]])
    return [
        {"mark": layer["mark"]["type"]}
        | {name: value["field"] for name, value in layer["encoding"].items() if "field" in value}
        for layer in layers
    ]


def test_the_calibration_error_and_what_is_drawn(tmp_path: Path) -> None:
    figure = reliability(canvas(with_reliability(tmp_path / "s")))
    assert figure is not None and figure.spec is not None
    said = plain(figure.caption)
    assert "zoo: expected calibration error 0.110 by raw scores, 0.002 by calibrated scores." in said
    curve = {"mark": "line", "x": "predicted", "y": "observed", "color": "scores"}
    assert drawn_by(figure) == [{"mark": "line", "x": "v", "y": "v"}, curve]
    drawn = figure.tables["reliability"]
    assert drawn[["scores", "bin", "nodes"]].values.tolist() == [[s, b, n] for s, b, n, _, _ in SCORES[:4]]
    assert drawn["observed"].tolist() == pytest.approx([0.1, 0.8, 0.05, 0.75])


def test_survival_is_of_calibrated_scores_where_there_are_any(tmp_path: Path) -> None:
    figure = survival(canvas(with_reliability(tmp_path / "s")))
    assert figure is not None
    table = figure.tables["survival"].set_index(["which", "depth", "child"])["share"]
    assert table.to_dict() == pytest.approx({
        ("predicted", 1, "rank 1"): 0.6, ("observed", 1, "rank 1"): 0.66,
        ("predicted", 2, "rank 2"): 0.1, ("observed", 2, "rank 2"): 0.1,
    })  # fmt: skip
    assert "ranked by calibrated scores" in plain(figure.caption)
    line = {"mark": "line", "x": "depth", "y": "share", "color": "child", "strokeDash": "which"}
    assert drawn_by(figure) == [line]


def test_texts_of_two_temperatures_are_two_panels(tmp_path: Path) -> None:
    folder = with_reliability(tmp_path / "s")
    table = pd.read_csv(folder / "reliability.csv")
    pd.concat([table, table.assign(temperature=0.7, accepted=0)]).to_csv(folder / "reliability.csv", index=False)
    figures = (reliability(canvas(folder)), survival(canvas(folder)))
    for figure, name in zip(figures, ("reliability", "survival"), strict=True):
        assert figure is not None
        assert figure.tables[name]["panel"].unique().tolist() == ["zoo", "zoo · T=0.7"]
    assert figures[0] is not None
    said = plain(figures[0].caption)
    assert "zoo: expected calibration error 0.110 by raw scores" in said
    assert "zoo · T=0.7: expected calibration error 0.060 by raw scores" in said


def test_what_a_study_does_not_have_is_absent(tmp_path: Path) -> None:
    bare = canvas(write_study(tmp_path / "s"))
    assert (reliability(bare), survival(bare), pruning(bare)) == (None, None, None)
    (tmp_path / "s" / "siblings.csv").unlink()
    study = read_study(tmp_path / "s")
    assert siblings(canvas_of(findings_of(study))) is None and not any("siblings" in note for note in study.notes)


def test_a_damaged_table_is_said_to_be(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    (folder / "reliability.csv").write_text("pair\nzoo\n")
    study = read_study(folder)
    assert any(note.startswith("reliability.csv: expected the columns") for note in study.notes)
    assert reliability(canvas_of(findings_of(study))) is None


def test_one_level_below_a_sibling(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", trees=("kary",), budgets=(4,))
    table = pd.read_csv(folder / "siblings.csv", dtype=str, keep_default_na=False)
    one = dict(table.iloc[0])
    rows: list[dict[str, Any]] = [
        one
        | {"depth": depth, "rank": rank, "reached": 999, "accepted": 777, "next_reached": reached}
        | {"next_accepted": accepted}
        for depth, rank, reached, accepted in ((1, 0, 60, 45), (2, 0, 40, 35), (1, 1, 50, 20), (1, 2, 3, 3))
    ]
    pd.DataFrame(rows).to_csv(folder / "siblings.csv", index=False)
    figure = siblings(canvas(folder))
    assert figure is not None
    drawn = figure.tables["siblings"]
    assert drawn[["rank", "rate"]].values.tolist() == [[1, 0.8], [2, 0.4]]  # depths pooled; too few below the third
    bars = {"mark": "rule", "x": "rank", "y": "low", "y2": "high", "color": "shown"}
    line, points = ({"mark": mark, "x": "rank", "y": "rate", "color": "shown"} for mark in ("line", "point"))
    assert drawn_by(figure) == [bars, line | {"strokeDash": "shown"}, points | {"shape": "shown"}]
    said = plain(figure.caption)
    assert "below a first choice the next level is accepted 80% [" in said and ", below a second one 40% [" in said
    assert (drawn["low"] < drawn["rate"]).all() and (drawn["rate"] < drawn["high"]).all()


PRUNED = [  # drafter, policy, share of nodes left out, tokens lost with their interval
    ("model", "threshold-map0.03", 0.25, 0.05, 0.04, 0.06),
    ("model", "threshold-map1e-05", 0.1, 0.03, 0.02, 0.04),
    ("model", "ratio-pr0.5-sraw", 0.5, 0.2, 0.1, 0.3),
    ("ngram", "threshold", 0.2, 0.3, 0.2, 0.4),
    ("model", "none", 0.0, None, None, None),
]
LOST = ["pruned_share", "regret_tokens", "regret_tokens_lo", "regret_tokens_hi"]


def pruned_study(folder: Path) -> Path:
    write_study(folder, trees=("kary",), budgets=(4,))
    (row,) = pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False).to_dict("records")
    rows = [
        row
        | {"combination": f"{place:012x}", "drafter": drafter, "pruning": policy}
        | dict(zip(LOST, lost, strict=True))
        for place, (drafter, policy, *lost) in enumerate(PRUNED)
    ]
    pd.DataFrame(rows).to_csv(folder / "summary.csv", index=False)
    return folder


def test_what_pruning_costs(tmp_path: Path) -> None:
    figure = pruning(canvas(pruned_study(tmp_path / "s")))
    assert figure is not None and figure.spec is not None
    assert figure.tables["pruning"][["panel", "policy", "curve", *LOST]].values.tolist() == [
        ["zoo · model", "threshold-map0.03", "threshold", 0.25, 0.05, 0.04, 0.06],
        ["zoo · model", "threshold-map1e-05", "threshold", 0.1, 0.03, 0.02, 0.04],
        ["zoo · model", "ratio-pr0.5-sraw", "ratio-sraw", 0.5, 0.2, 0.1, 0.3],
        ["zoo · ngram", "threshold", "threshold", 0.2, 0.3, 0.2, 0.4],
    ]
    assert (
        "zoo · model: the least is lost per node left out by threshold-map0.03 on kary with 4 nodes: 25% of the "
        in (said := plain(figure.caption))
    )
    assert "nodes, 0.050 tokens" in said


def test_pruning_is_drawn_over_the_share_that_is_left_out(tmp_path: Path) -> None:
    """A line for each policy, through the points of all its settings; and each point's interval."""
    figure = pruning(canvas(pruned_study(tmp_path / "s")))
    shared = {"x": "pruned_share", "color": "shown"}
    assert drawn_by(figure) == [
        shared | {"mark": "line", "y": "regret_tokens"},
        shared | {"mark": "rule", "y": "regret_tokens_lo", "y2": "regret_tokens_hi"},
        shared | {"mark": "point", "y": "regret_tokens", "shape": "curve"},
    ]
    assert figure is not None and figure.spec is not None
    assert [part["field"] for part in figure.spec["spec"]["layer"][0]["encoding"]["detail"]] == ["curve", "budget"]


def test_the_fitted_temperatures_are_said(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    manifest = json.loads((folder / "manifest.json").read_text())
    fitted = {"value": 0.4593, "loss": 1.569, "plain_loss": 2.3185, "tokens": 5009, "of_folds": [0.45, 0.47]}
    manifest["calibrations"] = {"zoo": {"greedy, 64 tokens": fitted, "damaged": {"value": "x"}, "other": 3}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    facts = {fact.label: plain(fact.text) for fact in run_facts(read_study(folder))}
    said = "0.4593 on greedy, 64 tokens: 1.569 nats a token instead of 2.318 at temperature 1"
    assert facts["zoo, calibrated temperature"] == said
