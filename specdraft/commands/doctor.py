"""Is everything here that a study needs?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from specdraft.commands.options import DONE, INTERNAL, console, say_while_loading


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    fine: bool
    detail: str


def findings() -> Iterator[Finding]:
    """Look at libraries, devices, configs, prompts and the bundled models, one after the other."""
    checks: dict[str, Callable[[], str]] = {
        "libraries": _libraries,
        "devices": _devices,
        "configs": _configs,
        "prompts": _prompts,
        "bundled models": _models,
        "tree decoding": _decoding,
    }
    for what, check in checks.items():
        try:
            yield Finding(what, True, check())
        except Exception as error:  # the doctor reports whatever is wrong
            yield Finding(what, False, f"{type(error).__name__}: {error}")


def _libraries() -> str:
    from specdraft.results.manifest import environment

    facts = environment()
    return ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())


def _devices() -> str:
    import torch

    from specdraft.results.manifest import cpu_name

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{', '.join(gpus) or 'no CUDA device'}; {torch.get_num_threads()} threads on {cpu_name()}"


def _configs() -> str:
    from specdraft.config import compose_study
    from specdraft.study.points import schemas

    return f"the default grid has {len(compose_study([], schemas()).points)} points"


def _prompts() -> str:
    from specdraft.prompts import PromptSpec, load_prompts

    prompts = load_prompts(PromptSpec())
    return f"{len(prompts)} bundled prompts in {len({p.category for p in prompts})} categories"


def _models() -> str:
    from specdraft.models.files import zoo_folder

    names = sorted({path.parent.name for path in Path(zoo_folder()).glob("*/*.safetensors")})
    if not names:
        raise FileNotFoundError(f"no bundled models in {zoo_folder()}")
    return ", ".join(names)


def _decoding() -> str:
    from specdraft.drafters.pair import load_pair
    from specdraft.study.generate import SpeculativeDecoder

    pair = load_pair("zoo")
    result = SpeculativeDecoder(pair, "kary", budget=6, max_new_tokens=16).generate("Once upon a time")
    check = pair.target_check
    checked = f"self-check {check.error:.1g} (wrong on purpose: {check.control:.1g})"
    return f"{result.tally.new_tokens} tokens in {result.tally.steps} steps; {checked}"


def doctor() -> None:
    """Check libraries, devices, configs and the bundled models."""
    from rich.text import Text

    say_while_loading()
    broken = 0
    for finding in findings():
        mark = Text("ok    ", style="green") if finding.fine else Text("BROKEN", style="bold red")
        console().print(Text.assemble(mark, f" {finding.what}: ", finding.detail))
        broken += not finding.fine
    raise typer.Exit(INTERNAL if broken else DONE)
