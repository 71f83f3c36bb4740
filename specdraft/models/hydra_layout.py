"""Hydra heads on disk: which tensor is which in the authors' layout, known from the files' headers.

Head i, from 0, reads the target's state and the tokens of the path, i + 2 parts of h numbers. Its first block narrows
them to one part, `R x + r + SiLU(W x + b)`; further blocks are Medusa's. A head without an output layer uses the
target's.
Letters: h numbers of a state, V ids of the target's output layer.

| | tensors |
| --- | --- |
| first block | `hydra_mlp.i.0.linear.weight`, `.bias`, `hydra_mlp.i.0.res_connection.weight`, `.bias` |
| further blocks | `hydra_mlp.i.j.linear.weight`, `.bias` |
| output layers | `hydra_lm_head.i.weight`, `.bias` |

Numbers may have gaps where the authors had dropout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from specdraft.errors import ConfigError
from specdraft.models.weights import Shapes

BLOCK = re.compile(r"hydra_mlp\.(\d+)\.(\d+)\.((?:linear|res_connection)\.(?:weight|bias))")
OUTPUT = re.compile(r"hydra_lm_head\.(\d+)\.(?:\d+\.)?(weight|bias)")
PARTS = ("linear.weight", "linear.bias")
NARROWING = (*PARTS, "res_connection.weight", "res_connection.bias")
PREFIX = "prefix_embeding_layer."  # as the authors write it


class HydraHeadNames(NamedTuple):
    """Of a head's tensors.

    Attributes:
        blocks: of each block, the first one with `NARROWING`, others with `PARTS`.
        output: `weight` `[V, h]` and `bias` `[V]`; empty: the target's output layer.
    """

    blocks: list[dict[str, str]]
    output: dict[str, str]


def hydra_names(shapes: Shapes, width: int, rows: int, where: str) -> list[HydraHeadNames]:
    """What the tensors of a folder are; the first head is for the token after the root.

    Args:
        shapes: of its tensors.
        width, rows: h and V of the target.
        where: names the folder in messages.

    Raises:
        ConfigError: they are no Hydra heads in the authors' layout, not all there, or another target's.
    """
    blocks: dict[int, dict[int, dict[str, str]]] = {}
    outputs: dict[int, dict[str, str]] = {}
    for name in sorted(shapes):
        if found := BLOCK.fullmatch(name):
            blocks.setdefault(int(found[1]), {}).setdefault(int(found[2]), {})[found[3]] = name
        elif found := OUTPUT.fullmatch(name):
            outputs.setdefault(int(found[1]), {})[found[2]] = name
        elif name.startswith(PREFIX):
            raise ConfigError(f"{where}: heads behind a prefix layer of their own (Hydra++) are not supported")
        else:
            raise ConfigError(f"{where}: {name} is no part of Hydra heads in the authors' layout (hydra_mlp.0.0., ...)")
    _check_whole(blocks, outputs, where)
    heads = [
        HydraHeadNames([block for _, block in sorted(blocks[head].items())], outputs.get(head, {}))
        for head in range(len(blocks))
    ]
    for name, expected in _expected_shapes(heads, width, rows):
        if shapes[name] != expected:
            told, wanted = (" x ".join(map(str, shape)) for shape in (shapes[name], expected))
            raise ConfigError(f"{where}: {name} is {told}; heads of this target have {wanted}")
    return heads


def _check_whole(blocks: dict[int, dict[int, dict[str, str]]], outputs: dict[int, dict[str, str]], where: str) -> None:
    if not blocks:
        raise ConfigError(f"{where}: there is no hydra_mlp.0.0.linear.weight; these are no Hydra heads")
    for head in range(max(*blocks, *outputs, 0) + 1):
        there = sorted(blocks.get(head, {0: {}}).items())
        for number, (block, parts) in enumerate(there):
            if missing := sorted(set(PARTS if number else NARROWING) - parts.keys()):
                raise ConfigError(f"{where}: hydra_mlp.{head}.{block}.{missing[0]} is missing; the heads are not whole")
        if outputs and "weight" not in outputs.get(head, {}):
            raise ConfigError(f"{where}: head {head} lacks its output layer, which others have")


def _expected_shapes(heads: list[HydraHeadNames], width: int, rows: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number, head in enumerate(heads):
        for place, block in enumerate(head.blocks):
            inside = width if place else (number + 2) * width
            for part, name in block.items():
                yield name, (width, inside) if part.endswith("weight") else (width,)
        for part, name in head.output.items():
            yield name, (rows, width) if part == "weight" else (rows,)
