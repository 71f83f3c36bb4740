"""What a YAML file may ask of whoever reads it: bounded before it is built, because aliases multiply."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from specdraft.errors import ConfigError

MOST_BYTES = 1_000_000
MOST_NODES = 10_000  # keys, values and items, every alias counted as what it stands for
DEEPEST = 30  # levels of nesting
MOST_DIGITS = 19  # of a whole number: 64 bits
INTEGER = re.compile(r"[-+]?[\d_]+")


def check_yaml(path: Path, named: str) -> None:
    """Refuse a file that would take long, or for ever, to build. Errors of syntax are left to whoever reads it.

    Args:
        path: a file.
        named: what the user calls it.

    Raises:
        ConfigError: it is too large, too deep or not UTF-8, or an alias is part of what it stands for.
    """
    try:
        text = _read(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{named}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{named}: cannot be read: {error.strerror}") from error
    try:
        why = "it is too large" if text is None else _unbounded(text)
    except yaml.YAMLError:
        return
    if why:
        limits = f"at most {MOST_BYTES} bytes, {MOST_NODES} values and {DEEPEST} levels"
        raise ConfigError(f"{named}: {why}; a config file has {limits}")


def _read(path: Path) -> str | None:
    """The text; None of a file that is too large."""
    with path.open("rb") as handle:
        content = handle.read(MOST_BYTES + 1)
    return content.decode("utf-8") if len(content) <= MOST_BYTES else None


def _unbounded(text: str) -> str | None:
    """Why a text is too much, or None. Events are counted as they are read; nothing is built."""
    count, opened, sizes = 0, list[tuple[str | None, int]](), dict[str, int]()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in opened}:
                return f"the alias *{event.anchor} is part of what it stands for"
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
            if event.style is None and len(event.value) > MOST_DIGITS and INTEGER.fullmatch(event.value):
                return f"a number of {len(event.value)} digits is out of range"
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > MOST_NODES:
            return "it holds too many values"
        if len(opened) > DEEPEST:
            return "it is nested too deeply"
    return None
