"""`specdraft generate` and `specdraft replay`: one prompt, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specdraft.commands.options import (
    AsJson,
    ConfigDir,
    Dot,
    Html,
    NoLive,
    Overrides,
    Png,
    StepNumber,
    Svg,
    console,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specdraft.study.generate import Generation
    from specdraft.viewer.step_files import StepFiles
    from specdraft.viewer.steps import Showing, Shown


def generate(
    prompt: Annotated[str, typer.Argument(help="the text to continue")],
    overrides: Overrides = None,
    html: Html = None,
    png: Png = None,
    svg: Svg = None,
    dot: Dot = None,
    step: StepNumber = None,
    no_live: NoLive = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Decode one prompt live and show the draft tree of every step."""
    from dataclasses import replace

    from specdraft.drafters.pair import load_pair
    from specdraft.results.files import check_file_writable
    from specdraft.study.generate import SpeculativeDecoder
    from specdraft.study.plan import one_combination
    from specdraft.study.prompt_notes import notes_on_encoding, notes_on_template
    from specdraft.study.refusals import refuse_engine, refuse_prompt_set
    from specdraft.viewer.live import watched
    from specdraft.viewer.step_files import StepFiles

    refuse_engine("generate", overrides or [], "live")
    combination = one_combination("generate", overrides or [], config_dir)
    refuse_prompt_set(overrides or [], combination)
    replace(combination.together, engine="live").refuse()
    pair, template = combination.pair, combination.prompts.chat_template
    encoded = pair.encode_to_fit(
        prompt, template, combination.settings, combination.limits.depth, combination.prompts.before
    )
    for note in [
        *notes_on_template(pair, template, 1),
        *notes_on_encoding({"": encoded}, combination.settings.max_prompt_tokens, pair.label),
    ]:
        say(f"note: {note.text}")
    if html:
        check_file_writable(html, "--html", (".html", ".htm"))
    files = StepFiles(png, svg, dot, step)
    files.check()
    settings = combination.settings
    decoder = SpeculativeDecoder(
        load_pair(pair),
        combination.shape,
        settings.budget,
        settings.max_new_tokens,
        combination.rule,
        combination.sampling,
        watched=True,
        max_prompt_tokens=settings.max_prompt_tokens,
        seed=settings.seed,
        fitted_on=combination.prompts,
        pruning=combination.pruning,
        length=combination.length,
        max_time_s=settings.max_time_s,
        cache=settings.cache,
        draft_temperature=combination.drawn.temperatures or None,
    )
    _present([watched(decoder, combination, prompt, encoded.ids)], html, files, not no_live, as_json)


def replay(
    prompt_id: Annotated[str, typer.Argument(help="a prompt of the prompt set")],
    overrides: Overrides = None,
    no_models: Annotated[
        bool, typer.Option("--no-models", help="load no model; what only a model could tell is shown as ?")
    ] = False,
    html: Html = None,
    png: Png = None,
    svg: Svg = None,
    dot: Dot = None,
    step: StepNumber = None,
    no_live: NoLive = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the draft tree of every step along a recorded text; two trees, as of `tree=chain,kary`, side by side."""
    from dataclasses import replace

    from specdraft.results.files import check_file_writable
    from specdraft.study.plan import one_or_two_combinations
    from specdraft.study.refusals import refuse_engine, refuse_without_effect
    from specdraft.traces.store import TraceStore, default_folder
    from specdraft.viewer.replayed import recorded, replayed
    from specdraft.viewer.step_files import StepFiles
    from specdraft.viewer.steps import about

    refuse_engine("replay", overrides or [], "replay")
    refuse_without_effect("replay", overrides or [], ("max_time_s",), "nothing is decoded")
    combinations = [
        replace(combination, settings=replace(combination.settings, engine="replay"))
        for combination in one_or_two_combinations("replay", overrides or [], config_dir)
    ]
    for combination in combinations:
        combination.together.refuse_replayed_steps()
    if html:
        check_file_writable(html, "--html", (".html", ".htm"))
    files = StepFiles(png, svg, dot, step)
    files.check(len(combinations))
    store = TraceStore(default_folder())

    def showings() -> Iterable[Showing]:
        for combination in combinations:
            showing = replayed(recorded(combination, prompt_id, store, not no_models, say))
            if len(combinations) > 1 and not as_json:
                typer.echo(f"\n{about(combination)['tree']}")
            yield showing

    _present(showings(), html, files, not no_live, as_json)


def _present(showings: Iterable[Showing], html: Path | None, files: StepFiles, live: bool, as_json: bool) -> None:
    from specdraft.viewer.page import check_side_by_side, write_page
    from specdraft.viewer.terminal import totals_text

    terminal = console()
    done = [_watched_to_the_end(showing, live, as_json) for showing in showings]
    shown = [one for one, _ in done]
    check_side_by_side(shown)
    graph = files.chosen(shown[0])
    if graph:
        files.write(graph)
    if html:
        write_page(shown, html)
    if as_json:
        data = [result.as_data() | {"trees": one.trees_as_data()} for one, result in done]
        typer.echo(json.dumps(data[0] if len(data) == 1 else data))
    else:
        for one, result in done:
            terminal.print(totals_text(one, result, len(done) > 1), highlight=False)
    for path in [*([html] if html else []), *files.paths]:
        say(f"{path}: written")
    if any(result.timed_out for _, result in done):
        say("note: the text ended early: its time (max_time_s) was over")


def _watched_to_the_end(showing: Showing, live: bool, as_json: bool) -> tuple[Shown, Generation]:
    """All of it and its counts, with every step printed as it happens unless only the result is asked for."""
    from contextlib import nullcontext

    from specdraft.viewer.terminal import StepPrinter

    printer = None if as_json else StepPrinter(console(), showing, live)
    with printer or nullcontext():
        for step in showing.steps():
            if printer:
                printer.step(step)
    return showing.shown(), showing.result()
