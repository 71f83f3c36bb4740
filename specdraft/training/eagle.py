"""An EAGLE-3 head that learns by training-time test (Li et al. 2025, section 3.2).

Entry i pairs the target's features of token i with token i + 1. Pass s, from 0, stands at every entry as if a step had
started there: it reads token i + 1 + s of the text, what pass s - 1 made there, the true entries up to i and its own
ones of the passes before, and is asked what the target says after token i + 1 + s.

Letters: B texts, e entries of the longest, m places that are learnt from, V ids of the draft vocabulary, h numbers of a
state.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError, ModelError
from specdraft.models.eagle_head import EagleHead, Out, Seen
from specdraft.models.eagle_layout import MAPS, EagleShape, canonical, default_layers, rotary_frequencies
from specdraft.models.files import ModelFiles
from specdraft.models.output_layer import OutputLayer
from specdraft.models.weights import weight_files
from specdraft.training.loop import Objective
from specdraft.training.settings import EagleTraining
from specdraft.training.states import TextStates
from specdraft.training.windows import Window, Windows

AT_ONCE = {"cpu": 2**20, "cuda": 2**24}  # logits that are compared at a time
UNKNOWN = -1


def aux_layers(target: ModelFiles, asked: EagleTraining) -> tuple[int, ...]:
    """Of the target's states those that the head reads.

    Raises:
        ConfigError: there are no such layers, or EAGLE-3's are not three different ones.
    """
    if asked.aux_layers is None:
        return default_layers(target.layers, "train.aux_layers")
    layers = tuple(asked.aux_layers)
    if not layers or len(set(layers)) < len(layers) or not all(0 <= layer <= target.layers for layer in layers):
        raise ConfigError(f"train.aux_layers={list(layers)}: expected different ones of 0 to {target.layers}")
    return layers


def shape_of(target: ModelFiles, asked: EagleTraining) -> EagleShape:
    """The head that is trained. Raises `ConfigError` as `aux_layers`, or for a number of heads that does not fit."""
    text = target.config.get_text_config()
    width = int(text.hidden_size)
    heads = asked.attention_heads or int(text.num_attention_heads)
    key_heads = heads if asked.attention_heads else int(getattr(text, "num_key_value_heads", None) or heads)
    size, left = divmod(width, heads)
    if left or size % 2:
        raise ConfigError(f"train.attention_heads={heads}: {width} numbers are not so many heads of an even size")
    return EagleShape(
        version=3,
        width=width,
        inner=asked.inner or int(getattr(text, "intermediate_size", None) or 4 * width),
        heads=heads,
        key_heads=key_heads,
        head_size=size,
        layers=asked.layers,
        eps=1e-6,
        frequencies=rotary_frequencies(size, 10000.0),
        rotary_scale=1.0,
        target_width=width,
        features=len(aux_layers(target, asked)),
    )


class DraftVocabulary(NamedTuple):
    """The ids that are proposed.

    Attributes:
        ids: `[V]` ascending; None: all.
    """

    ids: torch.Tensor | None

    @classmethod
    def of(cls, states: TextStates, vocab: int, count: int | None) -> DraftVocabulary:
        """The most frequent ids of the texts; of equals the lower ones."""
        if count is None or count >= vocab:
            return cls(None)
        times = np.bincount(states.learnt_ids, minlength=vocab)[:vocab]
        return cls(torch.from_numpy(np.sort(np.argsort(-times, kind="stable")[:count])))

    def maps(self, vocab: int) -> dict[str, torch.Tensor]:
        """`d2t` and `t2d` (see `models.eagle_layout`)."""
        if self.ids is None:
            return {}
        there = torch.zeros(vocab, dtype=torch.bool)
        there[self.ids] = True
        return {"d2t": self.ids - torch.arange(len(self.ids)), "t2d": there}


def eagle_objective(
    pair: Pair, states: TextStates, asked: EagleTraining
) -> tuple[EagleHead, DraftVocabulary, Objective]:
    """The head that learns, the ids that it proposes, and the objective.

    Raises:
        ConfigError: see `shape_of`.
        ModelError: the target's output layer is no linear one on its last state.
    """
    torch.manual_seed(asked.seed)
    head = EagleHead(shape_of(pair.files.target, asked)).to(pair.target.device)
    if asked.start is None:
        some = states.states[: 2**14].float()
        head.norm.weight.data.copy_(some.square().mean(0).sqrt())  # as large as the states that the output layer knows
    else:
        start_from(head, Path(asked.start))
    vocabulary = DraftVocabulary.of(states, pair.target.vocab, asked.draft_vocab)
    output = OutputLayer(pair.target, pair.files.target.spec.path)
    windows = Windows(states, asked.positions, pair.target.vocab, pair.target.device, asked.seed)
    learning = TrainingTimeTest(pair, head, output, vocabulary, states, asked)

    def step(number: int) -> dict[str, torch.Tensor]:
        parts = list(windows.of_step(number))
        counts = np.sum([learning.counts(part) for part, _ in parts], axis=0)
        losses = sum((learning.learn(part, counts) for part, _ in parts), torch.zeros(asked.depths))
        weights = asked.decay ** torch.arange(asked.depths)
        return {"loss": (weights * losses).sum(), **{f"depth_{s + 1}": loss for s, loss in enumerate(losses)}}

    return head, vocabulary, Objective(dict(head.named_parameters()), step)


def start_from(head: EagleHead, folder: Path) -> None:
    """Take over the weights of a head that was trained before.

    Raises:
        ConfigError: there is none, or it has other sizes.
    """
    try:
        stored = {name: tensor for path in weight_files(folder) for name, tensor in load_file(path).items()}
    except (ModelError, OSError, SafetensorError) as error:
        raise ConfigError(f"train.start={folder}: {error}") from error
    tensors = {canonical(name): tensor.float() for name, tensor in stored.items() if name not in MAPS}
    expected = {name: parameter.shape for name, parameter in head.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise ConfigError(f"train.start={folder}: holds no EAGLE-3 head of the sizes that are asked for")
    head.load_state_dict(tensors)


class TrainingTimeTest:
    """Cross-entropy of all passes over some texts.

    Args:
        pair: whose target.
        head: what learns.
        output: the target's output layer, which it shares.
        vocabulary: of the ids that are compared.
        states: of the texts.
        asked: how it learns.
    """

    def __init__(
        self,
        pair: Pair,
        head: EagleHead,
        output: OutputLayer,
        vocabulary: DraftVocabulary,
        states: TextStates,
        asked: EagleTraining,
    ) -> None:
        self._head, self._output, self._states, self._asked = head, output, states, asked
        self._device, self._vocab = pair.target.device, pair.target.vocab
        self._ids = None if vocabulary.ids is None else vocabulary.ids.to(output.weight.device)
        dtype = torch.bfloat16 if asked.products == "bfloat16" else None
        self._proposed = output.of_rows(slice(0, self._vocab) if self._ids is None else self._ids, dtype)
        self._embeddings = pair.target.model.get_input_embeddings()
        self._sure = torch.full((len(states.ids),), UNKNOWN, dtype=torch.int8)  # see `_teacher`

    def counts(self, part: Window) -> np.ndarray:
        """`[passes]` how many entries each pass learns from."""
        left = (part.length - np.maximum(part.first, 1 + np.arange(self._asked.depths)[:, None])).clip(min=0)
        total: np.ndarray = left.sum(1)
        return total

    def learn(self, part: Window, counts: np.ndarray) -> torch.Tensor:
        """`[passes]` the losses of some texts, as their share of `counts` places; gradients are added."""
        with torch.autocast(self._device.type, torch.bfloat16, self._asked.products == "bfloat16"):
            with torch.no_grad():
                embedded = self._embeddings(part.ids).to(self._head.fc.weight.dtype)
            said = torch.stack([out.said for out in self._passes(part, embedded)])
        losses, gradient = self._compare(said.detach(), part, counts)
        torch.autograd.backward(said, gradient)
        return losses

    def _compare(self, said: torch.Tensor, part: Window, counts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """See `learn`: from what came out of the passes `[passes, B, e, h]`, with the gradient of that.

        Some places are compared at a time: their logits fit a processor's cache.
        """
        passes = torch.arange(len(said), device=self._device)
        decay, count = self._asked.decay**passes, torch.from_numpy(np.maximum(counts, 1)).to(self._device)
        losses, gradient = torch.zeros(len(said), device=self._device), torch.zeros_like(said)
        each = max(1, AT_ONCE[self._device.type] // len(said) // len(self._proposed.weight))
        for first in range(0, len(part.place), each):
            some = slice(first, first + each)
            rows, tokens = part.row[some], part.column[some]
            wanted, sure = self._teacher(part.place[some])
            entries = tokens - 1 - passes[:, None]
            there = entries >= 0
            states = said[passes[:, None], rows, entries.clamp(min=0)].requires_grad_()
            logits = self._proposed(states)
            cross = logits.logsumexp(-1) - torch.einsum("pmv,mv->pm", logits, wanted)
            loss = (cross * there * sure).sum(1) / count
            torch.autograd.backward((decay * loss).sum())
            number, place = torch.nonzero(there, as_tuple=True)
            assert states.grad is not None
            gradient[number, rows[place], entries[there]] = states.grad[there]
            losses += loss.detach()
        return losses.cpu(), gradient

    @torch.no_grad()
    def _teacher(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """`[m, V]` what the target says after tokens `[m]` among all, of the draft vocabulary; `[m]` 1 where its best
        token is in there, else 0."""
        states = self._states.at(places, self._device)
        wanted = torch.softmax(self._proposed(states), -1)
        if self._ids is None:
            return wanted, torch.ones(len(places), device=self._device)
        index = torch.from_numpy(places)
        new = self._sure[index] == UNKNOWN
        if new.any():
            best = self._output(states[new.to(self._device)])[:, : self._vocab].argmax(-1)
            self._sure[index[new]] = torch.isin(best, self._ids.to(best.device)).to("cpu", torch.int8)
        return wanted, self._sure[index].to(self._device)

    def _everywhere(self, part: Window) -> np.ndarray:
        """`[B, e + 1]` the texts' places among all tokens; beyond the end of one its last one again."""
        columns = np.minimum(np.arange(part.ids.shape[1]), part.length[:, None] - 1)
        places: np.ndarray = part.begin[:, None] + columns
        return places

    def _passes(self, part: Window, embedded: torch.Tensor) -> Iterator[Out]:
        """What comes out at each entry `[B, e, h]`, pass by pass."""
        head, entries = self._head, part.ids.shape[1] - 1
        places = torch.from_numpy(self._everywhere(part)[:, :-1])
        features = head.fuse(self._states.features[places].to(self._device).float())
        out = head.read(embedded[:, 1:], features)
        yield out
        order = torch.arange(entries, device=self._device)
        past, of_past = out.kept, (order <= order[:, None])[None]
        own = head.nothing_fed(len(part.ids), entries, embedded)
        for number in range(1, self._asked.depths):
            tokens = F.pad(embedded[:, 1 + number :], (0, 0, 0, number))[:, :entries, None]
            seen = torch.ones(1, 1, 1, number, dtype=torch.bool, device=self._device)
            positions = (order + number)[None, :, None]
            drafted = head.draft(tokens, out.fed[:, :, None], positions, Seen(past, of_past, own, seen))
            own = [before.then(new) for before, new in zip(own, drafted.kept, strict=True)]
            out = Out(drafted.fed[:, :, 0], drafted.said[:, :, 0], drafted.kept)
            yield out
