"""Write the README's animation: a bundled pair finishes a line of code, phase by phase.

python scripts/animation.py [--out results/reference/animation.svg]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specdraft import SpeculativeDecoder, load_pair
from specdraft.results.files import write_atomically
from specdraft.study.plan import one_combination
from specdraft.viewer.animation import animation
from specdraft.viewer.live import watched

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "    if not isinstance(value, str):\n        raise"
OVERRIDES = ["pair=zoo-distilled", "tree=kary", "budget=6", "max_new_tokens=15"]  # to the end of the line


def main(out: Annotated[Path, typer.Option()] = ROOT / "results" / "reference" / "animation.svg") -> None:
    one = one_combination("animation", OVERRIDES)
    settings = one.settings
    decoder = SpeculativeDecoder(
        load_pair(one.pair), one.shape, settings.budget, settings.max_new_tokens, one.rule, one.sampling, watched=True
    )
    ids = one.pair.encode_to_fit(PROMPT, one.prompts.chat_template, settings, one.limits.depth).ids
    showing = watched(decoder, one, PROMPT, ids)
    for _ in showing.steps():
        pass
    write_atomically(out, animation(showing.shown()))


if __name__ == "__main__":
    typer.run(main)
