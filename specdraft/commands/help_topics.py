"""`specdraft help`: the long texts, one Markdown file a topic in `specdraft/help`.

A topic is the name of its file; what it is about stands in its first line, `# NAME: about`.
"""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from typing import Annotated

import typer

from specdraft.commands.options import console

COMMENT = re.compile(r"^<!--(?:(?!-->).)*-->\n|<!--.*?-->", re.MULTILINE)  # marks of numbers, and of lines not run


def show_help(
    topic: Annotated[str | None, typer.Argument(help="a topic (default: list them)", show_default=False)] = None,
) -> None:
    """Explain one topic, or list the topics."""
    texts = topics()
    if topic is None:
        for name, text in texts.items():
            typer.echo(f"{name:<14}{about(text)}")
        typer.echo("\nspecdraft help TOPIC shows one of them, specdraft COMMAND --help a command's options.")
        return
    from specdraft.errors import ConfigError, did_you_mean

    if topic not in texts:
        raise ConfigError(f"help topic {topic!r} is not known{did_you_mean(topic, texts)}")
    text = without_comments(texts[topic])
    if not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    from rich.markdown import Markdown

    console().print(Markdown(text, code_theme="ansi_dark"))


def topics() -> dict[str, str]:
    """The text of each topic, by name in alphabetical order."""
    folder = files("specdraft").joinpath("help")
    found = {file.name.removesuffix(".md"): file for file in folder.iterdir() if file.name.endswith(".md")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


def without_comments(text: str) -> str:
    """A text as people read it: a line that is a comment goes as a whole."""
    return COMMENT.sub("", text)


def about(text: str) -> str:
    """What a topic's first line says that it is about."""
    return text.partition("\n")[0].partition(": ")[2]
