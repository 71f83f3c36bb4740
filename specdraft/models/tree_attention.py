"""Attention of our own in models of `transformers`, by the registry that it has for that.

`grouped`: heads that share keys read them where they are. With a mask, as trees have one, `transformers` repeats keys
and values for each head first. `triton`: the kernel of `attention.tree_decode`, for models that hand what it needs on
to their layers and whose layers see all of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from specdraft.models.gate import attention_layout, encodes
from specdraft.models.sending import to_device

if TYPE_CHECKING:
    from specdraft.attention.tree_decode import Tail

OWN, GROUPED, TRITON = "own", "grouped", "triton"
FASTEST = {
    "cpu": GROUPED
}  # type of device -> what `specdraft bench attention` found there; elsewhere none was measured
USUAL = "sdpa"  # what `transformers` calls the attention that these can stand for
FEWEST_DIMS = 16  # of a head, and a power of two, that the kernel takes
MOST_BYTES = 512  # of a head's query: as many as 128 numbers in float32
TAIL = "tree_tail"  # what a model is given for the kernel


def with_attention(model: Any, kind: str) -> Any:
    """A model of one's own whose layers attend in this way, where they could: what attends in another way than
    `scaled_dot_product_attention`, or has keys for every head, goes on as it did."""
    if kind == OWN or _attends_by(model) != USUAL or not (kind == TRITON or _shares_keys(model)):
        return model
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    name = _registered(kind)
    AttentionInterface.register(name, {GROUPED: grouped, TRITON: by_triton}[kind])
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)
    return model


def no_kernel_for(model: Any) -> str:
    """Why a model's layers would not attend by the kernel; empty: they would."""
    config = model.config.get_text_config()
    if encodes(model.config) or (attends := _attends_by(model)) != USUAL:
        return "it is an encoder-decoder" if encodes(model.config) else f"its layers attend by {attends}"
    if attention_layout(model.config).window is not None:
        return "it has a sliding window"
    dims = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return "" if _takes_heads(dims, model.dtype) else f"its heads have {dims} dimensions in {model.dtype}"


def takes_tails(model: Any) -> bool:
    """Whether a model's layers attend by the kernel."""
    return _attends_by(model) == _registered(TRITON)


def _attends_by(model: Any) -> str | None:
    """As `transformers` calls it."""
    name: str | None = getattr(model.config, "_attn_implementation", None)
    return name


def _shares_keys(model: Any) -> bool:
    text = model.config.get_text_config()
    heads, with_keys = (getattr(text, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    return None not in (heads, with_keys) and heads != with_keys


def tails(seen: Sequence[torch.Tensor], starts: Sequence[int], longest: int, length: int = 0) -> Tail:
    """What queries of several texts see behind their prefixes.

    Args:
        seen: `[q, p]` additive masks over the keys behind each text's prefix; shorter ones are filled up unseen.
        starts: the lengths of the prefixes.
        longest: as long as one can be.
        length: of the tails at least.
    """
    from specdraft.attention.tree_decode import Tail, pack

    queries, keys = (max(mask.shape[side] for mask in seen) for side in (0, 1))
    keys = max(keys, length)
    bits = [F.pad(mask == 0, (0, keys - mask.shape[1], 0, queries - mask.shape[0])) for mask in seen]
    return Tail(to_device(starts, seen[0].device).int(), pack(torch.stack(bits)), keys, longest)


def _registered(kind: str) -> str:
    return f"specdraft_{kind}"


def grouped(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """`[B, N, H, D]` of a layer's queries `[B, H, N, D]`, keys and values `[B, K, T, D]`.

    Args:
        module: the layer.
        query, key, value, attention_mask: as `transformers` hands them over; without a mask, or where there is more to
            it than a mask, `transformers` does it.
        options: the rest of what it hands over.
    """
    if attention_mask is None or not _plain(options):
        return _usual(module, query, key, value, attention_mask, options)
    scale = options.get("scaling")
    if query.shape[2] == 1 == attention_mask.shape[1]:  # heads that share keys are as good as so many queries
        rows = query.reshape(*key.shape[:2], -1, query.shape[3])
        attended = F.scaled_dot_product_attention(rows, key, value, attn_mask=attention_mask, scale=scale)
        return attended.reshape(*query.shape[:3], -1).transpose(1, 2).contiguous(), None
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scale, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def by_triton(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """See `grouped`; what comes without a `Tail` (a prompt, say), `transformers` does."""
    tail: Tail | None = options.pop(TAIL, None)
    if tail is None or not _plain(options) or not _fits(query, value):
        return _usual(module, query, key, value, attention_mask, options)
    from specdraft.attention.tree_decode import tree_decode

    return tree_decode(query, key, value, tail, options.get("scaling")).transpose(1, 2), None


def _fits(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel takes such heads: a power of two of dimensions, whose blocks a multiprocessor can hold."""
    return value.shape[-1] == query.shape[-1] and _takes_heads(query.shape[-1], query.dtype)


def _takes_heads(dims: int, dtype: torch.dtype) -> bool:
    return dims >= FEWEST_DIMS and not dims & (dims - 1) and dims * dtype.itemsize <= MOST_BYTES


def _plain(options: dict[str, Any]) -> bool:
    """Whether a layer wants attention and nothing else."""
    return all(options.get(name) is None for name in ("softcap", "position_bias", "s_aux", "cache"))


def _usual(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, options: dict[str, Any]
) -> tuple[torch.Tensor, None]:
    from transformers import AttentionInterface

    attended: tuple[torch.Tensor, None] = AttentionInterface()[USUAL](module, query, key, value, mask, **options)
    return attended
