"""Sentences with names in them, and numbers as words: the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from specdraft.results.intervals import Interval


class Name(str):
    """A word from the data (a shape, a pair): shown as code."""

    __slots__ = ()


class Strong(str):
    """A word to stress."""

    __slots__ = ()


Text = tuple[str, ...]


def say(template: str, *parts: object) -> Text:
    """A sentence: `{}` in the template are filled in with names, stressed words, sentences or plain values."""
    pieces: list[str] = []
    texts = template.split("{}")
    assert len(texts) == len(parts) + 1, template
    for text, part in zip(texts, [*parts, ""], strict=True):
        pieces.append(text)
        pieces += (
            part
            if isinstance(part, tuple) and not isinstance(part, Interval)
            else (part if isinstance(part, str) else str(part),)
        )
    return tuple(piece for piece in pieces if piece)


def join(texts: Iterable[Text], between: str = " ") -> Text:
    """Several sentences as one text."""
    joined: list[str] = []
    for text in texts:
        if joined and text:
            joined.append(between)
        joined += text
    return tuple(joined)


def names(words: Iterable[str], most: int = 6) -> Text:
    """`a`, `b` and `c`."""
    all_names = [Name(word) for word in words]
    rest = len(all_names) - most
    shown: list[str] = [*all_names[:most], *([f"{rest} more"] if rest > 0 else [])]
    pieces: list[str] = []
    for index, word in enumerate(shown):
        pieces += ([" and " if index == len(shown) - 1 else ", "] if index else []) + [word]
    return tuple(pieces)


def plain(text: Text) -> str:
    """Without any marks."""
    return "".join(text)


def plural(count: int, word: str, several: str | None = None) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{count:,} {word if count == 1 else several or word + 's'}"
