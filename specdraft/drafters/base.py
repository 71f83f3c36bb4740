"""What a drafter is: a value that says what it needs and gives, and what it becomes once a pair is loaded.

To add one, write a file in this folder with a dataclass that derives from `DrafterSpec` (its fields are the parameters
that users may set) and a class with the methods of `Drafter`, and put a YAML of the same name in `configs/drafter/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import NO_SOURCE
from specdraft.config import label
from specdraft.errors import ConfigError, NoWeightsError
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.sampling.randomness import Draw, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch

    from specdraft.models.cached_model import CachedModel
    from specdraft.models.files import ModelFiles

TOP_K = 16  # most probable tokens that an annotation keeps of each position


@dataclass(frozen=True)
class DrafterTraits:
    """What is known of a drafter before anything is loaded.

    Attributes:
        probabilities: it gives the distribution that its tokens come from.
        draws: it can draw a node's children at random; otherwise it proposes by rank only.
        deepest: draft levels at most; None: as many as are asked for.
        by_offset: what it proposes depends on the distance from the root, not on the tokens before alone; where there
            is one distribution a position (`Annotation.top_ids`, `Drafter.logits_along`), it is that of the root's
            children.
        from_tokens: its proposals follow from tokens, without a forward, and may leave any part of a tree empty: replay
            drafts again along the recorded text (see `replay.redraft`).
        copies: of those, levels of a chain, which is copied at once, and of a tree of its own, at most.
        counts: it has a tree of its own, best first by how often what follows was seen.
        earlier: it reads what the target made of a study's earlier prompts too, in their order.
        hidden_layers: layers of the target whose hidden states it reads (see `models.Forward`).
        owns_weights: it has weights of its own, which are hashed.
        drifts: what it proposes at such a distance depends on the tokens on the way too: its trees take forwards.
        waits: a step can do without a draft; the tokens that it was not given are read with the next root.
        lasting_state: its state outlasts a step, so what it proposes depends on where steps started: live only.
        guesses: it proposes whole sequences side by side, so many at most: its trees branch at the root only. Where
            sequences begin alike their nodes are shared.
        reach: positions after the root that tokens beside its trees take (see `Beside`).
        needs_target: it computes with the target's own states or weights, so the target must be here.
    """

    probabilities: bool = True
    draws: bool = True
    deepest: int | None = None
    by_offset: bool = False
    from_tokens: bool = False
    copies: int | None = None
    counts: bool = False
    earlier: bool = False
    hidden_layers: tuple[int, ...] = ()
    owns_weights: bool = True
    drifts: bool = False
    waits: bool = False
    lasting_state: bool = False
    guesses: int | None = None
    reach: int = 0
    needs_target: bool = False


@dataclass(frozen=True)
class Drawing:
    """How the children of a node are chosen.

    Attributes:
        draw: by rank, or at random from the standardised distribution.
        sampling: what standardised means.
        source: where the randomness comes from.
        keep_probs: also keep each drafted token's probability (softmax at temperature 1), to show it.
        keep_logits: also keep the logits that tokens were chosen by (see `ChosenFrom`), to score them.
        drawn: in what the drafter's distributions differ from `sampling`.
    """

    draw: Draw = "rank"
    sampling: Sampling = field(default_factory=Sampling)
    source: Source = NO_SOURCE
    keep_probs: bool = False
    keep_logits: bool = False
    drawn: Drawn = AS_TARGET

    @classmethod
    def by(
        cls,
        rule: AcceptanceRule,
        sampling: Sampling,
        source: Source,
        keep_probs: bool = False,
        keep_logits: bool = False,
        drawn: Drawn = AS_TARGET,
    ) -> Drawing:
        """As the rule needs it."""
        return cls(rule.draw, sampling, source, keep_probs, keep_logits, drawn)

    def at(self, depth: int) -> Sampling:
        """What standardised means of the distribution that children at a depth are drawn from."""
        return self.drawn.at(depth, self.sampling)


BY_RANK = Drawing()


class Prefilled(NamedTuple):
    """A prompt that the target has read.

    Attributes:
        token_ids: its tokens.
        hidden: `[tokens, L, width]` the target's states of the layers that the drafter reads, if it reads any.
        earlier: what the target made of the study's prompts before this one, if the drafter reads that.
        text: of an encoder-decoder what follows the prompt already: its encoder reads the prompt alone. With other
            models such a text is part of the prompt.
    """

    token_ids: Sequence[int]
    hidden: torch.Tensor | None = None
    earlier: Sequence[Sequence[int]] = ()
    text: Sequence[int] = ()


class RecordedText(NamedTuple):
    """A text of the target.

    Attributes:
        prompt_ids: the prompt.
        tokens: `[T + 1]` what follows it; position 0 is the prefill's token.
        hidden: `[prompt + T, L, width]` the target's states, where the drafter reads any.
    """

    prompt_ids: Sequence[int]
    tokens: np.ndarray
    hidden: torch.Tensor | None = None


class Annotation(NamedTuple):
    """What a drafter says along a text; position 0 is the prefill's token, which no drafter proposes.

    Attributes:
        ranks: `[T + 1]` int32, the drafter's rank of each token after the tokens before it; -1 where it does not
            propose the token at all. Of a drafter whose proposal depends on the distance from the root: `[T + 1, O]`,
            column d - 1 for a root d tokens before.
        top_ids: `[T + 1, K]` int32, the most probable tokens, best first; K is 0 of a drafter without probabilities.
        top_probs: `[T + 1, K]` float32, their probabilities (softmax at temperature 1).
        entropy: `[T + 1]` float32, of the drafter's distribution, in nats.
    """

    ranks: np.ndarray
    top_ids: np.ndarray
    top_probs: np.ndarray
    entropy: np.ndarray


class Expansion(NamedTuple):
    """The best-first tree of each start of one text, nodes in the order in which a budget adds them.

    Attributes:
        parent: `[T, N]` int16: a node's parent as a place in this order, from 1; 0 is the root, -1 no node.
        rank: `[T, N]` int16 child ranks.
        token: `[T, N]` int32.
        log_prob: `[T, N]` float64, the logarithms of the cumulative probabilities.
    """

    parent: np.ndarray
    rank: np.ndarray
    token: np.ndarray
    log_prob: np.ndarray


class NodeFeatures(NamedTuple):
    """What the drafter's distribution after each node's parent says, `[T, N]` float32 beside an `Expansion`.

    Attributes:
        log_prob: the logarithm of the node's own probability (softmax at temperature 1, whatever chose the tree).
        entropy: in nats.
        best, second: the logarithms of the two largest probabilities.
    """

    log_prob: np.ndarray
    entropy: np.ndarray
    best: np.ndarray
    second: np.ndarray


class Described(NamedTuple):
    """The trees of one text, and what the drafter said in them, where that was asked for."""

    expansion: Expansion
    nodes: NodeFeatures | None = None


class GivenTrees(NamedTuple):
    """Trees of the starts of one text, a parent before its children.

    Attributes:
        parent: `[T, N]` a node's parent as a place in its tree, from 1; 0 is the root, -1 no node. `[1, N]`: the same
            tree at all starts.
        rank: likewise child ranks.
    """

    parent: np.ndarray
    rank: np.ndarray

    @classmethod
    def of(cls, topology: Topology) -> GivenTrees:
        """One tree at all starts."""
        return cls(topology.parents[None, 1:].astype(np.int16), topology.ranks[None, 1:].astype(np.int16))

    def at_starts(self, count: int) -> GivenTrees:
        """With a row for each start."""
        return GivenTrees(*(np.broadcast_to(field, (count, field.shape[1])) for field in self))

    @property
    def depth(self) -> np.ndarray:
        """`[T, N]` of the nodes, from 1; 0: no node."""
        depth = np.zeros((self.parent.shape[0], self.parent.shape[1] + 1), dtype=np.int64)
        rows = np.arange(len(depth))
        for place in range(self.parent.shape[1]):
            above = self.parent[:, place]
            depth[:, place + 1] = np.where(above >= 0, depth[rows, above] + 1, 0)
        return depth[:, 1:]


RowOf = Callable[["CachedModel"], "CachedModel"]


class Drafter(Protocol):
    """Proposes trees below the last committed token, and says what it would have proposed along a recorded text."""

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterTraits`."""

    def begin(self, prompt: Prefilled) -> None:
        """Start over with a prompt; one without tokens leaves nothing in memory."""

    def rewind(self) -> None:
        """Back to the end of the prompt."""

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """One tree below `root`, the last committed token."""

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """Of the last tree, these nodes were accepted; the next root follows them.

        Args:
            tree: as it was drafted.
            accepted_nodes: from the root downwards.
            hidden: `[1 + accepted, L, width]` the target's states of the root and the accepted nodes.
        """

    def another(self, row_of: RowOf) -> Drafter:
        """One with the same weights for another text, which decodes side by side with others; it begins anew.

        Args:
            row_of: gives, for a model that it drafts with, a row of it that is this text's own.
        """

    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """What it says along a batch of texts."""

    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """Float32 logits before the tokens of a batch of texts, slice by slice; of drafters with probabilities.

        A slice is `[B, m, vocab]` for the next m positions of all texts: the first one position 0, each other one
        `at_once` positions as long as the longest text has so many. Beyond the end of a text rows mean nothing.
        """

    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """The trees that it would draft at every start of each text, one text after another; of drafters with
        probabilities."""

    def describe_trees(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Described]:
        """As `expand`, with what predictors learn from."""

    def score(
        self, texts: Sequence[RecordedText], trees: Sequence[GivenTrees], temperature: float, featured: bool = False
    ) -> Iterator[Described]:
        """Given trees at every start of each text as it would draft them, one text after another, nodes scored by
        softmax(logits / temperature); of drafters with probabilities. `featured`: what it said in them too."""

    def facts(self) -> dict[str, Any]:
        """Everything that its proposals depend on: names what is recorded of it."""

    def describe(self) -> dict[str, Any]:
        """What it is, for the manifest."""


@runtime_checkable
class ReadsBeside(Protocol):
    """A drafter whose trees have tokens beside them (see `Beside`)."""

    def read_beside(self, logits: torch.Tensor) -> None:
        """Of the last tree, which was committed: `[m, vocab]` what the target said after each token beside it."""


@dataclass(frozen=True)
class Target:
    """A target as a drafter takes it when it is loaded.

    Attributes:
        files: where it is, and what is known of it from there.
        load: gives the model itself; it is read into memory where it is not there yet.
    """

    files: ModelFiles
    load: Callable[[], CachedModel]


@dataclass
class DrafterSpec:
    """A drafter as a value: its parameters, and what is known of it before anything is loaded.

    Attributes:
        kind: the drafter's name.
        path: its weights, of drafters that own any besides the pair's draft model: a folder or `zoo:NAME`. Left out:
            the pair's `heads`.
        for_encoders: whether it drafts for encoder-decoders too.
    """

    for_encoders: ClassVar[bool] = False
    kind: str = ""
    path: str | None = None

    @property
    def label(self) -> str:
        """What the `drafter` column says: the kind, and the parameters that differ from their defaults."""
        return label(self, "path")

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterTraits`."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise `ConfigError` for parameters out of range."""

    def check_target(self, target: ModelFiles) -> None:
        """Raise `ConfigError` where it cannot draft for this target."""
        if target.encodes and not self.for_encoders:
            raise ConfigError(
                f"drafter={self.kind} drafts for decoder-only targets; {target.spec.path} is an encoder-decoder, which "
                "takes a draft model that is one too (drafter=model) or look-ups (drafter=ngram, drafter=suffix)"
            )

    def weights(self, pair: PairSpec) -> ModelSpec | None:
        """Which weights it drafts with; None of a drafter without any.

        Raises:
            NoWeightsError: neither `drafter.path` nor the pair says where they are.
            ConfigError: a path is given and there are none.
        """
        if not self.traits.owns_weights:
            if self.path is not None:
                raise ConfigError(f"drafter.path={self.path}: drafter={self.kind} has no weights; leave it out")
            return None
        path = self.path or pair.heads.get(self.kind)
        if path is None:
            known = f"heads of pair {pair.name}: {', '.join(sorted(pair.heads)) or 'none'}"
            raise NoWeightsError(f"drafter.path is empty; drafter={self.kind} needs weights ({known})")
        return ModelSpec(path, dtype=pair.target.dtype, device=pair.target.device)

    def complete(self, weights: ModelFiles, pair: PairSpec, target: ModelFiles) -> ModelFiles:
        """Its weights once they are found, with the files `beside` them that it drafts with too, if there are any.

        Raises:
            ConfigError: such a file cannot be read, or belongs to another pair.
        """
        return weights

    def load(self, weights: ModelFiles | None, target: Target) -> Drafter:
        """The drafter of a target, with its own weights if it has any. Raises `ModelError`."""
        raise NotImplementedError

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any] | None:
        """What `Drafter.facts` will say, known from the files; None: only the loaded drafter tells."""
        return None

    def as_dict(self) -> dict[str, Any]:
        """Its parameters."""
        return asdict(self)

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters but for where its weights are."""
        return {name: value for name, value in self.as_dict().items() if name != "path"}
