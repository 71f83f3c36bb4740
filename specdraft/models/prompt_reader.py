"""A prompt as a model reads it: its chat template around the user's text, or the special tokens of its tokenizer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

from specdraft.errors import PromptError
from specdraft.models.files import first_line
from specdraft.prompts import is_text

MOST_SECONDS = 5.0  # for one rendering of a chat template; real ones take less than a millisecond
NO_TEMPLATE = "prompts.chat_template=none does without it"
SAMPLE = "specimen"  # a text that no template has in it


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

    def ids(self, text: str) -> list[int]:
        """The token ids of a whole text.

        Raises:
            PromptError: it is no Unicode text, or the chat template fails or does not come to an end.
        """
        if not is_text(text):
            raise PromptError("the prompt is not UTF-8 text")
        if self.templated:
            return list(self.tokenizer.encode(self._render(text), add_special_tokens=False))
        return list(self.tokenizer.encode(text))

    def end_ids(self, text: str, most: int) -> list[int]:
        """The token ids of the longest end of a text that has at most `most` of them with all that goes around it.

        Raises:
            PromptError: as `ids`; or what goes around a text leaves no room for any.
        """
        dropped, kept = 0, len(text)  # `text[dropped:]` is too long, `text[kept:]` is not
        while kept - dropped > 1:
            middle = (dropped + kept) // 2
            if len(self.ids(text[middle:])) > most:
                dropped = middle
            else:
                kept = middle
        if kept == len(text):
            around = "the chat template" if self.templated else "the tokenizer's special tokens"
            raise PromptError(f"max_prompt_tokens={most} leaves no room for the prompt beside {around}")
        return self.ids(text[kept:])

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

    def _render(self, text: str) -> str:
        """The chat template with this text in it."""
        message = [{"role": "user", "content": text}]
        try:
            template = self.tokenizer.chat_template
            if any(map(has_powers, template.values() if isinstance(template, dict) else (template,))):
                raise PromptError("it raises to a power (**), which may take for ever")
            rendered: str = within_seconds(
                MOST_SECONDS,
                lambda: self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False),
            )
        except Exception as error:  # a template is a program: it can raise whatever it likes
            raise PromptError(f"the chat template of {self.path} fails: {first_line(error)}; {NO_TEMPLATE}") from error
        return rendered


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
