"""What a predictor reads of a tree while it is decoded: as `prediction.rows.tree_features` of a recorded one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from specdraft.drafters.grams import NGRAM, GrowingText, hashed
from specdraft.drafters.loaded.ranking import log_probs_of_nodes, said_nodes
from specdraft.prediction.features import Features, only_tempered
from specdraft.prediction.predictor import Predictor
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

IMPOSSIBLE = np.float32(-1e4)  # a logarithm that can be multiplied by 0


class ReadTopology:
    """What features need of a topology: made once for a static shape.

    Attributes:
        depth, rank: `[n]` of the draft nodes.
        parent: `[n]` places of their parents among them; those of the root's children, which are not `inside`, mean
            nothing.
        above: `[n, n + 1]` which nodes, the root first, are above each draft node.
        back: `[4, n + 1]` each node and the three tokens before it, as places in three tokens of the text, the root
            and the draft nodes.
        none, no_columns: `[n]` False, `[n, 0]`.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.depth, self.rank = topology.depths[1:], topology.ranks[1:]
        self.inside = topology.parents[1:] > 0
        self.parent = np.maximum(topology.parents[1:] - 1, 0)
        self.parent_rank = np.where(self.inside, self.rank[self.parent], -1)
        self.above = topology.ancestors[1:] & ~np.eye(len(topology), dtype=bool)[1:]
        before = np.concatenate([np.maximum(np.arange(NGRAM) - 1, 0), topology.parents[1:] + NGRAM - 1])
        steps = [np.arange(NGRAM - 1, len(before))]
        for _ in range(NGRAM - 1):
            steps.append(before[steps[-1]])
        self.back = np.stack(steps)
        self.none, self.no_columns = np.zeros(len(self.depth), dtype=bool), np.zeros((len(self.depth), 0))

    def of_parent(self, values: np.ndarray) -> np.ndarray:
        """`[n]` the parent's value; 0 below the root."""
        return np.where(self.inside, values[self.parent], 0)

    def above_all(self, values: np.ndarray) -> np.ndarray:
        """`[n]` the sum over the draft nodes above each."""
        total: np.ndarray = self.above[:, 1:].astype(np.float32) @ np.maximum(values, IMPOSSIBLE)
        return total


class TreeReader:
    """Reads the drafted trees of one prompt for a predictor.

    Args:
        prompt_ids: the prompt.
        predictor: what is said of them.
    """

    def __init__(self, prompt_ids: Sequence[int], predictor: Predictor) -> None:
        self._text, self._predictor = GrowingText(prompt_ids), predictor
        self._temperature, self._loops = predictor.about.scores_temperature, "loop" in predictor.about.groups
        self._read: ReadTopology | None = None

    def commit(self, tokens: Sequence[int]) -> None:
        """Tokens that follow the text so far."""
        self._text.commit(tokens)

    def log_conditional(self, tree: DraftTree) -> np.ndarray:
        """`[n]` logarithms of what is said of each draft node, given that its parent is accepted."""
        return self._predictor.log_conditional(self.features(tree))

    def features(self, tree: DraftTree) -> Features:
        """`[n]` of the draft nodes; the tree's logits are there. What the predictor does not read means nothing."""
        if self._read is None or self._read.topology is not tree.topology:
            self._read = ReadTopology(tree.topology)
        read = self._read
        loop = self._repeated(read, tree.token_list()) if self._loops else read.none
        assert tree.chosen_from is not None and isinstance(tree.tokens, torch.Tensor)
        logits, row = tree.chosen_from
        given = (logits, torch.from_numpy(row[1:]).to(logits.device), tree.tokens[1:], self._temperature)
        if self._predictor.model.only_tempered:
            return only_tempered(read.depth, read.rank, log_probs_of_nodes(*given), loop)
        said = said_nodes(*given)
        return Features(
            read.depth,
            read.rank,
            said.log_prob,
            said.tempered,
            said.log_prob + read.above_all(said.log_prob),
            said.entropy,
            said.best,
            said.second,
            read.parent_rank,
            read.of_parent(said.log_prob),
            read.of_parent(said.entropy),
            read.of_parent(said.best),
            read.of_parent(said.second),
            loop,
            read.no_columns,
        )

    def _repeated(self, read: ReadTopology, tokens: list[int]) -> np.ndarray:
        """`[n]` whether nodes end a 4-gram that stands in the text before, the root included, or above them."""
        text = [*[-1] * (NGRAM - 1), *self._text.end]
        grams = hashed(*np.array([*text[1 - NGRAM :], *tokens])[read.back])
        on_path = ((grams[1:, None] == grams) & read.above).any(1)
        repeated: np.ndarray = on_path | self._text.had(grams[1:])
        return repeated
