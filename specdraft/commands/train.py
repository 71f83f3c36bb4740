"""`specdraft train`: drafters that learn from the target."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, say, say_while_loading, shown_progress

if TYPE_CHECKING:
    from rich.table import Table

    from specdraft.training.card import Made

app = typer.Typer(
    no_args_is_help=True,
    help="Train a drafter on a target: heads on its states, a draft model, a model of the last few tokens.",
)
Out = Annotated[Path, typer.Option("--out", help="the folder to write; a run that was killed goes on there")]
Fresh = Annotated[bool, typer.Option("--fresh", help="start over (default: go on)")]


HELP = {
    "medusa": """Train Medusa heads on a target: train.text=FILE, or prompts=jsonl prompts.path=FILE.

Heads read the target's last state and share its output layer. Also train.heads, train.blocks, train.continued,
train.steps, train.positions, train.lr, train.decay, train.labels=text, train.dtype, train.held_out; with
train.joint=true the target learns too (Medusa-2). Use it with drafter=medusa drafter.path=DIR.
""",
    "hydra": """Train Hydra heads on a target: train.text=FILE, or prompts=jsonl prompts.path=FILE.

As Medusa heads, and they read the path's tokens. Also train.heads, train.blocks, train.continued, train.steps,
train.positions, train.lr, train.decay, train.labels=text, train.held_out. Use it with drafter=hydra drafter.path=DIR.
""",
    "redrafter": """Train a recurrent head on a target: train.text=FILE, or prompts=jsonl prompts.path=FILE.

One cell reads the path's tokens, one head proposes at every depth. train.heads is how deep it drafts while it learns;
also train.blocks, train.continued, train.steps, train.positions, train.lr, train.decay, train.labels=text,
train.held_out. Use it with drafter=redrafter drafter.path=DIR.
""",
    "parallel": """Train a block head (DFlash): train.text=FILE, or prompts=jsonl prompts.path=FILE.

It reads some of the target's states and proposes a token for every slot of a block at once. Also train.block,
train.layers, train.target_layers, train.mask_token, train.gamma, train.continued, train.steps, train.positions,
train.lr, train.held_out. Use it with drafter=parallel drafter.path=DIR.
""",
    "eagle": """Train an EAGLE-3 head on a target: train.text=FILE, or prompts=jsonl prompts.path=FILE.

It reads states of three of the target's layers and shares its embeddings and output layer. Also train.depths,
train.draft_vocab, train.layers, train.inner, train.aux_layers, train.continued, train.steps, train.positions,
train.lr, train.decay, train.dtype, train.held_out. Use it with drafter=eagle drafter.path=DIR.
""",
    "draft": """Train a draft model on a target's distribution: train.text=FILE, or prompts=jsonl prompts.path=FILE.

It has the target's architecture with train.layers layers, train.width, train.inner and train.attention_heads. Also
train.continued, train.steps, train.positions, train.lr, train.dtype, train.held_out. Use it with pair.draft.path=DIR.
""",
    "nano": """Train a model of the last few tokens on a target's distribution, for which a level of a tree costs
next to nothing.

train.span tokens, train.width, train.inner; also train.text, train.continued, train.steps, train.positions,
train.lr, train.held_out. Use it with drafter=nano drafter.path=DIR.
""",
}


def _command(kind: str) -> Callable[..., None]:
    def command(
        out: Out,
        overrides: Overrides = None,
        config_dir: ConfigDir = None,
        fresh: Fresh = False,
        as_json: AsJson = False,
    ) -> None:
        _train(kind, overrides, out, config_dir, fresh, as_json)

    return command


for name, text in HELP.items():
    app.command(name, help=text)(_command(name))


def _train(
    kind: str, overrides: list[str] | None, out: Path, config_dir: Path | None, fresh: bool, as_json: bool
) -> None:
    say_while_loading()
    from specdraft.training import run

    train = {
        "medusa": run.train_medusa,
        "hydra": run.train_hydra,
        "redrafter": run.train_redrafter,
        "parallel": run.train_parallel,
        "draft": run.train_draft,
        "nano": run.train_nano,
        "eagle": run.train_eagle,
    }[kind]
    with shown_progress(console(stderr=True)) as progress:
        made = train(overrides or [], out, config_dir, fresh, progress)
    if as_json:
        typer.echo(json.dumps(made.as_dict()))
    else:
        console().print(_table(made))
    say(f"{out}: written")


def _table(made: Made) -> Table:
    from rich.table import Table

    held, log = made.held_out, made.trained.log
    table = Table("", "", title=f"{made.kind} for {made.target}")
    depths = ", ".join(f"{share:.3f}" for share in held.by_depth)
    rows = {
        "learnt from": f"{made.source}: {made.texts:,} texts, {made.tokens:,} tokens",
        "parameters": f"{made.parameters:,}",
        "loss": f"{log[0]['loss']:.3f} -> {log[-1]['loss']:.3f} in {log[-1]['step']:.0f} steps",
        f"chain of {held.depth} on {held.texts} held-out texts": f"{held.block_efficiency:.3f} tokens a step",
        "accepted at each depth": depths,
        "tokens in loops": f"{held.loop_share:.0%}",
        "draft with it": made.use,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
