"""What is in the store, for people: one group for a model (or a pair), a sampling setting and a set of prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.traces.store import StoredTrace, TraceStore

UNKNOWN, NONE = "?", "-"
TEXT = "trajectory"  # the kind that depends on the target alone
AGAIN = "repetition"  # of a text, by a server that was asked twice
ABOVE = ("trajectory", "annotation")  # keys under which a trace names the one that it was made from


class Whose(NamedTuple):
    """What a group's traces have in common: names for people, or the beginnings of digests of weights; `?` is what is
    not known, `-` what a trace does not depend on."""

    target: str
    draft: str
    sampling: str
    prompts: str
    max_new_tokens: str


@dataclass
class TraceGroup:
    """Traces of one target (and drafter), sampling setting and set of prompts.

    Attributes:
        kinds: how many traces there are of each kind.
        tokens: of the texts: prompts, and what follows them.
        size_bytes: of their files.
        written: when the newest was written, in seconds since 1970.
    """

    whose: Whose
    kinds: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    size_bytes: int = 0
    written: float = 0.0


def group_traces(store: TraceStore) -> list[TraceGroup]:
    """Every trace in its group, targets side by side."""
    groups: dict[Whose, TraceGroup] = {}
    for trace, whose, _ in describe_traces(store):
        group = groups.setdefault(whose, TraceGroup(whose))
        group.kinds[trace.about["kind"]] += 1
        group.size_bytes += trace.size_bytes
        group.written = max(group.written, trace.written)
        group.tokens += int(trace.about.get("prompt_tokens", 0)) + (store.tokens(trace) or 0)
    return sorted(groups.values(), key=lambda group: group.whose)


def describe_traces(store: TraceStore) -> list[tuple[StoredTrace, Whose, str]]:
    """Every trace, by key: whose it is, and the prompt's id."""
    traces = {trace.key: trace for trace in store.list()}
    lines = {key: list(_origins(trace, traces)) for key, trace in traces.items()}
    names = _names(traces.values())
    return [(trace, _whose(lines[key], names), _label(lines[key], "prompt")) for key, trace in traces.items()]


def _origins(trace: StoredTrace, traces: Mapping[str, StoredTrace]) -> Iterator[StoredTrace]:
    """A trace, and those that it was made from, its text last; what was deleted is left out."""
    yield trace
    while above := next((traces[trace.about[name]] for name in ABOVE if trace.about.get(name) in traces), None):
        trace = above
        yield trace


def _names(traces: Iterable[StoredTrace]) -> dict[str, str]:
    """Digest of weights -> what people called that model."""
    roles = [(trace, role) for trace in traces for role in ("target", "draft") if role in trace.labels]
    return {
        digest: Path(trace.labels[role]).name if trace.labels[role].startswith(("/", ".", "~")) else trace.labels[role]
        for trace, role in roles
        if (digest := _facts([trace], role).get("weights"))
    }


def _whose(line: Sequence[StoredTrace], names: Mapping[str, str]) -> Whose:
    first, last = line[0].about, line[-1].about
    target = _model(line, "target", names)
    draft = NONE if first["kind"] in (TEXT, AGAIN) else _model(line, "draft", names)
    if not _of_text(line):
        return Whose(target, draft, NONE, NONE, NONE)
    known = last["kind"] in (TEXT, AGAIN)
    sampling = sampling_text(last.get("sampling", {})) if known else UNKNOWN
    most = str(last.get("max_new_tokens", UNKNOWN)) if known else UNKNOWN
    return Whose(target, draft, sampling, _label(line, "prompts"), most)


def _of_text(line: Sequence[StoredTrace]) -> bool:
    """Whether a trace is of one text; a pair's costs, say, are of none."""
    about = line[0].about
    return bool(about["kind"] in (TEXT, AGAIN) or any(key in about for key in ABOVE))


def _label(line: Sequence[StoredTrace], name: str) -> str:
    """What the nearest of some traces says."""
    return next((trace.labels[name] for trace in line if name in trace.labels), UNKNOWN if _of_text(line) else NONE)


def _model(line: Sequence[StoredTrace], role: str, names: Mapping[str, str]) -> str:
    """A model's name, else the beginning of the digest of its weights; of a drafter without any its kind."""
    facts = _facts(line, role)
    if digest := facts.get("weights"):
        return names.get(digest, str(digest)[:8])
    drafter = facts.get("drafter")
    return str(drafter.get("kind", UNKNOWN)) if isinstance(drafter, dict) else UNKNOWN


def _facts(line: Sequence[StoredTrace], role: str) -> dict[str, Any]:
    """What the nearest of some traces depends on of a model."""
    return next((trace.about[role] for trace in line if isinstance(trace.about.get(role), dict)), {})


def sampling_text(sampling: Mapping[str, Any]) -> str:
    """A sampling setting, for people."""
    if not sampling.get("temperature"):
        return "greedy"
    parts = [f"T={sampling['temperature']:g}"]
    parts += [f"top-k {sampling['top_k']}"] if sampling.get("top_k") else []
    parts += [f"top-p {sampling['top_p']:g}"] if sampling.get("top_p", 1.0) != 1.0 else []
    return " ".join(parts)
