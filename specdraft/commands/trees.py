"""`specdraft trees`: shapes, one of them drawn, the best one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, say

if TYPE_CHECKING:
    from specdraft.trees.topology import Topology

app = typer.Typer(no_args_is_help=True, help="List, draw and fit draft-tree shapes.")


@app.command("list")
def trees_list(as_json: AsJson = False) -> None:
    """List every shape with its parameters, and the published trees."""
    import dataclasses

    from rich.table import Table

    from specdraft.trees.shapes import registry
    from specdraft.trees.shapes.published import published_trees

    shapes: list[dict[str, Any]] = []
    for kind, shape in sorted(registry().items()):
        default: Any = shape()
        parameters = {f.name: getattr(default, f.name) for f in dataclasses.fields(default) if f.name != "kind"}
        shapes.append({"kind": kind, "parameters": parameters, "about": _first_sentence(shape.__doc__ or "")})
    trees = [{"name": name, "nodes": tree["nodes"], "depth": tree["depth"]} for name, tree in published_trees().items()]
    if as_json:
        typer.echo(json.dumps({"shapes": shapes, "published": trees}))
        return
    table = Table("tree", "parameters", "what")
    for row in shapes:
        table.add_row(
            row["kind"], ", ".join(f"{k}={v}" for k, v in row["parameters"].items()), row["about"].replace("`", "")
        )
    console().print(table)
    published = Table("published tree (tree=published tree.name=...)", "nodes", "depth")
    for tree in trees:
        published.add_row(tree["name"], str(tree["nodes"]), str(tree["depth"]))
    console().print(published)


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".")


@app.command("show")
def trees_show(
    name: Annotated[str, typer.Argument(help="a shape, a tree config, or a published tree")],
    overrides: Annotated[list[str] | None, typer.Argument(help="budget=8 tree.k=3", show_default=False)] = None,
    output: Annotated[str, typer.Option("--format", help="how to write it: text, json, medusa or sglang")] = "text",
    study: Annotated[
        Path | None, typer.Option("--study", help="a study's results: colour each node by its mean acceptance weight")
    ] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="one pair of the study (default: every pair)")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="also write the coloured tree as a picture")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="also write it as a page, without a network")] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Draw one tree at a node budget, or write it for an engine.

    With --study it is coloured by what a study accepted.
    """
    from specdraft.errors import ConfigError, did_you_mean
    from specdraft.study.points import shape_of
    from specdraft.trees.export import sglang_settings, sglang_triple
    from specdraft.trees.shapes.expand_rerank import ExpandRerank
    from specdraft.trees.shapes.published import published_trees
    from specdraft.viewer.trees import topology_tree

    if output not in (known := ("text", "json", "medusa", "sglang")):
        raise ConfigError(f"--format {output!r} is not known{did_you_mean(output, known)}")
    chosen = ["tree=published", f"tree.name={name}"] if name in published_trees() else [f"tree={name}"]
    shape, budget = shape_of([*chosen, *(overrides or [])], config_dir)
    limits = shape.limits(budget)
    if study is not None:
        _show_heat(study, shape.label, limits.nodes if shape.sized else budget, pair, output, png, html)
        return
    if pair or png or html:
        raise ConfigError("--pair, --png and --html belong to --study DIR: without one there is nothing to colour")
    if isinstance(shape, ExpandRerank) and output == "sglang":
        typer.echo(json.dumps(sglang_settings(shape, budget)._asdict()))
        return
    topology = None if shape.fitted else shape.at(budget).topology
    if topology is None:
        why = "is fitted to traces" if shape.fitted else "differs from step to step (specdraft generate shows it)"
        raise ConfigError(
            f"tree={shape.kind} {why}: there is nothing to draw before a sweep (--study DIR draws one after it)"
        )
    if output == "json":
        facts = {
            "tree": shape.label,
            "nodes": limits.nodes,
            "depth": limits.depth,
            "sibling_closed": topology.sibling_closed,
        }
        typer.echo(json.dumps(facts | {"paths": [list(path) for path in topology.paths[1:]]}))
    elif output == "medusa":
        _write_medusa(topology)
    elif output == "sglang":
        typer.echo(json.dumps(sglang_triple(topology)._asdict()))
    else:
        console().print(f"{shape.label}: {limits.nodes} nodes, {limits.depth} levels", highlight=False)
        console().print(topology_tree(topology, width=console().width))


def _show_heat(
    study: Path, tree: str, budget: int, pair: str | None, output: str, png: Path | None, html: Path | None
) -> None:
    from specdraft.errors import ConfigError
    from specdraft.results.files import check_file_writable, write_atomically
    from specdraft.viewer.heat import CAPTION, heat_lines, heat_page, heat_trees, write_png

    if output not in ("text", "json"):
        raise ConfigError(f"--format {output} writes a tree without weights; leave --study out")
    for option, path, endings in (("--png", png, (".png",)), ("--html", html, (".html", ".htm"))):
        if path:
            check_file_writable(path, option, endings)
    heats = heat_trees(study, tree, budget, pair)
    if output == "json":
        typer.echo(json.dumps([heat.as_data() for heat in heats]))
    else:
        terminal = console()
        for heat in heats:
            terminal.print(", ".join(filter(None, (heat.title, heat.worth))), markup=False, highlight=False)
            terminal.print(heat_lines(heat, terminal.width))
        terminal.print(CAPTION, style="dim", highlight=False)
    if png:
        write_png(heats, png)
        say(f"{png}: written")
    if html:
        write_atomically(html, heat_page(heats))
        say(f"{html}: written")


def _write_medusa(topology: Topology) -> None:
    from specdraft.trees.export import MEDUSA_TOPK, medusa_choices, medusa_topk

    if (topk := medusa_topk(topology)) > MEDUSA_TOPK:
        typer.echo(f"note: this tree needs TOPK={topk} in medusa/model/utils.py, which says {MEDUSA_TOPK}", err=True)
    typer.echo(json.dumps(medusa_choices(topology)))


@app.command("fit")
def trees_fit(
    name: Annotated[str, typer.Argument(help="a fitted shape: measured, sequoia, ...")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="also write it, for tree=paths tree.file=FILE")] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Fit one tree on all prompts of a pair; draw it or write it."""
    from specdraft.results.files import check_file_writable, write_atomically
    from specdraft.study.fitted_tree import fit_tree
    from specdraft.viewer.trees import topology_tree

    if out:
        check_file_writable(out, "--out")
    fitted = fit_tree(name, overrides or [], config_dir, say)
    facts = fitted.as_dict()
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        size = f"{facts['nodes']} nodes, {facts['depth']} levels, fitted on {fitted.prompts} prompts of {facts['pair']}"
        console().print(f"{facts['tree']}: {size}", markup=False, highlight=False, soft_wrap=True)
        console().print(topology_tree(fitted.topology, width=console().width))
    if out:
        write_atomically(out, json.dumps(facts) + "\n")
        say(f"{out}: written")


@app.command("optimal")
def trees_optimal(
    budget: Annotated[int, typer.Option("--budget", help="draft nodes")],
    file: Annotated[
        Path | None,
        typer.Argument(help="acceptance by child rank: JSON, CSV, or an engine's file", show_default=False),
    ] = None,
    vector: Annotated[
        str | None, typer.Option("--acceptance-vector", help="acceptance by child rank: 0.63,0.11,...")
    ] = None,
    matrix: Annotated[
        Path | None, typer.Option("--acceptance-matrix", help="JSON file: one row of acceptance by rank per depth")
    ] = None,
    max_depth: Annotated[int | None, typer.Option("--max-depth", help="draft levels at most")] = None,
    max_children: Annotated[int | None, typer.Option("--max-children", help="children of one node at most")] = None,
    free_ranks: Annotated[
        bool, typer.Option("--free-ranks", help="allow a node without its lower-ranked siblings")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Draw the tree with the most expected accepted tokens."""
    from specdraft.errors import ConfigError
    from specdraft.exchange.acceptance_file import read_acceptance_file
    from specdraft.trees.optimal import best_tree, read_acceptance
    from specdraft.trees.shapes import check_budget
    from specdraft.trees.topology import Topology
    from specdraft.viewer.trees import topology_tree

    check_budget(budget)
    if file is not None and (vector is not None or matrix is not None):
        raise ConfigError(f"{file}: expected either a file or one of --acceptance-vector and --acceptance-matrix")
    acceptance = read_acceptance(vector, matrix) if file is None else read_acceptance_file(file)
    tree = best_tree(acceptance, budget, max_depth=max_depth, max_children=max_children, free_ranks=free_ranks)
    if not tree.filled:
        typer.echo(
            f"note: budget={budget} does not fit within the depth and width; the largest tree has {tree.nodes} nodes",
            err=True,
        )
    if as_json:
        typer.echo(json.dumps(tree._asdict() | {"depth": tree.depth}))
        return
    facts = (
        f"{tree.nodes} nodes, {tree.depth} levels, {tree.expected_accepted:.4f} expected accepted tokens per "
        "step (bonus not counted)"
    )
    console().print(facts, highlight=False, soft_wrap=True)
    console().print(topology_tree(Topology.from_paths(tree.paths)))
