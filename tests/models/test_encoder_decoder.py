from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import PairFolders, change_json, save_pair
from support.tiny_t5 import ARCHITECTURES, EOS, PAD, VOCAB, save_t5_pair, tiny_t5

from specdraft.decoding.verifier import Verifier
from specdraft.drafters import DrafterSpec, registry
from specdraft.drafters.pair import find_pair, load_pair
from specdraft.errors import ConfigError, ModelError, UnsupportedModelError
from specdraft.losslessness.ties import rounding_between
from specdraft.models import branches, encoder_decoder
from specdraft.models.batch import Batch, along, causal
from specdraft.models.branches import Branches
from specdraft.models.encoder_decoder import EncoderDecoder, distance_biases
from specdraft.models.likelihood import nll
from specdraft.models.loading import cached
from specdraft.models.self_check import self_check
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

PROMPT, TEXT = [40, 7, 99, 180, 3, EOS], [12, 200, 31, 77]


def random_tree(rng: np.random.Generator, nodes: int) -> DraftTree:
    """A tree of any form, with random tokens."""
    parents = [-1, *(int(rng.integers(node)) for node in range(1, nodes + 1))]
    ranks = [parents[:node].count(parent) for node, parent in enumerate(parents)]
    return DraftTree(Topology(parents, ranks), rng.integers(2, VOCAB, nodes + 1).tolist())


def loaded(name: str = "t5", **changes: Any) -> EncoderDecoder:
    model = cached(tiny_t5(name, **changes), VOCAB)
    assert isinstance(model, EncoderDecoder)
    return model


@torch.inference_mode()
def by_paths(model: Any, prompt: Sequence[int], text: Sequence[int], tree: DraftTree) -> torch.Tensor:
    """`[n + 1, vocab]` logits after each node, from one batch row a node: the path from the root down to it, as
    transformers' own forward reads it."""
    parents, tokens = tree.topology.parents.tolist(), tree.token_list()
    said = []
    for node in range(len(tree)):
        path, above = [], node
        while above >= 0:
            path, above = [tokens[above], *path], parents[above]
        row = torch.tensor([[PAD, *text, *path]])
        said.append(model(input_ids=torch.tensor([list(prompt)]), decoder_input_ids=row).logits[0, -1])
    return torch.stack(said)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_tree_is_what_its_paths_are_one_by_one(name: str) -> None:
    """Three steps: a tree, an accepted path in its middle, and the next tree below it."""
    model, rng, text = loaded(name), np.random.default_rng(3), list(TEXT)
    verifier = Verifier(model)
    verifier.prefill(PROMPT)
    model.prefill(TEXT)
    for _ in range(3):
        tree = random_tree(rng, 12)
        logits = verifier.verify(tree).logits
        torch.testing.assert_close(logits, by_paths(model.model, PROMPT, text, tree), atol=1e-4, rtol=1e-4)
        leaf = int(tree.topology.depths.argmax())
        path = [leaf]
        while (above := int(tree.topology.parents[path[0]])) > 0:
            path = [above, *path]
        verifier.commit(path)
        text += [tree.token_list()[node] for node in (0, *path)]
    assert model.length == 1 + len(text)


@pytest.mark.parametrize("name", ["t5", "mt5"])
@pytest.mark.parametrize("buckets", [{}, {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}])
def test_biases_are_those_of_the_decoder(name: str, buckets: dict[str, int]) -> None:
    model = tiny_t5(name, **buckets)
    attention = model.get_decoder().block[0].layer[0].SelfAttention
    wanted = attention.compute_bias(1, 400, past_seen_tokens=399)[0, :, 0].flip(-1)  # of 0, 1, ... tokens back
    biases = distance_biases(model.get_parameter(encoder_decoder.BIASES), model.config)
    assert biases.shape == (4, 1 + model.config.relative_attention_max_distance)
    torch.testing.assert_close(biases[:, torch.arange(400).clamp(max=biases.shape[1] - 1)], wanted, atol=0, rtol=0)


def test_plain_text_is_that_of_generate_from_both_caches() -> None:
    model = loaded()
    wanted = model.generate(PROMPT, 12, [EOS])
    text: list[int] = []
    logits = model.prefill(PROMPT).logits
    for _ in wanted:
        text.append(int(logits.argmax()))
        torch.testing.assert_close(logits, model.after(PROMPT, text[:-1]), atol=1e-4, rtol=1e-4)
        logits = model.extend(text[-1])
    assert text == wanted
    assert len(set(text)) > 3


def test_the_encoder_runs_once_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, runs = loaded(), []
    encoder = model.model.get_encoder()
    encoder.register_forward_hook(lambda *given: runs.append(1))
    verifier = Verifier(model)
    verifier.prefill(PROMPT)
    for _ in range(3):
        verifier.verify(random_tree(np.random.default_rng(0), 5))
        verifier.commit([])
    verifier.rewind()
    assert (len(runs), model.length) == (1, 1)


def test_unequal_prompts_side_by_side() -> None:
    model, prompts = loaded(), [PROMPT, PROMPT[:2], [*PROMPT, *PROMPT]]
    texts = [np.array([*TEXT, row]) for row in range(3)]
    slices = list(along(model, prompts, texts, 2))
    logits = torch.cat(slices, 1)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        for place in range(len(text)):
            wanted = model.after(prompt, text[:place].tolist())
            torch.testing.assert_close(logits[row, place], wanted, atol=1e-4, rtol=1e-4)
        assert nll(model, prompt, text.tolist()) == pytest.approx(
            -sum(float(logits[row, i].double().log_softmax(-1)[token]) for i, token in enumerate(text)), abs=1e-3
        )


@pytest.mark.parametrize("most", [1, 64])
@torch.inference_mode()
def test_branches_below_texts_of_different_prompts(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "most_of_row", lambda slots: most)
    model, prompts = loaded(), [PROMPT, PROMPT[:3]]
    batch = Batch(model, prompts)
    trunk = [[11, 12, 13], [21, 22, 23]]
    batch.append(torch.tensor(trunk), torch.arange(3)[None], causal(0, 3, model.device))
    below, none = Branches(model, batch), np.full((4, 2), -1)
    text, seen, tokens = np.array([0, 0, 1, 1]), np.array([1, 3, 0, 3]), np.array([41, 42, 43, 44])
    first = below.feed(tokens, text, seen, none)
    above = none.copy()
    above[:, 0] = [1, 1, 2, 3]
    second = below.feed(tokens + 10, np.array([0, 0, 1, 1]), seen[[1, 1, 2, 3]], above)
    for fed, more in ((first, False), (second, True)):
        for n, logits in enumerate(fed.padded[fed.place]):
            node = int(above[n, 0]) if more else n
            path = [*trunk[text[node]][: seen[node]], int(tokens[node]), *([int(tokens[n]) + 10] if more else [])]
            torch.testing.assert_close(logits, model.after(prompts[text[node]], path), atol=1e-4, rtol=1e-4)


class InSlotOrder(EncoderDecoder):
    def placed(self, full: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        return full


class TwiceTheDifference(EncoderDecoder):
    def placed(self, full: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        mask = super().placed(full, positions, slots)
        return torch.where(full == 0, 2 * mask, full)


@pytest.mark.parametrize("wrong", [InSlotOrder, TwiceTheDifference])
def test_the_self_check_sees_wrong_biases(wrong: type[EncoderDecoder]) -> None:
    with pytest.raises(UnsupportedModelError, match="self-check failed"):
        self_check(wrong(tiny_t5(), VOCAB), "wrong")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_types(dtype: torch.dtype) -> None:
    model = cached(tiny_t5().to(dtype), VOCAB)
    check = self_check(model, "half")
    assert check.passed
    assert check.rounding < 0.1 * check.control
    gap, differ_by = rounding_between(model, PROMPT, TEXT, [5, 9])
    assert 0 < differ_by < 0.2
    assert rounding_between(model, PROMPT, [], [5, 9])[1] < 0.2
    assert gap > 0


class TestRefusals:
    def test_a_draft_model_of_the_other_kind(self, t5_pair_folders: PairFolders, tmp_path: Path) -> None:
        other = save_pair(tmp_path)
        for target, draft in ((t5_pair_folders.target, other.draft), (other.target, t5_pair_folders.draft)):
            spec = PairSpec("mixed", *(ModelSpec(str(folder), device="cpu") for folder in (target, draft)))
            with pytest.raises(ModelError, match=r"pair mixed: .*t5-pair.* is an encoder-decoder and .* is not"):
                load_pair(spec)

    @pytest.mark.parametrize("kind", sorted(set(registry()) - {"model", "ngram", "suffix"}))
    def test_drafters_of_decoders(self, kind: str, t5_pair_folders: PairFolders) -> None:
        files = find_pair(t5_pair_folders.spec())
        drafter: DrafterSpec = registry()[kind]()
        with pytest.raises(ConfigError, match=rf"drafter={kind} drafts for decoder-only targets; .*drafter=model"):
            drafter.check_target(files.target)

    def test_no_start_token(self, tmp_path: Path) -> None:
        folders = save_t5_pair(tmp_path)
        for name in ("config.json", "generation_config.json"):
            change_json(folders.target / name, decoder_start_token_id=None)
        with pytest.raises(ModelError, match="decoder_start_token_id"):
            load_pair(folders.spec())
