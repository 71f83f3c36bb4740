"""EAGLE heads on disk: which tensor is which, and what config.json says of them, in four layouts.

| layout | first layer | joins | told by |
| --- | --- | --- | --- |
| EAGLE-1 and 2, the authors' | `layers.0.` | `fc.` | two states joined by `fc` |
| EAGLE-1 and 2, `speculators` | `transformer.` | `fusion_fc.` | `speculators_model_type: eagle` |
| EAGLE-3, the authors' | `midlayer.` | `fc.` | `midlayer.hidden_norm` |
| EAGLE-3, `speculators` | `layers.0.` | `fc.` | `layers.0.hidden_norm` |

All may have `embed_tokens.weight` and `lm_head.weight` of their own; what is not there is the target's. EAGLE-3's
output layer may be of fewer ids: `d2t [rows]` is what each row's id is more than its number, `t2d [V]` says which ids
these are. Letters: d numbers of a head's state, w of the target's, V ids of the target, L layers of it that are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from specdraft.errors import ConfigError
from specdraft.models.weights import Shapes

LAST = -1  # the layer, as `transformers` counts them, whose state EAGLE-1 reads: after the final norm
LEAST_LAYERS = 6  # of a target: with fewer, two of EAGLE-3's layers are one
MAPS = ("d2t", "t2d")
OUTPUT, EMBEDDINGS = "lm_head.weight", "embed_tokens.weight"
UNUSED = ("verifier_norm.weight", "verifier_lm_head.weight", "rotary_emb.inv_freq")  # of the target, or made anew
FIRST_LAYER = ("midlayer.", "transformer.")  # what others call `layers.0.`
SAME = {"fusion_fc.": "fc.", "embedding_layernorm.": "embedding_norm.", "pre_lm_head_layernorm.": "norm."}


@dataclass(frozen=True)
class EagleShape:
    """What a head is; see `models.eagle_head`.

    Attributes:
        version: 1 (EAGLE-1 and 2) or 3.
        width, inner: d, and numbers inside its MLP.
        heads, key_heads, head_size: of its attention.
        layers: how many; all but the first one are plain decoder layers.
        eps: of its norms.
        frequencies, rotary_scale: of its rotary positions.
        target_width: w; `features`: L.
        fc_bias, attention_bias, mlp_bias: what has biases.
        norm_before_residual: the normed feature goes round the attention, not the feature.
        norm_before_fc: the joined states are normed; `fc_norm`: each one is.
        norm_output: the next depth is fed what the output layer reads, not what is before the norm (EAGLE-3.1).
        final_norm: there is a norm before the output layer.
        embedding_norm: embeddings are normed (EAGLE-1 with `layernorms`).
        first_norm: EAGLE-1's first layer norms what it attends with (likewise).
    """

    version: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_size: int
    layers: int
    eps: float
    frequencies: tuple[float, ...]
    rotary_scale: float
    target_width: int
    features: int
    fc_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_before_residual: bool = False
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_output: bool = False
    final_norm: bool = True
    embedding_norm: bool = False
    first_norm: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {key: value for key, value in asdict(self).items() if key != "frequencies"}


class EagleNames(NamedTuple):
    """A folder's head.

    Attributes:
        layout: for people.
        shape: what it is.
        aux_layers: of the target's states, as `transformers` counts them, those that are read.
        tensors: name of the head's parameter -> name in the folder.
        rows: ids that it may propose; None: all of the target's.
    """

    layout: str
    shape: EagleShape
    aux_layers: tuple[int, ...]
    tensors: dict[str, str]
    rows: int | None


def default_layers(count: int, where: str) -> tuple[int, ...]:
    """EAGLE-3's: the states that enter the target's layers 2, n // 2 and n - 3.

    Raises:
        ConfigError: two of them are one.
    """
    layers = (2, count // 2, count - 3)
    if len(set(layers)) < len(layers) or min(layers) < 1:
        raise ConfigError(
            f"{where}: the target has {count} layers, too few for three different ones of EAGLE-3 (2, {count // 2} and "
            f"{count - 3}); name others (eagle_aux_hidden_state_layer_ids in config.json)"
        )
    return layers


def eagle_names(folder_config: Mapping[str, Any], shapes: Shapes, target: Any, where: str) -> EagleNames:
    """What a folder's head is.

    Args:
        folder_config: its config.json.
        shapes: of its tensors.
        target: the target's text config.
        where: names the folder in messages.

    Raises:
        ConfigError: it is no EAGLE head in a known layout, not all there, or another target's.
    """
    names = {canonical(name): name for name in shapes if not name.endswith(UNUSED)}
    version, layout = _layout(folder_config, shapes, names, where)
    shape = _shape(version, folder_config, names, shapes, target, where)
    aux = _aux_layers(version, folder_config, int(target.num_hidden_layers), where)
    if version == 3 and (read := shape.features) != len(aux):
        raise ConfigError(f"{where}: fc reads {read} states of the target, and config.json names {len(aux)} layers")
    rows = shapes[names["d2t"]][0] if "d2t" in names else shapes[names[OUTPUT]][0] if OUTPUT in names else None
    found = EagleNames(layout, shape, aux, names, rows)
    _check_whole(found, shapes, int(target.vocab_size), where)
    return found


def canonical(name: str) -> str:
    """A tensor's name in `EagleHead`."""
    name = name.removeprefix("model.")
    for prefix in FIRST_LAYER:
        if name.startswith(prefix):
            name = f"layers.0.{name.removeprefix(prefix)}"
    for prefix, ours in SAME.items():
        if name.startswith(prefix):
            name = ours + name.removeprefix(prefix)
    return name


def _layout(config: Mapping[str, Any], shapes: Shapes, names: Mapping[str, str], where: str) -> tuple[int, str]:
    told = config.get("speculators_model_type")
    if told is not None and told not in ("eagle", "eagle3"):
        raise ConfigError(f"{where}: config.json describes {told}, not an EAGLE head")
    if "fc.weight" not in names or "layers.0.self_attn.q_proj.weight" not in names:
        raise ConfigError(
            f"{where}: no layout of EAGLE heads is known that has {min(shapes, default='no tensor')}; expected "
            "fc.weight and midlayer.* (EAGLE-3's authors'), layers.0.* or transformer.*"
        )
    version = 3 if "layers.0.hidden_norm.weight" in names else 1
    if told is not None and (told == "eagle3") != (version == 3):
        raise ConfigError(f"{where}: config.json describes {told}, and its tensors are EAGLE-{version}'s")
    speculators = told is not None or names["layers.0.self_attn.q_proj.weight"].startswith(
        "layers." if version == 3 else "transformer."
    )
    return version, f"EAGLE-{version}, " + ("speculators'" if speculators else "the authors'")


def _shape(
    version: int, config: Mapping[str, Any], names: Mapping[str, str], shapes: Shapes, target: Any, where: str
) -> EagleShape:
    """Sizes come from the tensors where these say them, all else from config.json, else from the target."""
    inside: Mapping[str, Any] = config.get("transformer_layer_config") or config

    def told(key: str, otherwise: Any) -> Any:
        value = inside.get(key, config.get(key))
        return otherwise if value is None else value

    of = {ours: shapes[stored] for ours, stored in names.items()}
    if len(of["fc.weight"]) != 2:
        raise ConfigError(f"{where}: fc.weight has {len(of['fc.weight'])} dimensions; expected 2")
    width, target_width = of["fc.weight"][0], int(target.hidden_size)
    features, left = divmod(of["fc.weight"][1] - (width if version == 1 else 0), target_width)
    asked = config.get("target_hidden_size")
    if version == 1 and (left or features != 1):
        raise ConfigError(
            f"{where}: fc.weight is {width} x {of['fc.weight'][1]}; an EAGLE-1 head of this target has {width} x "
            f"{width + target_width}: it is another's, or no EAGLE head"
        )
    if left or features < 1 or (asked or target_width) != target_width:
        raise ConfigError(
            f"{where}: fc.weight is {width} x {of['fc.weight'][1]}; the target's states have {target_width} numbers: "
            "it is another's"
        )
    heads = int(told("num_attention_heads", target.num_attention_heads))
    size = int(told("head_dim", None) or of["layers.0.self_attn.q_proj.weight"][0] // heads)
    key_heads = of["layers.0.self_attn.k_proj.weight"][0] // size
    frequencies, scale = _rotary(told, size, where)
    return EagleShape(
        version=version,
        width=width,
        inner=of.get("layers.0.mlp.gate_proj.weight", (0,))[0],
        heads=heads,
        key_heads=key_heads,
        head_size=size,
        layers=1 + max(int(name.split(".")[1]) for name in names if name.startswith("layers.")),
        eps=float(told("rms_norm_eps", 1e-6)),
        frequencies=frequencies,
        rotary_scale=scale,
        target_width=target_width,
        features=features,
        fc_bias="fc.bias" in names,
        attention_bias="layers.0.self_attn.o_proj.bias" in names,
        mlp_bias="layers.0.mlp.down_proj.bias" in names,
        norm_before_residual=bool(config.get("norm_before_residual", False)),
        norm_before_fc="input_norm.weight" in names,
        fc_norm="fc_norm.0.weight" in names,
        norm_output=bool(config.get("norm_output", False)),
        final_norm="norm.weight" in names,
        embedding_norm="embedding_norm.weight" in names,
        first_norm=version == 1 and "layers.0.input_layernorm.weight" in names,
    )


def rotary_frequencies(size: int, theta: float) -> tuple[float, ...]:
    """`[c / 2]` of heads of c numbers."""
    return tuple(theta ** (-2 * i / size) for i in range(size // 2))


def _rotary(told: Any, size: int, where: str) -> tuple[tuple[float, ...], float]:
    """Frequencies `[c / 2]` and what their cosines are multiplied by."""
    scaling = dict(told("rope_parameters", None) or told("rope_scaling", None) or {})
    theta = float(scaling.get("rope_theta") or told("rope_theta", 10000.0))
    plain, kind = rotary_frequencies(size, theta), scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return plain, 1.0
    if kind == "linear":
        return tuple(value / float(scaling["factor"]) for value in plain), 1.0
    if kind == "llama3":
        return tuple(_llama3(value, scaling) for value in plain), 1.0
    raise ConfigError(f"{where}: config.json has rope type {kind}, which is not known of a head; expected llama3")


def _llama3(frequency: float, scaling: Mapping[str, Any]) -> float:
    """Llama 3.1's: long waves are stretched by `factor`, those in between in part."""
    factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    waves = float(scaling["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    share = min(1.0, max(0.0, (waves - low) / (high - low)))
    return frequency * (share + (1 - share) / factor)


def _aux_layers(version: int, config: Mapping[str, Any], count: int, where: str) -> tuple[int, ...]:
    """See `EagleNames.aux_layers`: those that config.json names are counted in the same way."""
    if version == 1:
        return (LAST,)
    inside = config.get("eagle_config") or {}
    named = config.get("eagle_aux_hidden_state_layer_ids") or inside.get("eagle_aux_hidden_state_layer_ids")
    if not named:
        return default_layers(count, where)
    layers = tuple(named)
    if not all(isinstance(layer, int) and 0 <= layer <= count for layer in layers) or len(set(layers)) < len(layers):
        raise ConfigError(
            f"{where}: config.json has eagle_aux_hidden_state_layer_ids={list(named)}; expected different ones of 0 to "
            f"{count}"
        )
    return layers


def _check_whole(names: EagleNames, shapes: Shapes, vocab: int, where: str) -> None:
    """Raise `ConfigError` where tensors are missing, are too many, or have other sizes."""
    import torch

    from specdraft.models.eagle_head import EagleHead

    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in EagleHead(names.shape).state_dict().items()}
    if EMBEDDINGS in names.tensors:
        expected[EMBEDDINGS] = (vocab, names.shape.width)
    if OUTPUT in names.tensors:
        expected[OUTPUT] = (names.rows or vocab, names.shape.width)
    if "d2t" in names.tensors:
        expected |= {"d2t": (names.rows or vocab,), "t2d": (vocab,)}
    for name, shape in expected.items():
        if name not in names.tensors and name != "t2d":
            raise ConfigError(f"{where}: {name} is missing of an {names.layout} head")
        if name in names.tensors and (found := shapes[names.tensors[name]]) != shape:
            said, wanted = (" x ".join(map(str, each)) for each in (found, shape))
            raise ConfigError(f"{where}: {names.tensors[name]} is {said}; a head of this target has {wanted}")
    if others := sorted(set(names.tensors) - set(expected)):
        raise ConfigError(f"{where}: {names.tensors[others[0]]} is no part of an {names.layout} head")
    _check_shared(names, vocab, where)


def _check_shared(names: EagleNames, vocab: int, where: str) -> None:
    """Raise `ConfigError` where what it has of its own does not go with what it takes from the target."""
    if names.rows not in (None, vocab) and "d2t" not in names.tensors:
        raise ConfigError(f"{where}: lm_head has {names.rows} rows of {vocab} ids, and no d2t says which")
    lacking = [name for name in (OUTPUT, EMBEDDINGS) if name not in names.tensors]
    if lacking and names.shape.width != names.shape.target_width:
        raise ConfigError(
            f"{where}: it has no {lacking[0]}, and the target's is {names.shape.target_width} wide, not "
            f"{names.shape.width}"
        )
