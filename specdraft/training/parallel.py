"""A block head that learns from random starts of recorded texts (DFlash, Chen et al. 2026, section 4).

A start at place s of a text has the token there as its root, sees the target's states of the tokens before it, and is
asked at depth k what the target says of the token k places after the root, whatever stood there: cross-entropy to the
target's distribution, weighted exp(-(k - 1) / gamma).

Letters: B texts, n tokens of the longest, S starts of a text, K depths, V ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.models.block_head import BlockHead
from specdraft.models.block_layout import ZLAB, BlockShape, read_layers
from specdraft.models.files import ModelFiles
from specdraft.models.output_layer import OutputLayer
from specdraft.training.loop import Objective, shuffled
from specdraft.training.settings import ParallelTraining
from specdraft.training.states import TextStates

READ = 3  # layers of the target, where none are named


def new_shape(target: ModelFiles, asked: ParallelTraining) -> BlockShape:
    """The head that is trained.

    Raises:
        ConfigError: there are no such layers, no such token, or the width is not so many heads.
    """
    text = target.config.get_text_config()
    width, layers, rows = int(text.hidden_size), int(text.num_hidden_layers), int(text.vocab_size)
    read = asked.target_layers or sorted({*read_layers(layers, READ)})
    if wrong := [layer for layer in read if not 0 <= layer < layers - 1]:
        raise ConfigError(f"train.target_layers={wrong[0]} is out of range; expected 0 to {layers - 2}")
    heads = asked.attention_heads or int(text.num_attention_heads)
    size, left = divmod(width, heads)
    if left or size % 2:
        raise ConfigError(f"train.attention_heads={heads}: {width} numbers are not so many heads of an even size")
    mask = min(target.eos_ids, default=0) if asked.mask_token is None else asked.mask_token
    if mask >= rows:
        raise ConfigError(f"train.mask_token={mask} is out of range; the target has {rows} embeddings")
    return BlockShape(
        layout=ZLAB,
        width=width,
        inner=asked.inner or int(getattr(text, "intermediate_size", None) or 4 * width),
        heads=heads,
        key_heads=heads,
        head_size=size,
        layers=asked.layers,
        eps=1e-6,
        theta=10000.0,
        read=tuple(1 + layer for layer in read),
        block=asked.block,
        mask=mask,
    )


def read(target: ModelFiles, asked: ParallelTraining) -> tuple[int, ...]:
    """Of the target's states those that the head reads. Raises as `new_shape`."""
    return new_shape(target, asked).read


def config_of(shape: BlockShape, target_layers: int) -> dict[str, Any]:
    """What config.json says of a head, in z-lab's layout."""
    return {
        "architectures": ["DFlashDraftModel"],
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head_size,
        "num_hidden_layers": shape.layers,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "attention_bias": shape.attention_bias,
        "block_size": shape.block,
        "num_target_layers": target_layers,
        "dflash_config": {"target_layer_ids": [layer - 1 for layer in shape.read], "mask_token_id": shape.mask},
    }


def parallel_objective(pair: Pair, states: TextStates, asked: ParallelTraining) -> tuple[BlockHead, Objective]:
    """The head that learns, and the objective.

    Raises:
        ConfigError: see `new_shape`; or the texts are too short.
        ModelError: the target's output layer is no linear one on its last state.
    """
    torch.manual_seed(asked.seed)
    head = BlockHead(new_shape(pair.files.target, asked)).to(pair.target.device)
    some = states.states[: 2**14].float()
    head.norm.weight.data.copy_(some.square().mean(0).sqrt())  # as large as the states that the output layer knows
    learning = RandomStarts(pair, head, states, asked)
    return head, Objective(dict(head.named_parameters()), learning.step)


class RandomStarts:
    """Cross-entropy of a block head at random starts.

    Args:
        pair: whose target.
        head: what learns.
        states: of the texts.
        asked: how it learns.
    """

    def __init__(self, pair: Pair, head: BlockHead, states: TextStates, asked: ParallelTraining) -> None:
        self._head, self._states, self._asked = head, states, asked
        self._vocab, self._device = pair.target.vocab, pair.target.device
        self._output = OutputLayer(pair.target, pair.files.target.spec.path)
        self._embeddings = pair.target.model.get_input_embeddings()
        self._lengths = np.diff(states.starts)
        self._usable = np.flatnonzero(self._lengths - np.maximum(states.first, 1) > head.shape.depths)
        if not len(self._usable):
            raise ConfigError(f"no text is longer than a block of train.block={asked.block}; nothing can be learnt")
        starts = asked.positions / head.shape.depths
        self._texts = max(1, min(len(self._usable), round(2 * starts / float(self._lengths[self._usable].mean()))))
        self._each = max(1, round(starts / self._texts))

    def step(self, step: int) -> dict[str, torch.Tensor]:
        """See `Objective.losses`."""
        texts = self._usable[shuffled(len(self._usable), np.arange(step * self._texts, (step + 1) * self._texts),
                                      self._asked.seed)]  # fmt: skip
        losses = self._learn(texts, np.random.default_rng([self._asked.seed, step]))
        weights = torch.exp(-torch.arange(len(losses)) / self._asked.gamma)
        return {"loss": (weights * losses).sum(), **{f"depth_{k}": loss for k, loss in enumerate(losses, start=1)}}

    def _learn(self, texts: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        """`[K]` the losses of some texts, each a mean; gradients are added."""
        begin, length = self._states.starts[texts], self._lengths[texts]
        shape = self._head.shape
        roots = self._roots(texts, random)
        places = begin[:, None] + roots
        order = np.arange(int(length.max()))
        columns = torch.from_numpy(begin[:, None] + np.minimum(order, length[:, None] - 1))
        features = self._states.features[columns].to(self._device).float()
        ids = torch.full((*roots.shape, shape.block), shape.mask)
        ids[..., 0] = torch.from_numpy(self._states.ids[places])
        where = torch.from_numpy(roots).to(self._device)
        tokens = torch.arange(len(order), device=self._device)
        with torch.no_grad():
            embedded = self._embeddings(ids.to(self._device)).float()
        context = self._head.context(features, tokens[None].expand(len(texts), -1))
        said = self._head(embedded, where, context, tokens < where[..., None])
        total, losses = torch.zeros((), device=self._device), []
        for number, states in enumerate(said.unbind(2)):
            loss = F.cross_entropy(self._logits(states.flatten(0, 1)), self._wanted(places + number))
            total = total + loss * float(np.exp(-number / self._asked.gamma))
            losses.append(loss.detach().cpu())
        torch.autograd.backward(total)
        return torch.stack(losses)

    def _roots(self, texts: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """`[B, S]` places of roots in these texts, after which all depths are there."""
        first = np.maximum(self._states.first[texts], 1)
        room = self._lengths[texts] - self._head.shape.depths - first
        roots: np.ndarray = first[:, None] + (random.random((len(texts), self._each)) * room[:, None]).astype(np.int64)
        return roots

    @torch.no_grad()
    def _wanted(self, places: np.ndarray) -> torch.Tensor:
        """`[B * S, V]` what the target says after these places."""
        return torch.softmax(self._logits(self._states.at(places.reshape(-1), self._device)), -1)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return self._output(states)[:, : self._vocab]
