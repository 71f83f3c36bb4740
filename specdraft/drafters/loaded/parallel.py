"""A block head in memory (DFlash): keys and values of committed tokens are kept, those of blocks are not.

Letters: n tokens that are committed, S starts, b slots, d numbers of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from specdraft.drafters.base import Drawing, Prefilled, RecordedText, Target
from specdraft.drafters.loaded.by_offset import Known, StartsOf
from specdraft.drafters.loaded.head_tensors import described, head_tensors
from specdraft.drafters.loaded.last_state import apart
from specdraft.drafters.loaded.position_wise import PositionWiseDrafter
from specdraft.drafters.parallel import Parallel
from specdraft.errors import ModelError
from specdraft.models.block_head import BlockHead, ContextKeys
from specdraft.models.block_layout import expected_shapes
from specdraft.models.cached_model import CachedModel
from specdraft.models.head_files import HeadFiles
from specdraft.models.language_model import tail_mask
from specdraft.models.output_layer import TOLERANCE, OutputLayer
from specdraft.models.sending import to_device
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes.chain import Chain

SCORES = 2**24  # attention scores that are made at once along a text


class ParallelDrafter(PositionWiseDrafter):
    """A block head with the context that it attends to.

    Args:
        head: what proposes.
        output: the target's output layer.
        target, known: see `OffsetDrafter`.
    """

    def __init__(self, head: BlockHead, output: OutputLayer, target: CachedModel, known: Known) -> None:
        super().__init__(target, known)
        self._head, self._output, shape = head, output, head.shape
        self._block = torch.full((shape.block,), shape.mask, device=target.device)
        self._context = self._nothing()
        self._prompt = 0

    def _nothing(self) -> list[ContextKeys]:
        shape = self._head.shape
        empty = torch.empty(
            1, 0, shape.key_heads, shape.head_size, dtype=self._target.dtype, device=self._target.device
        )
        return [ContextKeys(empty, empty)] * shape.layers

    @property
    def _length(self) -> int:
        return self._context[0].keys.shape[1]

    @torch.inference_mode()
    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`."""
        assert prompt.hidden is not None
        self._context = self._nothing()
        self._append(prompt.hidden)
        self._prompt = self._length

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        self._context = [ContextKeys(*(part[:, : self._prompt] for part in layer)) for layer in self._context]

    @torch.inference_mode()
    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`: the root and the accepted nodes are before the next root."""
        assert hidden is not None
        self._append(hidden)

    def _append(self, hidden: torch.Tensor) -> None:
        """The target's states `[m, L, d]` of the next tokens."""
        for number, new in enumerate(self._keys(hidden, self._length)):
            joined = (torch.cat(parts, 1) for parts in zip(self._context[number], new, strict=True))
            self._context[number] = ContextKeys(*joined)

    def _keys(self, hidden: torch.Tensor, first: int) -> list[ContextKeys]:
        positions = torch.arange(first, first + len(hidden), device=self._target.device)[None]
        return self._head.context(hidden[None].to(self._target.device, self._target.dtype), positions)

    @torch.inference_mode()
    def now(self, root: int, count: int) -> torch.Tensor:
        """See `PositionWiseDrafter.now`: all that is committed comes before the root."""
        at = to_device([self._length], self._target.device)
        return self._said(to_device([root], self._target.device), at, self._context, count)[0]

    def _said(self, roots: torch.Tensor, at: torch.Tensor, context: list[ContextKeys], count: int) -> torch.Tensor:
        """`[S, count, vocab]` what blocks say whose roots `[S]` are at positions `[S]`."""
        target = self._target
        ids = self._block.repeat(len(roots), 1)
        ids[:, 0] = roots
        order = torch.arange(context[0].keys.shape[1], device=target.device)
        embedded = target.model.get_input_embeddings()(ids).to(target.dtype)
        states = self._head(embedded[None], at[None], context, (order < at[:, None])[None])[0, :, :count]
        return target.of_texts(self._output(states))

    def along(self, text: RecordedText) -> StartsOf:
        """See `StartsDrafter.along`: every start sees the tokens before its root, of one context."""
        assert text.hidden is not None
        context, shape = self._keys(text.hidden, 0), self._head.shape
        tokens, prompt = torch.from_numpy(text.tokens).to(self._target.device), len(text.prompt_ids)
        at_once = max(1, SCORES // (shape.heads * shape.block * (len(text.hidden) + shape.block)))

        def said(first: int, last: int, count: int) -> torch.Tensor:
            places = torch.arange(first, last, device=tokens.device)
            parts = [self._said(tokens[some], prompt + some, context, count) for some in torch.split(places, at_once)]
            return torch.cat(parts)

        return said


def load_parallel(spec: Parallel, files: HeadFiles, target: Target) -> ParallelDrafter:
    """The drafter of `files`.

    Raises:
        ConfigError: it is not this target's head.
        ModelError: it cannot be read, the target's output layer is no linear one on its last state, or blocks that are
            drafted are not those along a text.
    """
    shape, model = spec.shape(files), target.load()
    tensors = head_tensors(files, dict(expected_shapes(shape)), model)
    with torch.device("meta"):
        head = BlockHead(shape)
    head.load_state_dict(tensors, assign=True)
    description: dict[str, Any] = described(files, tensors, model) | {"depth": spec.depth, **shape.as_dict()}
    known = Known(replace(spec.traits, hidden_layers=shape.read), spec.facts(files, target.files), description)
    output = OutputLayer(model, target.files.spec.path)
    drafter = ParallelDrafter(head.eval().requires_grad_(False), output, model, known)
    description["self_check"] = check_wiring(drafter, model, files.spec.path)
    return drafter


PROBED, PROMPT, STARTS = 24, 6, (0, 5, 11)  # tokens of the text that the wiring is checked on; positions of its roots


@torch.inference_mode()
def check_wiring(drafter: ParallelDrafter, target: CachedModel, name: str) -> dict[str, float]:
    """Draft live at three starts of a text, and compare with what is said along the text from one forward without a
    cache or a tree.

    Returns:
        The largest absolute difference of logits, and that of a start one token earlier, for the manifest.

    Raises:
        ModelError: they differ, or ranks do.
    """
    text = [(7 * place + 3) % target.vocab for place in range(PROBED)]
    layers, depth = drafter.traits.hidden_layers, drafter.traits.deepest
    assert depth is not None
    continued = np.array(text[PROMPT:])
    (states,) = target.states_along([text[:PROMPT]], [continued], layers)
    said = drafter.along(RecordedText(text[:PROMPT], continued, states))(0, len(continued) - 1, depth)
    error = control = 0.0
    for start, drafted in zip(STARTS, _drafted(drafter, target, text), strict=True):
        error = max(error, apart(said[start], drafted))
        control = max(control, apart(said[start + 1], drafted))
    if not error <= TOLERANCE * apart(said, torch.zeros_like(said)):
        raise ModelError(
            f"{name}: what the block head drafts is not what it says along a text: logits differ by {error:.3g}"
        )
    return {"error": error, "control": control}


def _drafted(drafter: ParallelDrafter, target: CachedModel, text: Sequence[int]) -> list[torch.Tensor]:
    """`[depth, vocab]` what was drafted after a prompt, and after each of two steps."""
    layers, depth = drafter.traits.hidden_layers, drafter.traits.deepest
    assert depth is not None
    model, plan = CachedModel(target.model, target.vocab, target.width), Chain().at(depth)
    drafter.begin(Prefilled(text[:PROMPT], model.prefill(text[:PROMPT], layers).hidden))
    found = []
    for start, following in zip(STARTS, (*STARTS[1:], None), strict=True):
        tree = drafter.draft(text[PROMPT + start], plan, Drawing(keep_logits=True))
        assert tree.chosen_from is not None
        found.append(tree.chosen_from.logits)
        if following is None:
            return found
        step = torch.tensor(text[PROMPT + start : PROMPT + following], device=model.device)
        order = torch.arange(len(step), device=model.device)
        hidden = model.append(step, order, tail_mask(order[:, None] >= order, model.dtype), layers).hidden
        model.commit(range(len(step)))
        drafter.commit(tree, range(1, len(step)), hidden)
    return found
