"""Prompt sets: bundled with the package, a file of one's own, a set that others publish, or a Hugging Face dataset.

May import: errors. What one row of a file may be is in `rows.py`, the published sets are in `public.py`; a new kind of
set is one reader in `_READERS`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from specdraft.errors import ConfigError, PromptError, check_name, did_you_mean
from specdraft.prompts.public import SETS, read_public, refuse_placeholders
from specdraft.prompts.row_files import ENDINGS, Row, read_rows, rows_of_lines
from specdraft.prompts.rows import Message, Prompt, is_text, parse_row
from specdraft.prompts.turns import TurnName, name_of_turn, turn_of_name, turns_of

__all__ = [
    "SYSTEM_ROLES",
    "Message",
    "Prompt",
    "PromptSpec",
    "TurnName",
    "digest_of_each",
    "is_text",
    "load_prompts",
    "name_of_turn",
    "prompts_digest",
    "spread",
    "turn_of_name",
]

BUNDLED = {"bundled": "prompts.jsonl", "instruct": "instruct.jsonl"}  # kind -> its file in the package
KINDS = (*BUNDLED, "jsonl", "hf", *SETS)
CHAT_TEMPLATES = ("auto", "none")
TURNS = ("first", "all")
SYSTEM_ROLES = ("system", "developer")


@dataclass
class PromptSpec:
    """Which prompts. A `path` to a file makes the kind `jsonl`, unless it is `hf`.

    Attributes:
        path: the file, or the dataset's id or folder.
        split, subset: of an `hf` dataset (default: `train`, and the only one).
        column: for `jsonl` and `hf`: which key or column holds the text (default: see `rows.py`).
        limit: at most so many prompts, taken from the categories in turn.
        categories: these categories only.
        chat_template: `auto` uses the target's template if it has one; `none` never does.
        turns: of prompts with several: `first`, or `all`, each a prompt of its own (`81`, `81@turn2`) with the target's
            own greedy answers to those before it.
        system: a system prompt in front of every prompt; it has its place in a chat template only.
    """

    kind: str = "bundled"
    path: str | None = None
    split: str | None = None
    column: str | None = None
    limit: int | None = None
    categories: list[str] | None = None
    chat_template: str = "auto"
    system: str | None = None
    turns: str = "first"
    subset: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "bundled" and self.path:
            path = Path(self.path).expanduser()
            if path.suffix in ENDINGS or path.is_file():
                self.kind = "jsonl"

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, and for those that mean nothing for this kind."""
        for name, known in (("kind", KINDS), ("chat_template", CHAT_TEMPLATES), ("turns", TURNS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"prompts.{name}={getattr(self, name)!r} is not known{did_you_mean(getattr(self, name), known)}"
                )
        if self.kind not in BUNDLED and not self.path:
            copy = f" (a copy of {SETS[self.kind].file})" if self.kind in SETS else ""
            raise ConfigError(f"prompts.path is empty; prompts.kind={self.kind} needs one{copy}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"prompts.limit={self.limit} is out of range; expected 1 or more")
        if self.categories is not None and not self.categories:
            raise ConfigError(
                "prompts.categories=[] leaves no prompt; expected one or more categories, or null for all"
            )
        self._check_system()
        self._refuse_without_effect()

    def _check_system(self) -> None:
        if self.system is None:
            return
        if not self.system or not is_text(self.system):
            raise ConfigError("prompts.system is empty or no UTF-8 text; expected a text, or null for none")
        if self.chat_template == "none":
            raise ConfigError(
                "prompts.system has no effect with prompts.chat_template=none: a system prompt has its place in a chat "
                "template; leave one of them out"
            )

    def _refuse_without_effect(self) -> None:
        if self.kind in BUNDLED and self.path:
            why = f"prompts={self.kind} takes no path; leave one of them out"
            if self.kind == "bundled":
                why = "no such file; prompts=hf takes a dataset, and prompts=bundled no path"
            raise ConfigError(f"prompts.path={self.path}: {why}")
        for name, kinds in (("column", ("jsonl", "hf")), ("split", ("hf",)), ("subset", ("hf",))):
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ConfigError(
                    f"prompts.{name}={getattr(self, name)} has no effect: it is for prompts={' and '.join(kinds)}, and "
                    f"these are prompts={self.kind}; leave it out"
                )

    @property
    def before(self) -> tuple[Message, ...]:
        """The messages in front of every prompt."""
        return (Message("system", self.system),) if self.system else ()

    @property
    def label(self) -> str:
        """What the `prompts` column says."""
        return self.kind if self.kind in (*BUNDLED, *SETS) else Path(self.path or "").name


def load_prompts(spec: PromptSpec) -> list[Prompt]:
    """The prompts that a spec names.

    Raises:
        ConfigError: the spec is out of range, or names a category that does not occur.
        PromptError: the file is missing, empty or malformed (with the line), or an id occurs twice.
    """
    spec.check()
    prompts = list(_checked(_with_system(_READERS[spec.kind](spec), spec.before)))
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
    prompts = spread(prompts, spec.limit) if spec.limit else prompts
    refuse_placeholders(spec.path, prompts)
    if spec.turns == "first":
        return prompts
    return [turn for prompt in prompts for turn in turns_of(f"{spec.label}: prompt {prompt.prompt_id!r}", prompt)]


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
    """A digest of ids, categories, texts and what stands before them: studies with equal digests had equal prompts."""
    said = [
        [p.prompt_id, p.category, p.text, *filter(None, (p.before, {"earlier": p.earlier} if p.earlier else None))]
        for p in prompts
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def digest_of_each(prompts: Iterable[Prompt]) -> dict[str, str]:
    """Prompt id -> a digest of this prompt: what tells whether it is among other prompts."""
    return {prompt.prompt_id: prompts_digest([prompt]) for prompt in prompts}


def _bundled(spec: PromptSpec) -> Iterator[tuple[str, Prompt]]:
    text = files("specdraft").joinpath("bundled", BUNDLED[spec.kind]).read_text(encoding="utf-8")
    return _parsed(rows_of_lines(f"{spec.kind} prompts", text.splitlines()))


def _file(spec: PromptSpec) -> Iterator[tuple[str, Prompt]]:
    return _parsed(read_rows(Path(spec.path or "").expanduser()), spec.column)


def _public(spec: PromptSpec) -> Iterator[tuple[str, Prompt]]:
    return read_public(spec.kind, Path(spec.path or "").expanduser())


def _hf(spec: PromptSpec) -> Iterator[tuple[str, Prompt]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise PromptError("prompts=hf needs the package datasets: pip install 'specdraft[datasets]'") from error
    try:
        which = [spec.path] if spec.subset is None else [spec.path, spec.subset]
        rows = load_dataset(*which, split=spec.split or "train")
    except Exception as error:  # datasets raises many kinds; each means that these prompts cannot be had
        raise PromptError(
            f"prompts.path={spec.path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    listed = enumerate(rows, start=1)
    yield from _parsed((Row(f"{spec.path}, row {number}", number, row) for number, row in listed), spec.column)


_READERS = dict.fromkeys(BUNDLED, _bundled) | {"jsonl": _file, "hf": _hf} | dict.fromkeys(SETS, _public)


def _parsed(rows: Iterable[Row], column: str | None = None) -> Iterator[tuple[str, Prompt]]:
    for where, number, row in rows:
        yield where, parse_row(where, row, number, column)


def _with_system(rows: Iterator[tuple[str, Prompt]], system: tuple[Message, ...]) -> Iterator[tuple[str, Prompt]]:
    """The prompts with `prompts.system` in front. Raises `PromptError` where a row has a system prompt of its own."""
    for where, prompt in rows:
        if system and any(message.role in SYSTEM_ROLES for message in prompt.before):
            raise PromptError(f"{where}: has a system message of its own beside prompts.system; leave one of them out")
        yield where, prompt._replace(before=(*system, *prompt.before))


def _checked(rows: Iterator[tuple[str, Prompt]]) -> Iterator[Prompt]:
    seen: dict[str, str] = {}
    for where, prompt in rows:
        check_name(f"{where}: question_id", prompt.prompt_id, PromptError)
        if turn_of_name(prompt.prompt_id).turn > 1:
            raise PromptError(
                f"{where}: question_id {prompt.prompt_id!r} is what a further turn of a prompt is called; expected "
                "another id"
            )
        check_name(f"{where}: category", prompt.category, PromptError)
        if prompt.prompt_id in seen:
            raise PromptError(
                f"{where}: the prompt id {prompt.prompt_id!r} is already that of {seen[prompt.prompt_id]}"
            )
        seen[prompt.prompt_id] = where
        yield prompt
