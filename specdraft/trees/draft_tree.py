"""A draft tree: a topology with tokens on it; built from candidate sequences, with the mask that a target needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specdraft.errors import TreeError
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch


class ChosenFrom(NamedTuple):
    """What the drafter said where the nodes of a tree were chosen by rank.

    Attributes:
        logits: `[m, vocab]` its raw logits after the nodes that have children.
        row: `[n + 1]` which of them each node was chosen from; the root was not, its entry means nothing.
    """

    logits: torch.Tensor
    row: np.ndarray


class Beside(NamedTuple):
    """Tokens that go through the target's forward with a tree, for what the target says after them.

    None of them is a draft node: the tree does not see them, none is accepted, and their keys are dropped with those of
    refused nodes. All of them see the text before the root, and none sees a draft node.

    Attributes:
        tokens: `[m]` token ids.
        depths: `[m]` positions, counted from the root's.
        visible: `[m, 1 + m]` bool: which of them sees the root (column 0), and which of the others and itself.
    """

    tokens: np.ndarray
    depths: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True, eq=False)
class DraftTree:
    """A topology with tokens on it.

    `DraftTree.from_sequences` and `DraftTree.rooted` build one from candidate continuations. To verify it, a target
    needs `token_list()`, the position ids `topology.depths` + the root's position, and `attention_mask()`.

    Attributes:
        tokens: `[n + 1]` token ids, the root's first: a list, an array or a tensor on the model's device.
        draft_probs: `[n + 1]` the drafter's probability of each node's token after its parent
            (softmax at temperature 1; the root's is 1), or None where it was not asked for.
        drawn_from: `[n + 1, vocab]` the standardised draft distribution that each node's children were
            drawn from (rows of leaves are 0), or None where they were chosen by rank.
        chosen_from: the logits that they were chosen by, where these were asked for.
        log_probs: `[n]` float64 on the host, of a tree that grew by them: the logarithm of each node's cumulative
            probability.
        beside: further tokens of the same forward, of a drafter that has any.
    """

    topology: Topology
    tokens: Sequence[int] | np.ndarray | torch.Tensor
    draft_probs: Sequence[float] | np.ndarray | torch.Tensor | None = None
    drawn_from: torch.Tensor | None = None
    chosen_from: ChosenFrom | None = None
    log_probs: np.ndarray | None = None
    beside: Beside | None = None
    _known: list[int] = field(default_factory=list, init=False, repr=False)  # `tokens` on the host, once asked for

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.topology):
            raise TreeError(f"{len(self.tokens)} tokens for {len(self.topology)} nodes")

    @classmethod
    def from_paths(cls, paths: Iterable[Sequence[int]], root: int, tokens: Sequence[int]) -> DraftTree:
        """Build from rank paths and their tokens `[n]` in the same order."""
        rank_paths = [tuple(p) for p in paths]
        topology = Topology.from_paths(rank_paths)
        if len(rank_paths) != len(tokens):
            raise TreeError(f"{len(tokens)} tokens for {len(rank_paths)} paths")
        token_of = dict(zip(rank_paths, tokens, strict=True))
        return cls(topology, [root, *(token_of[path] for path in topology.paths[1:])])

    @classmethod
    def from_sequences(cls, root: int, sequences: Iterable[Sequence[int]]) -> DraftTree:
        """Merge candidate continuations of the root, a token id; shared prefixes become shared nodes.

        A new child's rank is its order of arrival below its parent.

        Raises:
            TreeError: something is not a token id.
        """
        growing = cls.rooted(root)
        for sequence in sequences:
            growing.add(sequence)
        return growing.build()

    @classmethod
    def rooted(cls, root: int) -> GrowingTree:
        """A bare root, the last committed token, to which candidate continuations are added."""
        return GrowingTree(root)

    def __len__(self) -> int:
        return len(self.topology)

    def part(self, nodes: np.ndarray) -> DraftTree:
        """Some of the nodes, see `Topology.part`; of a drafted tree, whose tokens are a tensor."""
        import torch

        assert isinstance(self.tokens, torch.Tensor)
        kept = torch.from_numpy(nodes).to(self.tokens.device)
        probs = self.draft_probs[kept] if isinstance(self.draft_probs, torch.Tensor) else None
        drawn_from = None if self.drawn_from is None else self.drawn_from[kept]
        return DraftTree(self.topology.part(nodes), self.tokens[kept], probs, drawn_from, beside=self.beside)

    @property
    def num_nodes(self) -> int:
        """Draft nodes; the root is not counted."""
        return self.topology.num_nodes

    @property
    def overhead_tokens(self) -> int:
        """Tokens that the target reads with the tree and that are neither its root nor draft nodes."""
        return 0 if self.beside is None else len(self.beside.tokens)

    @property
    def depth(self) -> int:
        return self.topology.depth

    def attention_mask(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Which node sees which: row i is true at i's ancestors and at i itself.

        It is the tail of a 4-D mask `[1, 1, n + 1, context + n + 1]`, whose other columns, of the tokens before the
        root, every node sees.

        Args:
            dtype: a floating type, for a mask that is added to attention scores: 0 at what is seen, the type's minimum
                elsewhere. Left out, the mask is bool.

        Returns:
            `[n + 1, n + 1]`, on the CPU.
        """
        import torch

        visible = torch.from_numpy(self.topology.ancestors.copy())
        if dtype is None:
            return visible
        return torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)

    def path_along(self, following: Sequence[int]) -> list[int]:
        """The nodes that hold these tokens, one below the other from the root's child on, as far as there are any."""
        proposed, children = self.token_list(), self.topology.children
        path: list[int] = []
        for token in following:
            node = next((child for child in children[path[-1] if path else 0] if proposed[child] == token), None)
            if node is None:
                break
            path.append(node)
        return path

    def token_list(self) -> list[int]:
        """Tokens as plain integers (from a GPU: one transfer, the first time)."""
        if not self._known:
            self.know(_on_host(self.tokens))
        return list(self._known)

    def know(self, tokens: Iterable[float]) -> None:
        """These are the tokens, on the host, and stay so: whoever transferred them beside something else spares another
        transfer."""
        self._known[:] = map(int, tokens)

    def probability_list(self) -> list[float | None]:
        """`draft_probs` as plain numbers (from a GPU: one transfer); None where they were not asked for."""
        if self.draft_probs is None:
            return [1.0, *[None] * self.num_nodes]
        return [float(prob) for prob in _on_host(self.draft_probs)]


class GrowingTree:
    """A draft tree in the making: what is added is merged into what is there.

    Args:
        root: the last committed token.

    Raises:
        TreeError: the root is not a token id.
    """

    def __init__(self, root: int) -> None:
        self._parents, self._tokens = [-1], [_token_id(root)]
        self._node_of: dict[tuple[int, int], int] = {}  # parent and token -> node

    def __len__(self) -> int:
        return len(self._parents)

    def add(self, sequence: Iterable[int]) -> GrowingTree:
        """Merge one candidate continuation of the root, token ids; returns the tree itself.

        Raises:
            TreeError: something is not a token id; then nothing is added.
        """
        node = 0
        for token in [_token_id(token) for token in sequence]:
            child = self._node_of.setdefault((node, token), len(self))
            if child == len(self):
                self._parents.append(node)
                self._tokens.append(token)
            node = child
        return self

    def build(self) -> DraftTree:
        """The tree as it is now; what is added later does not change it."""
        return DraftTree(Topology(self._parents), list(self._tokens))

    def attention_mask(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """`[n + 1, n + 1]`, see `DraftTree.attention_mask`."""
        return self.build().attention_mask(dtype)


def _on_host(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) else values.tolist()


def _token_id(value: int) -> int:
    """A token id as a plain integer, also from an array or a tensor."""
    try:
        token = index(value)
    except TypeError:
        token = -1
    if token < 0:
        raise TreeError(f"{value!r} is not a token id; expected a whole number, 0 or more")
    return token
