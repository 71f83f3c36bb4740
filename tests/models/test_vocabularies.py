"""A target keeps its whole law, whatever ids its drafter has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny_models import EOS, VOCAB, byte_tokenizer, change_json, save_model, tiny_llama

from specdraft.acceptance.greedy import Greedy
from specdraft.acceptance.recursive import Recursive
from specdraft.config import Settings
from specdraft.drafters.base import RecordedText
from specdraft.drafters.pair import Pair, find_pair, load_pair
from specdraft.errors import ModelError, PromptError
from specdraft.losslessness.live_texts import Case, check_live
from specdraft.models.gate import rotary_scalings
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.sampling.distribution import Sampling
from specdraft.study.generate import SpeculativeDecoder
from specdraft.trees.shapes.kary import Kary

END, WORD = VOCAB, VOCAB + 1  # ids of the target alone: its end of sequence, and one that may stand within a text


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A target with two real tokens above its drafter's vocabulary (and padding above these); the drafter's head is
    padded too."""
    folder = tmp_path_factory.mktemp("wider")
    tokenizer = byte_tokenizer(extra_tokens=("Ġend", "Ġword"))
    target, draft = tiny_llama(vocab_size=VOCAB + 20), tiny_llama(num_hidden_layers=2, vocab_size=VOCAB + 1)
    with torch.no_grad():
        for weights in (target.lm_head.weight, target.get_input_embeddings().weight):
            weights[END], weights[WORD] = 1.05 * weights[244], 1.5 * weights[40]
            weights[WORD + 1 :] = 0
    target.generation_config.eos_token_id = target.config.eos_token_id = END
    paths = save_model(folder / "t", target, tokenizer), save_model(folder / "d", draft)
    return load_pair(PairSpec("wider", *(ModelSpec(str(path), device="cpu") for path in paths)))


PROMPTS = {
    str(seed): [0, *torch.randint(2, VOCAB, (6,), generator=torch.Generator().manual_seed(seed)).tolist()]
    for seed in range(12)
}


def oracle(pair: Pair, ids: list[int], new: int) -> list[int]:
    text = pair.target.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=list(range(WORD + 1, VOCAB + 20)),
    )
    return text[0, len(ids) :].tolist()


def test_texts_are_those_of_generate_with_ids_that_the_drafter_lacks(wider: Pair) -> None:
    decoder = SpeculativeDecoder(wider, Kary(k=2), budget=6, max_new_tokens=24)
    texts = [decoder.generate(ids).token_ids for ids in PROMPTS.values()]
    assert texts == [oracle(wider, ids, 24) for ids in PROMPTS.values()]
    assert any(text[-1] == END and len(text) < 24 for text in texts)
    assert any(WORD in text[:-1] for text in texts)
    assert wider.target.generate(PROMPTS["0"], 24, {END}) == texts[0]


def test_the_drafter_proposes_what_both_have_and_says_so_of_the_rest(wider: Pair) -> None:
    assert (wider.target.vocab, wider.drafter.model.vocab, wider.files.shared_ids) == (WORD + 1, VOCAB, VOCAB)
    text = RecordedText(PROMPTS["0"], torch.tensor([5, WORD, 9, END]).numpy())
    (said,) = wider.drafter.annotate([text])
    assert said.ranks[[1, 3]].tolist() == [-1, -1]
    assert (said.ranks[2] >= 0) and (said.top_ids < VOCAB).all()
    assert (said.entropy > 0).all()  # no number is lost to the ids that are not there


def test_an_id_that_has_no_embedding_is_read_as_the_end_of_a_text(wider: Pair) -> None:
    model = wider.drafter.model
    torch.testing.assert_close(model.after([0, 9, VOCAB + 1, 4]), model.after([0, 9, EOS, 4]))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0)])
def test_certified_against_the_whole_law(wider: Pair, sampling: Sampling) -> None:
    rule = Greedy() if sampling.greedy else Recursive()
    case = Case.of(Kary(k=2), 6, rule, sampling, 24)
    some = {name: PROMPTS[name] for name in ("0", "1")}
    (checked,) = check_live(wider, [case], some, texts=200, seed=0, done=lambda what: None)
    assert checked.passed, checked.verdict


def test_a_reference_that_is_cut_to_the_shared_ids_is_found(wider: Pair) -> None:
    """What was certified before: a target that is cut to its drafter's ids."""
    cut, whole = wider.target.vocab, wider.target.width
    wider.target.vocab = wider.target.width = VOCAB
    try:
        case = Case.of(Kary(k=2), 6, Greedy(), Sampling(), 24)
        generate = type(wider.target).generate
        wider.target.generate = lambda ids, new, eos: oracle(wider, list(ids), new)  # type: ignore[method-assign]
        (checked,) = check_live(wider, [case], PROMPTS, texts=200, seed=0, done=lambda what: None)
        assert not checked.passed
    finally:
        wider.target.vocab, wider.target.width = cut, whole
        del wider.target.generate
        assert type(wider.target).generate is generate


def test_rotary_factors_that_depend_on_the_length_are_refused(tmp_path: Path) -> None:
    plain = save_model(tmp_path / "t", tiny_llama())
    for kind, scaling in {
        "longrope": {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 40},
        "dynamic": {"factor": 2.0, "original_max_position_embeddings": 40},
    }.items():
        draft = save_model(tmp_path / kind, tiny_llama(num_hidden_layers=1))
        change_json(draft / "config.json", rope_parameters={"rope_type": kind, "rope_theta": 1e4, **scaling})
        files = find_pair(PairSpec("p", ModelSpec(str(plain)), ModelSpec(str(draft))))
        assert files.fit(list(range(2, 22)), Settings(max_new_tokens=16), depth=4) == list(range(2, 22))
        with pytest.raises(PromptError, match=r"changes its rotary factors after 40 positions .* needs 41: lower"):
            files.fit(list(range(2, 23)), Settings(max_new_tokens=16), depth=4)


def test_rotary_settings_by_layer_type_and_those_that_are_none(tmp_path: Path) -> None:
    plain, draft = save_model(tmp_path / "t", tiny_llama()), save_model(tmp_path / "d", tiny_llama())
    files = find_pair(PairSpec("p", ModelSpec(str(plain)), ModelSpec(str(draft)))).target
    long = {"rope_type": "longrope", "original_max_position_embeddings": 40}
    files.config.rope_parameters = {"full_attention": long, "sliding_attention": {"rope_type": "default"}}
    assert rotary_scalings(files.config) == [("longrope", long)]
    assert files.rotary_switch == 40
    del files.__dict__["rotary_switch"]
    long["original_max_position_embeddings"] = "x"
    with pytest.raises(ModelError, match=r"no usable config\.json: invalid literal"):
        _ = files.rotary_switch
