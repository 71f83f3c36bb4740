"""Texts that an inference engine made of prompts: a file of them, in the forms that engines and their clients write.

A row has its text as token ids or as text, itself or in its first `choices` or `outputs` (OpenAI's responses, also
inside a batch's `response.body`; vLLM's request outputs; SGLang's; Spec-Bench's `choices[0].turns`), and says which
prompt it continues: by id, or with the prompt itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.errors import PromptError
from specdraft.prompts.rows import is_text
from specdraft.prompts.turns import name_of_turn

NAMES = ("prompt_id", "question_id", "task_id", "custom_id")
TOKEN_IDS = ("token_ids", "output_token_ids", "output_ids")
TEXTS = ("text", "output", "generated_text", "content")
PROMPT_IDS = "prompt_token_ids"
EXPECTED = "expected token_ids, text, output, or choices with one of them"


class Answer(NamedTuple):
    """What an engine made of one prompt.

    Attributes:
        where: file and line.
        name: the prompt's id; the line's number where the row has none.
        token_ids, text: what was made; one of them may be missing.
        prompt_ids, prompt: what it continues, where the row says so.
        named: the row has an id.
    """

    where: str
    name: str
    token_ids: list[int] | None
    text: str | None
    prompt_ids: list[int] | None = None
    prompt: str | None = None
    named: bool = True

    @property
    def nameless(self) -> bool:
        """Only its place in the file says what it continues."""
        return not (self.named or self.prompt_ids or self.prompt is not None)


def load_answers(path: Path) -> dict[str, Answer]:
    """The texts of a JSONL file, or of a JSON list, by prompt id.

    Raises:
        PromptError: it cannot be read, or a row has no text, or the id of another.
    """
    answers: dict[str, Answer] = {}
    for where, number, row in _rows(path):
        for answer in _answers(where, number, row):
            if answer.name in answers:
                raise PromptError(f"{where}: prompt {answer.name!r} is already that of {answers[answer.name].where}")
            answers[answer.name] = answer
    if not answers:
        raise PromptError(f"{path}: there are no texts in it")
    return answers


def _rows(path: Path) -> Iterator[tuple[str, int, Any]]:
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PromptError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    if text.lstrip().startswith("["):
        for number, row in enumerate(_parsed(str(path), text), start=1):
            yield f"{path}, item {number}", number, row
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, number, _parsed(where, line)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PromptError(f"{where}: not JSON: {error}") from error


def _answers(where: str, number: int, row: Any) -> Iterator[Answer]:
    """The text of a row, or those of its turns."""
    if not isinstance(row, dict):
        raise PromptError(f"{where}: expected an object with a text; {EXPECTED}")
    names = [row[key] for key in NAMES if row.get(key) is not None]
    name, named = str((names or [number])[0]), bool(names)
    holders = list(_holders(row))
    of_prompt = _ids(where, row, PROMPT_IDS), row["prompt"] if isinstance(row.get("prompt"), str) else None
    for turns in (holder["turns"] for holder in holders[1:] if isinstance(holder.get("turns"), list)):
        for turn, text in enumerate(turns, start=1):
            yield Answer(where, name_of_turn(name, turn), None, _text(where, text), *of_prompt, named)
        return
    ids = next((ids for holder in holders for key in TOKEN_IDS if (ids := _ids(where, holder, key)) is not None), None)
    said = next((holder[key] for holder in holders for key in TEXTS if isinstance(holder.get(key), str)), None)
    if ids is None and said is None:
        raise PromptError(f"{where}: has no text; {EXPECTED}")
    yield Answer(where, name, ids, None if said is None else _text(where, said), *of_prompt, named)


def _holders(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The row, and the objects in it that may hold its text."""
    yield row
    body = row["response"].get("body") if isinstance(row.get("response"), dict) else None
    for holder in (row, body if isinstance(body, dict) else {}):
        for key in ("choices", "outputs"):
            first = next(iter(holder[key]), None) if isinstance(holder.get(key), list) else None
            if isinstance(first, dict):
                yield first
                if isinstance(first.get("message"), dict):
                    yield first["message"]


def _ids(where: str, holder: Mapping[str, Any], key: str) -> list[int] | None:
    ids = holder.get(key)
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise PromptError(f"{where}: {key} is {json.dumps(ids)[:60]}; expected a list of token ids")
    return ids


def _text(where: str, text: Any) -> str:
    if not isinstance(text, str) or not is_text(text):
        raise PromptError(f"{where}: {json.dumps(text)[:60]} is no text; expected Unicode text")
    return text
