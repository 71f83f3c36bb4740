"""Prompt sets: bundled with the package, a JSONL file, or a Hugging Face dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.errors import ConfigError, PromptError, did_you_mean

KINDS = ("bundled", "jsonl", "hf")
CHAT_TEMPLATES = ("auto", "none")


class Prompt(NamedTuple):
    """One prompt; `prompt_id` is unique in its set."""

    prompt_id: str
    category: str
    text: str


@dataclass
class PromptSpec:
    """Which prompts.

    Attributes:
        path: the JSONL file, or the dataset's id or folder.
        split, column: for `hf`: which split, and which column holds the text (default: as in a JSONL row).
        limit: at most so many prompts, taken from the categories in turn.
        categories: these categories only.
        chat_template: `auto` uses the target's template if it has one; `none` never does.
    """

    kind: str = "bundled"
    path: str | None = None
    split: str = "train"
    column: str | None = None
    limit: int | None = None
    categories: list[str] | None = None
    chat_template: str = "auto"

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        for name, known in (("kind", KINDS), ("chat_template", CHAT_TEMPLATES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"prompts.{name}={getattr(self, name)!r} is not known{did_you_mean(getattr(self, name), known)}"
                )
        if self.kind != "bundled" and not self.path:
            raise ConfigError(f"prompts.path is empty; prompts.kind={self.kind} needs one")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"prompts.limit={self.limit} is out of range; expected 1 or more")
        if self.categories is not None and not self.categories:
            raise ConfigError(
                "prompts.categories=[] leaves no prompt; expected one or more categories, or null for all"
            )

    @property
    def label(self) -> str:
        """What the `prompts` column says."""
        return "bundled" if self.kind == "bundled" else Path(self.path or "").name


def load_prompts(spec: PromptSpec) -> list[Prompt]:
    """The prompts that a spec names.

    Raises:
        ConfigError: the spec is out of range, or names a category that does not occur.
        PromptError: the file is missing, empty or malformed (with the line), or an id occurs twice.
    """
    spec.check()
    prompts = list(_checked(_READERS[spec.kind](spec)))
    if not prompts:
        raise PromptError(f"prompts.path={spec.path}: there are no prompts in it")
    if spec.categories is not None:
        known = {p.category for p in prompts}
        for category in spec.categories:
            if category not in known:
                raise ConfigError(
                    f"prompts.categories: no prompt is of category {category!r}{did_you_mean(category, known)}"
                )
        prompts = [p for p in prompts if p.category in spec.categories]
    return spread(prompts, spec.limit) if spec.limit else prompts


def spread(prompts: list[Prompt], limit: int) -> list[Prompt]:
    """At most `limit` prompts, one category after the other in turn, in their first order."""
    turn: dict[str, int] = {}
    order = []
    for index, prompt in enumerate(prompts):
        turn[prompt.category] = turn.get(prompt.category, 0) + 1
        order.append((turn[prompt.category], index))
    chosen = sorted(index for _, index in sorted(order)[:limit])
    return [prompts[index] for index in chosen]


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """A digest of ids, categories and texts: two studies with equal digests had the same prompts."""
    return hashlib.sha256(json.dumps([[p.prompt_id, p.category, p.text] for p in prompts]).encode()).hexdigest()[:16]


def _bundled(spec: PromptSpec) -> Iterator[tuple[str, Prompt]]:
    text = files("specdraft").joinpath("bundled/prompts.jsonl").read_text(encoding="utf-8")
    return _parse_lines("bundled prompts", text.splitlines())


def _jsonl(spec: PromptSpec) -> Iterator[tuple[str, Prompt]]:
    path = Path(spec.path or "").expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"prompts.path={path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise PromptError(f"prompts.path={path}: {error.strerror or error}") from error
    return _parse_lines(str(path), text.split("\n"))


def _hf(spec: PromptSpec) -> Iterator[tuple[str, Prompt]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise PromptError("prompts=hf needs the package datasets: pip install 'specdraft[datasets]'") from error
    try:
        rows = load_dataset(spec.path, split=spec.split)
    except Exception as error:  # datasets raises many kinds; each means that these prompts cannot be had
        raise PromptError(
            f"prompts.path={spec.path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{spec.path}, row {number}", _parse_row(f"{spec.path}, row {number}", row, number, spec.column)


_READERS = {"bundled": _bundled, "jsonl": _jsonl, "hf": _hf}


def _parse_lines(source: str, lines: Iterable[str]) -> Iterator[tuple[str, Prompt]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise PromptError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
        except RecursionError as error:
            raise PromptError(f"{where}: not a prompt: nested too deeply") from error
        yield where, _parse_row(where, row, number)


def _parse_row(where: str, row: Any, number: int, column: str | None = None) -> Prompt:
    if not isinstance(row, dict):
        raise PromptError(f"{where}: expected an object with 'turns' or 'prompt'")
    if column is not None:
        text = row.get(column)
        wanted = f"text in {column!r}"
    elif "turns" in row:
        turns = row["turns"]
        text = turns[0] if isinstance(turns, list) and turns else None
        wanted = "a list of texts in 'turns'"
    else:
        text, wanted = row.get("prompt"), "text in 'turns' or 'prompt'"
    if not isinstance(text, str) or not text:
        raise PromptError(f"{where}: expected {wanted}")
    prompt_id, category = row.get("question_id"), row.get("category")
    prompt = Prompt(
        str(number if prompt_id is None else prompt_id), str("all" if category in (None, "") else category), text
    )
    if any("\ud800" <= letter <= "\udfff" for part in prompt for letter in part):
        raise PromptError(f"{where}: holds half of a surrogate pair, which is no text")
    return prompt


def _checked(rows: Iterator[tuple[str, Prompt]]) -> Iterator[Prompt]:
    seen: dict[str, str] = {}
    for where, prompt in rows:
        if prompt.prompt_id in seen:
            raise PromptError(
                f"{where}: the prompt id {prompt.prompt_id!r} is already that of {seen[prompt.prompt_id]}"
            )
        seen[prompt.prompt_id] = where
        yield prompt
