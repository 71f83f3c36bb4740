"""Medusa heads in memory: `U (x + SiLU(W x + b))` on the target's last state x (Cai et al. 2024, section 2.1.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open

from specdraft.drafters.base import Drawing, Prefilled, Target
from specdraft.drafters.loaded.position_wise import Known, PositionWiseDrafter
from specdraft.drafters.medusa import Medusa
from specdraft.errors import ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.facts import naming
from specdraft.models.files import reading
from specdraft.models.head_files import HeadFiles
from specdraft.models.language_model import tail_mask
from specdraft.models.medusa_layout import HeadNames, MedusaNames
from specdraft.models.output_layer import LAST, TOLERANCE, OutputLayer
from specdraft.models.weights import weight_files
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.chain import Chain

Output = Callable[[torch.Tensor], torch.Tensor]  # `[..., h]` -> `[..., V]` float32


class Block(NamedTuple):
    """`x + SiLU(W x + b)`: `weight` `[h, h]`, `bias` `[h]`."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return states + F.silu(F.linear(states, self.weight, self.bias))


@dataclass(frozen=True)
class OwnLayer:
    """An output layer of a head: `weight` `[rows, h]`, `ids` `[rows]` of V what its rows stand for, if not all."""

    weight: torch.Tensor
    ids: torch.Tensor | None
    vocab: int

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        logits = F.linear(states, self.weight).float()
        if self.ids is None:
            return logits
        whole = logits.new_full((*logits.shape[:-1], self.vocab), -torch.inf)
        whole[..., self.ids] = logits
        return whole


class Head(NamedTuple):
    """Residual blocks, and an output layer."""

    blocks: Sequence[Block]
    output: Output

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            states = block(states)
        return self.output(states)


class MedusaHeads:
    """See `Heads`.

    Args:
        heads: the first one is for the token after the root.
        target: whose ids they know.
    """

    def __init__(self, heads: Sequence[Head], target: CachedModel) -> None:
        self.heads, self._target = heads, target

    def __call__(self, states: torch.Tensor, count: int) -> torch.Tensor:
        """`[m, h]` -> `[m, count, vocab]`."""
        here = states.to(self._target.device, self._target.dtype)
        return torch.stack([self._target.of_texts(head(here)) for head in self.heads[:count]], 1)


def load_medusa(spec: Medusa, files: HeadFiles, target: Target) -> PositionWiseDrafter:
    """The drafter of `files`.

    Raises:
        ConfigError: they are not this target's heads.
        ModelError: they cannot be read, the target's output layer is no linear one on its last state, or what is
            drafted is not what these heads say of the state before the root.
    """
    names, model = spec.names(files), target.load()
    tensors = _read(files, names, model)
    shared = OutputLayer(model, target.files.spec.path) if names.heads[0].output is None else None
    heads = MedusaHeads([_head(head, names, tensors, shared, files) for head in names.heads[: spec.heads]], model)
    description = naming(files) | {
        "weights": files.weights_hash,
        "heads": spec.heads,
        "layout": names.layout,
        "output_layers": "the target's" if shared else "own",
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }
    drafter = PositionWiseDrafter(heads, model, Known(spec.traits, spec.facts(files, target.files), description))
    description["self_check"] = check_wiring(drafter, heads, model, files.spec.path)
    return drafter


def _read(files: HeadFiles, names: MedusaNames, target: CachedModel) -> dict[str, torch.Tensor]:
    wanted = {name for head in names.heads for block in head.blocks for name in block if name}
    wanted |= {name for name in (names.token_map, *(head.output for head in names.heads)) if name}
    tensors: dict[str, torch.Tensor] = {}
    with reading(files.spec.path, "the heads cannot be read"):
        for path in weight_files(files.folder):
            with safe_open(path, framework="pt") as stored:
                tensors |= {name: stored.get_tensor(name) for name in stored.keys() if name in wanted}  # noqa: SIM118
    return {
        name: tensor.to(target.device, target.dtype if tensor.is_floating_point() else torch.long)
        for name, tensor in tensors.items()
    }


def _head(
    names: HeadNames,
    all_names: MedusaNames,
    tensors: Mapping[str, torch.Tensor],
    shared: OutputLayer | None,
    files: HeadFiles,
) -> Head:
    blocks = [Block(tensors[block.weight], tensors[block.bias] if block.bias else None) for block in names.blocks]
    if names.output is None:
        assert shared is not None
        return Head(blocks, shared)
    weight, vocab = tensors[names.output], int(files.config.get_text_config().vocab_size)
    ids = tensors[all_names.token_map] if all_names.token_map else None
    if ids is None:
        return Head(blocks, OwnLayer(weight, None, vocab))
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocab or len(set(ids.tolist())) < len(ids):
        raise ModelError(f"{files.spec.path}: {all_names.token_map} holds ids twice, or that the target does not have")
    return Head(blocks, OwnLayer(weight if len(weight) == len(ids) else weight[ids], ids, vocab))


FIRST, AFTER_STEP, PROBED = 4, 6, 8  # places in the text that the wiring is checked on, and its tokens


@torch.inference_mode()
def check_wiring(drafter: PositionWiseDrafter, heads: MedusaHeads, target: CachedModel, name: str) -> dict[str, float]:
    """Draft after a prompt and after a step, and compare with what the heads say of the state before the root.

    That state is the base model's last one, after its final norm, from a forward without a cache or a tree.

    Returns:
        The largest absolute difference of logits, and that of the state one token earlier, for the manifest.

    Raises:
        ModelError: they differ.
    """
    text = [(7 * place + 3) % target.vocab for place in range(PROBED)]
    states = target.model.base_model(torch.tensor([text], device=target.device), use_cache=False).last_hidden_state[0]
    said = heads(states, len(heads.heads))
    error = control = 0.0
    for place, drafted in zip((FIRST, AFTER_STEP), _drafted(drafter, target, text), strict=True):
        error, control = max(error, _apart(said[place], drafted)), max(control, _apart(said[place - 1], drafted))
    if not error <= TOLERANCE * _apart(said, torch.zeros_like(said)):
        raise ModelError(
            f"{name}: the target's states are not those that its heads read: logits differ by {error:.3g} from what "
            "they say of the last state before the root"
        )
    return {"error": error, "control": control}


def _drafted(drafter: PositionWiseDrafter, target: CachedModel, text: Sequence[int]) -> Iterator[torch.Tensor]:
    """`[O, vocab]` what was drafted by: after a prompt, and after a step that accepted one token."""
    model, plan = CachedModel(target.model, target.vocab, target.width), _chain(drafter)
    drafter.begin(Prefilled(text[: FIRST + 1], model.prefill(text[: FIRST + 1], (LAST,)).hidden))
    tree = drafter.draft(text[FIRST + 1], plan, Drawing(keep_logits=True))
    yield _logits(tree)
    step = torch.tensor(text[FIRST + 1 : AFTER_STEP + 1], device=model.device)
    order = torch.arange(len(step), device=model.device)
    causal = tail_mask(order[:, None] >= order, model.dtype)
    drafter.commit(tree, [1], model.append(step, order, causal, (LAST,)).hidden)
    yield _logits(drafter.draft(text[AFTER_STEP + 1], plan, Drawing(keep_logits=True)))


def _chain(drafter: PositionWiseDrafter) -> Plan:
    assert drafter.traits.deepest is not None
    return Chain().at(drafter.traits.deepest)


def _logits(tree: DraftTree) -> torch.Tensor:
    assert tree.chosen_from is not None
    return tree.chosen_from.logits


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference; ids that have no logit aside."""
    return float((one - other).nan_to_num(0.0, 0.0, 0.0).abs().max())
