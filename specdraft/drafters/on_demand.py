"""A pair whose weights are read at the first forward that needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from specdraft.drafters.base import DrafterTraits, Target
from specdraft.drafters.pair import Pair, PairFiles
from specdraft.errors import LoadError
from specdraft.models.check_result import SelfCheck
from specdraft.models.facts import describe_model, describe_served, facts_of_files, naming
from specdraft.models.files import ModelFiles

if TYPE_CHECKING:
    from specdraft.models.cached_model import CachedModel

PACKAGE = Path(__file__).parents[1]
Loading = Callable[[], AbstractContextManager[None]]


class Memory(Protocol):
    """Keeps what was found out, by what it depends on."""

    def recall(self, about: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was kept; None where there is nothing."""

    def keep(self, about: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        """Keep something that JSON can hold."""


@cache
def checked_by() -> str:
    """A digest of the code that loads and checks models: what older code found is found again."""
    sources = [path for folder in ("models", "drafters", "trees") for path in PACKAGE.joinpath(folder).rglob("*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:16]


@contextmanager
def _loading() -> Iterator[None]:
    try:
        yield
    except LoadError:
        raise
    except Exception as error:  # a model's files, and a drafter's code, can raise anything
        raise LoadError(str(error)) from error


class PairOnDemand(Pair):
    """A pair that is known from its files, and from what was kept when it was loaded before.

    Args:
        files: the pair, checked.
        memory: where self-checks and descriptions are kept.
        target_of: a pair whose target is used again if it is the same model.
        loading: entered while a model is read.
    """

    def __init__(
        self,
        files: PairFiles,
        memory: Memory,
        target_of: PairOnDemand | None = None,
        loading: Loading = nullcontext,
    ) -> None:
        self.files, self._memory, self._loading = files, memory, loading
        self._target = _target_of(files.target, memory, loading)
        if target_of is not None and target_of.files.target.spec == files.target.spec:
            self._target = target_of._target

    def __getattr__(self, name: str) -> Any:
        """An attribute that is not there yet: what it takes is loaded."""
        if name not in ("target", "target_check", "drafter"):
            raise AttributeError(name)
        with _loading():
            if name == "target":
                self.target = self._target.model
            elif name == "target_check":
                self.target_check = self._target.known.check
            else:
                with self._loading() if self.files.draft else nullcontext():
                    target = Target(self.files.target, lambda: self.target)
                    self.drafter = self.files.drafter.load(self.files.draft, target)
        return vars(self)[name]

    def load(self) -> None:
        """Read all weights that there are. Raises `LoadError`."""
        assert (self.files.target.spec.served or self.target is not None) and self.drafter is not None

    @property
    def eos_ids(self) -> frozenset[int]:
        """See `Pair.eos_ids`."""
        return self.files.target.eos_ids

    @property
    def traits(self) -> DrafterTraits:
        """See `Pair.traits`."""
        return self.files.drafter.traits

    @property
    def target_facts(self) -> dict[str, Any]:
        """See `Pair.target_facts`."""
        return self._target.facts

    @cached_property
    def draft_facts(self) -> dict[str, Any]:
        """See `Pair.draft_facts`; of a drafter that only says so itself, which is loaded."""
        facts = self.files.drafter.facts(self.files.draft, self.files.target)
        return self.drafter.facts() if facts is None else facts

    def describe(self) -> dict[str, Any]:
        """See `Pair.describe`. Raises `LoadError` where a model was never loaded, and cannot be."""
        with _loading():
            target = self._target.known.description
        about = {"kind": "model", "drafter": self.draft_facts, "checked_by": checked_by()}
        draft = self._memory.recall(about)
        if draft is None:
            self._memory.keep(about, draft := self.drafter.describe())
        return {"target": target, "draft": draft | (naming(self.files.draft) if self.files.draft else {})}


def _target_of(files: ModelFiles, memory: Memory, loading: Loading) -> _Target:
    return _ServedTarget(files, memory, loading) if files.spec.served else _Target(files, memory, loading)


class _Target:
    """A target that pairs may share."""

    def __init__(self, files: ModelFiles, memory: Memory, loading: Loading) -> None:
        self._files, self._memory, self._loading = files, memory, loading
        self._known: _Known | None = None

    @cached_property
    def facts(self) -> dict[str, Any]:
        return facts_of_files(self._files)

    @cached_property
    def model(self) -> CachedModel:
        """Loaded and checked; what that tells is kept."""
        from specdraft.models.loading import load_checked

        with self._loading():
            model, check = load_checked(self._files)
        self._known = _Known(check, describe_model(model, self._files, check))
        self._memory.keep(self._about, {"check": asdict(check), "description": self._known.description})
        return model

    @property
    def known(self) -> _Known:
        """From now, or from when it was loaded before; else it is loaded."""
        if self._known is None and (kept := self._memory.recall(self._about)):
            self._known = _Known(SelfCheck(**kept["check"]), kept["description"] | naming(self._files))
        if self._known is None:
            assert self.model is not None
        assert self._known is not None
        return self._known

    @property
    def _about(self) -> dict[str, Any]:
        return {"kind": "model", "model": self.facts, "checked_by": checked_by()}


class _ServedTarget(_Target):
    """A target behind a server: there is nothing to load."""

    @property
    def known(self) -> _Known:
        """What the server says."""
        from specdraft.models.server.served_files import UNCHECKED, ServedFiles

        assert isinstance(self._files, ServedFiles)
        return _Known(UNCHECKED, describe_served(self._files))


class _Known(NamedTuple):
    """What loading a target tells."""

    check: SelfCheck
    description: dict[str, Any]
