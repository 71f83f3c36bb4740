"""The command line: parse, call, render. Heavy libraries are imported by the commands that use them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdraft.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from specdraft.study.plan import StudyPlan
    from specdraft.study.progress import Progress
    from specdraft.trees.topology import Topology
    from specdraft.viewer.steps import Showing

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How many draft tokens does each draft-tree shape get accepted, at each node budget, and what is that worth in time?",
)
trees_app = typer.Typer(no_args_is_help=True, help="Draft-tree shapes.")
app.add_typer(trees_app, name="trees")
traces_app = typer.Typer(no_args_is_help=True, help="Recorded trajectories, which replayed sweeps share.")
app.add_typer(traces_app, name="traces")

Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides: pair=zoo tree=chain,kary budget=4,8", show_default=False)]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="your own configs, searched before the bundled ones")]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output on stdout")]

Html = Annotated[Path | None, typer.Option("--html", help="also write a page that shows the steps, without a network")]
NoLive = Annotated[bool, typer.Option("--no-live", help="print steps one after another, for logs")]

DONE, INTERNAL, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Options that go before the command."""


@app.command()
def sweep(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="default: results/<study name>")] = None,
    config_dir: ConfigDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the combinations; run nothing")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over (the default resumes)")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="the resolved config as YAML")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every combination of pair, tree, budget and settings on every prompt."""
    from specdraft.study.plan import plan_study, schemas

    if print_config:
        from specdraft.config import compose_study

        typer.echo(compose_study(overrides or [], schemas(), config_dir).yaml(), nl=False)
        return
    plan = plan_study(overrides or [], config_dir, weights=not dry_run)
    folder = out or Path("results") / plan.settings.name
    if dry_run:
        _show_plan(plan, folder, as_json)
        return
    _run_sweep(plan, folder, fresh, as_json)


def _run_sweep(plan: StudyPlan, folder: Path, fresh: bool, as_json: bool) -> None:
    from specdraft.study.run import run_study
    from specdraft.viewer.tables import skipped_lines, summary_tables

    errors = _console(stderr=True)
    for line in skipped_lines(plan.skipped):
        errors.print(line, markup=False, highlight=False, soft_wrap=True)
    with _progress(errors) as progress:
        outcome = run_study(plan, folder, fresh, progress)
    summary = outcome.tables["summary.csv"]
    if as_json:
        rows = json.loads(summary.to_json(orient="records"))
        names = {"study": plan.settings.name, "out": str(folder), "combinations": len(rows)}
        typer.echo(json.dumps(names | {"skipped": len(plan.skipped), "failed": len(outcome.failures), "summary": rows}))
    else:
        for table in summary_tables(summary):
            _console().print(table)
        done = f"{folder}: {outcome.rows} new rows, {outcome.reused} reused, {outcome.wall_s:.0f} s in all"
        _console().print(done, markup=False, highlight=False, soft_wrap=True)
    if plan.settings.report:
        _report_after_sweep(folder, as_json)
    if outcome.failures:
        failed = f"{len(outcome.failures)} combinations failed; see {folder / 'failures.jsonl'}"
        errors.print(failed, style="red", markup=False, highlight=False, soft_wrap=True)
    if not outcome.certified:
        errors.print(f"not lossless: see certificate.live in {folder / 'manifest.json'}", style="red", highlight=False, soft_wrap=True)
    if outcome.failures or not outcome.certified:
        raise typer.Exit(SOME_FAILED)


def _report_after_sweep(folder: Path, quiet: bool) -> None:
    """The study is written: a report that fails costs one line, not the sweep."""
    try:
        from specdraft.report.writing import write_report

        page = write_report(folder)[0]
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        told = first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
        told = f"no report was written: {told} (specdraft report {folder} tries again)"
        _console(stderr=True).print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)
        return
    if not quiet:
        _console().print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a results folder")],
    out: Annotated[Path | None, typer.Option("--out", help="the page's file; default: DIR/report.html")] = None,
    formats: Annotated[str | None, typer.Option("--format", help="of html, md and png (default: all; with --out, what it ends in)")] = None,
) -> None:
    """Turn a results folder into figures and a report that works without a network; no models are needed."""
    from specdraft.report.writing import parse_formats, write_report

    for path in write_report(folder, out, parse_formats(formats, out)):
        typer.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


def _show_plan(plan: StudyPlan, folder: Path, as_json: bool) -> None:
    import pandas as pd

    from specdraft.study.run import rows_there
    from specdraft.viewer.tables import plan_table

    there = rows_there(plan, folder)
    columns = ("pair", "tree", "budget", "nodes", "depth", "acceptance", "temperature", "max_new_tokens", "combination")
    if as_json:
        listed = [{name: c.keys[name] for name in columns} | {"reused": there[c.identifier]} for c in plan.combinations]
        skipped = [{"overrides": what, "reason": why} for what, why in plan.skipped]
        typer.echo(
            json.dumps(
                {"study": plan.settings.name, "out": str(folder), "prompts": len(plan.prompts), "combinations": listed, "skipped": skipped}
            )
        )
        return
    title = f"{plan.settings.name}: {len(plan.combinations)} combinations x {len(plan.prompts)} prompts -> {folder}"
    _console().print(title, markup=False, highlight=False, soft_wrap=True)
    _console().print(plan_table(pd.DataFrame([c.keys | {"reused": there[c.identifier]} for c in plan.combinations])))
    for what, reason in plan.skipped:
        _console().print(f"skipped: {what}: {reason}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="the text to continue")],
    overrides: Overrides = None,
    html: Html = None,
    no_live: NoLive = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Decode one prompt live and show the draft tree of every step."""
    from specdraft.decoding.fitting import refuse_misfit
    from specdraft.decoding.generate import SpeculativeDecoder
    from specdraft.models.encoding import encode_to_fit
    from specdraft.models.pair import load_pair
    from specdraft.study.plan import one_combination
    from specdraft.viewer.live import watched
    from specdraft.viewer.page import check_writable

    one = one_combination("generate", overrides or [], config_dir)
    refuse_misfit(one.shape, one.plan, one.rule, one.sampling, one.pair.vocab)
    prompt_ids = encode_to_fit(one.pair, prompt, one.prompts.chat_template, one.settings, one.plan.depth)
    check_writable(html)
    settings = one.settings
    decoder = SpeculativeDecoder(
        load_pair(one.pair), one.shape, settings.budget, settings.max_new_tokens, one.rule, one.sampling, True, seed=settings.seed
    )
    _present(watched(decoder, one, prompt, prompt_ids), html, not no_live, as_json)


@app.command()
def replay(
    prompt_id: Annotated[str, typer.Argument(help="of the prompt set")],
    overrides: Overrides = None,
    no_models: Annotated[bool, typer.Option("--no-models", help="load no model: what only they could tell is shown as ?")] = False,
    html: Html = None,
    no_live: NoLive = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the draft tree of every step along a recorded text."""
    from dataclasses import replace

    from specdraft.study.plan import one_combination
    from specdraft.traces.store import TraceStore, default_folder
    from specdraft.viewer.page import check_writable
    from specdraft.viewer.replayed import check_can_show, recorded, replayed

    one = one_combination("replay", overrides or [], config_dir)
    one = replace(one, settings=replace(one.settings, engine="replay"))
    check_can_show(one)
    check_writable(html)
    _present(replayed(recorded(one, prompt_id, TraceStore(default_folder()), not no_models, _say)), html, not no_live, as_json)


def _present(showing: Showing, html: Path | None, live: bool, as_json: bool) -> None:
    from contextlib import nullcontext

    from specdraft.viewer.page import write_page
    from specdraft.viewer.terminal import StepPrinter, totals_text

    console = _console()
    printer = None if as_json else StepPrinter(console, showing, live)
    with printer or nullcontext():
        for step in showing.steps():
            if printer:
                printer.step(step)
    shown, result = showing.shown(), showing.result()
    if html:
        write_page(shown, html)
    if as_json:
        typer.echo(json.dumps(result.as_data()))
    else:
        console.print(totals_text(shown, result), highlight=False)
    if html:
        _say(f"{html}: written")


def _say(what: str) -> None:
    typer.echo(what, err=True)


@trees_app.command("list")
def trees_list(as_json: AsJson = False) -> None:
    """Every shape, its parameters, and the published trees."""
    import dataclasses

    from rich.table import Table

    from specdraft.trees.shapes import registry
    from specdraft.trees.shapes.published import published_trees

    shapes: list[dict[str, Any]] = []
    for kind, shape in sorted(registry().items()):
        default: Any = shape()
        parameters = {f.name: getattr(default, f.name) for f in dataclasses.fields(default) if f.name != "kind"}
        shapes.append({"kind": kind, "parameters": parameters, "about": (shape.__doc__ or "").splitlines()[0]})
    trees = [{"name": name, "nodes": tree["nodes"], "depth": tree["depth"]} for name, tree in published_trees().items()]
    if as_json:
        typer.echo(json.dumps({"shapes": shapes, "published": trees}))
        return
    table = Table("tree", "parameters", "what")
    for row in shapes:
        table.add_row(row["kind"], ", ".join(f"{k}={v}" for k, v in row["parameters"].items()), row["about"].replace("`", ""))
    _console().print(table)
    published = Table("published tree (tree=published tree.name=...)", "nodes", "depth")
    for tree in trees:
        published.add_row(tree["name"], str(tree["nodes"]), str(tree["depth"]))
    _console().print(published)


@trees_app.command("show")
def trees_show(
    name: Annotated[str, typer.Argument(help="a shape, a tree config, or a published tree")],
    overrides: Annotated[list[str] | None, typer.Argument(help="budget=8 tree.k=3", show_default=False)] = None,
    output: Annotated[str, typer.Option("--format", help="text, json, medusa or sglang")] = "text",
    study: Annotated[Path | None, typer.Option("--study", help="a study's results: colour each node by its mean acceptance weight")] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="of the study (default: every pair)")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="also write the coloured tree as a picture")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="also write it as a page, without a network")] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Draw one tree at a node budget, coloured by what a study accepted, or write it as other projects do."""
    from specdraft.errors import ConfigError, did_you_mean
    from specdraft.study.plan import shape_of
    from specdraft.trees.export import sglang_triple
    from specdraft.trees.shapes import StaticPlan
    from specdraft.trees.shapes.published import published_trees
    from specdraft.viewer.trees import topology_tree

    if output not in (known := ("text", "json", "medusa", "sglang")):
        raise ConfigError(f"--format {output!r} is not known{did_you_mean(output, known)}")
    chosen = ["tree=published", f"tree.name={name}"] if name in published_trees() else [f"tree={name}"]
    shape, budget = shape_of([*chosen, *(overrides or [])], config_dir)
    plan = shape.at(budget)
    if study is not None:
        _show_heat(study, shape.label, plan.nodes if shape.sized else budget, pair, output, png, html)
        return
    if pair or png or html:
        raise ConfigError("--pair, --png and --html belong to --study DIR: without one there is nothing to colour")
    if not isinstance(plan, StaticPlan):
        why = "differs from step to step (specdraft generate shows it)" if plan.dynamic else "is fitted to traces"
        raise ConfigError(f"tree={shape.kind} {why}: there is nothing to draw before a sweep (--study DIR draws one after it)")
    topology = plan.topology
    if output == "json":
        facts = {"tree": shape.label, "nodes": plan.nodes, "depth": plan.depth, "sibling_closed": topology.sibling_closed}
        typer.echo(json.dumps(facts | {"paths": [list(path) for path in topology.paths[1:]]}))
    elif output == "medusa":
        _write_medusa(topology)
    elif output == "sglang":
        typer.echo(json.dumps(sglang_triple(topology)._asdict()))
    else:
        _console().print(f"{shape.label}: {plan.nodes} nodes, {plan.depth} levels", highlight=False)
        _console().print(topology_tree(topology, width=_console().width))


def _show_heat(study: Path, tree: str, budget: int, pair: str | None, output: str, png: Path | None, html: Path | None) -> None:
    from specdraft.errors import ConfigError
    from specdraft.results.files import write_atomically
    from specdraft.viewer.heat import CAPTION, heat_lines, heat_page, heat_trees, write_png
    from specdraft.viewer.page import check_writable

    if output not in ("text", "json"):
        raise ConfigError(f"--format {output} writes a tree without weights; leave --study out")
    check_writable(png, "--png")
    check_writable(html)
    heats = heat_trees(study, tree, budget, pair)
    if output == "json":
        typer.echo(json.dumps([heat.as_data() for heat in heats]))
    else:
        console = _console()
        for heat in heats:
            console.print(", ".join(filter(None, (heat.title, heat.worth))), markup=False, highlight=False)
            console.print(heat_lines(heat, console.width))
        console.print(CAPTION, style="dim", highlight=False)
    if png:
        write_png(heats, png)
        _say(f"{png}: written")
    if html:
        write_atomically(html, heat_page(heats))
        _say(f"{html}: written")


def _write_medusa(topology: Topology) -> None:
    from specdraft.trees.export import MEDUSA_TOPK, medusa_choices, medusa_topk

    if (topk := medusa_topk(topology)) > MEDUSA_TOPK:
        typer.echo(f"note: this tree needs TOPK={topk} in medusa/model/utils.py, which says {MEDUSA_TOPK}", err=True)
    typer.echo(json.dumps(medusa_choices(topology)))


@trees_app.command("optimal")
def trees_optimal(
    budget: Annotated[int, typer.Option("--budget", help="draft nodes")],
    vector: Annotated[str | None, typer.Option("--acceptance-vector", help="acceptance by child rank: 0.63,0.11,...")] = None,
    matrix: Annotated[Path | None, typer.Option("--acceptance-matrix", help="JSON file: one row of acceptance by rank per depth")] = None,
    max_depth: Annotated[int | None, typer.Option("--max-depth", help="draft levels at most")] = None,
    max_children: Annotated[int | None, typer.Option("--max-children", help="children of one node at most")] = None,
    free_ranks: Annotated[bool, typer.Option("--free-ranks", help="allow a node without its lower-ranked siblings")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw the tree with the most expected accepted tokens."""
    from specdraft.trees.optimal import best_tree, read_acceptance
    from specdraft.trees.shapes import check_budget
    from specdraft.trees.topology import Topology
    from specdraft.viewer.trees import topology_tree

    check_budget(budget)
    acceptance = read_acceptance(vector, matrix)
    tree = best_tree(acceptance, budget, max_depth=max_depth, max_children=max_children, free_ranks=free_ranks)
    if not tree.filled:
        typer.echo(f"note: budget={budget} does not fit within the depth and width; the largest tree has {tree.nodes} nodes", err=True)
    if as_json:
        typer.echo(json.dumps(tree._asdict() | {"depth": tree.depth}))
        return
    facts = f"{tree.nodes} nodes, {tree.depth} levels, {tree.expected_accepted:.4f} expected accepted tokens per step (bonus not counted)"
    _console().print(facts, highlight=False, soft_wrap=True)
    _console().print(topology_tree(Topology.from_paths(tree.paths)))


@traces_app.command("list")
def traces_list(as_json: AsJson = False) -> None:
    """Every recorded trace."""
    from rich.table import Table

    from specdraft.traces.store import TraceStore, default_folder

    traces = list(TraceStore(default_folder()).list())
    if as_json:
        typer.echo(json.dumps([{"key": t.key, "size_bytes": t.size_bytes, "about": t.about} for t in traces]))
        return
    table = Table("key", "kind", "weights", "KiB")
    for trace in traces:
        weights = [trace.about[role]["weights"] for role in ("target", "draft") if role in trace.about]
        table.add_row(trace.key, trace.about["kind"], " ".join(weights), f"{trace.size_bytes / 1024:.1f}")
    _console().print(table)
    typer.echo(f"{len(traces)} traces, {sum(t.size_bytes for t in traces) / 2**20:.1f} MiB in {default_folder()}")


@traces_app.command("show")
def traces_show(key: Annotated[str, typer.Argument(help="a key, or the beginning of one")]) -> None:
    """What one trace depends on, as JSON."""
    from specdraft.traces.store import TraceStore, default_folder

    trace = TraceStore(default_folder()).find(key)
    typer.echo(json.dumps({"key": trace.key, "size_bytes": trace.size_bytes, "about": trace.about}, indent=1))


@traces_app.command("rm")
def traces_rm(
    keys: Annotated[list[str] | None, typer.Argument(help="keys, or beginnings of them")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every trace")] = False,
) -> None:
    """Delete traces; a study that needs them records them again."""
    from specdraft.traces.store import TraceStore, default_folder

    if bool(keys) == everything:
        raise UserError("traces rm needs keys, or --all")
    store = TraceStore(default_folder())
    found = {trace.key for trace in (store.list() if everything else map(store.find, keys or []))}
    for key in found:
        store.remove(key)
    if everything:
        store.sweep_up()
    typer.echo(f"{len(found)} traces deleted")


@app.command()
def theory(
    overrides: Overrides = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="chance that a draft token is accepted")] = None,
    gamma: Annotated[int | None, typer.Option("--gamma", help="length of the chain")] = None,
    cost: Annotated[float | None, typer.Option("--cost", help="a draft step over a target step (default 0)")] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """What the closed forms say: of numbers (--alpha A --gamma G --cost C), or of a pair, beside what it does."""
    from specdraft.viewer.theory_tables import formula_tables, prediction_tables

    if alpha is None and (gamma, cost) != (None, None):
        raise UserError("--gamma and --cost need --alpha; without it a pair's own are measured")
    if alpha is not None:
        if overrides:
            raise UserError(f"--alpha is for numbers alone; it does not go with {overrides[0]!r}")
        if gamma is None:
            raise UserError("--alpha needs --gamma, the length of the chain")
        from specdraft.theory.formulas import facts

        found: dict[str, Any] = facts(alpha, gamma, cost or 0.0)
        shown = formula_tables(found)
    else:
        from specdraft.theory.prediction import predict

        with _progress(_console(stderr=True)) as progress:
            prediction = predict(overrides or [], config_dir, progress)
        found, shown = prediction.as_dict(), prediction_tables(prediction)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for part in shown:
        _console().print(part)


@app.command()
def certify(
    overrides: Overrides = None,
    texts: Annotated[int | None, typer.Option("--texts", help="sampled texts for each rule and prompt (default 200)")] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Check that decoding is lossless: each rule enumerated, then live text of the pair against its target."""
    from specdraft.study import certify as verdicts
    from specdraft.viewer.verdicts import verdict_lines

    with _progress(_console(stderr=True)) as progress:
        verdict = verdicts.certify(overrides or [], config_dir, texts, progress)
    for what, reason in verdict.skipped:
        _console(stderr=True).print(f"skipped: {what}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(verdict.as_dict()))
    else:
        for part in verdict_lines(verdict):
            _console().print(part, soft_wrap=True)
    raise typer.Exit(DONE if verdict.certified else SOME_FAILED)


@app.command()
def doctor() -> None:
    """Check the installation: libraries, devices, configs, bundled models."""
    from rich.text import Text

    from specdraft.doctor import findings

    broken = 0
    for finding in findings():
        mark = Text("ok    ", style="green") if finding.fine else Text("BROKEN", style="bold red")
        _console().print(Text.assemble(mark, f" {finding.what}: ", finding.detail))
        broken += not finding.fine
    raise typer.Exit(INTERNAL if broken else DONE)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _progress(console: Console) -> Progress:
    from specdraft.viewer.progress import LogProgress, TerminalProgress

    return TerminalProgress(console) if console.is_terminal else LogProgress(console)


def main() -> None:
    """Run the command line with the exit codes that the README lists."""
    try:
        app()
    except (KeyboardInterrupt, SystemExit) as stop:  # typer turns the one into the other
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        typer.echo("interrupted; run the same command again to resume", err=True)
        sys.exit(INTERRUPTED)
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"internal error: {type(error).__name__}: {error} (specdraft --debug shows where)", err=True)
        sys.exit(INTERNAL)
