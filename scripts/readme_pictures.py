"""Draw the README's pictures and fill in the tables of README and help from the reference study and the benchmark.

Pictures are SVG that needs no network; tables stand between `<!-- NAME -->` and `<!-- /NAME -->`.

python scripts/readme_pictures.py [--study results/reference]
"""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

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


TREES = (
    *((tree, 4) for tree in ("chain", "kary", "beam", "sequoia", "best_first-calibrated")),
    *((tree, 16) for tree in ("chain", "kary", "beam", "sequoia", "measured", "best_first-calibrated")),
    ("medusa", 63),
    *((tree, 64) for tree in ("chain", "kary", "beam", "sequoia", "measured", "best_first-calibrated", "hindsight")),
)


def study_table(summary: pd.DataFrame) -> str:
    """Block efficiency with intervals: trees down, pairs across."""
    pairs = list(dict.fromkeys(summary["pair"]))
    lines = [f"| tree | nodes | {' | '.join(f'`{pair}`' for pair in pairs)} |", f"| --- | --- |{' --- |' * len(pairs)}"]
    for tree, budget in TREES:
        cells = []
        for pair in pairs:
            row = summary[(summary["pair"] == pair) & (summary["tree"] == tree) & (summary["budget"] == budget)].iloc[0]
            cells.append(f"{row.block_efficiency:.2f} [{row.block_efficiency_lo:.2f}, {row.block_efficiency_hi:.2f}]")
        lines.append(f"| `{tree}` | {budget} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bench_table(bench: dict[str, Any]) -> str:
    """The benchmark's ratios."""
    lines = ["| ratio of tokens per second | |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {value:.2f} |" for name, value in bench["ratios"].items())])


def replay_table(bench: dict[str, Any]) -> str:
    """What replay costs beside live decoding."""
    rows = (
        (f"recording and annotating {bench['recorded_tokens']:,} tokens", f"{bench['record_s']:.1f} s"),
        (f"replaying {bench['combinations']:,} combinations on all prompts", f"{bench['replay_s']:.2f} s"),
        (
            "decoding them live, extrapolated from 10 combinations on 8 prompts",
            f"{bench['live_s_extrapolated']:,.0f} s",
        ),
        ("live / replay (goal 1,000)", f"{bench['live_over_replay']:,.0f}"),
        ("live / (recording + replay)", f"{bench['live_over_record_and_replay']:,.0f}"),
        ("one more tree per 25,000 recorded tokens (goal 2 ms, at most 10)", f"{bench['one_more_tree_ms']:.1f} ms"),
    )
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in rows)])


def fill(name: str, text: str) -> None:
    """Replace what stands between a marker and its end, in the README or the help topic that has it."""
    texts = {path: path.read_text() for path in (ROOT / "README.md", *(ROOT / "specdraft" / "help").glob("*.md"))}
    ((path, content),) = ((path, text) for path, text in texts.items() if f"<!-- {name} -->" in text)
    before, rest = content.split(f"<!-- {name} -->")
    path.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{rest.split(f'<!-- /{name} -->')[1]}")


def main(study: Annotated[Path, typer.Option(help="a results folder")] = ROOT / "results" / "reference") -> None:
    console = Console(record=True, width=84, file=StringIO(), force_terminal=True)
    summary = pd.read_csv(study / "summary.csv")
    console.print(summary_tables(summary)[1])
    fill("study", study_table(summary))
    fill("replay", replay_table(json.loads((study / "bench_replay.json").read_text())))
    fill("bench", bench_table(json.loads((study / "bench_decode.json").read_text())))
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
