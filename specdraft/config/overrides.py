"""One override: parsed within bounds, and written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import accumulate
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from specdraft.errors import ConfigError

RESOLVER = re.compile(r"\$\{[^{}\n]*(\$\{|:)")  # `${oc.env:HOME}`, and a resolver whose name is interpolated itself
MOST_CHARACTERS = 10_000  # of one override: the parser reads a few thousand characters a second
DEEPEST = 30  # levels of brackets in one override
MOST_SHOWN = 60  # characters of an override that an error message repeats
OUT_OF_RANGE = "a whole number is out of range; expected one below 2**63"
LARGEST = 2**63 - 1  # a whole number that a table can hold
TUPLES = re.compile(r"""(['"]?)(\[[\s\d,()\[\]-]*\])\1""")  # rank paths as Python writes them: [(0,), (0, 0)]


def parse(text: str) -> Override:
    """An override as Hydra reads it. Raises `ConfigError` for what is none, is out of bounds, or cannot be swept."""
    key, _, value = text.partition("=")
    if len(text) > MOST_CHARACTERS or _levels(value) > DEEPEST:
        limit = f"at most {MOST_CHARACTERS} characters and {DEEPEST} levels of brackets; larger values go into a file"
        raise ConfigError(f"{_shortened(text)} is too much for one override: {limit}")
    if "(" in value and (match := TUPLES.fullmatch(value)):
        text = f"{key}=" + re.sub(r",?\s*[)]", "]", match[2].replace("(", "["))
    refuse_resolvers(text, repr(text))
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        hint = "" if "=" in text else "; expected key=value"
        raise ConfigError(f"{_shortened(text)} is not an override: {str(error).splitlines()[0]}{hint}") from error
    except ValueError as error:  # Python reads whole numbers of some thousand digits only
        raise ConfigError(f"{_shortened(text)}: {OUT_OF_RANGE}") from error
    if not _in_range(override.value()):
        raise ConfigError(f"{_shortened(text)}: {OUT_OF_RANGE}")
    if override.is_delete():
        raise ConfigError(f"{text!r}: keys cannot be deleted; set another value instead")
    if override.is_interval_sweep():
        raise ConfigError(f"{text!r}: interval() has no end of values to sweep; use range() or choice()")
    return override


def _levels(text: str) -> int:
    """How deep the brackets of a text go; those in quotes count too."""
    return max(accumulate((c in "[{(") - (c in "]})") for c in text), default=0)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


def _in_range(value: Any) -> bool:
    """Whether a value holds no whole number beyond what tables can hold."""
    match value:
        case int():
            return abs(value) <= LARGEST
        case ChoiceSweep():
            parts = value.list
        case RangeSweep():
            parts = [value.start, value.stop, value.step]
        case dict():
            parts = list(value.values())
        case _:
            parts = value if isinstance(value, list) else []
    return all(map(_in_range, parts))


def refuse_resolvers(content: Any, where: str) -> None:
    """Raise `ConfigError` for values that call a resolver: it could put an environment variable into results."""
    if isinstance(content, Mapping | list):
        for value in content.values() if isinstance(content, Mapping) else content:
            refuse_resolvers(value, where)
    elif isinstance(content, str) and (call := RESOLVER.search(content)):
        hint = "a value may refer to other keys only, as ${budget}"
        raise ConfigError(f"{where}: {call.group()}...}} is refused; {hint}")


def override_keys(overrides: Iterable[str]) -> list[str]:
    """The key that each override sets: of `+sampling.top_k=5` it is `sampling.top_k`."""
    return [text.lstrip("+~").partition("=")[0] for text in overrides]


def override_groups(overrides: Iterable[str]) -> list[str]:
    """The group, or key that belongs to no group, of each override: of `+sampling.top_k=5` it is `sampling`."""
    return [key.partition(".")[0] for key in override_keys(overrides)]


def unless_said(overrides: Iterable[str], defaults: Mapping[str, str]) -> list[str]:
    """A command's own defaults, those left out whose key the overrides set, or a key below it."""
    keys = override_keys(overrides)
    return [
        f"{key}={value}"
        for key, value in defaults.items()
        if not any(said == key or said.startswith(f"{key}.") for said in keys)
    ]


def override_text(value: Any) -> str:
    """A value as an override says it, quoted where it would not mean itself."""
    if isinstance(value, list):
        return f"[{','.join(map(override_text, value))}]"
    if isinstance(value, str):
        return value if _means_itself(value) else str(QuotedString(value, Quote.single).with_quotes())
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _means_itself(text: str) -> bool:
    try:
        return bool(parse(f"key=[{text}]").value() == [text])
    except ConfigError:
        return False
