"""Errors that a user can cause. Each is one clear line; the command line turns it into an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from unicodedata import category

OUT_OF_MEMORY = "CUDA out of memory; try a smaller budget, a shorter prompt, or quantised weights"
OUT_OF_HOST_MEMORY = "out of memory; try a smaller budget, a shorter prompt, or a smaller model"


class UserError(Exception):
    """Something the user said, or gave, cannot be used. The message names it and what was expected."""

    def __str__(self) -> str:
        """The message, which may quote anything, so that it does nothing to a terminal."""
        return plain_text(super().__str__())


class ConfigError(UserError):
    """A key, group or value of the configuration."""


class NoWeightsError(ConfigError):
    """A drafter whose weights nobody names, or are not here: in a grid it is left out."""


class TreeError(UserError):
    """A tree that cannot be built."""


class PromptError(UserError):
    """A prompt file, or a prompt in it."""


class ModelError(UserError):
    """A model that cannot be loaded, or a pair that does not fit together."""


class OutOfReachError(ModelError):
    """A model that is not here, and a hub that cannot be asked for it."""


class LoadError(ModelError):
    """A model cannot be loaded, or did not pass its self-check; the cause says why."""


class ServerError(ModelError):
    """A server that cannot be asked: it is not there, refuses, or is another one than it was."""


class AnswerError(ModelError):
    """One answer of a server that cannot be used; others may be."""


class UnsupportedModelError(ModelError):
    """A model whose attention cannot verify a tree."""


class ResultsError(UserError):
    """A results directory that cannot be used or written."""


class LeftOutError(LoadError):
    """Some prompts have no text; the others have one.

    Args:
        why: prompt id -> the reason.
    """

    def __init__(self, why: Mapping[str, str]) -> None:
        self.why = dict(why)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.why.items())[:3])
        super().__init__(f"{len(self.why)} prompts have no text ({reasons}{'; ...' if len(self.why) > 3 else ''})")

    def __reduce__(self) -> tuple[type[LeftOutError], tuple[dict[str, str]]]:
        return type(self), (self.why,)


class LosslessnessError(UserError):
    """Decoding emitted other text than the target alone, and a near-tie does not explain it."""


def plain_text(text: str) -> str:
    """Text that does nothing to a terminal: control and formatting characters are spelled out, line ends and tabs
    stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def check_name(key: str, name: str, error: type[UserError] = ConfigError) -> None:
    """Raise `error` for a name with control characters, which tables, terminals and files could not show as it is."""
    if any(category(letter) in ("Cc", "Cs") for letter in name):
        raise error(f"{key}={name!r} has control characters; expected a name that can be printed")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` and the choices, to end an error message with."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(choices)})" if choices else hint
