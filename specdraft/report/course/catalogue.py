"""The texts of one language: a file of keys, filled in by name with what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from string import Formatter
from typing import Any

import yaml

from specdraft.errors import ConfigError, did_you_mean
from specdraft.report.words import Name, Strong, Text

LANGUAGES = ("en", "zh")
MARKED = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[@(\w+)\]")
REFERENCES = "references"


@dataclass(frozen=True)
class Catalogue:
    """Texts by key; `chapter.key` reads a key of a chapter."""

    language: str
    texts: dict[str, Any]
    references: dict[str, str]

    def of(self, key: str) -> Any:
        """What stands at a key, as it is."""
        found: Any = self.texts
        for part in key.split("."):
            found = found[part]
        return found

    def label(self, key: str, **parts: object) -> str:
        """A text without marks, for a figure or a heading."""
        return str(self.of(key)).format(**parts)

    def say(self, key: str, **parts: object) -> Text:
        """A sentence: names in backticks, `**stressed**` words and `[@source]` are marked as such."""
        return tuple(self._filled(str(self.of(key)).strip(), parts))

    def paragraphs(self, key: str, **parts: object) -> list[Text]:
        """The sentences of a list."""
        return [tuple(self._filled(str(text).strip(), parts)) for text in self.of(key)]

    def names(self, words: Iterable[object]) -> Text:
        """Names one after another, as the language does that."""
        pieces: list[str] = []
        for word in words:
            pieces += [*([self.of("between")] if pieces else []), Name(str(word))]
        return tuple(pieces)

    def number_of(self, source: str) -> int:
        """A reference's number."""
        return 1 + list(self.references).index(source)

    def _filled(self, template: str, parts: dict[str, object]) -> Iterator[str]:
        for literal, name, spec, _ in Formatter().parse(template):
            yield from self._marked(literal)
            if name is not None:
                part = parts[name]
                pieces = part if type(part) is tuple else (part if isinstance(part, str) else format(part, spec or ""),)
                yield from pieces

    def _marked(self, text: str) -> Iterator[str]:
        """A text's pieces, marks read."""
        at = 0
        for match in MARKED.finditer(text):
            if match.start() > at:
                yield text[at : match.start()]
            name, stressed, source = match.groups()
            yield Name(name) if name else Strong(stressed) if stressed else f"[{self.number_of(source)}]"
            at = match.end()
        if at < len(text):
            yield text[at:]


def catalogue(language: str) -> Catalogue:
    """The texts of a language. Raises `ConfigError` for one that there is none of."""
    if language not in LANGUAGES:
        raise ConfigError(f"language={language!r} is not known{did_you_mean(language, LANGUAGES)}")
    return Catalogue(language, _read(language), _read(REFERENCES))


def _read(name: str) -> Any:
    return yaml.safe_load(
        files("specdraft.report.course").joinpath("texts", f"{name}.yaml").read_text(encoding="utf-8")
    )
