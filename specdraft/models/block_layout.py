"""Block heads on disk (DFlash): which tensor is which, and what config.json says, in z-lab's layout and `speculators`'.

| | z-lab | `speculators` |
| --- | --- | --- |
| told by | `dflash_config` | `speculators_model_type: dflash` |
| the head's layers | the config's own keys | `transformer_layer_config` |
| states that are read | `dflash_config.target_layer_ids` | `aux_hidden_state_layer_ids` |
| masks | `dflash_config.mask_token_id` | `mask_token_id` |
| slots | `block_size` | `block_size`, `sample_from_anchor` |

z-lab counts what comes out of layer i of the target, from 0; `speculators` what goes into it. The tensors have the same
names in both; embeddings and the output layer are the target's. Letters: d numbers of a state, L layers of the target
that are read, c numbers of an attention head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from specdraft.errors import ConfigError
from specdraft.models.weights import Shapes

ZLAB, SPECULATORS = "z-lab's", "speculators'"
OF_THE_TARGET = ("embed_tokens.weight", "lm_head.weight", "verifier_norm.weight", "verifier_lm_head.weight")


@dataclass(frozen=True)
class BlockShape:
    """What a head is; see `models.block_head`.

    Attributes:
        layout: for people.
        width, inner: d, and numbers inside its MLP.
        heads, key_heads, head_size: of its attention.
        layers: how many.
        eps: of its norms.
        theta: the base of its rotary positions.
        read: of the target's states those that it reads, as `transformers` counts them.
        block: slots: the root and masks.
        mask: the token that stands in all slots but the first.
        first: the slot that proposes depth 1.
        attention_bias: whether its projections have biases.
    """

    layout: str
    width: int
    inner: int
    heads: int
    key_heads: int
    head_size: int
    layers: int
    eps: float
    theta: float
    read: tuple[int, ...]
    block: int
    mask: int
    first: int = 1
    attention_bias: bool = False

    @property
    def depths(self) -> int:
        """How deep it proposes."""
        return self.block - self.first

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def read_layers(layers: int, count: int) -> list[int]:
    """Of a target's layers those `count` whose output DFlash reads by default, from 0."""
    if count == 1:
        return [layers // 2]
    return [round(1 + i * (layers - 4) / (count - 1)) for i in range(count)]


def block_shape(config: Mapping[str, Any], shapes: Shapes, target: Any, where: str) -> BlockShape:
    """What a folder's head is.

    Args:
        config: its config.json.
        shapes: of its tensors.
        target: the target's text config.
        where: names the folder in messages.

    Raises:
        ConfigError: it is no block head in a known layout, not all there, or another target's.
    """
    shape = _shape(config, where)
    rows, layers = int(target.vocab_size), int(target.num_hidden_layers)
    if not 0 <= shape.mask < rows:
        raise ConfigError(f"{where}: mask_token_id={shape.mask} is out of range; the target has {rows} embeddings")
    if wrong := [layer for layer in shape.read if not 0 < layer < layers]:
        raise ConfigError(
            f"{where}: it reads what goes into layer {wrong[0]} of its target, from 0; this one has {layers} layers, "
            f"and heads read 1 to {layers - 1}"
        )
    if told := [shapes[name][0] for name in shapes if name.endswith("lm_head.weight") and shapes[name][0] != rows]:
        raise ConfigError(f"{where}: its output layer has {told[0]} ids; this target's has {rows}")
    if shape.width != (width := int(target.hidden_size)):
        raise ConfigError(f"{where}: hidden_size={shape.width}; this target's states have {width} numbers")
    _check_tensors(shape, {name: size for name, size in shapes.items() if not name.endswith(OF_THE_TARGET)}, where)
    return shape


def _shape(config: Mapping[str, Any], where: str) -> BlockShape:
    told = _Told(config, where)
    if isinstance(inside := config.get("dflash_config"), Mapping):
        own = _Told({**config, **inside}, f"{where}")
        read, first, layout, layer = [1 + i for i in own.ids("target_layer_ids")], 1, ZLAB, told
    elif config.get("speculators_model_type") == "dflash":
        layer = _Told(told.mapping("transformer_layer_config"), where)
        read, layout, own = told.ids("aux_hidden_state_layer_ids"), SPECULATORS, told
        first = 0 if config.get("sample_from_anchor") else 1
    else:
        raise ConfigError(
            f"{where}: config.json has no dflash_config (z-lab's layout) and no speculators_model_type: dflash; no "
            "other layout of block heads is known"
        )
    heads, width = layer.number("num_attention_heads"), layer.number("hidden_size")
    layer.refuse_windows()
    return BlockShape(
        layout=layout,
        width=width,
        inner=layer.number("intermediate_size"),
        heads=heads,
        key_heads=layer.number("num_key_value_heads", heads),
        head_size=layer.number("head_dim", width // heads),
        layers=layer.number("num_hidden_layers"),
        eps=float(layer.config.get("rms_norm_eps", 1e-6)),
        theta=layer.theta(),
        read=tuple(read),
        block=own.number("block_size", least=2),
        mask=own.number("mask_token_id", least=0),
        first=first,
        attention_bias=bool(layer.config.get("attention_bias", False)),
    )


class _Told:
    """What a config.json says."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self._where = config, where

    def number(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self.config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._error(key, value, f"a whole number, {least} or more")
        return value

    def ids(self, key: str) -> list[int]:
        value = self.config.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(i, int) for i in value):
            raise self._error(key, value, "a list of layers")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.config.get(key)
        if not isinstance(value, Mapping):
            raise self._error(key, value, "the settings of the head's layers")
        return value

    def theta(self) -> float:
        rotary = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        kind = rotary.get("rope_type", rotary.get("type", "default"))
        if kind != "default":
            raise ConfigError(f"{self._where}: rotary positions of type {kind!r} are not supported; expected 'default'")
        return float(rotary.get("rope_theta", self.config.get("rope_theta", 10000.0)))

    def refuse_windows(self) -> None:
        if "sliding_attention" in (self.config.get("layer_types") or []):
            raise ConfigError(f"{self._where}: layers with a sliding window are not supported in a block head")

    def _error(self, key: str, value: object, expected: str) -> ConfigError:
        return ConfigError(f"{self._where}: config.json says {key}={value}; expected {expected}")


def _check_tensors(shape: BlockShape, shapes: Shapes, where: str) -> None:
    expected = dict(expected_shapes(shape))
    if strange := sorted(shapes.keys() - expected.keys()):
        raise ConfigError(f"{where}: {strange[0]} is no part of a block head")
    if missing := sorted(expected.keys() - shapes.keys()):
        raise ConfigError(f"{where}: {missing[0]} is missing; the head is not whole")
    for name, size in expected.items():
        if shapes[name] != size:
            told, wanted = (" x ".join(map(str, sizes)) for sizes in (shapes[name], size))
            raise ConfigError(f"{where}: {name} is {told}; its config.json and this target ask for {wanted}")


def expected_shapes(shape: BlockShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a head."""
    d, c = shape.width, shape.head_size
    yield "fc.weight", (d, len(shape.read) * d)
    yield "hidden_norm.weight", (d,)
    yield "norm.weight", (d,)
    projections: Sequence[tuple[str, int, int]] = (
        ("q_proj", shape.heads * c, d),
        ("k_proj", shape.key_heads * c, d),
        ("v_proj", shape.key_heads * c, d),
        ("o_proj", d, shape.heads * c),
    )
    for number in range(shape.layers):
        layer = f"layers.{number}"
        yield f"{layer}.input_layernorm.weight", (d,)
        yield f"{layer}.post_attention_layernorm.weight", (d,)
        for name, rows, columns in projections:
            yield f"{layer}.self_attn.{name}.weight", (rows, columns)
            if shape.attention_bias:
                yield f"{layer}.self_attn.{name}.bias", (rows,)
        for name in ("q_norm", "k_norm"):
            yield f"{layer}.self_attn.{name}.weight", (c,)
        for name, rows, columns in (("gate", shape.inner, d), ("up", shape.inner, d), ("down", d, shape.inner)):
            yield f"{layer}.mlp.{name}_proj.weight", (rows, columns)
