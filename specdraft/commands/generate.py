"""`specdraft generate` and `specdraft replay`: one prompt, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specdraft.commands.options import AsJson, ConfigDir, Html, NoLive, Overrides, console, say

if TYPE_CHECKING:
    from specdraft.viewer.steps import Showing


def generate(
    prompt: Annotated[str, typer.Argument(help="the text to continue")],
    overrides: Overrides = None,
    html: Html = None,
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
    )
    _present(watched(decoder, combination, prompt, encoded.ids), html, not no_live, as_json)


def replay(
    prompt_id: Annotated[str, typer.Argument(help="a prompt of the prompt set")],
    overrides: Overrides = None,
    no_models: Annotated[
        bool, typer.Option("--no-models", help="load no model; what only a model could tell is shown as ?")
    ] = False,
    html: Html = None,
    no_live: NoLive = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the draft tree of every step along a recorded text."""
    from dataclasses import replace

    from specdraft.results.files import check_file_writable
    from specdraft.study.plan import one_combination
    from specdraft.study.refusals import refuse_engine
    from specdraft.traces.store import TraceStore, default_folder
    from specdraft.viewer.replayed import recorded, replayed

    refuse_engine("replay", overrides or [], "replay")
    combination = one_combination("replay", overrides or [], config_dir)
    combination = replace(combination, settings=replace(combination.settings, engine="replay"))
    combination.together.refuse_replayed_steps()
    if html:
        check_file_writable(html, "--html", (".html", ".htm"))
    showing = replayed(recorded(combination, prompt_id, TraceStore(default_folder()), not no_models, say))
    _present(showing, html, not no_live, as_json)


def _present(showing: Showing, html: Path | None, live: bool, as_json: bool) -> None:
    from contextlib import nullcontext

    from specdraft.viewer.page import write_page
    from specdraft.viewer.terminal import StepPrinter, totals_text

    terminal = console()
    printer = None if as_json else StepPrinter(terminal, showing, live)
    with printer or nullcontext():
        for step in showing.steps():
            if printer:
                printer.step(step)
    shown, result = showing.shown(), showing.result()
    if html:
        write_page(shown, html)
    if as_json:
        typer.echo(json.dumps(result.as_data() | {"trees": shown.trees_as_data()}))
    else:
        terminal.print(totals_text(shown, result), highlight=False)
    if html:
        say(f"{html}: written")
    if result.timed_out:
        say("note: the text ended early: max_time_s was reached")
