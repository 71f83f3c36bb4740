"""`specdraft certify`: is decoding lossless?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from specdraft.commands.options import DONE, SOME_FAILED, AsJson, ConfigDir, Overrides, console, shown_progress

if TYPE_CHECKING:
    pass


def certify(
    overrides: Overrides = None,
    texts: Annotated[
        int | None, typer.Option("--texts", help="sampled texts for each rule and prompt (default 200)")
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Check that decoding is lossless: every rule, then live text.

    Each rule is enumerated on small models; then live text of the pair is compared with its target's own.
    """
    from specdraft.study import certify as verdicts
    from specdraft.viewer.verdicts import verdict_lines

    with shown_progress(console(stderr=True)) as progress:
        verdict = verdicts.certify(overrides or [], config_dir, texts, progress)
    for what, reason in verdict.skipped:
        console(stderr=True).print(f"skipped: {what}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(verdict.as_dict()))
    else:
        for part in verdict_lines(verdict):
            console().print(part, soft_wrap=True)
    raise typer.Exit(DONE if verdict.certified else SOME_FAILED)
