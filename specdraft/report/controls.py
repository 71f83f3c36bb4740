"""What a reader of the page may choose: controls for what a study has several values of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from specdraft.report.drill import Drill
from specdraft.report.figures.base import Drawn
from specdraft.report.findings import Findings
from specdraft.report.study_files import panel_label, visible

METRICS = {  # figure -> the metric that it draws over the budget
    "block-efficiency": "tokens per pass",
    "acceptance-length": "accepted draft tokens per step",
    "acceptance-rate": "share of draft tokens accepted",
    "speedup": "measured speed-up",
    "est-speedup": "estimated speed-up",
}
ALWAYS = "block-efficiency"  # a figure that stays, whatever metric is chosen
DRAFTER = "drafter"


@dataclass(frozen=True)
class Control:
    """One choice.

    Attributes:
        options: values and how they are called; the first is chosen at the start.
    """

    name: str
    label: str
    options: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Controls:
    """All choices.

    Attributes:
        panels: setting as figures name it -> its `pair`, `drafter` and `setting`.
    """

    listed: Sequence[Control] = ()
    panels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def controls(findings: Findings, figures: Drawn, drills: Iterable[Drill]) -> Controls:
    """The choices that there are: of what has one value there is none."""
    panels = _panels(findings)
    there = [figure.name for figure in figures.figures if figure.spec]
    metrics = [(name, said) for name, said in METRICS.items() if name in there]
    shapes = dict.fromkeys(visible(tree) for tree in findings.rows["tree"])
    budgets = sorted({int(budget) for budget in findings.rows["competes"]})
    categories = dict.fromkeys(category.name for one in drills for category in one.categories)
    several = [
        *(_of_all(name, name, dict.fromkeys(one[name] for one in panels.values())) for name in ("pair", DRAFTER)),
        _of_all("setting", "setting", dict.fromkeys(one["setting"] for one in panels.values())),
        Control("metric", "metric", metrics),
        _of_all("budget", "node budget", map(str, budgets)),
        _of_all("category", "category", categories),
        _of_all("shape", "single out", shapes),
    ]
    return Controls([one for one in several if len(one.options) > (1 if one.name == "metric" else 2)], panels)


def _of_all(name: str, label: str, values: Iterable[str]) -> Control:
    return Control(name, label, [("", "all"), *((value, value) for value in values)])


def _panels(findings: Findings) -> dict[str, dict[str, str]]:
    study = findings.study
    others = [key for key in study.varying if key != DRAFTER]
    first = study.written.assign(panel=study.summary["panel"]).drop_duplicates("panel")
    said = {}
    for row in first.to_dict("records"):
        keys = {str(key): str(value) for key, value in row.items()}
        setting = panel_label(keys, others).removeprefix(visible(keys["pair"])).removeprefix(" · ")
        drafter = visible(keys.get(DRAFTER, "")) if DRAFTER in study.varying else ""
        said[keys["panel"]] = {"pair": visible(keys["pair"]), DRAFTER: drafter, "setting": setting}
    return said
