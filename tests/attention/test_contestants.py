"""Every way to compute tree attention against attention as it is written down."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from specdraft.attention import contestants as every
from specdraft.attention.contestants import flashinfer, masks, merged, registry, sequential, triton
from specdraft.attention.geometry import GEOMETRIES, Geometry
from specdraft.attention.problem import (
    Problem,
    make_problem,
    moved_bytes,
    needed_bytes,
    reference,
    worst_error,
)
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.published import Published
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import Topology

HERE = ("sequential", "expanded", "dense", "grouped", "merged")
TREES = {
    "root": Topology([-1]),
    "chain": Chain().at(5).topology,
    "wide": Wide().at(5).topology,
    "kary": Kary().at(9).topology,
    "medusa": Published().at(1).topology,
}


@pytest.mark.parametrize("context", [0, 1, 40])
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("name", HERE)
def test_it_is_attention(name: str, tree: str, context: int) -> None:
    one = make_problem(Geometry(6, 2, 8), 3, context, TREES[tree])
    attend = registry()[name].prepare(one)
    attend()
    assert worst_error(attend(), reference(one)) < 3e-6


def test_the_reference_is_attention_word_for_word() -> None:
    one = make_problem(Geometry(4, 2, 8), 2, 3, TREES["kary"])
    expected = torch.empty(one.query.shape, dtype=torch.float64)
    for b in range(2):
        for head in range(4):
            for node in range(10):
                seen = [*range(3), *(3 + a for a in range(10) if one.tree.ancestors[node, a])]
                keys, values = (states[b, head // 2, seen].double() for states in (one.keys, one.values))
                weights = (keys @ one.query[b, head, node].double() / 8**0.5).softmax(0)
                expected[b, head, node] = weights @ values
    assert worst_error(reference(one), expected.float()) < 1e-6


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("context", [40, 2000])
def test_another_tree_is_seen_also_behind_a_long_prefix(name: str, context: int) -> None:
    one = make_problem(Geometry(2, 1, 8), 1, context, TREES["kary"])
    other = replace(one, tree=Topology([-1, 0, 0, 1, 1, 2, 2, 3, 3, 3]))  # the last node has another parent
    assert worst_error(registry()[name].prepare(other)(), reference(one)) > 0.05


def test_bfloat16_is_close_on_a_cpu() -> None:
    one = make_problem(Geometry(4, 2, 16), 1, 200, TREES["kary"], dtype=torch.bfloat16)
    for name in HERE:
        assert worst_error(registry()[name].prepare(one)(), reference(one)) < 1e-2, name


def test_plain_decoding_is_for_the_root_only() -> None:
    one = make_problem(Geometry(4, 2, 8), 2, 20, TREES["chain"])
    assert every.DECODE.why_not(one) == "it has no mask: one query only"
    alone = one.root_alone
    assert every.DECODE.why_not(alone) == "" and alone.context == 20
    assert worst_error(every.DECODE.prepare(alone)(), reference(one)[:, :, :1]) < 2e-6


def test_paths_of_a_tree() -> None:
    assert sequential.paths(Topology([-1, 0, 0, 1, 3])) == [[0, 2], [0, 1, 3, 4]]
    assert sequential.paths(Topology([-1])) == [[0]]


def test_what_is_for_gpus_says_so_here() -> None:
    one = make_problem(GEOMETRIES["zoo"], 1, 4, TREES["chain"])
    assert {name: c.why_not(one) for name, c in registry().items() if c.why_not(one)} == {
        "grouped": "no heads share keys: it is dense",
        "triton": "it needs a GPU",
        "flashinfer": "it needs a GPU",
    }
    assert [name for name, c in registry().items() if c.on_cpu] == list(HERE)
    three = make_problem(Geometry(6, 2, 8), 1, 4, TREES["chain"])
    assert registry()["flex"].why_not(three) == "3 heads share keys; expected a power of two"


def test_a_gpu_without_the_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"), query=torch.empty(0, dtype=torch.bfloat16))
    full: Any = SimpleNamespace(device=torch.device("cuda"), query=torch.empty(0))
    monkeypatch.setattr(triton, "find_spec", lambda name: None)
    assert triton.why_not(on_gpu) == "triton is not installed"
    assert flashinfer.why_not(on_gpu) == "flashinfer is not installed"
    assert flashinfer.why_not(full) == "it needs dtype=bfloat16 or float16"
    assert merged.why_not(full) == "on a GPU it needs dtype=bfloat16 or float16" and not merged.why_not(on_gpu)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_our_kernel_is_one_of_them() -> None:
    one = make_problem(Geometry(4, 2, 16), 1, 20, TREES["kary"])
    assert worst_error(registry()["triton"].prepare(one)(), reference(one)) < 2e-6


@pytest.mark.parametrize("by_head", [True, False])
def test_the_prefix_by_flash_attention(monkeypatch: pytest.MonkeyPatch, by_head: bool) -> None:
    """Packed as `varlen_attn` takes it; its log-sum-exps as they are, and as they are documented."""
    one = make_problem(Geometry(4, 2, 8), 3, 20, TREES["kary"])

    def varlen(q: Any, k: Any, v: Any, of_q: Any, of_k: Any, most_q: int, most_k: int, return_aux: Any) -> Any:
        outputs, log_sums = torch.empty_like(q), torch.empty(q.shape[:2])
        assert (most_q, most_k, return_aux.lse) == (20, 20, True)
        for text in range(3):
            queries, keys = (slice(int(of[text]), int(of[text + 1])) for of in (of_q, of_k))
            part = [states.transpose(0, 1)[None] for states in (q[queries], k[keys], v[keys])]
            done = merged.attend_part(*part, one.scale)
            outputs[queries], log_sums[queries] = done.output[0].transpose(0, 1), done.log_sum[0, :, :, 0].mT
        return outputs, log_sums.mT if by_head else log_sums

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen)
    flash = merged._Flash(one).attend(one.grouped_query)
    plain = merged.attend_part(one.grouped_query, *one.prefix, one.scale)
    assert torch.allclose(flash.output, plain.output) and torch.allclose(flash.log_sum, plain.log_sum)


def test_flashinfer_gets_the_mask_of_every_text_and_its_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("flashinfer")
    library.BatchPrefillWithRaggedKVCacheWrapper = _Ragged  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flashinfer", library)
    one = make_problem(Geometry(4, 2, 8), 3, 20, TREES["kary"])
    assert worst_error(flashinfer.prepare(one)(), reference(one)) < 2e-6


class _Ragged:
    """What the library's wrapper of this name does."""

    def __init__(self, workspace: torch.Tensor, layout: str) -> None:
        assert layout == "NHD" and workspace.dtype == torch.uint8

    def plan(self, of_queries: Any, of_keys: Any, heads: int, kv_heads: int, head_dim: int, **said: Any) -> None:
        self._of, self._heads, self._said = (of_queries, of_keys), (heads, kv_heads, head_dim), said

    def run(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        places = *self._of, self._of[1]
        texts = [one.tensor_split(of[1:-1].long()) for one, of in zip((query, keys, values), places, strict=True)]
        mask, outputs, (heads, kv_heads, _) = self._said["custom_mask"], [], self._heads
        for q, k, v in zip(*texts, strict=True):
            seen, mask = mask[: len(q) * len(k)].view(len(q), len(k)), mask[len(q) * len(k) :]
            of_heads = [states.repeat_interleave(heads // kv_heads, 1).transpose(0, 1) for states in (k, v)]
            scores = q.transpose(0, 1) @ of_heads[0].mT * self._said["sm_scale"] + masks.additive(seen, torch.float32)
            outputs.append((scores.softmax(-1) @ of_heads[1]).transpose(0, 1))
        assert not len(mask)
        return torch.cat(outputs)


def test_bytes() -> None:
    one = make_problem(Geometry(4, 2, 8), 3, 20, TREES["chain"])
    assert moved_bytes(one) == 4 * (2 * 3 * 2 * 26 * 8 + 2 * 3 * 4 * 6 * 8)  # 4 (2 B K T D + 2 B H N D)
    kept = sum(states.numel() for states in (one.keys, one.values)) * 4
    assert needed_bytes(Geometry(4, 2, 8), 3, 20, 6, 4) > 3 * kept  # and for every head (twice), and the reference
    assert needed_bytes(GEOMETRIES["llama-3.1-8b"], 8, 10**9, 65, 2) > 2**45


def test_a_made_problem_is_made_again() -> None:
    made = partial(make_problem, Geometry(4, 2, 8), 1, 6, TREES["chain"])
    assert torch.equal(made().keys, made().keys) and not torch.equal(made(seed=1).keys, made().keys)


def test_an_output_that_is_no_number_is_wrong() -> None:
    one: Problem = make_problem(Geometry(2, 2, 8), 1, 6, TREES["chain"])
    assert worst_error(torch.full_like(one.query, torch.nan), reference(one)) == float("inf")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch itself
def test_flex_attention_is_attention() -> None:
    """Compiled, which takes most of a minute."""
    one = make_problem(Geometry(4, 2, 16), 2, 40, TREES["kary"])
    assert worst_error(registry()["flex"].prepare(one)(), reference(one)) < 3e-6
