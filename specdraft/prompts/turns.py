"""Prompts of several turns as one prompt a turn: what the target answers to a turn stands before the next one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from specdraft.errors import PromptError
from specdraft.prompts.rows import Message, Prompt, is_text

NAMED = re.compile(r"(.+)@turn(\d+)", re.DOTALL)


class TurnName(NamedTuple):
    """A turn of a prompt, from 1."""

    prompt_id: str
    turn: int


def name_of_turn(prompt_id: str, turn: int) -> str:
    """What a turn is called among a set's prompts: `81`, `81@turn2`, ..."""
    return prompt_id if turn == 1 else f"{prompt_id}@turn{turn}"


def turn_of_name(name: str) -> TurnName:
    """The inverse of `name_of_turn`."""
    found = NAMED.fullmatch(name)
    return TurnName(found[1], int(found[2])) if found else TurnName(name, 1)


def turns_of(where: str, prompt: Prompt) -> Iterator[Prompt]:
    """Every turn of a prompt.

    Args:
        where: its file and line, for errors.
        prompt: as its row says it.

    Raises:
        PromptError: a turn is no text.
    """
    texts = (prompt.text, *prompt.following)
    for number, text in enumerate(texts, start=1):
        if not (isinstance(text, str) and text and is_text(text)):
            raise PromptError(f"{where}: turn {number} is {text!r}; expected a text")
        name = name_of_turn(prompt.prompt_id, number)
        yield prompt._replace(prompt_id=name, text=text, turns=1, following=(), earlier=texts[: number - 1])


def after_answer(asked: Prompt, answer: str, following: Prompt, templated: bool) -> Prompt:
    """A turn with all that stands before it.

    Args:
        asked: the turn before, with all that stands before that.
        answer: of the target.
        following: the turn.
        templated: its model has a chat template: turns are messages. Otherwise they are one text, and a blank line
            stands between an answer and the next turn.
    """
    if templated:
        said = (Message("user", asked.text), Message("assistant", answer))
        return following._replace(before=(*asked.before, *said), earlier=())
    return following._replace(text=f"{asked.text}{answer}\n\n{following.text}", earlier=())
