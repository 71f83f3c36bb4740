"""Instructions to train heads of a chat model on: tasks around public-domain text and solved problems.

    python scripts/training_prompts.py --data FOLDER --out prompts.jsonl [--unlike FILE.jsonl]

`--data` holds novels (.txt) and gsm8k_train.jsonl; code comes from the running Python's standard library. The target's
own answers to these prompts are what heads learn from (`specdraft train medusa prompts=jsonl`).
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

PASSAGE = (300, 1100)  # characters
ASKED = {
    "summarization": ["Summarize the following passage in a few sentences.", "What happens in this passage? Be brief."],
    "rag": ["Answer with the help of the text below: who speaks or acts here, and what do they want?"],
    "extraction": ["List the names and places in this text.", "List the main events of this text as bullet points."],
    "rewriting": ["Rewrite this passage in plain modern English.", "Rewrite this passage as a news report."],
    "translation": ["Translate this passage into French.", "Translate this passage into German."],
    "continuation": ["Continue this story in the same style."],
}
FREE = {
    "writing": [
        "Write a short story about {0} and {1}.",
        "Write an email to a friend about {0}.",
        "Write a poem in which {0} and {1} appear.",
        "Write an advertisement for {0}.",
    ],
    "qa": ["What is {0}? Explain it to a child.", "What is the difference between {0} and {1}?", "Why is {0} useful?"],
    "advice": ["Give me five tips on {0}.", "Plan a day around {0} and {1}."],
}
THINGS = [
    "a lighthouse",
    "a bicycle",
    "the moon",
    "bread",
    "rain",
    "a library",
    "gardening",
    "a violin",
    "honesty",
    "a train journey",
    "winter",
    "coffee",
    "an old map",
    "a harbour",
    "chess",
    "a market",
    "sleep",
    "friendship",
    "a bridge",
    "the sea",
    "a robot",
    "mathematics",
    "painting",
    "a volcano",
    "photosynthesis",
    "gravity",
    "democracy",
    "inflation",
    "a museum",
    "running",
    "cooking rice",
    "a lost dog",
    "music lessons",
    "a storm",
    "electric cars",
    "the Roman Empire",
    "glass",
    "bees",
    "a password",
    "public speaking",
    "a birthday",
    "mountains",
    "a river",
    "recycling",
    "",
]


def passages(folder: Path) -> list[str]:
    """Paragraphs of the novels, neighbours joined until they are long enough."""
    found = []
    for path in sorted(folder.rglob("*.txt")):
        if "shakespeare" in path.name:
            continue
        held = ""
        for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8").replace("\r", "")):
            held = f"{held} {' '.join(paragraph.split())}".strip()
            if len(held) > PASSAGE[0]:
                found += [held] if len(held) < PASSAGE[1] else []
                held = ""
    return found


def functions() -> list[str]:
    """Short functions of the standard library."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        parts = re.split(r"\n(?=def )", path.read_text(encoding="utf-8", errors="ignore"))
        found += [part.split("\n\n\n")[0].rstrip() for part in parts[1:] if part.isascii()]
    return [text for text in found if 200 < len(text) < 900]


def prompts(data: Path, count: int, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """`count` pairs of category and prompt, a third about passages, the rest problems, code and free tasks."""
    texts, code = passages(data), functions()
    rows = [json.loads(line) for path in data.rglob("gsm8k_train.jsonl") for line in path.read_text().splitlines()]

    def one(items: list[str]) -> str:
        return items[int(rng.integers(len(items)))]

    for turn in range(count):
        if turn % 6 in (0, 1, 2):
            category = one(sorted(ASKED))
            yield category, f"{one(ASKED[category])}\n\n{one(texts)}"
        elif turn % 6 == 3:
            yield "math_reasoning", rows[int(rng.integers(len(rows)))]["question"].strip()
        elif turn % 6 == 4:
            category = one(sorted(FREE))
            yield category, one(FREE[category]).format(*rng.choice(THINGS, 2, replace=False))
        else:
            yield "coding", f"Explain what this Python function does.\n\n{one(code)}"


def grams(text: str, n: int = 8) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def main(
    data: Annotated[Path, typer.Option(help="folder with novels and gsm8k_train.jsonl")],
    out: Annotated[Path, typer.Option(help="the JSONL file to write")],
    count: Annotated[int, typer.Option(help="prompts")] = 900,
    seed: Annotated[int, typer.Option(help="of the choice")] = 20261128,
    unlike: Annotated[Path | None, typer.Option(help="prompts.jsonl that no 8 words in a row are shared with")] = None,
) -> None:
    kept_out: set[tuple[str, ...]] = set()
    for line in unlike.read_text(encoding="utf-8").splitlines() if unlike else ():
        kept_out |= grams(" ".join(json.loads(line)["turns"]))
    chosen = {text: category for category, text in prompts(data, count, np.random.default_rng(seed))}
    written = [
        {"question_id": f"train-{i:04}", "category": category, "turns": [text]}
        for i, (text, category) in enumerate(chosen.items())
        if not grams(text) & kept_out
    ]
    out.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    print(f"{out}: {len(written)} prompts")


if __name__ == "__main__":
    typer.run(main)
