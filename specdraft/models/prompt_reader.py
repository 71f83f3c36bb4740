"""A prompt as a model reads it: its chat template around the user's text, or the special tokens of its tokenizer."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import takewhile
from types import FrameType
from typing import Any, NamedTuple

from specdraft.errors import PromptError
from specdraft.models.files import first_line
from specdraft.prompts import SYSTEM_ROLES, Message, is_text

MOST_SECONDS = 5.0  # for one rendering of a chat template; real ones take less than a millisecond
NO_TEMPLATE = "prompts.chat_template=none does without it"
SAMPLE = "specimen"  # a text that no template has in it
TODAY = datetime(2024, 7, 26)  # what templates are told: the real day would make other prompts of a study tomorrow
ASKED_DATE = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")

Messages = Sequence[Message]


class Piece(NamedTuple):
    """A part of a prompt as the model reads it: of a message, or a mark that the chat template puts around them."""

    text: str
    mark: bool


@dataclass(frozen=True)
class PromptReader:
    """Turns texts into token ids.

    Attributes:
        tokenizer: of the model that reads them.
        path: the model as errors name it.
        chat_template: `auto` uses the tokenizer's template if it has one; `none` never does.
    """

    tokenizer: Any
    path: str
    chat_template: str = "auto"

    @property
    def templated(self) -> bool:
        """Whether a chat template goes around each text."""
        return self.chat_template == "auto" and bool(getattr(self.tokenizer, "chat_template", None))

    def ids(self, text: str, before: Messages = ()) -> list[int]:
        """The token ids of a whole text, and of the messages before it.

        Raises:
            PromptError: it is no Unicode text; the chat template fails, does not come to an end, or has no place for
                one of the messages; or there is none to put messages in.
        """
        if not is_text(text):
            raise PromptError("the prompt is not UTF-8 text")
        self._check_places(before)
        if self.templated:
            return list(self.tokenizer.encode(self._render(text, before), add_special_tokens=False))
        return list(self.tokenizer.encode(text))

    def end_ids(self, text: str, most: int, before: Messages = ()) -> list[int]:
        """The token ids of the longest end of a conversation that has at most `most` of them with all that goes around
        it: the oldest turns are left out first, a system prompt last, and of the text itself the end stays.

        Raises:
            PromptError: as `ids`; or what goes around a text leaves no room for any.
        """
        system = tuple(takewhile(lambda message: message.role in SYSTEM_ROLES, before))
        for start, message in enumerate(before):
            if message.role == "user" and len(shorter := self.ids(text, (*system, *before[start:]))) <= most:
                return shorter
        dropped, kept = 0, len(text)  # `text[dropped:]` is too long, `text[kept:]` is not
        if len(shorter := self.ids(text, system)) <= most:
            return shorter
        while kept - dropped > 1:
            middle = (dropped + kept) // 2
            if len(self.ids(text[middle:], system)) > most:
                dropped = middle
            else:
                kept = middle
        if kept == len(text):
            around = "the chat template" if self.templated else "the tokenizer's special tokens"
            around += " and the system prompt" if system else ""
            raise PromptError(f"max_prompt_tokens={most} leaves no room for the prompt beside {around}")
        return self.ids(text[kept:], system)

    def pieces(self, text: str, before: Messages = ()) -> list[Piece]:
        """A prompt as the model reads it, the marks of the chat template told from what they go around."""
        if not self.templated:
            return [Piece(text, False)]
        rendered, at, pieces = self._render(text, before), 0, []
        for content in (said.strip() for said in (*(message.content for message in before), text)):
            if (start := rendered.find(content, at)) >= 0:  # a template may change a text: then it is not told apart
                pieces += [Piece(rendered[at:start], True), Piece(content, False)]
                at = start + len(content)
        return [piece for piece in (*pieces, Piece(rendered[at:], True)) if piece.text]

    @property
    def dated(self) -> bool:
        """Whether the chat template asks for today's date; it is told `TODAY`."""
        template = getattr(self.tokenizer, "chat_template", None)
        templates = template.values() if isinstance(template, dict) else (template or "",)
        return self.templated and any("strftime_now" in text for text in templates)

    def holds_marks(self, text: str) -> bool:
        """Whether a text begins with the marks that are put around it here, or holds those of a chat template."""
        begin = getattr(self.tokenizer, "bos_token", None) or ""
        if begin and text.lstrip().startswith(begin):
            return self.templated or self.ids(text)[:2] == [self.tokenizer.bos_token_id] * 2
        if not self.templated:
            return False
        around = self._render(SAMPLE)
        before = around.partition(SAMPLE)[0].removeprefix(begin).strip()
        special = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        return any(mark in text for mark in (before, *special) if mark and mark in around)

    def _check_places(self, before: Messages) -> None:
        """Raise `PromptError` where a message would not reach the model."""
        if before and not self.templated:
            why = "has no chat template" if self.chat_template == "auto" else "is read with prompts.chat_template=none"
            raise PromptError(
                f"{self.path} {why}, and only there is a place for messages before the last one: {_roles(before)}"
            )
        samples = [Message(message.role, f"{SAMPLE}-{number}-") for number, message in enumerate(before)]
        rendered = self._render(SAMPLE, samples) if samples else ""
        if lost := [sample for sample in samples if sample.content not in rendered]:
            raise PromptError(f"the chat template of {self.path} leaves out the message of {_roles(lost[:1])}")

    def _render(self, text: str, before: Messages = ()) -> str:
        """The chat template with this text in it."""
        messages = [message._asdict() for message in (*before, Message("user", text))]
        try:
            template = dated(self.tokenizer.get_chat_template())
            if has_powers(template):
                raise PromptError("it raises to a power (**), which may take for ever")
            rendered: str = within_seconds(
                MOST_SECONDS,
                lambda: self.tokenizer.apply_chat_template(
                    messages, chat_template=template, add_generation_prompt=True, tokenize=False
                ),
            )
        except Exception as error:  # a template is a program: it can raise whatever it likes
            hint = NO_TEMPLATE if not before else f"it was given the messages of {_roles(before)}, and the user's"
            raise PromptError(f"the chat template of {self.path} fails: {first_line(error)}; {hint}") from error
        return rendered


def _roles(messages: Messages) -> str:
    """Who speaks, for people; a system prompt with the key that it may come from."""
    roles = dict.fromkeys(message.role for message in messages)
    return ", ".join(f"{role} (prompts.system, or the row's own)" if role == "system" else role for role in roles)


@cache
def dated(template: str) -> str:
    """A template that is told the date `TODAY` wherever it asks for today's."""
    return ASKED_DATE.sub(lambda asked: repr(TODAY.strftime(asked[2])), template)


@cache
def has_powers(template: str) -> bool:
    """Whether a template raises to a power: `9**9**9` is worked out when it is compiled, in one go that no limit of
    time can break off."""
    from jinja2 import Environment

    return any(kind == "operator" and text == "**" for _, kind, text in Environment().lex(template))


class _OverdueError(Exception):
    """A call took too long."""


def within_seconds(most_s: float, call: Callable[[], Any]) -> Any:
    """What a call returns, broken off between two of its lines if it takes longer.

    A template that loops cannot be stopped from outside its thread, and a process for it would cost seconds: Python
    looks at the clock for us while the call runs. Code that runs in C is not broken off.

    Raises:
        PromptError: it took longer than `most_s` seconds.
    """
    before, deadline = sys.gettrace(), time.monotonic() + most_s

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > deadline:
            raise _OverdueError
        return watch if frame.f_code.co_filename == "<template>" else None

    sys.settrace(watch)
    try:
        return call()
    except _OverdueError as error:
        raise PromptError(f"it did not come to an end in {most_s:g} seconds") from error
    finally:
        sys.settrace(before)
