"""Plans and results as tables in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.bench.curve import CostCurve, not_reliable
from specdraft.errors import plain_text
from specdraft.results.intervals import FEWEST_PROMPTS, Interval
from specdraft.results.metrics import DEPTH_RATES, MOST_LOOPING
from specdraft.trees.shapes import is_reference

if TYPE_CHECKING:
    import pandas as pd

NARROW = 60  # columns of a terminal; in fewer a table would lose its keys
MOST_LINES = 40  # more combinations than this are shown as grids
MOST_BEST, MOST_DEPTHS = 6, 6  # settings, and depths, whose acceptance by depth is listed
MOST_SKIPPED = 12  # more combinations than this are counted by reason
NO_INTERVAL = f"no interval: fewer than {FEWEST_PROMPTS} prompts"
SHORT = {"acceptance": "rule", "temperature": "T", "draft_temperature": "draft T", "max_new_tokens": "tokens",
         "cost_context": "context", "cost_batch": "batch"}  # fmt: skip
AT = ("cost_context", "cost_batch")


def summary_tables(summary: pd.DataFrame) -> list[Table]:
    """The headline of a study: a line per combination, or for many combinations a grid per pair."""
    if len(summary) <= MOST_LINES:
        return [_lines(summary)]
    return [_grid(str(pair), group) for pair, group in summary.groupby("pair", sort=False)]


def summary_lines(summary: pd.DataFrame) -> list[str]:
    """The same for a narrow terminal: a line of text per combination, which may be wrapped."""
    speed = "est_speedup" if summary["speedup"].isna().all() else "speedup"
    numbers = {"accepted": "acceptance_length", "rate": "acceptance_rate", speed.replace("_", " "): speed}
    lines = []
    for row in summary.to_dict("records"):
        keys = " ".join(str(row[key]) for key in ("pair", "tree", *_settings(summary)))
        values = [f"{name} {_number(row[column])}" for name, column in numbers.items()]
        lines.append(f"{keys}, {row['nodes']} nodes: {', '.join([_with_interval(row, 'block_efficiency'), *values])}")
    return [*lines, "first: tokens per verification step, bonus included"]


def _lines(summary: pd.DataFrame) -> Table:
    estimated = bool(summary["speedup"].isna().all())
    bounded = bool(summary["block_efficiency_lo"].notna().any())
    about = "in brackets: 95 % intervals over prompts" if bounded else NO_INTERVAL
    caption = _caption(summary, estimated, about)
    table = Table(box=SIMPLE_HEAD, caption=caption, padding=(0, 1, 0, 0), pad_edge=False)
    settings = _settings(summary)
    for name in ("tree", *settings):
        table.add_column(SHORT.get(name, name), overflow="fold", no_wrap=name in SHORT)
    looping = bool((summary["loop_share"] > MOST_LOOPING).any())
    speed = "est. speed-up" if estimated else "speed-up"
    for name in ("nodes", "block efficiency", "accepted", "rate", speed, *(["loops"] if looping else [])):
        table.add_column(name, justify="right", no_wrap=name == "block efficiency")
    before = None
    for row in summary.to_dict("records"):
        if before != row["pair"]:  # a line of its own: beside the trees it would make both columns wrap
            table.add_section()
            table.add_row(Text(str(row["pair"]), style="bold"))
        before = row["pair"]
        cells = [
            str(row["tree"]),
            *(str(row[key]) for key in settings),
            str(row["nodes"]),
            _with_interval(row, "block_efficiency"),
        ]
        cells += [
            _number(row[name])
            for name in ("acceptance_length", "acceptance_rate", "est_speedup" if estimated else "speedup")
        ]
        table.add_row(*cells, *([_number(row["loop_share"])] if looping else []))
    return table


def _grid(pair: str, summary: pd.DataFrame) -> Table:
    """Block efficiency by tree and nodes; several settings of one tree are told apart by their own lines."""
    estimated = bool(summary["speedup"].isna().all())
    bounded = bool(summary["block_efficiency_lo"].notna().any())
    about = "intervals: summary.csv" if bounded else NO_INTERVAL
    caption = _caption(summary, estimated, f"bold: best in column, hindsight aside; {about}")
    table = Table(box=SIMPLE_HEAD, title=f"{pair}: block efficiency by tree and nodes", caption=caption, min_width=76)
    table.add_column("tree", overflow="fold")
    nodes = sorted(summary["nodes"].unique())
    for count in nodes:
        table.add_column(str(count), justify="right")
    settings = _settings(summary)
    fair = summary[~summary["tree"].map(is_reference)]
    most = fair.groupby("nodes")["block_efficiency"].max().to_dict()
    for label, group in summary.groupby(["tree", *settings], sort=False):
        first = group.drop_duplicates("nodes").set_index("nodes")["block_efficiency"].to_dict()
        cells = []
        for count in nodes:
            best = count in first and not is_reference(str(label[0])) and first[count] == most.get(count)
            cells.append(Text(_number(first[count]) if count in first else "", style="bold green" if best else ""))
        table.add_row(" ".join(map(str, label)), *cells)
    return table


def depth_table(summary: pd.DataFrame, positions: pd.DataFrame) -> Table | None:
    """The share of steps that accept at each depth, of the tree of each setting that gets most tokens per step; None
    where there are no drafted trees, or too many settings to list."""
    if summary.empty:
        return None
    keys = ["pair", *(key for key in _settings(summary) if key not in AT)]
    fair = summary[~summary["tree"].map(is_reference) & summary["block_efficiency"].notna()]
    best = fair.sort_values("block_efficiency", ascending=False).drop_duplicates(keys)
    best = best[best["combination"].isin(positions["combination"])]
    if not 0 < len(best) <= MOST_BEST:
        return None
    depths = range(1, min(int(best["depth"].max()), MOST_DEPTHS) + 1)
    caption = "conditional: of the steps that got to a depth; marginal: of all steps. All trees: positions.csv, report"
    title = "Acceptance by depth of the trees with most tokens per step"
    table = Table(box=SIMPLE_HEAD, title=title, caption=caption, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("tree", overflow="fold")
    for name in ("nodes", "at depth"):
        table.add_column(name, no_wrap=True)
    for deep in depths:
        table.add_column(str(deep), justify="right", no_wrap=True)
    for row in best.to_dict("records"):
        table.add_section()
        table.add_row(Text(" ".join(str(row[key]) for key in keys), style="bold"))
        own = positions[positions["combination"] == row["combination"]].set_index("depth")
        for number, rate in enumerate(DEPTH_RATES):
            shares = [_number(own[rate].get(deep)) for deep in depths]
            names = ("", "") if number else (str(row["tree"]), str(row["nodes"]))
            table.add_row(*names, rate.removesuffix("_rate"), *shares)
    return table


def plan_table(combinations: pd.DataFrame) -> Table:
    """What a sweep would do: a row per combination, the columns that tell them apart."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    names = ["pair", "tree", *_settings(combinations), "budget", "nodes", "depth", "reused"]
    for name in names:
        table.add_column(SHORT.get(name, name), overflow="fold", no_wrap=name == "pair" or name in SHORT)
    for row in combinations.to_dict("records"):
        table.add_row(*(str(row[name]) for name in names))
    return table


def skipped_lines(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """A line per combination that is left out; many of them: a line per reason."""
    if len(skipped) <= MOST_SKIPPED:
        return [plain_text(f"skipped: {what}: {reason}") for what, reason in skipped]
    reasons = Counter(reason for _, reason in skipped)
    return [f"skipped {n} combinations (--dry-run lists them): {reason}" for reason, n in reasons.items()]


def cost_lines(costs: Mapping[str, CostCurve]) -> list[str]:
    """A line for each pair whose costs cannot be trusted: why, and what to do."""
    return [not_reliable(pair, curve.doubts) for pair, curve in costs.items() if curve.doubts]


def _settings(summary: pd.DataFrame) -> list[str]:
    """What else differs between the combinations."""
    return [
        key
        for key in (
            "drafter",
            "pruning",
            "length",
            "batch",
            "cache",
            "acceptance",
            "temperature",
            "top_k",
            "top_p",
            "max_new_tokens",
            "draft_temperature",
            *AT,
            "engine",
        )
        if key in summary and summary[key].nunique() > 1
    ]


def _caption(summary: pd.DataFrame, estimated: bool, first: str) -> str:
    lines = [first, "block efficiency = tokens per verification step, bonus included"]
    if (summary["temperature"] > 0).any():
        lines.append("sampled texts, replayed: exact expectations given the texts")
    if estimated and summary["est_speedup"].notna().any():
        lines.append("replayed: times are estimates from the measured cost of drafting and verifying")
    if (summary["loop_share"] > MOST_LOOPING).any():
        lines.append(f"loops: share of repeated text; above {MOST_LOOPING} acceptance measures loops")
    return "\n".join(lines)


def _number(value: Any, digits: int = 2) -> str:
    return "-" if value is None or isnan(value) else f"{value:.{digits}f}"


def _with_interval(row: dict[Any, Any], name: str) -> str:
    ratio = Interval.of(row, name)
    return f"{ratio:.2f}" if ratio.known else _number(ratio.value)
