"""What a paper is made of, before it is Markdown or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specdraft.report.words import Text


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 (a section), 2 or 3."""

    text: str
    level: int = 1


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: Text


@dataclass(frozen=True)
class Points:
    """A list."""

    texts: Sequence[Text]


@dataclass(frozen=True)
class Chart:
    """A figure: its data are within the specification.

    Attributes:
        name: of its file.
        source: the result files that it is drawn from.
    """

    name: str
    title: str
    caption: Text
    spec: dict[str, Any]
    source: str


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first column is words, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    source: str
    note: Text = ()


@dataclass(frozen=True)
class Numbered:
    """A chart or grid with its number, as `Figure 3`."""

    label: str
    content: Chart | Grid


Block = Heading | Paragraph | Points | Numbered


@dataclass(frozen=True)
class Paper:
    """A course report in one language."""

    language: str
    title: str
    blocks: Sequence[Block]

    @property
    def charts(self) -> list[Chart]:
        """Its figures, in their order."""
        return [
            block.content for block in self.blocks if isinstance(block, Numbered) and isinstance(block.content, Chart)
        ]
