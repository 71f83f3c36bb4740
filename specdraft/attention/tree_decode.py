"""Tree attention in two Triton kernels: flash decoding (Dao et al. 2023) with a tree behind the prefix.

The keys are split among programs. A program holds the queries of all nodes and of all heads that share its keys, so
keys are read once for all of them. The prefix, which every node sees, has no mask; the program of the last split also
attends to the tail, whose mask is a bit for each pair of nodes. A second kernel combines the splits by their
log-sum-exps.

Under `TRITON_INTERPRET=1`, set before this file is imported, it runs on a CPU.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import NamedTuple

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634
WORD = 32  # nodes in a word of the mask
MOST_ROWS = 128  # queries that a program holds: more are left to further programs, which read the keys again
MOST_SPLITS = 64
NEARLY = 1.1  # times the least time: then fewer splits are better


def pack(ancestors: torch.Tensor) -> torch.Tensor:
    """`[N, N]` bool -> `[N, ceil(N / 32)]` int32: node j is bit j % 32 of word j // 32."""
    nodes = len(ancestors)
    padded = torch.nn.functional.pad(ancestors, (0, -nodes % WORD)).view(nodes, -1, WORD)
    bits = padded.long() << torch.arange(WORD, device=ancestors.device)
    return bits.sum(dim=-1).to(torch.int32)


@triton.jit
def _accumulate(scores, values, top, total, sums):
    """One block of keys joins the running softmax; scores are in powers of two, -inf where nothing is seen."""
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp2(scores - new_top[:, None])
    shrunk = tl.exp2(top - new_top)
    total = total * shrunk + tl.sum(weights, 1)
    sums = tl.dot(weights.to(values.dtype), values, sums * shrunk[:, None], input_precision="ieee")
    return new_top, total, sums


@triton.jit
def _attend(
    query_ptr, keys_ptr, values_ptr, bits_ptr, output_ptr, log_sums_ptr,
    context, nodes, rows, words, split_keys, scale,
    batch_stride, head_stride, kv_heads, outputs_of_split,
    head_dim: tl.constexpr, block_rows: tl.constexpr, block_keys: tl.constexpr,
):  # fmt: skip
    """Program (block of rows, b * K + k, split): of G * N = `rows` queries over the keys of one split.

    Blocks of rows that read the same keys run side by side, so that the cache serves all but the first.
    """
    pair, split, splits = tl.program_id(1).to(tl.int64), tl.program_id(2), tl.num_programs(2)
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    column, dims = tl.arange(0, block_keys), tl.arange(0, head_dim)
    is_row = row < rows
    places = (pair * rows + row)[:, None] * head_dim + dims[None, :]
    query = tl.load(query_ptr + places, mask=is_row[:, None], other=0.0)
    start = (pair // kv_heads) * batch_stride + (pair % kv_heads) * head_stride
    keys_ptr += start
    values_ptr += start
    top = tl.full([block_rows], -1e30, tl.float32)  # finite: a block may show a row nothing
    total = tl.zeros([block_rows], tl.float32)
    sums = tl.zeros([block_rows, head_dim], tl.float32)

    first = split * split_keys
    end = tl.minimum(first + split_keys, context)
    for block in range(first, end, block_keys):
        key = block + column
        there = key < end
        at = key[:, None].to(tl.int64) * head_dim + dims[None, :]
        keys = tl.load(keys_ptr + at, mask=there[:, None], other=0.0)
        values = tl.load(values_ptr + at, mask=there[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(there[None, :], scores, float("-inf"))
        top, total, sums = _accumulate(scores, values, top, total, sums)

    if split == splits - 1:
        node = row % nodes
        for block in tl.range(0, nodes, block_keys, num_stages=1):  # short: its mask is not worth shared memory
            key = block + column
            there = key < nodes
            at = (context + key)[:, None].to(tl.int64) * head_dim + dims[None, :]
            keys = tl.load(keys_ptr + at, mask=there[:, None], other=0.0)
            values = tl.load(values_ptr + at, mask=there[:, None], other=0.0)
            scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
            word = tl.load(bits_ptr + node[:, None] * words + (key // 32)[None, :], mask=there[None, :], other=0)
            seen = ((word >> (key % 32)[None, :]) & 1) != 0
            scores = tl.where(seen, scores, float("-inf"))
            top, total, sums = _accumulate(scores, values, top, total, sums)

    outputs = (sums / total[:, None]).to(output_ptr.dtype.element_ty)
    part = split.to(tl.int64) * outputs_of_split
    tl.store(output_ptr + part * head_dim + places, outputs, is_row[:, None])
    tl.store(log_sums_ptr + part + pair * rows + row, top + tl.log2(total), is_row)


@triton.jit
def _combine(parts_ptr, log_sums_ptr, output_ptr, outputs, splits, head_dim: tl.constexpr, padded_splits: tl.constexpr):
    """Program r: one query's outputs of all splits, weighed by what their keys sum up to."""
    row, split, dims = tl.program_id(0).to(tl.int64), tl.arange(0, padded_splits), tl.arange(0, head_dim)
    there = split < splits
    part = split.to(tl.int64) * outputs + row
    log_sums = tl.load(log_sums_ptr + part, mask=there, other=float("-inf"))
    weights = tl.exp2(log_sums - tl.max(log_sums, 0))
    at = part[:, None] * head_dim + dims[None, :]
    parts = tl.load(parts_ptr + at, mask=there[:, None], other=0.0)
    combined = tl.sum(parts * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(output_ptr + row * head_dim + dims, combined.to(output_ptr.dtype.element_ty))


class Launch(NamedTuple):
    """How a problem is cut: queries and keys of a block, splits of the prefix and keys of each."""

    block_rows: int
    block_keys: int
    splits: int
    split_keys: int


def plan_launch(pairs: int, rows: int, context: int, block_keys: int, multiprocessors: int) -> Launch:
    """The fewest splits that take nearly the least time.

    Args:
        pairs: B * K.
        rows: G * N.
        context: S.
        block_keys: of a block.
        multiprocessors: of the device; by their registers two programs of up to 64 rows fit into one.
    """
    block_rows = min(max(16, _power_of_two(rows)), MOST_ROWS)
    slots = multiprocessors * (1 if block_rows == MOST_ROWS else 2)
    programs, blocks = pairs * ceil(rows / block_rows), max(1, ceil(context / block_keys))

    def takes(splits: int) -> int:
        """Blocks of keys one after another: in every wave those of one split."""
        return ceil(programs * splits / slots) * ceil(blocks / splits)

    possible = range(1, min(blocks, MOST_SPLITS) + 1)
    least = min(map(takes, possible))
    splits = next(splits for splits in possible if takes(splits) <= NEARLY * least)
    split_keys = ceil(blocks / splits) * block_keys
    return Launch(block_rows, block_keys, max(1, ceil(context / split_keys)), split_keys)


def _power_of_two(number: int) -> int:
    """The least that is not below a number."""
    return 1 << (number - 1).bit_length()


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 4
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def tree_decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bits: torch.Tensor,
    block_keys: int = 64,
    multiprocessors: int | None = None,
) -> torch.Tensor:
    """Attention of a tree step: `[B, H, N, D]`.

    Args:
        query: `[B, H, N, D]`, contiguous; D a power of two, 16 or more.
        keys, values: `[B, K, T, D]`, the last N of them the tree's; the same strides, rows of D side by side.
        bits: of the mask, see `pack`.
        block_keys: keys that a program loads at once.
        multiprocessors: to share the work among; None: those of the device.
    """
    batch, heads, nodes, head_dim = query.shape
    kv_heads, context = keys.shape[1], keys.shape[2] - nodes
    assert query.is_contiguous() and keys.stride() == values.stride() and keys.stride()[2:] == (head_dim, 1)
    rows, outputs = heads // kv_heads * nodes, batch * heads * nodes
    cut = plan_launch(batch * kv_heads, rows, context, block_keys, multiprocessors or _multiprocessors(query.device))
    output = torch.empty_like(query)
    parts = output
    if cut.splits > 1:
        parts = torch.empty(cut.splits, outputs, head_dim, dtype=torch.float32, device=query.device)
    log_sums = torch.empty(cut.splits, outputs, dtype=torch.float32, device=query.device)
    _attend[ceil(rows / cut.block_rows), batch * kv_heads, cut.splits](
        query, keys, values, bits, parts, log_sums,
        context, nodes, rows, bits.shape[1], cut.split_keys, head_dim**-0.5 * LOG2_E,
        keys.stride(0), keys.stride(1), kv_heads, outputs,
        head_dim=head_dim, block_rows=cut.block_rows, block_keys=cut.block_keys,
        num_warps=8 if cut.block_rows == MOST_ROWS else 4,
    )  # fmt: skip
    if cut.splits > 1:
        _combine[(outputs,)](
            parts,
            log_sums,
            output,
            outputs,
            cut.splits,
            head_dim=head_dim,
            padded_splits=_power_of_two(cut.splits),
        )
    return output
