"""Draw the README's pictures from the reference study, as SVG that needs no network.

Its numbers are filled in by `fill_numbers.py`.

python scripts/readme_pictures.py [--study results/reference]
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.text import Text

from specdraft import SpeculativeDecoder, load_pair
from specdraft.viewer.tables import summary_tables
from specdraft.viewer.trees import step_tree

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Question: Anna has 12 apples and buys 5 more. How many apples does she have now?\nAnswer:"


def save(console: Console, path: Path, title: str) -> None:
    """Write what the console printed, without the web fonts that rich names."""
    svg = console.export_svg(title=title)
    path.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


def main(study: Annotated[Path, typer.Option(help="a results folder")] = ROOT / "results" / "reference") -> None:
    console = Console(record=True, width=84, file=StringIO(), force_terminal=True)
    summary = pd.read_csv(study / "summary.csv")
    console.print(summary_tables(summary)[1])
    save(console, study / "summary.svg", "specdraft sweep")

    console = Console(record=True, width=84, file=StringIO(), force_terminal=True)
    pair = load_pair("zoo")
    result = SpeculativeDecoder(pair, "kary", budget=6, max_new_tokens=24, watched=True).generate(PROMPT)
    console.print(Text.assemble((PROMPT, "dim"), result.text))
    step = max(result.steps, key=lambda s: (not s.cut, s.accepted_tokens))
    words = [pair.decode_token(token) for token in step.tree.token_list()]
    assert step.tree.draft_probs is not None
    console.print()
    console.print(
        step_tree(
            step.tree.topology,
            words,
            [float(p) for p in step.tree.draft_probs],
            step.accepted,
            pair.decode_token(step.tokens[-1]),
        )
    )
    save(console, study / "generate.svg", "specdraft generate")


if __name__ == "__main__":
    typer.run(main)
