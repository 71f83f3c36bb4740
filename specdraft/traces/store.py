"""Traces on disk, named by what they depend on.

A trace is two files: `KEY.json` says what it depends on and holds the digest of the tensors, and
`KEY.safetensors` holds the tensors. KEY is a digest of what it depends on, so two studies that need the
same trace share it. The JSON is written last: a trace without it, or whose tensors have another digest,
is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from specdraft.errors import ResultsError, did_you_mean
from specdraft.results.files import cannot_write, check_folder_writable, write_atomically

FORMAT = 1
FOLDER = "SPECDRAFT_TRACES"  # the environment variable that names the folder
KEY_DIGITS = 20
QUIET_S, OLD_S = 5.0, 86400.0  # unchanged so long: a dead process's file is given up (it may run elsewhere); any file
LEFTOVER = re.compile(
    rf"[0-9a-f]{{{KEY_DIGITS}}}\.safetensors|\.[0-9a-f]{{{KEY_DIGITS}}}\.(safetensors|json)\.\d+\.tmp"
)
NAME = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)  # what a damaged or foreign JSON can raise


def default_folder() -> Path:
    """`$SPECDRAFT_TRACES`, else `specdraft/traces` in the user's cache folder."""
    named = os.environ.get(FOLDER)
    return (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specdraft" / "traces"
    )


@cache
def libraries() -> dict[str, str]:
    """The versions that a trace's numbers depend on."""
    return {name: version(name) for name in ("torch", "transformers")}


@dataclass(frozen=True)
class StoredTrace:
    """A trace in the list.

    Attributes:
        key: its name.
        about: what it depends on.
        size_bytes: of both files.
        labels: what people call what it depends on: see `TraceStore.labelled`.
        written: when, in seconds since 1970.
    """

    key: str
    about: dict[str, Any]
    size_bytes: int
    labels: dict[str, str]
    written: float


class TraceFiles(NamedTuple):
    """The two files of a trace: the JSON, and the tensors."""

    header: str
    tensors: bytes

    @property
    def digest(self) -> str:
        """Of the tensors, as the JSON says it. Raises one of `UNREADABLE`."""
        return str(json.loads(self.header)["sha256"])

    @property
    def whole(self) -> bool:
        """Whether these are the tensors that the JSON is of. Raises one of `UNREADABLE`."""
        return self.digest == hashlib.sha256(self.tensors).hexdigest()


class TraceStore:
    """A folder of traces.

    Args:
        folder: where they are.
        labels: what is written beside each trace for people; nothing depends on them.
        prompt_ids: a prompt's digest, as traces depend on it -> what people call the prompt.
    """

    def __init__(
        self, folder: Path, labels: Mapping[str, str] | None = None, prompt_ids: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self._labels, self._prompt_ids = folder, dict(labels or {}), dict(prompt_ids or {})

    def labelled(self, prompt_ids: Mapping[str, str] | None = None, **labels: str) -> TraceStore:
        """The same folder; traces that are put into it have these labels too, as `target`, `draft`, `prompts`."""
        return TraceStore(self.folder, self._labels | labels, self._prompt_ids | dict(prompt_ids or {}))

    @staticmethod
    def key(about: Mapping[str, Any]) -> str:
        """The name of the trace that depends on `about`."""
        text = json.dumps({"format": FORMAT} | dict(about), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    def get(self, about: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """The tensors of a trace; None where it is missing, half-written, damaged or another file."""
        files = self.files(self.key(about))
        try:
            if files is None or json.loads(files.header)["about"] != dict(about):
                return None
            return load(files.tensors)
        except (*UNREADABLE, SafetensorError):
            return None

    def files(self, key: str) -> TraceFiles | None:
        """A trace as it is stored; None where it is missing, half-written or damaged."""
        try:
            header = (self.folder / f"{key}.json").read_text(encoding="utf-8")
            files = TraceFiles(header, (self.folder / f"{key}.safetensors").read_bytes())
            return files if files.whole else None
        except UNREADABLE:
            return None

    def put(self, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
        """Write a trace; returns its key. Raises `ResultsError` where the folder cannot be written."""
        key = self.key(about)
        content = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
        named = self._prompt_ids.get(about.get("prompt", ""))
        labels = self._labels | ({"prompt": named} if named else {})
        header = {"about": dict(about), "sha256": hashlib.sha256(content).hexdigest(), "labels": labels}
        self.put_files(key, TraceFiles(json.dumps(header, indent=1) + "\n", content))
        return key

    def put_files(self, key: str, files: TraceFiles) -> None:
        """Write a trace as it was stored elsewhere. Raises `ResultsError` where the folder cannot be written."""
        path = self.folder / f"{key}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        write_atomically(path, files.tensors)
        write_atomically(self.folder / f"{key}.json", files.header)

    def list(self) -> Iterator[StoredTrace]:
        """Every readable trace, by key."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                header, status = json.loads(path.read_text(encoding="utf-8")), path.stat()
                about, labels = header["about"], header.get("labels", {})
                size = status.st_size + path.with_suffix(".safetensors").stat().st_size
                named = NAME.fullmatch(path.stem) and isinstance(about["kind"], str)
                labels = {str(name): str(label) for name, label in labels.items()}
            except UNREADABLE:
                continue
            if named:
                yield StoredTrace(path.stem, about, size, labels, status.st_mtime)

    def tokens(self, trace: StoredTrace) -> int | None:
        """Tokens of a recorded text, from the header of its file; None of other traces."""
        try:
            with safe_open(self.folder / f"{trace.key}.safetensors", framework="numpy") as tensors:
                return int(tensors.get_slice("tokens").get_shape()[0])
        except (OSError, SafetensorError):
            return None

    def find(self, key: str) -> StoredTrace:
        """The trace whose key begins with `key`. Raises `ResultsError` where there is none, or more than one."""
        matching = [trace for trace in self.list() if key and trace.key.startswith(key)]
        if len(matching) != 1:
            problem = "no trace" if not matching else f"{len(matching)} traces"
            hint = (
                did_you_mean(key, (t.key for t in self.list())).split(" (known")[0]
                if not matching
                else "; give more digits"
            )
            raise ResultsError(f"{problem} with key {key!r} in {self.folder}{hint}")
        return matching[0]

    def check_writable(self) -> None:
        """Make the folder, and delete what killed writes left in it.

        Raises:
            ResultsError: traces cannot be written.
        """
        check_folder_writable(self.folder)
        for path in self.folder.glob(".*.tmp"):
            if LEFTOVER.fullmatch(path.name) and _abandoned(path):
                with suppress(OSError):
                    path.unlink()

    def sweep_up(self) -> None:
        """Delete what killed writes left behind. Raises `ResultsError` where it cannot be deleted."""
        for path in self.folder.glob("*"):
            if LEFTOVER.fullmatch(path.name):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise cannot_write(path, error) from error

    def remove(self, key: str) -> None:
        """Delete a trace by its full key. Raises `ResultsError` where it cannot be deleted."""
        try:
            for suffix in (".json", ".safetensors"):
                (self.folder / f"{key}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.folder / key, error) from error


def _abandoned(path: Path) -> bool:
    """Whether nobody will finish a temporary file: `.NAME.PROCESS.tmp`."""
    try:
        quiet_s = time.time() - path.stat().st_mtime
    except OSError:
        return False
    process = int(path.name.split(".")[-2])
    return quiet_s > OLD_S or (quiet_s > QUIET_S and not psutil.pid_exists(process))
