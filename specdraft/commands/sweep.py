"""`specdraft sweep`: measure every combination."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from specdraft.commands.options import (
    SOME_FAILED,
    AsJson,
    ConfigDir,
    Overrides,
    console,
    say_while_loading,
    shown_progress,
)
from specdraft.errors import OutOfReachError, UserError, plain_text

if TYPE_CHECKING:
    from specdraft.study.estimates import Estimate
    from specdraft.study.plan import StudyPlan
    from specdraft.study.run import Outcome


def sweep(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="default: results/<study name>")] = None,
    config_dir: ConfigDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the combinations; run nothing")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over (default: resume)")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="the resolved config as YAML")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every combination of settings on every prompt."""
    if print_config:
        from specdraft.config import compose_study
        from specdraft.study.points import schemas

        typer.echo(compose_study(overrides or [], schemas(), config_dir).yaml(), nl=False)
        return
    say_while_loading()
    from specdraft.study.plan import plan_study

    try:
        plan = plan_study(overrides or [], config_dir, weights=not dry_run)
    except OutOfReachError:
        if dry_run:
            _say_known_sizes(overrides or [], config_dir)
        raise
    folder = out or Path("results") / plan.settings.name
    if dry_run:
        _show_plan(plan, folder, as_json)
        return
    _run_sweep(plan, folder, fresh, as_json)


def _say_known_sizes(overrides: list[str], config_dir: Path | None) -> None:
    """What can be said of memory without the models."""
    from specdraft.study.known_sizes import known_sizes

    for line in known_sizes(overrides, config_dir):
        console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def _run_sweep(plan: StudyPlan, folder: Path, fresh: bool, as_json: bool) -> None:
    from specdraft.study.run import run_study
    from specdraft.viewer.tables import skipped_lines

    errors = console(stderr=True)
    for line in [*(f"note: {note}" for note in plan.all_notes), *skipped_lines(plan.skipped)]:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)
    with shown_progress(errors) as progress:
        outcome = run_study(plan, folder, fresh, progress)
        progress.stage("report", int(plan.settings.report), "pages")
        reported = _report_after_sweep(folder, plan) if plan.settings.report else None
    if as_json:
        _say_json(plan, folder, outcome)
    else:
        _show_tables(folder, outcome)
    if reported is not None:
        _say_reported(reported, as_json)
    if outcome.failures:
        failed = f"{len(outcome.failures)} combinations failed; see {folder / 'failures.jsonl'}"
        errors.print(failed, style="red", markup=False, highlight=False, soft_wrap=True)
    if outcome.left_out:
        left_out = f"{outcome.left_out} prompts are left out; see left_out in {folder / 'manifest.json'}"
        errors.print(left_out, style="red", markup=False, highlight=False, soft_wrap=True)
    if not outcome.certified:
        errors.print(
            f"not lossless: see certificate.live in {folder / 'manifest.json'}",
            style="red",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.untested:
        untested = (
            f"not tested: {', '.join(outcome.untested)}: too few texts to tell laws apart; see certificate.live in "
            f"{folder / 'manifest.json'} (specdraft certify --texts takes more)"
        )
        errors.print(untested, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if outcome.failures or outcome.left_out or outcome.untested or not outcome.certified:
        raise typer.Exit(SOME_FAILED)


def _say_json(plan: StudyPlan, folder: Path, outcome: Outcome) -> None:
    from specdraft.viewer.tables import cost_lines

    rows = json.loads(outcome.tables["summary.csv"].to_json(orient="records"))
    names = {"study": plan.settings.name, "out": str(folder), "combinations": len(rows)}
    for line in cost_lines(outcome.costs):
        console(stderr=True).print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    typer.echo(json.dumps(names | {"skipped": len(plan.skipped), "failed": len(outcome.failures), "summary": rows}))


def _show_tables(folder: Path, outcome: Outcome) -> None:
    from specdraft.viewer.tables import NARROW, cost_lines, depth_table, summary_lines, summary_tables

    summary, narrow = outcome.tables["summary.csv"], console().width < NARROW
    for shown in summary_lines(summary) if narrow else summary_tables(summary):
        console().print(shown, markup=False, highlight=False)
    by_depth = None if narrow else depth_table(summary, outcome.tables["positions.csv"])
    if by_depth is not None:
        console().print(by_depth, markup=False, highlight=False)
    for line in cost_lines(outcome.costs):
        console().print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    done = f"{folder}: {outcome.rows} new rows, {outcome.reused} reused, {outcome.wall_s:.0f} s in all"
    console().print(done, markup=False, highlight=False, soft_wrap=True)


class Reported(NamedTuple):
    """A study's page, or why there is none."""

    page: Path | None
    problem: str = ""


def _report_after_sweep(folder: Path, plan: StudyPlan) -> Reported:
    """The study is written: a report that fails costs one line, not the sweep."""
    try:
        from specdraft.report.writing import write_report

        return Reported(write_report(folder, planned=plan.combinations)[0])
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        reason = first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
        return Reported(None, f"no report was written: {reason} (specdraft report {folder} tries again)")


def _say_reported(reported: Reported, quiet: bool) -> None:
    if reported.page is None:
        console(stderr=True).print(reported.problem, style="yellow", markup=False, highlight=False, soft_wrap=True)
    elif not quiet:
        console().print(f"report: {reported.page}", markup=False, highlight=False, soft_wrap=True)


def _show_plan(plan: StudyPlan, folder: Path, as_json: bool) -> None:
    import pandas as pd

    from specdraft.study.folder import rows_there
    from specdraft.viewer.tables import plan_table

    there = rows_there(plan, folder)
    settings = ("acceptance", "temperature", "draft_temperature", "max_new_tokens", "combination")
    columns = ("pair", "drafter", "tree", "budget", "nodes", "depth", "pruning", "length", *settings)
    if as_json:
        combinations = [
            {name: c.keys[name] for name in columns} | {"reused": there[c.identifier]} for c in plan.combinations
        ]
        skipped = [{"overrides": what, "reason": why} for what, why in plan.skipped]
        typer.echo(
            json.dumps(
                {
                    "study": plan.settings.name,
                    "out": str(folder),
                    "prompts": len(plan.prompts),
                    "combinations": combinations,
                    "skipped": skipped,
                    "notes": [
                        *({"kind": "plan", "text": text} for text in plan.notes),
                        *(note.as_dict() for note in plan.prompt_notes),
                    ],
                    "estimates": [estimate.as_dict() for estimate in _estimates(plan)],
                }
            )
        )
        return
    title = f"{plan.settings.name}: {len(plan.combinations)} combinations x {len(plan.prompts)} prompts -> {folder}"
    console().print(title, markup=False, highlight=False, soft_wrap=True)
    console().print(plan_table(pd.DataFrame([c.keys | {"reused": there[c.identifier]} for c in plan.combinations])))
    for note in plan.all_notes:
        console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    for line in (line for estimate in _estimates(plan) for line in estimate.lines()):
        console().print(line, markup=False, highlight=False, soft_wrap=True)
    for what, reason in plan.skipped:
        console().print(plain_text(f"skipped: {what}: {reason}"), markup=False, highlight=False, soft_wrap=True)


def _estimates(plan: StudyPlan) -> list[Estimate]:
    """Of pairs that are not bundled: of those alone it takes torch."""
    if all(pair.bundled for pair in plan.by_pair()):
        return []
    from specdraft.study.estimates import estimates

    return estimates(plan)
