"""Every format: recognised by its content alone, read, and converted; the published counts of each engine."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from support import engine_files as files

from specdraft.errors import ConfigError
from specdraft.exchange.formats import read, registry
from specdraft.exchange.reading import Reading
from specdraft.exchange.source import read_foreign

EXAMPLES = {
    "vllm-metrics": [files.VLLM_METRICS, files.VLLM_METRICS + files.VLLM_EMITTED, files.TWO_ENGINES],
    "vllm-log": [files.VLLM_LOG],
    "vllm-bench": [files.VLLM_BENCH],
    "per-request": [files.VLLM_RESPONSE, json.dumps([files.DETAILED]), files.AIPERF],
    "histogram": ["[39, 1, 0, 3]", '{"acceptance_histogram": {"0": 39, "1": 1, "3": 3}}', files.AIPERF_SUMMARY],
    "sglang-metrics": [files.SGLANG_METRICS],
    "sglang-log": [files.SGLANG_LOG],
    "sglang-meta-info": [files.SGLANG_META, files.SGLANG_CHAT],
    "llama.cpp-log": [files.LLAMA_LOG, files.LLAMA_STATISTICS, files.LLAMA_OLD, files.LLAMA_EXAMPLE],
    "llama.cpp-metrics": [files.LLAMA_METRICS],
    "llama.cpp-timings": [files.LLAMA_TIMINGS],
    "spec-bench": [files.SPEC_BENCH, files.EAGLE],
}
ALL = [(kind, text) for kind, texts in EXAMPLES.items() for text in texts]


def reading(tmp_path: Path, text: str) -> Reading:
    path = tmp_path / "theirs"
    path.write_text(text, encoding="utf-8")
    return read(read_foreign(path))


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        reading(tmp_path, text)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{tmp_path / 'theirs'}: ")


def ratios(found: Reading) -> list[float]:
    return [round(found.ratios[name], 4) for name in ("block_efficiency", "acceptance_length", "acceptance_rate")]


def test_every_format_has_an_example() -> None:
    assert set(registry()) == set(EXAMPLES)


@pytest.mark.parametrize(("kind", "text"), ALL, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(ALL)])
def test_a_file_is_of_one_format(tmp_path: Path, kind: str, text: str) -> None:
    (tmp_path / "theirs").write_text(text)
    file = read_foreign(tmp_path / "theirs")
    assert [name for name, made in registry().items() if made().recognises(file)] == [kind]
    found = read(file)
    assert found.kind == kind and found.figures and all(figure.means for figure in found.figures)
    rates = [figure.converted for figure in found.figures if figure.column == "acceptance_rate"]
    assert np.allclose(rates, found.ratios["acceptance_rate"])  # shares, whatever the engine prints


def test_published_counters_of_vllm(tmp_path: Path) -> None:
    """12,208 accepted in 4,816 drafts of 7; 80 texts end 114 tokens before what a bonus in every step comes to."""
    found = reading(tmp_path, files.VLLM_METRICS)
    assert round(found.figures[0].value, 3) == 3.535 == round(12208 / 4816 + 1, 3)
    assert ratios(found) == [3.5349, 2.5349, 0.3621] and found.counts.drafted_tokens == 7 * 4816
    emitted = reading(tmp_path, files.VLLM_METRICS + files.VLLM_EMITTED)
    assert round(emitted.figures[0].value, 3) == 3.535  # as vLLM defines it, whatever was emitted
    assert emitted.counts.bonus_tokens == 16990 - 80 - 12208
    assert round(emitted.ratios["block_efficiency"], 4) == round((16990 - 80) / 4816, 4) == 3.5112
    assert any("16,990 tokens were emitted in 80 requests, 114 fewer" in note for note in emitted.notes)


def test_counters_of_several_engines_are_summed(tmp_path: Path) -> None:
    found = reading(tmp_path, files.TWO_ENGINES)
    assert found.counts[:3] == (40, 80, 40)
    assert found.marginal == [28 / 40, 12 / 40] and found.most_drafted == 2
    assert np.allclose(found.conditional, [0.7, 12 / 28])
    trimmed = reading(tmp_path, files.TWO_ENGINES.replace('position="1"} 8', 'position="1"} 2'))
    assert "34 of 40 accepted tokens have a position: some positions are missing" in trimmed.notes


def test_log_lines_of_vllm_are_intervals(tmp_path: Path) -> None:
    found = reading(tmp_path, files.VLLM_LOG)
    assert found.counts[:4] == (300, 900, 250, 300)  # 100 drafts of 3, then 200
    assert np.allclose(found.marginal, [(0.8 + 2 * 0.3) / 3, (0.5 + 2 * 0.15) / 3, (0.2 + 2 * 0.05) / 3])
    assert round(found.ratios["block_efficiency"], 4) == round(1 + 250 / 300, 4)
    shorter = files.VLLM_LOG.replace("Drafted: 300", "Drafted: 290")  # drafts of different lengths: by the mean
    assert reading(tmp_path, shorter).counts.steps == 300
    assert any("rounded mean" in note for note in reading(tmp_path, shorter).notes)


def test_benchmark_of_vllm(tmp_path: Path) -> None:
    found = reading(tmp_path, files.VLLM_BENCH)
    assert found.counts == (60, 180, 90, 150 - 4 - 90, 150)
    assert ratios(found) == [round(146 / 60, 4), 1.5, 0.5]
    wrong = files.VLLM_BENCH.replace('"spec_decode_acceptance_length": 2.5', '"spec_decode_acceptance_length": 2.6')
    assert any("is given as 2.6; its counts give 2.5" in note for note in reading(tmp_path, wrong).notes)


def test_an_interior_zero_is_no_end(tmp_path: Path) -> None:
    for text in ("[39, 1, 0, 3]", files.VLLM_RESPONSE):
        found = reading(tmp_path, text)
        assert [round(rate, 3) for rate in found.marginal] == [0.093, 0.070, 0.070]
        assert round(found.ratios["block_efficiency"], 4) == 1.2326
        assert found.most_drafted == 3
    assert isnan(reading(tmp_path, "[39, 1, 0, 3]").ratios["acceptance_rate"])


def test_a_response_of_vllm_tells_what_was_emitted(tmp_path: Path) -> None:
    found = reading(tmp_path, files.VLLM_RESPONSE.replace('_tokens": 54', '_tokens": 53'))
    assert found.counts == (43, 129, 10, 53 - 1 - 10, 53)
    assert reading(tmp_path, json.dumps([files.DETAILED])).counts[:4] == (3, 6, 3, 3)


def test_records_of_aiperf(tmp_path: Path) -> None:
    found = reading(tmp_path, files.AIPERF)
    assert found.counts[:4] == (12, 24, 7, 12) and len(found.requests) == 2
    by_name = {figure.name: figure.value for figure in found.figures}
    assert by_name["mean acceptance length, weighted by steps"] == 1 + 7 / 12
    assert by_name["mean acceptance length, mean over requests"] == (2.25 + 1.25) / 2
    assert by_name["accepted per verified"] == (7 + 12) / (24 + 12)
    assert any("1 of 3 records have no figures" in note for note in found.notes)
    summary = reading(tmp_path, files.AIPERF_SUMMARY)
    assert summary.counts[:3] == (12, 24, 7) and list(summary.marginal) == [5 / 12, 2 / 12]


def test_requests_give_an_interval(tmp_path: Path) -> None:
    few = files.lines(*[files.aiperf_row([1, 1, 2], 8)] * 4)
    assert not reading(tmp_path, few).intervals["block_efficiency"].known
    different = [files.aiperf_row([n, 3, 2], 2 * (n + 5)) for n in range(8)]
    interval = reading(tmp_path, files.lines(*different)).intervals["block_efficiency"]
    assert interval.known and interval.low < interval.value < interval.high


def test_figures_of_sglang(tmp_path: Path) -> None:
    found = reading(tmp_path, files.SGLANG_METRICS)
    assert (found.ratios["block_efficiency"], found.ratios["acceptance_rate"]) == (2.31, 0.4366)
    assert isnan(found.ratios["acceptance_length"]) and found.figures[-1].value == 2.5
    log = reading(tmp_path, files.SGLANG_LOG)
    assert (log.ratios["block_efficiency"], log.ratios["acceptance_rate"]) == (2.5, 0.5)
    assert log.half_unit("block_efficiency") == 0.005


def test_a_length_of_sglang_counts_the_first_token(tmp_path: Path) -> None:
    found = reading(tmp_path, files.SGLANG_META)
    assert found.figures[0].value == 33 / 15 and round(found.figures[1].value, 4) == round((2.5 + 1.6) / 2, 4)
    assert found.counts == (15, 45, 17, 10 + 4, 33)  # the second text ends within a step
    assert round(found.ratios["block_efficiency"], 4) == round(31 / 15, 4)
    assert found.marginal == [10 / 15, 5 / 15, 2 / 15] and found.most_drafted == 3
    assert reading(tmp_path, files.SGLANG_CHAT).counts == (10, 30, 14, 10, 25)
    in_choice = json.dumps({"choices": [{"meta_info": files.DETAILS}]})  # its length tells what was emitted
    assert reading(tmp_path, in_choice).counts == (10, 30, 14, 10, 25)


def test_published_counters_of_llama_cpp(tmp_path: Path) -> None:
    """167 accepted in 87 drafts: 2.92."""
    for text in (files.LLAMA_LOG, files.LLAMA_STATISTICS):
        found = reading(tmp_path, text)
        assert found.counts[:3] == (87, 259, 167)
        assert round(found.ratios["block_efficiency"], 2) == 2.92
        assert np.allclose(found.marginal, [0.805, 0.632, 0.483])
    older = reading(tmp_path, files.LLAMA_OLD)
    assert isnan(older.counts.steps) and ratios(older)[2] == round(171 / 297, 4)


def test_other_counters_of_llama_cpp(tmp_path: Path) -> None:
    assert reading(tmp_path, files.LLAMA_EXAMPLE).counts == (82, 132, 47, 82, 129)
    assert reading(tmp_path, files.LLAMA_TIMINGS).counts == (88, 259, 167, 88, 256)
    running = (
        files.LLAMA_STATISTICS.replace("87, #gen drafts =     87", "40, #gen drafts =     40") + files.LLAMA_STATISTICS
    )
    assert reading(tmp_path, running).counts.steps == 87  # statistics run: the last line holds


def test_answers_of_spec_bench_and_eagle(tmp_path: Path) -> None:
    found = reading(tmp_path, files.SPEC_BENCH)
    assert found.counts[0] == 4 and found.figures[0].value == np.mean([3, 1, 2, 4])
    assert found.ratios["block_efficiency"] == 2.5 and found.marginal == [0.75, 0.5, 0.25]
    assert {figure.name: figure.value for figure in found.figures}["Tokens per second"] == np.mean([12, 8])
    eagle = reading(tmp_path, files.EAGLE)
    assert eagle.counts.steps == 5 + 10 + 1 + 4 and eagle.ratios["block_efficiency"] == 55 / 20
    assert {figure.name: figure.value for figure in eagle.figures}["tokens / idxs"] == 55 / 16
    assert any("from 0" in note for note in eagle.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (files.VLLM_METRICS.replace("12208", "99999"), "accepted_tokens=99999 is more than drafted_tokens=33712"),
        (files.VLLM_METRICS.replace("4816.0", "0"), "vllm:spec_decode_num_drafts is 0"),
        (files.VLLM_METRICS.replace("num_draft_tokens", "num_other"), "lacks one of"),
        (
            files.TWO_ENGINES.replace('position="1"} 8', 'position="1"} 28'),
            "position 1 is accepted in 0.8 of the steps",
        ),
        (
            files.TWO_ENGINES.replace('position="1"} 8', 'position="1"} 18'),
            "50 tokens are accepted by position",
        ),
        (files.VLLM_LOG.replace("Accepted: 150", "Accepted: 950"), "accepted_tokens=1050 is more than"),
        (files.VLLM_BENCH.replace('_num_drafts": 60', '_num_drafts": 0'), "has no spec_decode_num_drafts above 0"),
        (
            files.VLLM_BENCH.replace('tokens": 90', 'tokens": "many"'),
            "spec_decode_accepted_tokens='many' is no number, or out of range",
        ),
        (f"{files.VLLM_BENCH}\n{files.VLLM_BENCH}", "holds 2 runs"),
        (json.dumps(files.RECORD | {"num_spec_steps": 44}), "acceptance_histogram has 43 steps"),
        (json.dumps(files.RECORD | {"acceptance_histogram": [1.5]}), "acceptance_histogram is no list of counts"),
        (
            json.dumps(files.RECORD | {"acceptance_histogram": {"x": 1}}),
            "acceptance_histogram has a key that is no number",
        ),
        (json.dumps(files.RECORD | {"num_draft_tokens": None}), "has no num_draft_tokens"),
        (
            json.dumps(files.DETAILED | {"per_step_accepted": [2, 1, 1]}),
            "per_step_accepted and per_step_drafted do not sum",
        ),
        (json.dumps(files.DETAILED | {"per_step_drafted": [1, 3, 2]}), "a step of per_step_accepted has more tokens"),
        ("[0, 0]", "histogram has no step"),
        (files.SGLANG_METRICS.replace("} 2.31", "} 0"), "sglang:spec_accept_length is 0"),
        (files.lines(files.sglang_response(5, 16, 20, [0, 0, 0, 5])), "request 1: accepted_tokens=16 is more than"),
        (
            files.LLAMA_LOG.replace("167 accepted", "267 accepted"),
            "accepted_tokens=267 is more than drafted_tokens=259",
        ),
        (files.LLAMA_OLD.replace("171 accepted /   297", "0 accepted /   0"), "nothing was drafted"),
        (files.LLAMA_TIMINGS.replace('"predicted_n": 256', '"predicted_n": 100'), "leaves no step"),
        (files.lines(files.answer(1, [0, 2])), "accept_lengths has a step of 0 tokens"),
        (files.lines(files.answer(1, None, new_tokens=[3])), "has neither accept_lengths nor decoding_steps nor idxs"),
        (files.lines(files.answer(1, None, decoding_steps=[9], new_tokens=[3])), "has 3 tokens in 9 steps"),
        (
            files.lines(files.answer(1, None, idxs=[511], new_tokens=[0])),
            "has no new_tokens: answers of plain decoding",
        ),
        (files.VLLM_LOG + files.LLAMA_LOG, "looks like llama.cpp-log and vllm-log at once"),
        ("hello world", "holds no figures of speculative decoding that are known here"),
        ('{"a": 1}\n{"b"', "line 2 is no JSON object"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize(("kind", "text"), ALL, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(ALL)])
def test_a_torn_file_is_read_or_refused(tmp_path: Path, kind: str, text: str) -> None:
    for end in np.linspace(1, len(text) - 1, 15).astype(int):
        try:
            assert reading(tmp_path, text[:end]).kind in registry()
        except ConfigError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\x00\x01\x02", "is binary"),
        (b"\xff\xfe\x00", "is binary, or text in UTF-16"),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_foreign(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_foreign(tmp_path / "missing")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_foreign(tmp_path)


def test_llama_cpps_own_counters(tmp_path: Path) -> None:
    found = reading(tmp_path, files.LLAMA_METRICS)
    assert found.kind == "llama.cpp-metrics"
    assert (found.counts.steps, found.counts.drafted_tokens, found.counts.accepted_tokens) == (11, 44, 36)
    assert found.marginal == pytest.approx([10 / 11, 9 / 11, 9 / 11, 8 / 11])
