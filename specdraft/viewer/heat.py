"""The heat tree of a study: each rank path's mean acceptance weight, on the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from rich.color import Color
from rich.style import Style
from rich.text import Text
from rich.tree import Tree

from specdraft.errors import ConfigError, ResultsError, TreeError, did_you_mean
from specdraft.results.files import from_csv, rank_path_text, write_atomically
from specdraft.results.tables import DETAIL_KEYS, DETAILS, EARLIER_KEYS
from specdraft.trees.layout import layout
from specdraft.trees.topology import RankPath, Topology
from specdraft.viewer.page import render
from specdraft.viewer.steps import placed_nodes
from specdraft.viewer.trees import topology_tree

MOST_NODES = 256  # of a drawing; the heaviest ones
BAR, FULL = 12, "\u2588"  # columns of a terminal, and what fills them
COLDEST, HOTTEST = (226, 236, 246), (8, 48, 107)  # one hue, from light to dark: it survives print and colour-blindness
TEXT = ("combination", "rank_path", "tree", "pair", "draft_temperature")  # columns that pandas would read otherwise
COLUMN, ROW, WIDE, HIGH, LONGEST_PATH = 132, 34, 96, 24, 7


@dataclass(frozen=True)
class HeatTree:
    """One combination's nodes.

    Attributes:
        about: the combination's columns.
        topology: the tree; of fitted and dynamic shapes every rank path that was ever there.
        weights: `[n + 1]` accepted steps per step; the root's is 1.
        reached, accepted: `[n + 1]` steps; of the root None.
        left_out: nodes that are not drawn.
        acceptance_length: accepted tokens per step, as `summary.csv` has it.
    """

    about: dict[str, str]
    topology: Topology
    weights: Sequence[float]
    reached: Sequence[float | None]
    accepted: Sequence[float | None]
    left_out: int
    acceptance_length: float | None

    @property
    def worth(self) -> str:
        """How many tokens the whole tree gets accepted."""
        return "" if self.acceptance_length is None else f"{self.acceptance_length:.3f} accepted tokens per step"

    @property
    def title(self) -> str:
        """What it is, in a line."""
        about = self.about
        drawn = "" if about["temperature"] in ("0", "0.0") else f", temperature {about['temperature']}"
        drawn += f", draft temperature {own}" if (own := about.get("draft_temperature")) else ""
        name = f"{about['pair']}: {about['tree']}, budget {about['budget']}, {about['acceptance']}{drawn}"
        return name + (f" (the {MOST_NODES} heaviest of {MOST_NODES + self.left_out} nodes)" if self.left_out else "")

    def as_data(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        nodes = []
        columns = zip(placed_nodes(self.topology), self.weights, self.reached, self.accepted, strict=True)
        for place, weight, reached, accepted in columns:
            fill, ink = colours(weight)
            nodes.append(place | {"weight": weight, "reached": reached, "accepted": accepted, "fill": fill, "ink": ink})
        return {
            "title": self.title,
            "worth": self.worth,
            "about": self.about,
            "left_out": self.left_out,
            "nodes": nodes,
        }


def heat_trees(folder: Path, tree: str, budget: int, pair: str | None = None) -> list[HeatTree]:
    """The combinations of a study that are of this tree (a `tree` column) and budget.

    Raises:
        ResultsError: there is no readable `nodes.csv`.
        ConfigError: the study has no such combination.
    """
    table = _nodes(folder)
    for column, value in (("pair", pair), ("tree", tree), ("budget", budget)):
        if value is None:
            continue
        known = list(dict.fromkeys(table[column].astype(str)))
        table = table[table[column].astype(str) == str(value)]
        if table.empty:
            hint = (
                did_you_mean(str(value), known)
                if column != "budget"
                else f" (known: {', '.join(sorted(known, key=int))})"
            )
            raise ConfigError(
                f"{folder}: the study has no {column}={value}{'' if column == 'pair' else ' of this kind'}{hint}"
            )
    lengths = _lengths(folder)
    return [_heat_tree(folder, rows, lengths.get(str(name))) for name, rows in table.groupby("combination", sort=False)]


def _lengths(folder: Path) -> dict[str, float]:
    """Each combination's acceptance length, as far as there is a summary."""
    try:
        summary = pd.read_csv(
            folder / "summary.csv", usecols=["combination", "acceptance_length"], dtype={"combination": str}
        )
    except (OSError, ValueError):
        return {}
    return {str(name): float(value) for name, value in summary.dropna().itertuples(index=False, name=None)}


def _nodes(folder: Path) -> pd.DataFrame:
    path, wanted = folder / "nodes.csv", {*DETAIL_KEYS, *DETAILS["nodes.csv"]}
    try:
        table = from_csv(pd.read_csv(path, dtype=dict.fromkeys(TEXT, str)))
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: there is no such file; expected the folder of a finished study") from error
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    for key in (wanted & EARLIER_KEYS.keys()) - {*table.columns}:
        table[key] = EARLIER_KEYS[key]
    table["draft_temperature"] = table["draft_temperature"].fillna("")  # the target's
    if missing := sorted(wanted - set(table.columns)):
        raise ResultsError(f"{path}: the column {missing[0]!r} is missing; expected a nodes.csv of specdraft sweep")
    return table


def _heat_tree(folder: Path, rows: pd.DataFrame, acceptance_length: float | None) -> HeatTree:
    about = {key: f"{rows.iloc[0][key]:g}" if key == "temperature" else str(rows.iloc[0][key]) for key in DETAIL_KEYS}
    try:
        paths: list[RankPath] = [tuple(map(int, text.split("/"))) for text in rows["rank_path"]]
        numbers = rows[["mean_weight", "reached", "accepted"]].astype(float).itertuples(index=False, name=None)
        known = dict(zip(paths, numbers, strict=True))
        least: dict[RankPath, float] = {}  # along the path: in fitted trees a child can be heavier than its parent
        for path in sorted(known, key=len):
            least[path] = min(known[path][0], least.get(path[:-1], 1.0))
        kept = sorted(known, key=lambda path: (-least[path], len(path), path))[:MOST_NODES]
        topology = Topology.from_paths(sorted(kept, key=lambda path: (len(path), path)))
    except (ValueError, AttributeError, TreeError) as error:
        raise ResultsError(f"{folder / 'nodes.csv'}: not the nodes of a tree: {error}") from error
    weights, reached, accepted = zip(*(known[path] for path in topology.paths[1:]), strict=True)
    return HeatTree(
        about, topology, [1.0, *weights], [None, *reached], [None, *accepted], len(paths) - len(kept), acceptance_length
    )


def colours(weight: float) -> tuple[str, str]:
    """The fill of a weight, and an ink that can be read on it."""
    share = max(0.0, min(1.0, weight)) ** 0.5  # most weights are small
    mixed = [round(cold + (hot - cold) * share) for cold, hot in zip(COLDEST, HOTTEST, strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if share > 0.625 else "#000000"


def heat_lines(heat: HeatTree, width: int) -> Tree:
    """The tree in a terminal: rank, weight, and a bar of its length."""
    labels: list[Text | str] = [Text("root", style="bold")]
    room = max(4, min(BAR, width // 6))
    for path, weight in zip(heat.topology.paths[1:], heat.weights[1:], strict=True):
        fill, ink = colours(weight)
        label = Text(f"{path[-1]}  ")
        label.append(f" {weight:.3f} ", style=Style(color=Color.parse(ink), bgcolor=Color.parse(fill)))
        label.append(" " + FULL * round(weight * room), style="blue")
        label.append(f" {rank_path_text(path)}" if len(path) > 1 else "", style="dim")
        labels.append(label)
    return topology_tree(heat.topology, labels, width)


CAPTION = "mean weight: the share of the steps whose tree has the node that accept it"


def heat_svg(heats: Sequence[HeatTree]) -> str:
    """All trees, one below the other."""
    parts, top, width = [], 14, 640
    for heat in heats:
        places = layout(heat.topology)
        parts.append(
            f'<text x="12" y="{top + 14}" font-size="15" font-weight="bold" fill="#1a1a1a">{escape(heat.title)}</text>'
        )
        parts.append(f'<text x="12" y="{top + 33}" font-size="12" fill="#444">{heat.worth}</text>')
        at = [(12 + x * COLUMN, top + 46 + y * ROW) for x, y in places]
        for node, (x, y) in enumerate(at):
            if node:
                px, py = at[int(heat.topology.parents[node])]
                px, py, cy = px + WIDE, py + HIGH / 2, y + HIGH / 2
                middle = (px + x) / 2
                line = f"M{px:.1f},{py:.1f}C{middle:.1f},{py:.1f} {middle:.1f},{cy:.1f} {x:.1f},{cy:.1f}"
                parts.append(
                    f'<path d="{line}" fill="none" stroke="#5c7fa6" stroke-width="{0.6 + 7 * heat.weights[node]:.2f}"/>'
                )
        for node, (x, y) in enumerate(at):
            fill, ink = colours(heat.weights[node])
            path = heat.topology.paths[node]
            box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{WIDE}" height="{HIGH}" rx="4"'
            text = f'y="{y + 16:.1f}" font-size="11" fill="{ink}"'
            parts.append(f'{box} fill="{fill}" stroke="#5c7fa6" stroke-width="0.8"/>')
            parts.append(f'<text x="{x + 7:.1f}" {text}>{_fitting(rank_path_text(path)) if node else "root"}</text>')
            if node:
                parts.append(f'<text x="{x + WIDE - 7:.1f}" {text} text-anchor="end">{heat.weights[node]:.3f}</text>')
        width = max(width, int(max(x for x, _ in at)) + WIDE + 12)
        top = int(max(y for _, y in at)) + HIGH + 26
    parts.append(f'<text x="12" y="{top}" font-size="11" fill="#444">{escape(CAPTION)}</text>')
    size = f'width="{width}" height="{top + 14}" viewBox="0 0 {width} {top + 14}"'
    font = 'font-family="DejaVu Sans, Noto Sans, Arial, sans-serif"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}><rect width="100%" height="100%" '
        f'fill="#ffffff"/>{"".join(parts)}</svg>'
    )


def _fitting(path: str) -> str:
    """The end of a rank path that is too long for its box."""
    return path if len(path) <= LONGEST_PATH else "\u2026" + path[1 - LONGEST_PATH :]


def write_png(heats: Sequence[HeatTree], path: Path, scale: float = 1.5) -> None:
    """The picture for a report. Raises `ResultsError` where it cannot be written."""
    from vl_convert import svg_to_png

    write_atomically(path, svg_to_png(heat_svg(heats), scale=scale))


def heat_page(heats: Sequence[HeatTree]) -> str:
    """A page as `page.page`, with a choice between the combinations."""
    title = f"{heats[0].about['tree']}, budget {heats[0].about['budget']}: what each node is worth"
    return render("heat.html.j2", title=title, data={"caption": CAPTION, "trees": [heat.as_data() for heat in heats]})
