"""Files as engines write them, with made-up numbers or published ones; made here, not copied."""

from __future__ import annotations

import json
from typing import Any


def lines(*rows: dict[str, Any]) -> str:
    """JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


# vllm-project/vllm#26191: EAGLE-3, MT-bench, k = 7
VLLM_METRICS = """\
# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 4816.0
# TYPE vllm:spec_decode_num_drafts_created gauge
vllm:spec_decode_num_drafts_created{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.7592e+09
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 33712.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 12208.0
"""
VLLM_EMITTED = """\
vllm:generation_tokens_total{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 16990.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 78.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
"""
TWO_ENGINES = """\
vllm:spec_decode_num_drafts{engine="0",model_name="a"} 10
vllm:spec_decode_num_drafts{engine="1",model_name="a"} 30
vllm:spec_decode_num_draft_tokens{engine="0",model_name="a"} 20
vllm:spec_decode_num_draft_tokens{engine="1",model_name="a"} 60
vllm:spec_decode_num_accepted_tokens{engine="0",model_name="a"} 12
vllm:spec_decode_num_accepted_tokens{engine="1",model_name="a"} 28
vllm:spec_decode_num_accepted_tokens_per_pos{engine="0",model_name="a",position="0"} 8
vllm:spec_decode_num_accepted_tokens_per_pos{engine="0",model_name="a",position="1"} 4
vllm:spec_decode_num_accepted_tokens_per_pos{engine="1",model_name="a",position="0"} 20
vllm:spec_decode_num_accepted_tokens_per_pos{engine="1",model_name="a",position="1"} 8
"""
LOGGED = (
    "(APIServer pid=7) INFO 11-02 10:12:01 [metrics.py:100] SpecDecoding metrics: Mean acceptance length: {length}, "
)
LOGGED += (
    "Accepted throughput: 15.00 tokens/s, Drafted throughput: 30.00 tokens/s, Accepted: {accepted} tokens, Drafted: "
)
LOGGED += "{drafted} tokens, Per-position acceptance rate: {rates}, Avg Draft acceptance rate: {rate}%\n"
VLLM_LOG = LOGGED.format(length="2.50", accepted=150, drafted=300, rates="0.800, 0.500, 0.200", rate="50.0")
VLLM_LOG += LOGGED.format(length="1.50", accepted=100, drafted=600, rates="0.300, 0.150, 0.050", rate="16.7")
VLLM_BENCH = json.dumps(
    {
        "backend": "vllm",
        "completed": 4,
        "total_output_tokens": 150,
        "output_throughput": 100.0,
        "spec_decode_acceptance_rate": 50.0,
        "spec_decode_acceptance_length": 2.5,
        "spec_decode_num_drafts": 60,
        "spec_decode_draft_tokens": 180,
        "spec_decode_accepted_tokens": 90,
        "spec_decode_per_position_acceptance_rates": [0.8, 0.5, 0.2],
    }
)
# docs of vLLM: a request of which 39 of 43 steps accepted nothing
RECORD: dict[str, Any] = {
    "mean_acceptance_length": 1.2325581395348837,
    "draft_acceptance_rate": 0.07751937984496124,
    "acceptance_histogram": [39, 1, 0, 3],
    "num_spec_steps": 43,
    "num_accepted_draft_tokens": 10,
    "num_draft_tokens": 129,
    "num_spec_tokens": 3,
}
VLLM_RESPONSE = json.dumps(
    {
        "id": "cmpl-1",
        "choices": [{"text": "Hi"}],
        "usage": {"completion_tokens": 54},
        "metrics": {"speculative_decoding": RECORD},
    }
)
DETAILED: dict[str, Any] = {
    "acceptance_histogram": [1, 1, 1],
    "num_spec_steps": 3,
    "num_accepted_draft_tokens": 3,
    "num_draft_tokens": 6,
    "num_spec_tokens": 2,
    "per_step_accepted": [2, 0, 1],
    "per_step_drafted": [2, 2, 2],
}


def aiperf_row(histogram: list[int], drafted: int) -> dict[str, Any]:
    """A line of AIPerf's records."""
    steps, accepted = sum(histogram), sum(n * count for n, count in enumerate(histogram))
    record = {
        "engine": "vllm",
        "mean_acceptance_length": 1 + accepted / steps,
        "draft_acceptance_rate": accepted / drafted,
        "acceptance_histogram": {str(n): count for n, count in enumerate(histogram) if count},
        "num_accepted_draft_tokens": accepted,
        "num_draft_tokens": drafted,
        "num_spec_steps": steps,
        "num_spec_tokens": 2,
    }
    metrics = {"output_token_count": {"value": 9, "unit": "tokens"}}
    return {
        "metadata": {"benchmark_phase": "profiling"},
        "metrics": metrics,
        "spec_decode_acceptance": record,
        "error": None,
    }


AIPERF = lines(
    aiperf_row([1, 1, 2], 8),
    aiperf_row([6, 2, 0], 16),
    {"metadata": {"was_cancelled": True}, "metrics": {}, "error": {"code": 499}},
)
AIPERF_SUMMARY = json.dumps(
    {
        "total_draft_tokens": {"unit": "tokens", "avg": 24},
        "pooled_spec_decode_acceptance_histogram": {"0": 7, "1": 3, "2": 2},
    }
)
SGLANG_METRICS = """\
# TYPE sglang:spec_accept_length gauge
sglang:spec_accept_length{engine_type="unified",model_name="m",tp_rank="0"} 2.31
sglang:spec_accept_rate{engine_type="unified",model_name="m",tp_rank="0"} 0.4366
sglang:generation_tokens_total{is_streaming="True",model_name="m"} 1000.0
sglang:spec_verify_calls_total{model_name="m"} 400.0
"""
SGLANG_LOG = """\
[2026-11-02 10:00:00] Decode batch, #running-req: 1, #token: 100, accept len: 2.00, accept rate: 0.33, cuda graph: True
[2026-11-02 10:00:09] Decode batch, #running-req: 1, #token: 180, accept len: 3.00, accept rate: 0.67, cuda graph: True
"""


def sglang_response(steps: int, accepted: int, emitted: int, histogram: list[int]) -> dict[str, Any]:
    """A response of `/generate` with three draft tokens a step, the root not counted."""
    meta = {
        "completion_tokens": emitted,
        "spec_verify_ct": steps,
        "spec_accept_rate": accepted / (3 * steps),
        "spec_accept_length": emitted / steps,
        "spec_num_correct_drafts": accepted,
        "spec_num_proposed_drafts": 3 * steps,
        "spec_correct_drafts_histogram": histogram,
    }
    return {"text": "Hi", "meta_info": meta}


RESPONSE = sglang_response(10, 14, 25, [2, 4, 2, 2])
SGLANG_META = lines(RESPONSE, sglang_response(5, 3, 8, [3, 1, 1, 0]))
DETAILS = {name: value for name, value in RESPONSE["meta_info"].items() if name != "completion_tokens"}
SGLANG_CHAT = json.dumps(
    {
        "choices": [{"message": {"content": "Hi"}}],
        "usage": {"completion_tokens": 25},
        "sglext": {"spec_tokens_details": DETAILS},
    }
)
# ggml-org/llama.cpp#24536
LLAMA_LOG = """\
0.06.895.999 I slot print_timing: id  1 | task 0 |       total time =    2596.83 ms /   276 tokens
0.06.896.015 I slot print_timing: id  1 | task 0 | draft acceptance = 0.64479 (  167 accepted /   259 generated), mean \
acceptance length =  2.92, acceptance rate per position = (0.805, 0.632, 0.483)
"""
LLAMA_STATISTICS = LLAMA_LOG + (
    "0.06.896.057 I statistics     draft-eagle3: #calls(b,g,a) =    1     87     87, #gen drafts =     87, "
    "#acc drafts =    70, #gen tokens =    259, #acc tokens =   167, #mean acc len = 2.92, #acc rate/pos = (0.805, "
    "0.632, 0.483), dur(b,g,a) = 0.005, 325.555, 0.114 ms\n"
)
LLAMA_OLD = "draft acceptance rate = 0.57576 (  171 accepted /   297 generated)\n"
LLAMA_EXAMPLE = "n_draft   = 8\nn_predict = 129\nn_drafted = 132\nn_accept  = 47\naccept    = 35.606%\n"
LLAMA_TIMINGS = lines(
    {"content": "Hi", "timings": {"predicted_n": 256, "predicted_ms": 2296.7, "draft_n": 259, "draft_n_accepted": 167}},
)


def answer(question: int, lengths: list[int] | None, turns: int = 1, **more: Any) -> dict[str, Any]:
    """A line of Spec-Bench's answers."""
    choice: dict[str, Any] = {"index": 0, "turns": ["Hi"] * turns, "wall_time": [0.5] * turns}
    if lengths is not None:
        choice |= {"decoding_steps": [len(lengths)], "new_tokens": [sum(lengths)], "accept_lengths": lengths}
    row = {"question_id": question, "category": "writing", "answer_id": "x", "model_id": "m", "tstamp": 1.0}
    return row | {"choices": [choice | more]}


SPEC_BENCH = lines(answer(81, [3, 1, 2]), answer(82, [4]))
EAGLE = lines(  # steps are idxs + 1, in each turn
    answer(81, None, 2, idxs=[4, 9], new_tokens=[12, 33]),
    answer(82, None, 2, idxs=[0, 3], new_tokens=[2, 8]),
)

LLAMA_METRICS = """# TYPE llamacpp:spec_decode_num_drafts_total counter
llamacpp:n_decode_total 16
llamacpp:spec_decode_num_draft_tokens_total 44
llamacpp:spec_decode_num_accepted_tokens_total 36
llamacpp:spec_decode_num_drafts_total 11
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 10
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 9
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="2"} 9
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="3"} 8
"""  # of a llama-server, after one request
