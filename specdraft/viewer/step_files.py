"""One step's tree as files for papers, slides and other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from specdraft.errors import ConfigError
from specdraft.results.files import check_file_writable, write_atomically
from specdraft.trees.step_graph import StepGraph
from specdraft.trees.step_picture import step_svg
from specdraft.viewer.steps import Shown

PNG_SCALE = 2.0


@dataclass(frozen=True)
class StepFiles:
    """Where a step goes.

    Attributes:
        png, svg, dot: files, as far as they are wanted.
        number: which step, from 1; None takes the first of those with the most accepted tokens.
    """

    png: Path | None = None
    svg: Path | None = None
    dot: Path | None = None
    number: int | None = None

    def check(self, trees: int = 1) -> None:
        """Raise `ConfigError` or `ResultsError` for what cannot be written, before anything is decoded."""
        if self.paths and trees > 1:
            raise ConfigError("--png, --svg and --dot write a step of one tree: expected one combination")
        for name, path, endings in (("--png", self.png, (".png",)), ("--svg", self.svg, (".svg",))):
            if path:
                check_file_writable(path, name, endings)
        if self.dot:
            check_file_writable(self.dot, "--dot", (".dot", ".gv"))
        if self.number is not None and not self.paths:
            raise ConfigError("--step says which step is written: it goes with --png, --svg or --dot")

    @property
    def paths(self) -> list[Path]:
        """The files that are wanted."""
        return [path for path in (self.png, self.svg, self.dot) if path]

    def chosen(self, shown: Shown) -> StepGraph | None:
        """The step to write; None where no file is wanted. Raises `ConfigError` where there is no such step."""
        if not self.paths:
            return None
        if not shown.steps:
            raise ConfigError("there is no step to write: the text ended with the token after the prompt")
        if self.number is not None and not 1 <= self.number <= len(shown.steps):
            raise ConfigError(f"--step {self.number}: expected 1 to {len(shown.steps)}, the steps of this text")
        steps = shown.steps
        step = max(steps, key=lambda step: len(step.accepted)) if self.number is None else steps[self.number - 1]
        return step.graph(shown.word)

    def write(self, graph: StepGraph) -> None:
        """Write the files. Raises `ResultsError`."""
        if self.dot:
            write_atomically(self.dot, graph.to_dot())
        if self.svg:
            write_atomically(self.svg, step_svg(graph))
        if self.png:
            from vl_convert import svg_to_png

            write_atomically(self.png, svg_to_png(step_svg(graph), scale=PNG_SCALE))
