"""Medusa heads on disk: which tensor is which, in the authors' layout and in vLLM's, known from the files' headers.

A head is one or more residual blocks `x + SiLU(W x + b)` and an output layer; a head without one uses the target's.
Letters: h numbers of a state, V ids of the target's output layer, i a head, j a block, n blocks.

| layout | blocks | output layers |
| --- | --- | --- |
| the authors' (also in a whole model, behind `medusa_head.`) | `i.j.linear.weight`, `i.j.linear.bias` | `i.n.weight` |
| vLLM's (also behind `medusa_heads.`) | `blocks.i.layers.j.weight`, `.bias` | `lm_heads.i.weight`, `lm_head.weight` |

vLLM's may have a `token_map [rows]`: the ids that the rows of its output layers stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.config import read_json
from specdraft.errors import ConfigError
from specdraft.models.weights import Shapes


class BlockNames(NamedTuple):
    """Of a residual block's tensors, `[h, h]` and `[h]`."""

    weight: str
    bias: str | None


class HeadNames(NamedTuple):
    """Of a head's tensors; `output` `[rows, h]`, None: the target's output layer."""

    blocks: list[BlockNames]
    output: str | None


class MedusaNames(NamedTuple):
    """Of all tensors of a folder of heads.

    Attributes:
        layout: the layout's name.
        heads: the first one is for the token after the root.
        token_map: of the tensor that says which ids the rows of output layers are.
    """

    layout: str
    heads: list[HeadNames]
    token_map: str | None = None


class Layout(NamedTuple):
    """How names are made.

    Attributes:
        name: for people.
        prefix: may stand before all names.
        block: matches a block's tensor: head, block, `weight` or `bias`.
        output: matches an output layer: head.
        layers_key: of config.json: how many blocks a head has.
    """

    name: str
    prefix: str
    block: re.Pattern[str]
    output: re.Pattern[str]
    layers_key: str


AUTHORS = Layout(
    "the authors'",
    "medusa_head.",
    re.compile(r"(\d+)\.(\d+)\.linear\.(weight|bias)"),
    re.compile(r"(\d+)\.\d+\.weight"),
    "medusa_num_layers",
)
VLLM = Layout(
    "vLLM's",
    "medusa_heads.",
    re.compile(r"blocks\.(\d+)\.layers\.(\d+)\.(weight|bias)"),
    re.compile(r"lm_heads\.(\d+)\.weight"),
    "num_hidden_layers",
)
SHARED, TOKEN_MAP = "lm_head.weight", "token_map"  # vLLM's


def medusa_names(folder: Path, shapes: Shapes, width: int, rows: int, where: str) -> MedusaNames:
    """What the tensors of a folder are.

    Args:
        folder: with a config.json.
        shapes: of its tensors.
        width, rows: h and V of the target.
        where: names the folder in messages.

    Raises:
        ConfigError: they are no Medusa heads in a known layout, not all there, or another target's.
    """
    layout, _ = _layout(shapes, where)
    names = names_of(shapes, where)
    settings = read_json(folder / "config.json", f"{where}: config.json")
    told = settings.get(layout.layers_key) if isinstance(settings, dict) else None
    if isinstance(told, int) and told != (there := len(names.heads[0].blocks)):
        raise ConfigError(f"{where}: config.json says {layout.layers_key}={told}, and each head has {there} blocks")
    check_shapes(names, shapes, width, rows, where)
    return names


def names_of(shapes: Shapes, where: str) -> MedusaNames:
    """What tensors are by their names alone; arguments and errors as `medusa_names`."""
    return _heads(*_layout(shapes, where), where)


def check_shapes(names: MedusaNames, shapes: Shapes, width: int, rows: int, where: str) -> None:
    """Raise `ConfigError` for a tensor that is not a head's of such a target; arguments as `medusa_names`."""
    for name, expected in _expected_shapes(names, shapes, width, rows):
        if shapes[name] != expected:
            told_shape, wanted = (" x ".join(map(str, shape)) for shape in (shapes[name], expected))
            raise ConfigError(f"{where}: {name} is {told_shape}; heads of this target have {wanted}")


def _layout(shapes: Shapes, where: str) -> tuple[Layout, dict[str, str]]:
    """The layout, and the names in it -> the full ones."""
    for layout in (AUTHORS, VLLM):
        prefixed = {name.removeprefix(layout.prefix): name for name in shapes if name.startswith(layout.prefix)}
        full = prefixed or {name: name for name in shapes}
        if any(map(layout.block.fullmatch, full)):
            if layout is VLLM:  # its prefix stands before any of the names
                full = {name.removeprefix(layout.prefix): name for name in shapes}
            return layout, full
    raise ConfigError(
        f"{where}: no layout of Medusa heads is known that has {min(shapes, default='no tensor')}; expected "
        "0.0.linear.weight, ... (the authors') or blocks.0.layers.0.weight, ... (vLLM's)"
    )


def _heads(layout: Layout, full: Mapping[str, str], where: str) -> MedusaNames:
    blocks: dict[int, dict[int, dict[str, str]]] = {}
    outputs: dict[int, str] = {}
    shared = token_map = None
    for name, stored in sorted(full.items()):
        if found := layout.block.fullmatch(name):
            blocks.setdefault(int(found[1]), {}).setdefault(int(found[2]), {})[found[3]] = stored
        elif found := layout.output.fullmatch(name):
            outputs[int(found[1])] = stored
        elif layout is VLLM and name == SHARED:
            shared = stored
        elif layout is VLLM and name == TOKEN_MAP:
            token_map = stored
        else:
            raise ConfigError(f"{where}: {stored} is no part of Medusa heads in {layout.name} layout")
    if layout is VLLM and [*outputs] == [0] and len(blocks) > 1 and shared is None:
        shared = outputs.pop(0)  # of all heads, as vLLM reads it
    _check_whole(blocks, outputs, where)
    if token_map is not None and not outputs and shared is None:
        raise ConfigError(f"{where}: {token_map} says what the rows of output layers are, and there are none")
    heads = [
        HeadNames(
            [BlockNames(block["weight"], block.get("bias")) for _, block in sorted(blocks[head].items())],
            outputs.get(head, shared),
        )
        for head in range(len(blocks))
    ]
    return MedusaNames(layout.name, heads, token_map)


def _check_whole(blocks: Mapping[int, Mapping[int, Any]], outputs: Mapping[int, str], where: str) -> None:
    """Heads and blocks are numbered from 0 without a gap, all with equally many blocks, and outputs of all or none."""
    depth = max(map(len, blocks.values()))
    for head in range(max(*blocks, *outputs, 0) + 1):
        there = blocks.get(head, {})
        missing = [block for block in range(depth) if "weight" not in there.get(block, {})]
        if missing:
            raise ConfigError(f"{where}: head {head} lacks the weight of block {missing[0]}; heads are not whole")
        if outputs and head not in outputs:
            raise ConfigError(f"{where}: head {head} lacks its output layer, which others have")


def _expected_shapes(
    names: MedusaNames, shapes: Shapes, width: int, rows: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    mapped = shapes[names.token_map][0] if names.token_map and len(shapes[names.token_map]) == 1 else rows
    if names.token_map:
        yield names.token_map, (mapped,)
    for head in names.heads:
        for block in head.blocks:
            yield block.weight, (width, width)
            if block.bias:
                yield block.bias, (width,)
        if head.output:
            whole = len(shapes[head.output]) == 2 and shapes[head.output][0] == rows  # what is mapped may be cut yet
            yield head.output, (rows if whole else mapped, width)
