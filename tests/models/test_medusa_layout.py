"""Which tensor of a folder of heads is which, and what is said where they are not whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specdraft.errors import ConfigError
from specdraft.models.medusa_layout import BlockNames, medusa_names

WIDTH, ROWS = 8, 20
Shapes = dict[str, tuple[int, ...]]


def authors(heads: int = 2, blocks: int = 1, output: bool = True) -> Shapes:
    shapes: Shapes = {}
    for i in range(heads):
        for j in range(blocks):
            shapes |= {f"{i}.{j}.linear.weight": (WIDTH, WIDTH), f"{i}.{j}.linear.bias": (WIDTH,)}
        shapes |= {f"{i}.{blocks}.weight": (ROWS, WIDTH)} if output else {}
    return shapes


def vllm(heads: int = 2, **more: tuple[int, ...]) -> Shapes:
    blocks = {f"blocks.{i}.layers.0.weight": (WIDTH, WIDTH) for i in range(heads)}
    return blocks | {name.replace("__", "."): shape for name, shape in more.items()}


def read(tmp_path: Path, shapes: Shapes, **config: Any) -> Any:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return medusa_names(tmp_path, shapes, WIDTH, ROWS, "drafter.path=x")


def test_the_authors_layout(tmp_path: Path) -> None:
    names = read(tmp_path, authors(3, blocks=2), medusa_num_layers=2, medusa_num_heads=2)  # that number is often wrong
    assert [head.output for head in names.heads] == ["0.2.weight", "1.2.weight", "2.2.weight"]
    assert names.heads[1].blocks[1] == BlockNames("1.1.linear.weight", "1.1.linear.bias")
    assert [head.output for head in read(tmp_path, authors(output=False)).heads] == [None, None]
    many = read(tmp_path, authors(11))
    assert many.heads[10].output == "10.1.weight"  # by number, not by spelling


def test_heads_in_a_whole_model(tmp_path: Path) -> None:
    whole = {f"medusa_head.{name}": shape for name, shape in authors().items()} | {"model.norm.weight": (WIDTH,)}
    assert read(tmp_path, whole).heads[1].output == "medusa_head.1.1.weight"


def test_vllms_layout(tmp_path: Path) -> None:
    own = vllm(lm_heads__0__weight=(ROWS, WIDTH), lm_heads__1__weight=(ROWS, WIDTH))
    names = read(tmp_path, own, num_hidden_layers=1)
    assert [head.output for head in names.heads] == ["lm_heads.0.weight", "lm_heads.1.weight"]
    assert names.heads[0].blocks == [BlockNames("blocks.0.layers.0.weight", None)]
    prefixed = {f"medusa_heads.{name}": shape for name, shape in own.items()} | {"token_map": (ROWS,)}
    names = read(tmp_path, prefixed)
    assert (names.heads[1].output, names.token_map) == ("medusa_heads.lm_heads.1.weight", "token_map")
    for shared in ("lm_head", "lm_heads__0"):
        one = read(tmp_path, vllm(**{f"{shared}__weight": (ROWS, WIDTH)}))
        assert {head.output for head in one.heads} == {f"{shared.replace('__', '.')}.weight"}
    cut = read(tmp_path, vllm(lm_head__weight=(5, WIDTH), token_map=(5,)))
    assert cut.token_map == "token_map"


WRONG: list[tuple[Shapes, dict[str, Any], str]] = [
    ({"fc.weight": (8, 8)}, {}, "no layout of Medusa heads is known that has fc.weight; expected 0.0.linear.weight"),
    ({}, {}, "no layout of Medusa heads is known that has no tensor"),
    (authors() | {"norm.weight": (8,)}, {}, "norm.weight is no part of Medusa heads in the authors' layout"),
    (vllm() | {"norm.weight": (8,)}, {}, "norm.weight is no part of Medusa heads in vLLM's layout"),
    ({k: v for k, v in authors(3).items() if k[0] != "1"}, {}, "head 1 lacks the weight of block 0; heads are not"),
    ({k: v for k, v in authors().items() if k != "1.0.linear.weight"}, {}, "head 1 lacks the weight of block 0"),
    ({k: v for k, v in authors().items() if k != "1.1.weight"}, {}, "head 1 lacks its output layer, which others have"),
    (authors(), {"medusa_num_layers": 2}, "config.json says medusa_num_layers=2, and each head has 1 blocks"),
    (authors() | {"1.0.linear.weight": (9, 9)}, {}, "1.0.linear.weight is 9 x 9; heads of this target have 8 x 8"),
    (authors() | {"0.0.linear.bias": (9,)}, {}, "0.0.linear.bias is 9; heads of this target have 8"),
    (authors() | {"1.1.weight": (21, 8)}, {}, "1.1.weight is 21 x 8; heads of this target have 20 x 8"),
    (vllm(token_map=(5,)), {}, "token_map says what the rows of output layers are, and there are none"),
    (vllm(lm_head__weight=(6, 8), token_map=(5,)), {}, "lm_head.weight is 6 x 8; heads of this target have 5 x 8"),
]


@pytest.mark.parametrize(("shapes", "config", "said"), WRONG, ids=[said[:30] for _, _, said in WRONG])
def test_what_is_wrong_is_said(shapes: Shapes, config: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, shapes, **config)
    assert str(refused.value).startswith(f"drafter.path=x: {said}")
    assert "\n" not in str(refused.value)
