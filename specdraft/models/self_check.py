"""A three-node tree against sequential decoding, at load: does this model really verify trees?

Whether masks and positions are right is judged in float32, where right and wrong are orders of magnitude apart: of a
model in another type, a float32 copy is checked, of its first layers where memory is short. How far a tree's logits
are from sequential ones in the model's own type is rounding, and said beside it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from specdraft.errors import UnsupportedModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.check_result import CHECK_TREE, PROMPT_TOKENS, SelfCheck
from specdraft.models.first_layers import first_layers_config
from specdraft.models.gate import rotary_scalings
from specdraft.models.language_model import tail_mask

FEWEST_LAYERS = 2


def self_check(model: CachedModel, name: str) -> SelfCheck:
    """Compare a tree forward with cache-free forwards of every path.

    Raises:
        UnsupportedModelError: in float32 the tree's logits are not the sequential ones.
    """
    ancestors, depths = torch.from_numpy(CHECK_TREE.ancestors), torch.from_numpy(CHECK_TREE.depths)
    slots = torch.arange(len(CHECK_TREE))
    exact, layers = in_float32(model)
    right, causal, in_slot_order = (depths, ancestors), (depths, slots[:, None] >= slots[None]), (slots, ancestors)
    error, *wrong = _differences(exact, [right, causal, in_slot_order])
    rounding = error
    if exact is not model:
        rounding = tree_error(model)
    check = SelfCheck(error, min(wrong), rounding, layers, not_covered(model))
    if not check.passed:
        raise UnsupportedModelError(
            f"{name}: the load-time self-check failed: tree logits differ from sequential ones by {check.error:.2g}, "
            f"wrong masks or positions by {check.control:.2g}"
        )
    return check


def tree_error(model: CachedModel) -> float:
    """How far the check tree's logits are from sequential ones in the model's own type, at least the last place of the
    largest of them."""
    depths, ancestors = torch.from_numpy(CHECK_TREE.depths), torch.from_numpy(CHECK_TREE.ancestors)
    return max(*_differences(model, [(depths, ancestors)]), last_place(model.after([0, 1, 2]).abs().max(), model.dtype))


def rounding_in(model: CachedModel, dtype: torch.dtype) -> float:
    """`tree_error` of a copy of the model in another type."""
    return tree_error(type(model)(copy.deepcopy(model.model).to(dtype), model.vocab, model.width))


def _differences(model: CachedModel, forwards: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """Of the check tree's logits, with each of these positions and masks, from those of a forward over every path."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.vocab, (PROMPT_TOKENS + len(CHECK_TREE),), generator=generator).tolist()
    prompt, nodes = ids[:PROMPT_TOKENS], ids[PROMPT_TOKENS:]
    wanted = torch.stack([model.after(prompt, [nodes[i] for i in path]) for path in ([0], [0, 1], [0, 2], [0, 1, 3])])
    differences = []
    for offsets, visible in forwards:
        model.reset()
        model.prefill(prompt)
        tail = tail_mask(visible.to(model.device), model.dtype)
        logits = model.append(torch.tensor(nodes, device=model.device), offsets.to(model.device), tail).logits
        differences.append(float((logits - wanted)[:, : model.vocab].abs().max()))
    model.reset()
    return differences


def last_place(logit: torch.Tensor, dtype: torch.dtype) -> float:
    """How far apart neighbouring numbers of a type are at this size."""
    return torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(float(logit.abs()) or 1.0))


def not_covered(model: CachedModel) -> list[str]:
    """What shows in longer texts only."""
    tokens = PROMPT_TOKENS + len(CHECK_TREE)
    text = model.model.config.get_text_config()
    window, missing = model.layout.window, [f"texts of more than {tokens} tokens"]
    if window is not None and window >= tokens:
        missing.append(f"the sliding window of {window} tokens")
    if kinds := sorted({kind for kind, _ in rotary_scalings(text)}):
        missing.append(f"rotary factors of long texts ({', '.join(kinds)})")
    return missing


def in_float32(model: CachedModel) -> tuple[CachedModel, int]:
    """The model in float32, or its first layers where there is no memory for all, and how many layers that are."""
    layers = int(model.model.config.get_text_config().num_hidden_layers)
    if model.dtype == torch.float32 and not _quantised(model.model):
        return model, layers
    needed, free = 4 * sum(p.numel() for p in model.model.parameters()), free_memory(model.device)
    kept = layers if 2 * needed < free else min(layers, _layers_of_every_kind(model.model.config))
    return type(model)(_first_layers(model.model, kept), model.vocab, model.width), kept


def _layers_of_every_kind(config: Any) -> int:
    kinds = list(getattr(config.get_text_config(), "layer_types", None) or [])
    return max([FEWEST_LAYERS, *(kinds.index(kind) + 1 for kind in set(kinds))])


def _quantised(model: Any) -> bool:
    """Its products depend a little on how many tokens are read at once, whatever the type between them."""
    return getattr(model.config, "quantization_config", None) is not None


def _first_layers(model: Any, layers: int) -> Any:
    """A float32 copy; of a quantised model, whose weights cannot be copied, with weights drawn at random."""
    config, device = first_layers_config(model.config, layers), model.get_input_embeddings().weight.device
    quantised = _quantised(model)
    if quantised:
        del config.quantization_config
    with torch.device(device), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        copied = type(model)(config)
    copied = copied.to(device, torch.float32).eval()
    if not quantised:
        copied.load_state_dict(model.state_dict(), strict=False)
    return copied


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return int(free)
