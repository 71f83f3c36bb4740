from __future__ import annotations

import itertools
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import pytest
import torch
from support.tiny_models import PairFolders, byte_tokenizer, tiny_llama, tiny_pair_models

from specdraft import SpeculativeDecoder
from specdraft.acceptance import AcceptanceRule, Recursive, TopK, Typical
from specdraft.decoding import clock
from specdraft.drafters.base import Prefilled
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError, ModelError, PromptError, plain_text
from specdraft.prediction.pruning.ratio import Ratio
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes.kary import Kary

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def decoder() -> SpeculativeDecoder:
    return SpeculativeDecoder.from_models(*tiny_pair_models(2), byte_tokenizer(), tree="kary", max_new_tokens=16)


def test_models_in_memory_decode_as_those_on_disk(decoder: SpeculativeDecoder, tiny_pair: Pair) -> None:
    saved = SpeculativeDecoder(tiny_pair, "kary", max_new_tokens=16).generate(PROMPT)
    handed = decoder.generate(PROMPT)
    assert handed.token_ids == saved.token_ids
    assert handed.text == saved.text
    ratios = ("acceptance_rate", "acceptance_length", "block_efficiency")
    assert [getattr(handed, name) for name in ratios] == [getattr(saved, name) for name in ratios]


def test_a_prompt_is_a_text_or_ids(decoder: SpeculativeDecoder) -> None:
    ids = decoder.pair.encode(PROMPT)
    wanted = decoder.generate(PROMPT).token_ids
    for prompt in (ids, torch.tensor(ids), torch.tensor([ids])):
        assert decoder.generate(prompt).token_ids == wanted


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "no tokens"),
        ([3, 258], "needs token 258; the target knows 258 ids"),
        ([3, -1], "needs token -1"),
        (torch.ones(2, 3, dtype=torch.long), "one at a time"),
        (torch.ones(3), "expected token ids"),
        ([3] * 600, "exceed the context of 512"),
    ],
    ids=["none", "unknown", "negative", "two", "floats", "long"],
)
def test_a_prompt_that_cannot_be_decoded(decoder: SpeculativeDecoder, prompt: object, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        decoder.generate(prompt)  # type: ignore[arg-type]


def test_the_speedup_is_there_when_it_is_asked_for(decoder: SpeculativeDecoder) -> None:
    assert decoder.generate(PROMPT).speedup is None
    compared = decoder.generate(PROMPT, compare=True)
    assert compared.speedup == pytest.approx(compared.tally.plain_s / compared.tally.wall_s)
    assert compared.as_data()["speedup"] == compared.speedup
    spent = compared.tally
    assert spent.prefill_s + spent.draft_s + spent.verify_s + spent.other_s == pytest.approx(spent.wall_s)


def test_sampling_in_memory_is_repeatable() -> None:
    options = {"acceptance": Recursive(), "sampling": Sampling(1.0), "max_new_tokens": 12, "tree": "kary"}
    texts = []
    for seed in (1, 1, 2):
        made = SpeculativeDecoder.from_models(*tiny_pair_models(2), byte_tokenizer(), seed=seed, **options)
        texts.append(made.generate(PROMPT).token_ids)
    assert texts[0] == texts[1] != texts[2]


def test_a_drafter_without_a_model() -> None:
    target, _ = tiny_pair_models(2)
    made = SpeculativeDecoder.from_models(target, None, byte_tokenizer(), "ngram", budget=4, max_new_tokens=12)
    plain = SpeculativeDecoder.from_models(*tiny_pair_models(2), byte_tokenizer(), max_new_tokens=12)
    assert made.generate(PROMPT).token_ids == plain.generate(PROMPT).token_ids
    assert made.pair.drafter.describe()["kind"] == Ngram.kind


def test_what_cannot_be_a_pair_is_refused() -> None:
    target, draft = tiny_pair_models(2)
    with pytest.raises(ConfigError, match="drafter=model needs a draft model"):
        SpeculativeDecoder.from_models(target, None, byte_tokenizer())
    with pytest.raises(ConfigError, match="did you mean 'ngram'"):
        SpeculativeDecoder.from_models(target, draft, byte_tokenizer(), "ngrams")
    with pytest.raises(ConfigError, match="did you mean 'kary'"):
        SpeculativeDecoder.from_models(target, draft, byte_tokenizer(), tree="karry")
    with pytest.raises(ModelError, match="cannot verify draft trees"):
        refused = tiny_llama()
        refused.config.model_type = "gpt_neo"
        SpeculativeDecoder.from_models(refused, draft, byte_tokenizer())


def test_the_same_target_with_another_drafter(tiny_pair: Pair, tiny_pair_folders: PairFolders) -> None:
    looked_up = load_pair(tiny_pair_folders.spec(), Ngram(), target_of=tiny_pair)
    assert looked_up.target is tiny_pair.target
    assert (tiny_pair.label, looked_up.label) == ("tiny", "tiny with ngram")


@pytest.mark.parametrize("rule", [None, TopK()], ids=["greedy", "sampled"])
def test_what_pruning_lost_is_what_whole_trees_accept_at_the_same_starts(
    tiny_pair: Pair, rule: AcceptanceRule | None
) -> None:
    sampling = None if rule is None else Sampling(temperature=0.3)
    setting = (tiny_pair, "kary", 14, 40, rule, sampling)
    pruned = SpeculativeDecoder(*setting, pruning=Ratio(pruning_ratio=0.6, scores="raw")).generate(PROMPT)
    text = [*tiny_pair.encode(PROMPT), *pruned.token_ids]
    lost, start = 0, len(text) - len(pruned.token_ids)
    for step in pruned.steps:
        tiny_pair.drafter.begin(Prefilled(text[:start]))
        tree = tiny_pair.drafter.draft(text[start], Kary().at(14))
        tokens, node, accepted = tree.token_list(), 0, 0
        for token in text[start + 1 :]:
            node = next((child for child in tree.topology.children[node] if tokens[child] == token), 0)
            if not node:
                break
            accepted += 1
        lost, start = lost + accepted - step.accepted_tokens, start + len(step.tokens)
    assert pruned.lost_tokens == lost > 0
    assert pruned.regret_tokens == pytest.approx(lost / len(pruned.steps))
    data = pruned.as_data()
    assert data["regret_tokens"] == pruned.regret_tokens and 0.5 < data["pruned_share"] < 0.7
    parts = ("prefill_s", "draft_s", "predict_s", "verify_s", "other_s")
    assert sum(data[part] for part in parts) == pytest.approx(data["wall_s"], rel=1e-9) and data["predict_s"] > 0


def test_what_pruning_lost_is_known_where_the_text_does_not_depend_on_the_tree(tiny_pair: Pair) -> None:
    assert SpeculativeDecoder(tiny_pair, "kary", 6, 12).generate(PROMPT).lost_tokens == 0
    lossy = SpeculativeDecoder(tiny_pair, "kary", 6, 12, Typical(), Sampling(temperature=1.0)).generate(PROMPT)
    assert lossy.lost_tokens is None and lossy.regret_tokens is None


def test_adaptive_trees_by_name_with_parameters(decoder: SpeculativeDecoder) -> None:
    limits = {"max_nodes_per_level": 3, "margin": 2.0, "budget": 20}
    made = SpeculativeDecoder(decoder.pair, tree="adaptive", max_new_tokens=16, max_time_s=1000, **limits)
    found = made.generate(PROMPT)
    assert found.token_ids == decoder.generate(PROMPT).token_ids
    assert not found.timed_out
    sizes = {step.tree.num_nodes for step in found.steps}
    assert 3 < max(sizes) <= 20
    widths = [step.tree.topology.depths.tolist().count(depth) for step in found.steps for depth in range(1, 9)]
    assert max(widths) == 3


def test_a_parameter_that_the_tree_does_not_have(decoder: SpeculativeDecoder) -> None:
    with pytest.raises(ConfigError, match=r"^margn=2: tree=adaptive has no such parameter; did you mean 'margin'\? "):
        SpeculativeDecoder(decoder.pair, tree="adaptive", margn=2)
    with pytest.raises(ConfigError, match=r"^k=2: tree=kary has no such parameter"):
        SpeculativeDecoder(decoder.pair, tree=Kary(), k=2)


def test_a_text_ends_where_its_time_is_over(decoder: SpeculativeDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second each time it is read: some steps are made, no more are begun."""
    seconds = itertools.count()
    timed = SpeculativeDecoder(decoder.pair, tree="kary", max_new_tokens=16, max_time_s=10)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    found, whole = timed.generate(PROMPT), decoder.generate(PROMPT)
    assert (found.timed_out, whole.timed_out) == (True, False)
    assert 0 < len(found.steps) < len(whole.steps)
    assert found.token_ids == whole.token_ids[: len(found.token_ids)]
    assert found.as_data()["timed_out"] is True


@pytest.mark.parametrize("limit", [0, -1.0, float("inf")])
def test_no_time(decoder: SpeculativeDecoder, limit: float) -> None:
    with pytest.raises(ConfigError, match=rf"^max_time_s={limit} is out of range; expected seconds, above 0$"):
        SpeculativeDecoder(decoder.pair, max_time_s=limit)


def test_a_notebook_draws_a_generation_and_its_steps(tiny_pair: Pair) -> None:
    watched = SpeculativeDecoder(tiny_pair, "kary", 6, max_new_tokens=16, watched=True).generate("<b>Once")
    drawn = watched._repr_html_()
    best = max(watched.steps, key=lambda step: step.accepted_tokens)
    assert best._repr_html_() in drawn and "<style" not in drawn
    assert escape(plain_text(watched.text)) in drawn
    assert f"{watched.tally.new_tokens} tokens in {watched.tally.steps} steps: {watched.block_efficiency:.2f}" in drawn
    assert best.graph.nodes[0].text == tiny_pair.decode_token(best.tree.token_list()[0])
    assert "<img" not in replace(watched, steps=[], text="<i>")._repr_html_()
    assert "<i>" not in replace(watched, steps=[], text="<i>")._repr_html_()
