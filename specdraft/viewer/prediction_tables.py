"""What `specdraft fit predictor` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specdraft.prediction.ablation import Step
    from specdraft.prediction.cross_fitting import Scored
    from specdraft.study.fit_predictor import FittedPredictor

COLUMNS = {"ece_debiased": "ECE", "log_loss": "log loss"}
WORDS = {
    "conditional": "Conditional acceptance: P(accepted | the parent was), of nodes that were reached",
    "survival": "Survival: P(accepted), of all drafted nodes",
}


def predictor_tables(fitted: FittedPredictor) -> Iterable[RenderableType]:
    """Scores of every model, what each feature group adds, and what is kept."""
    about, rows = fitted.predictor.about, fitted.learnt.rows
    yield Text(
        f"{about.pair}: {len(fitted.learnt.prompts)} prompts, {len(rows.prompt):,} drafted nodes, "
        f"{int(rows.reached.sum()):,} of them reached, {int(rows.accepted.sum()):,} accepted; "
        f"trees by scores at temperature {about.scores_temperature:g}"
    )
    for what, words in WORDS.items():
        yield Text(f"{words}\neach half of the prompts by what was fitted on the other; [95 % over prompts]")
        yield _scores([one for one in fitted.scored if one.what == what])
    if fitted.ablation:
        yield Text("What each group of features adds (conditional acceptance; in brackets the gain on the row above)")
        yield _ablation(fitted.ablation)
    yield Text(
        f"kept: {about.model}, calibration {about.calibration}, fitted on all {about.prompts} prompts; memory: "
        f"{fitted.overhead}"
    )


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _scores(scored: Sequence[Scored]) -> Table:
    table = _table("model", "calibration", *COLUMNS.values(), "AUROC")
    for one in scored:
        cells = [f"{one.scores[name]:.4f}" for name in COLUMNS]
        table.add_row(one.model, one.calibration, *cells, f"{one.scores['auroc'].value:.3f}")
    return table


def _ablation(steps: Sequence[Step]) -> Table:
    table = _table("added", "log loss", "gain", "AUROC", "ECE", "")
    for step in steps:
        gain = f"{step.gained['log_loss']:+.4f}" if step.gained else ""
        values = [f"{step.scores[name].value:.4f}" for name in ("log_loss", "auroc", "ece_debiased")]
        table.add_row(step.added, values[0], gain, *values[1:], step.says)
    return table
