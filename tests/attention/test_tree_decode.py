"""The Triton kernel against attention as it is written down; without a GPU under Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import specdraft
from specdraft.attention.geometry import Geometry
from specdraft.attention.problem import Problem, make_problem, reference, worst_error
from specdraft.trees.topology import Topology

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")


def random_tree(nodes: int, seed: int = 0) -> Topology:
    """N = `nodes`: the root is counted."""
    choose = np.random.default_rng(seed)
    return Topology([-1, *(int(choose.integers(0, node)) for node in range(1, nodes))])


def problem(batch: int, kv_heads: int, group: int, nodes: int, context: int, head_dim: int) -> Problem:
    geometry = Geometry(kv_heads * group, kv_heads, head_dim)
    return make_problem(geometry, batch, context, random_tree(nodes), device=DEVICE)


def error(
    one: Problem, ancestors: torch.Tensor | None = None, *, block_keys: int = 16, multiprocessors: int = 2
) -> float:
    """Blocks are small, so that a small problem has several, and several splits."""
    from specdraft.attention.tree_decode import tail_of, tree_decode

    tail = tail_of(one.ancestors if ancestors is None else ancestors, one.batch, one.context)
    output = tree_decode(one.query, one.keys, one.values, tail, block_keys=block_keys, multiprocessors=multiprocessors)
    return worst_error(output, reference(one))


SHAPES = [  # B, K, G, N, S, D
    (1, 1, 1, 1, 0, 16),
    (1, 2, 4, 1, 100, 32),
    (2, 1, 2, 2, 1, 16),
    (3, 2, 1, 3, 15, 32),
    (1, 1, 4, 5, 16, 16),
    (2, 2, 2, 8, 17, 16),
    (1, 1, 4, 16, 40, 32),
    (1, 1, 1, 17, 100, 32),
    (2, 1, 4, 17, 0, 16),
    (3, 1, 2, 17, 16, 16),
    (1, 1, 1, 40, 33, 16),  # two words of mask, several blocks of tail
    (1, 1, 4, 33, 1, 16),  # two blocks of rows
]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_attention(shape: tuple[int, ...]) -> None:
    assert error(problem(*shape)) < 2e-6


def test_splits_of_all_sizes_agree() -> None:
    one = problem(1, 1, 2, 5, 100, 16)
    assert max(error(one, multiprocessors=count) for count in (1, 4)) < 2e-6


def test_keys_may_lie_in_a_longer_cache() -> None:
    from specdraft.attention.tree_decode import tail_of, tree_decode

    one = problem(2, 2, 1, 4, 20, 16)
    keys, values = (
        torch.cat([states, torch.full_like(states, 9.0)], 2)[:, :, :24] for states in (one.keys, one.values)
    )
    output = tree_decode(one.query, keys, values, tail_of(one.ancestors, 2, 20), block_keys=16)
    assert not keys.is_contiguous() and worst_error(output, reference(one)) < 2e-6


def test_nodes_that_pad_a_tree_see_themselves_only() -> None:
    one = problem(1, 1, 2, 7, 0, 16)  # without a prefix they see nothing else
    alone = one.ancestors.clone()
    alone[5:] = torch.eye(7, dtype=torch.bool, device=DEVICE)[5:]
    from specdraft.attention.tree_decode import tail_of, tree_decode

    output = tree_decode(one.query, one.keys, one.values, tail_of(alone, 1, 0), block_keys=16)
    assert torch.allclose(output[:, :, 5:], one.values[:, :, 5:].repeat_interleave(2, 1))


def test_half_precision_is_close() -> None:
    geometry = Geometry(4, 2, 32)
    half = make_problem(geometry, 1, 100, random_tree(9), dtype=torch.float16, device=DEVICE)
    assert 1e-5 < error(half) < 2e-3


def ragged(pending: int, nodes: int, room: int) -> tuple[Problem, torch.Tensor, torch.Tensor]:
    """Two texts of different lengths in longer caches, whose trees differ and see nodes that were fed before them: what
    each query may see `[B, N, T]`, and where the tails begin `[B]`."""
    one = make_problem(Geometry(4, 2, 16), 2, room - nodes, random_tree(nodes), device=DEVICE)
    starts = torch.tensor([20, 41], dtype=torch.int32, device=DEVICE)
    generator = torch.Generator().manual_seed(3)
    tails = torch.rand(2, nodes, pending + nodes, generator=generator).to(DEVICE) < 0.5
    tails[:, :, pending:] |= torch.eye(nodes, dtype=torch.bool, device=DEVICE)
    seen = torch.zeros(2, nodes, room, dtype=torch.bool, device=DEVICE)
    for text, start in enumerate(starts.tolist()):
        seen[text, :, :start] = True
        seen[text, :, start : start + pending + nodes] = tails[text]
    return one, seen, starts


@pytest.mark.parametrize("multiprocessors", [1, 4])
@pytest.mark.parametrize("room", [48, 90])  # as long as the longest text, and longer
def test_texts_of_different_lengths_share_a_launch(room: int, multiprocessors: int) -> None:
    from specdraft.attention.tree_decode import Tail, pack, tree_decode

    one, seen, starts = ragged(3, 4, room)
    bits = pack(torch.stack([seen[text, :, start : start + 7] for text, start in enumerate(starts.tolist())]))
    expected = torch.nn.functional.scaled_dot_product_attention(
        one.query, one.keys, one.values, attn_mask=seen[:, None], enable_gqa=True
    )
    assert (splits_of(room, multiprocessors) > 1) == (multiprocessors > 1)
    for query in (one.query, one.query.transpose(1, 2).contiguous().transpose(1, 2)):
        tail = Tail(starts, bits, 7, room)
        output = tree_decode(query, one.keys, one.values, tail, block_keys=16, multiprocessors=multiprocessors)
        assert worst_error(output, expected) < 2e-6
        assert output.transpose(1, 2).is_contiguous()
        off = Tail(starts - 1, bits, 7, room)
        wrong = tree_decode(query, one.keys, one.values, off, block_keys=16, multiprocessors=multiprocessors)
        assert worst_error(wrong, expected) > 0.02


def splits_of(room: int, multiprocessors: int) -> int:
    from specdraft.attention.tree_decode import plan_launch

    return plan_launch(4, 8, room, 16, multiprocessors).splits


def one_row_off(ancestors: torch.Tensor) -> torch.Tensor:
    return ancestors.roll(1, dims=0)


def self_missing(ancestors: torch.Tensor) -> torch.Tensor:
    return ancestors & ~torch.eye(len(ancestors), dtype=torch.bool, device=ancestors.device)


def one_ancestor_missing(ancestors: torch.Tensor) -> torch.Tensor:
    missing = ancestors.clone()
    missing[-1, 0] = False
    return missing


@pytest.mark.parametrize("fault", [one_row_off, self_missing, one_ancestor_missing])
def test_a_wrong_mask_is_seen(fault: Callable[[torch.Tensor], torch.Tensor]) -> None:
    one = problem(1, 1, 2, 9, 33, 16)
    assert error(one, fault(one.ancestors)) > 0.02


@pytest.mark.parametrize("hidden", [1, 100])
def test_a_masked_prefix_is_seen(hidden: int) -> None:
    """Of a context of 100 the first keys are not looked at."""
    from specdraft.attention.tree_decode import tail_of, tree_decode

    one = problem(1, 1, 2, 9, 100, 16)
    keys, values = one.keys[:, :, hidden:], one.values[:, :, hidden:]
    output = tree_decode(one.query, keys, values, tail_of(one.ancestors, 1, 100 - hidden), block_keys=16)
    assert worst_error(output, reference(one)) > 2e-4


def test_launches_fill_the_processors_with_few_splits() -> None:
    from specdraft.attention.tree_decode import plan_launch

    assert plan_launch(64, 64, 8192, 64, 132) == (64, 64, 4, 2048)
    assert plan_launch(64, 68, 8192, 64, 132) == (128, 64, 2, 4096)
    assert plan_launch(8, 16, 8192, 64, 132) == (16, 64, 32, 256)
    assert plan_launch(256, 64, 8192, 64, 132) == (64, 64, 1, 8192)
    assert plan_launch(8, 64, 100, 64, 132) == (64, 64, 2, 64)  # no more than there are blocks
    assert plan_launch(8, 5, 0, 64, 132) == (16, 64, 1, 64)


@pytest.mark.gpu
@pytest.mark.parametrize(("nodes", "context"), [(1, 0), (1, 4096), (9, 1000), (17, 8192), (65, 8192), (65, 33)])
@pytest.mark.parametrize("geometry", [Geometry(32, 8, 64), Geometry(32, 8, 128), Geometry(64, 8, 128)])
def test_real_sizes_in_bfloat16(geometry: Geometry, nodes: int, context: int) -> None:
    from specdraft.attention.tree_decode import tail_of, tree_decode

    one = make_problem(geometry, 2, context, random_tree(nodes), dtype=torch.bfloat16, device="cuda")
    right, wrong = (tail_of(tree, 2, context) for tree in (one.ancestors, one_row_off(one.ancestors)))
    output = tree_decode(one.query, one.keys, one.values, right)
    assert worst_error(output, reference(one)) < 1e-2
    if nodes > 1:
        assert worst_error(tree_decode(one.query, one.keys, one.values, wrong), reference(one)) > 2e-2


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from specdraft.attention import tree_decode

HEADS = [("*bf16", 128), ("*bf16", 256), ("*fp32", 128)]  # the kernel is for no larger ones
attend, combine = tree_decode._attend, tree_decode._combine
pointers = dict(query_ptr="*bf16", keys_ptr="*bf16", values_ptr="*bf16", output_ptr="*fp32")
pointers |= dict(bits_ptr="*i32", starts_ptr="*i32")
for kind, head_dim, block_rows in [(kind, dim, rows) for kind, dim in HEADS for rows in (16, 64, 128)]:
    block_keys = tree_decode.block_of(head_dim, 4 if kind == "*fp32" else 2)
    sizes = dict(head_dim=head_dim, block_rows=block_rows, block_keys=block_keys)
    types = dict.fromkeys(attend.arg_names, "i32") | pointers | dict(log_sums_ptr="*fp32", scale="fp32")
    types |= dict.fromkeys(("query_ptr", "keys_ptr", "values_ptr"), kind)
    source = ASTSource(attend, types | dict.fromkeys(sizes, "constexpr"), sizes)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=dict(num_warps=8 if block_rows == 128 else 4))
    assert made.metadata.shared <= 227 * 1024, (block_rows, made.metadata.shared)
sizes = dict(head_dim=128, padded_splits=8)
types = dict.fromkeys(combine.arg_names, "i32") | dict(parts_ptr="*fp32", log_sums_ptr="*fp32", output_ptr="*bf16")
compile(ASTSource(combine, types | dict.fromkeys(sizes, "constexpr"), sizes), target=GPUTarget("cuda", 90, 32))
"""


@pytest.mark.slow
def test_it_compiles_for_an_h100_without_one(tmp_path: Path) -> None:
    """In a process of its own: in this one kernels are interpreted."""
    said = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join(filter(None, [str(Path(specdraft.__file__).parents[1]), said.get("PYTHONPATH")]))
    said |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", COMPILE], check=True, env=said, timeout=200)
