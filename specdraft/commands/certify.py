"""`specdraft certify`: is decoding lossless?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import (
    DONE,
    SOME_FAILED,
    AsJson,
    ConfigDir,
    Overrides,
    console,
    say_while_loading,
    shown_progress,
)
from specdraft.errors import ConfigError

FILES = "judge an engine's texts (JSONL) instead; given again: the same engine's without speculation"


def certify(
    overrides: Overrides = None,
    texts: Annotated[
        int | None, typer.Option("--texts", help="sampled texts for each rule and prompt (default 200)")
    ] = None,
    against: Annotated[list[Path] | None, typer.Option("--against", help=FILES)] = None,
    tolerance: Annotated[
        str | None,
        typer.Option("--tolerance", help="with --against: logits of a tie, or the engine's type, as bfloat16"),
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Check that decoding is lossless: every rule, then live text; or the texts of another engine.

    Each rule is enumerated on small models; then live text of the pair is compared with its target's own. With
    --against, texts from elsewhere are read by the target: which token is not its own, and is that a tie or a bug?
    """
    if against:
        if texts is not None:
            raise ConfigError(
                f"--texts {texts} has no effect with --against: the texts are there already; leave it out"
            )
        _judge_texts(against, overrides or [], tolerance, config_dir, as_json)
    if tolerance is not None:
        raise ConfigError(f"--tolerance {tolerance} has no effect without --against; leave it out")
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


def _judge_texts(
    files: list[Path], overrides: list[str], tolerance: str | None, config_dir: Path | None, as_json: bool
) -> None:
    """What the target says of an engine's texts; ends the command."""
    say_while_loading()
    from specdraft.study.against import certify_against
    from specdraft.viewer.against_tables import against_lines, sentence

    with shown_progress(console(stderr=True)) as progress:
        told = certify_against(files, overrides, config_dir, tolerance, progress)
    if as_json:
        typer.echo(json.dumps(told.as_dict() | {"sentence": sentence(told)}))
    else:
        for part in against_lines(told):
            console().print(part, soft_wrap=not hasattr(part, "columns"), highlight=False)
    raise typer.Exit(DONE if told.certified else SOME_FAILED)
