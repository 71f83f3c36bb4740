"""What an inference engine can be told of speculation, in its own names.

To add an engine, write a file in this folder with a class that derives from `TargetEngine`, and add it to `ENGINES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from specdraft.drafters.eagle import Eagle
from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError
from specdraft.models.head_files import HeadFiles
from specdraft.prediction.length.hf_confidence import HfConfidence
from specdraft.study.combination import Combination
from specdraft.trees.shapes.expand_rerank import ExpandRerank
from specdraft.trees.topology import Topology

Grid = list[str]  # overrides that make candidates

CHAINS: Grid = ["tree=chain", "budget=1,2,3,4,5,6,7,8,12,16"]
TREES: Grid = ["tree=expand_rerank", "tree.top_k=2,4,8", "tree.steps=2,3,5,7", "budget=3,7,15,31"]
CHOICES: Grid = ["tree=measured", "budget=7,15,31,63"]


@dataclass(frozen=True)
class Setting:
    """A candidate as one engine is told of it.

    Attributes:
        steps: draft levels.
        top_k: children of a node; 1: a chain.
        nodes: draft tokens of a step at most, without the root.
        choices: its tree is one for all steps, a list of rank paths.
        threshold: a chain ends after a token that the drafter holds for less probable.
    """

    steps: int
    top_k: int
    nodes: int
    choices: bool = False
    threshold: float = 0.0

    @property
    def chain(self) -> bool:
        """Whether it drafts no tree."""
        return self.top_k == 1

    @classmethod
    def of(cls, combination: Combination) -> Setting:
        """Of a chain, of an expand-and-rerank tree, or of one that is fitted."""
        shape, limits, length = combination.shape, combination.limits, combination.length
        if isinstance(shape, ExpandRerank):
            return cls(shape.steps, shape.top_k, limits.nodes)
        if shape.fitted:
            return cls(limits.depth, limits.width, limits.nodes, choices=True)
        threshold = length.threshold if isinstance(length, HfConfidence) else 0.0
        return cls(limits.depth, 1, limits.nodes, threshold=threshold)


class AtBatch(NamedTuple):
    """What is best for so many texts at once; no draft tokens: plain decoding."""

    batch: int
    nodes: int


class TargetEngine(ABC):
    """An engine."""

    kind: ClassVar[str]
    drafters: ClassVar[Mapping[str, str]]  # ours -> what it calls them
    first_eagle: ClassVar[str] = ""  # what it calls heads of EAGLE-1 and EAGLE-2
    sampled_rule: ClassVar[str] = "topk"  # by which it accepts sampled tokens: drafts are its drafter's likeliest

    def named(self, pair: PairFiles) -> str:
        """What the engine calls a pair's drafter. Raises `ConfigError` where it has none of the kind."""
        if (kind := pair.drafter.kind) not in self.drafters:
            known = ", ".join(self.drafters)
            raise ConfigError(f"drafter={kind}: --engine {self.kind} has no such drafter; expected one of {known}")
        return self.first_eagle if kind == "eagle" and eagle_version(pair) < 3 else self.drafters[kind]

    @property
    def grids(self) -> list[Grid]:
        """What makes its candidates."""
        return [CHAINS]

    def takes(self, setting: Setting, pair: PairFiles) -> bool:
        """Whether it can be told this of a pair's drafter."""
        return True

    @abstractmethod
    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """The configuration in the engine's own names; of one with choices, without them."""

    def with_choices(self, told: Mapping[str, Any], topology: Topology) -> dict[str, Any]:
        """A configuration with its tree."""
        raise NotImplementedError(f"{self.kind} has no choices")

    def by_batch(self, told: Mapping[str, Any], sizes: Sequence[AtBatch]) -> dict[str, Any] | None:
        """A configuration that depends on the batch, ascending from the smallest one that was looked at; None where the
        engine cannot be told so."""
        return None

    @abstractmethod
    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """Name and text of the file that holds it."""

    @abstractmethod
    def synthetic(self, rates: Sequence[float]) -> dict[str, Any]:
        """What makes the engine accept at these rates whatever is drafted: `rates[i]` is the probability that the first
        i + 1 draft tokens are accepted."""


def eagle_version(pair: PairFiles) -> int:
    """Of an EAGLE head: 1 (EAGLE-2 has the same heads) or 3."""
    assert isinstance(pair.drafter, Eagle) and isinstance(pair.draft, HeadFiles)
    return pair.drafter.names(pair.draft).shape.version


def drafter_path(pair: PairFiles) -> dict[str, str]:
    """Where a draft model is."""
    return {"model": pair.draft.spec.path} if pair.draft is not None else {}


def length_of(rates: Sequence[float]) -> float:
    """Tokens of a step, the bonus token included."""
    return 1 + sum(rates)


def llama_cpp(rates: Sequence[float]) -> str:
    """Synthetic acceptance for llama.cpp, whose rates per position are unconditional too."""
    return f"--spec-synthetic-acceptance-rates {','.join(f'{rate:.4f}' for rate in rates)}"
