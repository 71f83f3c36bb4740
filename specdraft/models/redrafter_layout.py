"""A recurrent drafter on disk (ReDrafter): which tensor is which in the authors' layout, and what config.json says.

| | tensors |
| --- | --- |
| the cell, with `rnn: true` | `rnn_w.weight` `[h, h]`, `rnn_u.weight` `[h, h]`, `rnn_u.bias` `[h]` |
| what joins state and cell | `input_proj.weight` `[e, 2 h]`, `.bias` `[e]`; left out where e is 2 h |
| residual blocks | `lm_head.j.linear.weight` `[e, e]`, `.bias` `[e]` |
| the output layer | `lm_head.n.weight` `[V, e]`; left out: the target's, where e is h |

Letters: h numbers of a state, e (`exit_dim`) of the head, n (`num_draft_layers`) blocks, V ids of the target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from specdraft.errors import ConfigError
from specdraft.models.weights import Shapes

CELL = ("rnn_w.weight", "rnn_u.weight", "rnn_u.bias")
JOIN = ("input_proj.weight", "input_proj.bias")


class RecurrentShape(NamedTuple):
    """What a head is.

    Attributes:
        width: h; `inner`: e; `blocks`: n.
        rnn: it has a cell; otherwise the embeddings of a path are added up.
        own_output: it has an output layer of its own.
    """

    width: int
    inner: int
    blocks: int
    rnn: bool
    own_output: bool

    @property
    def joined(self) -> bool:
        """Whether state and cell are projected."""
        return self.inner != 2 * self.width

    @property
    def output(self) -> str:
        """The output layer's name."""
        return f"lm_head.{self.blocks}.weight"


def recurrent_shape(config: Mapping[str, Any], shapes: Shapes, width: int, rows: int, where: str) -> RecurrentShape:
    """What a folder's head is.

    Args:
        config: its config.json.
        shapes: of its tensors.
        width, rows: h and V of the target.
        where: names the folder in messages.

    Raises:
        ConfigError: it is no recurrent drafter in the authors' layout, not all there, or another target's.
    """
    told = {key: config.get(key) for key in ("hidden_size", "exit_dim", "num_draft_layers")}
    for key, value in told.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < (key != "num_draft_layers"):
            raise ConfigError(
                f"{where}: config.json says {key}={value}; a recurrent drafter in the authors' layout has hidden_size, "
                "exit_dim and num_draft_layers"
            )
    if told["hidden_size"] != width:
        raise ConfigError(f"{where}: hidden_size={told['hidden_size']}; this target's states have {width} numbers")
    inner, blocks = int(config["exit_dim"]), int(config["num_draft_layers"])
    shape = RecurrentShape(width, inner, blocks, bool(config.get("rnn")), f"lm_head.{blocks}.weight" in shapes)
    if not shape.own_output and inner != width:
        raise ConfigError(f"{where}: {shape.output} is missing, and exit_dim={inner} does not fit the target's {width}")
    expected = dict(expected_shapes(shape, rows))
    if strange := sorted(shapes.keys() - expected.keys()):
        raise ConfigError(f"{where}: {strange[0]} is no part of a recurrent drafter as config.json describes it")
    if missing := sorted(expected.keys() - shapes.keys()):
        raise ConfigError(f"{where}: {missing[0]} is missing; the head is not whole")
    for name, size in expected.items():
        if shapes[name] != size:
            there, wanted = (" x ".join(map(str, sizes)) for sizes in (shapes[name], size))
            raise ConfigError(f"{where}: {name} is {there}; heads of this target have {wanted}")
    return shape


def expected_shapes(shape: RecurrentShape, rows: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a head."""
    h, e = shape.width, shape.inner
    if shape.rnn:
        yield from zip(CELL, ((h, h), (h, h), (h,)), strict=True)
    if shape.joined:
        yield from zip(JOIN, ((e, 2 * h), (e,)), strict=True)
    for block in range(shape.blocks):
        yield f"lm_head.{block}.linear.weight", (e, e)
        yield f"lm_head.{block}.linear.bias", (e,)
    if shape.own_output:
        yield shape.output, (rows, e)
