from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console
from support.command_line import Run, one_line
from support.viewing import STUDY, data_of

from specdraft.commands.options import DONE
from specdraft.trees.topology import Topology
from specdraft.viewer.heat import MOST_NODES, HeatTree, colours, heat_lines, heat_svg, heat_trees


def test_weights_are_those_of_the_table() -> None:
    (heat,) = heat_trees(STUDY, "kary", 16, "zoo")
    table = pd.read_csv(STUDY / "nodes.csv", dtype={"rank_path": str})
    rows = table[(table["tree"] == "kary") & (table["budget"] == 16) & (table["pair"] == "zoo")].set_index("rank_path")
    assert len(rows) == heat.topology.num_nodes == 16
    for path, weight, reached in zip(heat.topology.paths[1:], heat.weights[1:], heat.reached[1:], strict=True):
        row = rows.loc["/".join(map(str, path))]
        assert (weight, reached) == (row["mean_weight"], row["reached"])
    assert sum(heat.weights[1:]) == pytest.approx(heat.acceptance_length, abs=1e-4)  # of a static tree


def test_names_in_a_picture_are_text() -> None:
    heat = HeatTree({"pair": "<b>&", "tree": "a<b", "budget": "1", "acceptance": "greedy", "temperature": "0"},
                    Topology([-1, 0]), [1.0, 0.5], [None, 2], [None, 1], 0, 0.5)  # fmt: skip
    picture = heat_svg([heat])
    assert "&lt;b&gt;&amp;: a&lt;b, budget 1" in picture and "<b>" not in picture


def test_every_pair(run: Run, tmp_path: Path) -> None:
    said = run(
        "trees",
        "show",
        "sequoia",
        "budget=16",
        "--study",
        STUDY,
        "--png",
        tmp_path / "h.png",
        "--html",
        tmp_path / "h.html",
    )
    assert said.code == DONE
    assert [line.split(":")[0] for line in said.out.splitlines() if "accepted tokens per step" in line] == [
        "zoo",
        "zoo-distilled",
        "zoo-tiny",
    ]
    assert "\x1b" not in said.out
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "h.html").read_text()
    assert [tree["about"]["pair"] for tree in data_of(page)["trees"]] == ["zoo", "zoo-distilled", "zoo-tiny"]
    assert re.findall(r"https?://[^\"']*", page) == ["http://www.w3.org/2000/svg"]
    found = json.loads(run("trees", "show", "sequoia", "budget=16", "--study", STUDY, "--format", "json").out)
    assert found == data_of(page)["trees"]


def test_a_published_tree(run: Run) -> None:
    out = run("trees", "show", "medusa", "--study", STUDY, "--pair", "zoo-tiny").out
    assert out.startswith("zoo-tiny: medusa, budget 63, greedy, ")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_width(width: int) -> None:
    for heat in heat_trees(STUDY, "beam", 64):
        console = Console(width=width, file=(file := StringIO()))
        console.print(heat_lines(heat, width))
        assert max(map(cell_len, file.getvalue().splitlines())) <= width


def test_a_large_tree_keeps_its_heaviest_nodes(tmp_path: Path) -> None:
    rows = pd.read_csv(STUDY / "nodes.csv", dtype={"rank_path": str}).iloc[:1]
    many = pd.concat(
        [rows.assign(tree="wide", rank_path=str(rank), mean_weight=1 / (rank + 2)) for rank in range(MOST_NODES + 9)]
    )
    many.to_csv(tmp_path / "nodes.csv", index=False)
    (heat,) = heat_trees(tmp_path, "wide", 1)
    assert (heat.topology.num_nodes, heat.left_out, heat.acceptance_length) == (MOST_NODES, 9, None)
    assert max(heat.topology.ranks) == MOST_NODES - 1
    late = many.iloc[-1:].assign(
        rank_path=f"{MOST_NODES + 8}/0", mean_weight=0.9
    )  # a fitted tree's: heavier than its parent
    pd.concat([many, late]).to_csv(tmp_path / "nodes.csv", index=False)
    assert heat_trees(tmp_path, "wide", 1)[0].topology.depth == 1
    assert f"the {MOST_NODES} heaviest of {MOST_NODES + 9} nodes" in heat_svg([heat])


def test_ink_can_be_read() -> None:
    def brightness(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for weight in [i / 100 for i in range(101)]:
        light, dark = sorted(map(brightness, colours(weight)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, weight


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kary", "budget=16", "--study", "/nowhere"], ["/nowhere/nodes.csv: there is no such file"]),
        (["kary", "budget=17", "--study", str(STUDY)], ["no budget=17", "known: 1, 2, 4,"]),
        (["kary", "tree.k=5", "budget=16", "--study", str(STUDY)], ["no tree=kary-k5", "did you mean 'kary'?"]),
        (["kary", "budget=16", "--study", str(STUDY), "--pair", "zo"], ["no pair=zo", "did you mean 'zoo'?"]),
        (
            ["kary", "budget=16", "--study", str(STUDY), "--png", "/nowhere/x.png"],
            ["--png /nowhere/x.png: there is no folder"],
        ),
        (["kary", "budget=16", "--study", str(STUDY), "--format", "medusa"], ["without weights"]),
        (["kary", "budget=16", "--pair", "zoo"], ["belong to --study DIR"]),
        (["measured"], ["--study DIR draws one after it"]),
    ],
)
def test_bad_input(run: Run, arguments: list[str], words: list[str]) -> None:
    line = one_line(run("trees", "show", *arguments))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="mean_weight"), "the column 'mean_weight' is missing"),
        (lambda table: table.assign(rank_path="x"), "not the nodes of a tree"),
        (lambda table: table.assign(rank_path="0/1/1"), "not the nodes of a tree"),
    ],
)
def test_foreign_table(run: Run, tmp_path: Path, change: object, words: str) -> None:
    shutil.copy(STUDY / "summary.csv", tmp_path)
    change(pd.read_csv(STUDY / "nodes.csv", dtype={"rank_path": str})).to_csv(tmp_path / "nodes.csv", index=False)  # type: ignore[operator]
    assert words in one_line(run("trees", "show", "chain", "budget=1", "--study", tmp_path))
    (tmp_path / "nodes.csv").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in one_line(run("trees", "show", "chain", "budget=1", "--study", tmp_path))


def test_a_picture_holds_texts_and_no_more() -> None:
    (heat,) = heat_trees(STUDY, "kary", 2, "zoo")
    name = "</text><script>alert(1)</script>&\"'"
    drawn = ElementTree.fromstring(heat_svg([replace(heat, about=heat.about | {"pair": name})]))
    texts = [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0].startswith(f"{name}: kary, budget 2")
    assert not [element.tag for element in drawn.iter() if "script" in element.tag]
