"""Tree attention in two Triton kernels: flash decoding (Dao et al. 2023) with a tree behind the prefix.

The keys are split among programs. A program holds the queries of all nodes and of all heads that share its keys, so
keys are read once for all of them. The prefix, which every node sees, has no mask; the program of the first split also
attends to the tail, whose mask is a bit for each pair of nodes. A second kernel combines the splits by their
log-sum-exps. Where each tail begins is read on the device: a recorded launch goes on as texts grow.

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
MOST_BLOCK = 64  # keys that a program loads at once
BYTES_OF_MOST = 256  # of a key; of larger ones half as many are loaded
WORD = 32  # nodes in a word of the mask
MOST_ROWS = 128  # queries that a program holds: more are left to further programs, which read the keys again
MOST_SPLITS = 64
NEARLY = 1.1  # times the least time: then fewer splits are better


class Tail(NamedTuple):
    """The keys behind the prefix, of which each query sees its own.

    Attributes:
        starts: `[B]` int32, or `[1]` for all texts: S, the keys before a text's tail; all its queries see them.
        bits: `[B, N, ceil(L / 32)]` int32, or `[1, ., .]` for all texts: query i sees key j of the tail where bit
            j % 32 of word j // 32 is set.
        length: L, keys of the longest tail.
        longest: S of the longest text, or more.
    """

    starts: torch.Tensor
    bits: torch.Tensor
    length: int
    longest: int


def pack(seen: torch.Tensor) -> torch.Tensor:
    """`[..., N, L]` bool -> `[..., N, ceil(L / 32)]` int32, see `Tail`."""
    padded = torch.nn.functional.pad(seen, (0, -seen.shape[-1] % WORD))
    bits = padded.view(*seen.shape[:-1], -1, WORD).long() << torch.arange(WORD, device=seen.device)
    return bits.sum(dim=-1).to(torch.int32)


def tail_of(ancestors: torch.Tensor, batch: int, context: int) -> Tail:
    """Of the same tree `[N, N]` bool behind as long a prefix in every text."""
    starts = torch.full((batch,), context, dtype=torch.int32, device=ancestors.device)
    return Tail(starts, pack(ancestors)[None], len(ancestors), context)


@triton.jit
def _accumulate(scores, values, top, total, sums):
    """One block of keys joins the running softmax; scores are in powers of two, -inf where nothing is seen."""
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp2(scores - new_top[:, None])
    shrunk = tl.exp2(top - new_top)
    total = total * shrunk + tl.sum(weights, 1)
    sums = tl.dot(weights.to(values.dtype), values, sums * shrunk[:, None], input_precision="ieee")
    return new_top, total, sums


# What changes as a text grows, or from tree to tree: the same code for all numbers
CHANGES = ["keys_there", "tail", "nodes", "rows", "words", "bits_of_text", "outputs_of_split"]


@triton.jit(do_not_specialize=CHANGES)
def _attend(
    query_ptr, keys_ptr, values_ptr, bits_ptr, starts_ptr, output_ptr, log_sums_ptr,
    keys_there, tail, nodes, rows, words, bits_of_text, split_keys, scale,
    query_text, query_head, query_node, text_stride, head_stride,
    output_split, output_text, output_head, output_node, kv_heads, outputs_of_split,
    head_dim: tl.constexpr, block_rows: tl.constexpr, block_keys: tl.constexpr,
):  # fmt: skip
    """Program (block of rows, b * K + k, split): of G * N = `rows` queries over the keys of one split.

    Blocks of rows that read the same keys run side by side, so that the cache serves all but the first. A split that
    begins behind the prefix of its text says nothing.
    """
    pair, split = tl.program_id(1).to(tl.int64), tl.program_id(2)
    text, kv_head = pair // kv_heads, pair % kv_heads
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    column, dims = tl.arange(0, block_keys), tl.arange(0, head_dim)
    is_row, node, head = row < rows, row % nodes, kv_head * (rows // nodes) + row // nodes
    places = text * query_text + head * query_head + node * query_node
    query = tl.load(query_ptr + places[:, None] + dims[None, :], mask=is_row[:, None], other=0.0)
    context = tl.load(starts_ptr + text)
    keys_ptr += text * text_stride + kv_head * head_stride
    values_ptr += text * text_stride + kv_head * head_stride
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

    if split == 0:
        for block in tl.range(0, tail, block_keys, num_stages=1):  # short: its mask is not worth shared memory
            key = block + column
            there = (key < tail) & (context + key < keys_there)
            at = (context + key)[:, None].to(tl.int64) * head_dim + dims[None, :]
            keys = tl.load(keys_ptr + at, mask=there[:, None], other=0.0)
            values = tl.load(values_ptr + at, mask=there[:, None], other=0.0)
            scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
            word_at = text * bits_of_text + node[:, None] * words + (key // 32)[None, :]
            word = tl.load(bits_ptr + word_at, mask=there[None, :], other=0)
            seen = ((word >> (key % 32)[None, :]) & 1) != 0
            scores = tl.where(seen, scores, float("-inf"))
            top, total, sums = _accumulate(scores, values, top, total, sums)

    total = tl.maximum(total, 1e-30)  # of nothing that is seen, the sum is this little, below any other one
    outputs = sums / total[:, None]
    part = split.to(tl.int64)
    to = part * output_split + text * output_text + head * output_head + node * output_node
    tl.store(output_ptr + to[:, None] + dims[None, :], outputs.to(output_ptr.dtype.element_ty), is_row[:, None])
    tl.store(log_sums_ptr + part * outputs_of_split + pair * rows + row, top + tl.log2(total), is_row)


@triton.jit(do_not_specialize=["outputs", "splits", "nodes", "output_text"])
def _combine(
    parts_ptr, log_sums_ptr, output_ptr, outputs, splits, nodes, heads, output_text, output_head, output_node,
    head_dim: tl.constexpr, padded_splits: tl.constexpr,
):  # fmt: skip
    """Program r: one query's outputs of all splits, weighed by what their keys sum up to."""
    row, split, dims = tl.program_id(0).to(tl.int64), tl.arange(0, padded_splits), tl.arange(0, head_dim)
    there = split < splits
    part = split.to(tl.int64) * outputs + row
    log_sums = tl.load(log_sums_ptr + part, mask=there, other=float("-inf"))
    weights = tl.exp2(log_sums - tl.max(log_sums, 0))
    at = part[:, None] * head_dim + dims[None, :]
    parts = tl.load(parts_ptr + at, mask=there[:, None], other=0.0)
    combined = tl.sum(parts * weights[:, None], 0) / tl.sum(weights, 0)
    to = row // (heads * nodes) * output_text + row // nodes % heads * output_head + row % nodes * output_node
    tl.store(output_ptr + to + dims, combined.to(output_ptr.dtype.element_ty))


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


def block_of(head_dim: int, item: int) -> int:
    """Keys that a program loads at once, of so many numbers of so many bytes."""
    return MOST_BLOCK if head_dim * item <= BYTES_OF_MOST else MOST_BLOCK // 2


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
    tail: Tail,
    scale: float | None = None,
    block_keys: int | None = None,
    multiprocessors: int | None = None,
) -> torch.Tensor:
    """Attention of a tree step: `[B, H, N, D]`, which lies as `[B, N, H, D]` (models go on with that).

    Args:
        query: `[B, H, N, D]`, rows of D side by side; D a power of two, 16 or more.
        keys, values: `[B, K, T, D]`, with each text's prefix and its tail behind it; the same strides, rows of D side
            by side.
        tail: what is not prefix.
        scale: of the scores; None: one over the root of D.
        block_keys: keys that a program loads at once; None: as many as a multiprocessor can hold.
        multiprocessors: to share the work among; None: those of the device.
    """
    (batch, heads, nodes, head_dim), (kv_heads, there) = query.shape, keys.shape[1:3]
    assert query.stride(3) == 1 and keys.stride() == values.stride() and keys.stride()[2:] == (head_dim, 1)
    rows, outputs = heads // kv_heads * nodes, batch * heads * nodes
    starts, bits = tail.starts.expand(batch).contiguous(), tail.bits.contiguous()
    shared = multiprocessors or _multiprocessors(query.device)
    block_keys = block_keys or block_of(head_dim, query.element_size())
    cut = plan_launch(batch * kv_heads, rows, tail.longest, block_keys, shared)
    output = query.new_empty(batch, nodes, heads, head_dim).transpose(1, 2)
    parts, part_strides = output, (0, *output.stride()[:3])
    if cut.splits > 1:
        parts = query.new_empty(cut.splits, batch, heads, nodes, head_dim, dtype=torch.float32)
        part_strides = parts.stride()[:4]
    log_sums = query.new_empty(cut.splits, outputs, dtype=torch.float32)
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]  # kernels are launched on the current device
        _attend[ceil(rows / cut.block_rows), batch * kv_heads, cut.splits](
            query, keys, values, bits, starts, parts, log_sums,
            there, tail.length, nodes, rows, bits.shape[2], bits.stride(0) if len(bits) > 1 else 0,
            cut.split_keys, (head_dim**-0.5 if scale is None else scale) * LOG2_E,
            *query.stride()[:3], keys.stride(0), keys.stride(1), *part_strides, kv_heads, outputs,
            head_dim=head_dim, block_rows=cut.block_rows, block_keys=cut.block_keys,
            num_warps=8 if cut.block_rows == MOST_ROWS else 4,
        )  # fmt: skip
        if cut.splits > 1:
            _combine[(outputs,)](
                parts, log_sums, output, outputs, cut.splits, nodes, heads, *output.stride()[:3],
                head_dim=head_dim, padded_splits=_power_of_two(cut.splits),
            )  # fmt: skip
    return output
