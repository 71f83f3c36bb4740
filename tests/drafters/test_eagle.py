"""EAGLE heads: what they say in every layout, from scratch, live and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.eagle import CONFIG, FIRST, LAYOUTS, SHAPE, random_head, renamed, save_eagle
from support.position_wise import Heads, heads_on, replayed
from support.recorded import untimed
from support.tallied import replay_dynamic
from support.tiny_models import VOCAB, PairFolders
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from specdraft.acceptance import Greedy, NoReplacement
from specdraft.commands.options import USAGE
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Drawing, GivenTrees, Prefilled, RecordedText
from specdraft.drafters.eagle import Eagle
from specdraft.drafters.loaded import eagle as loading
from specdraft.drafters.loaded import eagle_along, eagle_drafter
from specdraft.drafters.loaded.eagle_drafter import EagleDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError, ModelError
from specdraft.models.eagle_head import EagleHead, KeyValues, Out
from specdraft.models.eagle_layout import EagleShape, default_layers, eagle_names
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource
from specdraft.trees.shapes import registry
from specdraft.trees.shapes.beam_search import BeamSearch
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.expand_rerank import ExpandRerank
from specdraft.trees.shapes.kary import Kary

IDS = torch.arange(100, 40, -2).sort().values  # of a draft vocabulary
MAPS = {"d2t": IDS - torch.arange(len(IDS)), "t2d": torch.isin(torch.arange(VOCAB), IDS)}


def with_head(tiny_pair: Pair, folder: Path, depth: int = 4) -> Pair:
    return load_pair(tiny_pair.files.spec, Eagle(path=str(folder), depth=depth), target_of=tiny_pair)


def saved(folder: Path, shape: EagleShape, **more: torch.Tensor) -> Path:
    """In EAGLE-3's authors' layout, or for version 1 in EAGLE-1's."""
    tensors = renamed(random_head(shape).state_dict(), {"layers.0.": "midlayer."} if shape.version == 3 else {})
    told = {key: getattr(shape, key) for key in ("norm_before_residual", "norm_output")}
    return save_eagle(folder, tensors | more, CONFIG | told)


@pytest.fixture
def tiny(tiny_pair: Pair, tmp_path: Path) -> Pair:
    return with_head(tiny_pair, saved(tmp_path / "head", SHAPE))


def drafted(pair: Pair) -> torch.Tensor:
    """`[8, vocab]` what was drafted by after a short prompt, and after a step that accepted one token."""
    prompt, logits = pair.encode("Once"), []
    layers = pair.drafter.traits.hidden_layers
    (states,) = pair.target.states_along([prompt], [np.array([70, 71, 72])], layers)
    pair.drafter.begin(Prefilled(prompt, states[: len(prompt)]))
    for root, hidden in ((70, states[-2:]), (72, None)):
        tree = pair.drafter.draft(root, Kary().at(6), Drawing(keep_logits=True))
        assert tree.chosen_from is not None
        logits.append(tree.chosen_from.logits)
        if hidden is not None:
            taken = torch.tensor(tree.token_list())
            taken[1] = 71
            pair.drafter.commit(replace(tree, tokens=taken), [1], hidden)
    return torch.cat(logits)


class TestLayouts:
    @pytest.mark.parametrize("version", [1, 3])
    def test_two_layouts_of_one_head_say_the_same(self, version: int, tiny_pair: Pair, tmp_path: Path) -> None:
        said = []
        for name, whose in ((f"authors{version}", "the authors'"), (f"speculators{version}", "speculators'")):
            shape, prefixes, config = LAYOUTS[name]
            folder = save_eagle(tmp_path / name, renamed(random_head(shape).state_dict(), prefixes), config)
            pair = with_head(tiny_pair, folder)
            assert pair.describe()["draft"]["layout"] == f"EAGLE-{version}, {whose}"
            said.append(drafted(pair))
        torch.testing.assert_close(*said, atol=0, rtol=0)
        assert said[0].std() > 0.5

    @pytest.mark.parametrize(
        "change",
        [
            {"norm_before_residual": True},
            {"norm_before_fc": True},
            {"fc_norm": True},
            {"norm_output": True},
            {"layers": 2},
            {"attention_bias": True},
            {"mlp_bias": True},
            {"fc_bias": True},
            {"features": 2},
        ],
        ids=str,
    )
    def test_every_variant_is_what_its_config_or_its_tensors_say(
        self, change: dict[str, Any], tiny_pair: Pair, tmp_path: Path
    ) -> None:
        """The self-check compares with drafting from scratch; that the variant matters is seen here."""
        shape = replace(SHAPE, **change)
        folder = saved(tmp_path / "head", shape)
        if shape.features == 2:
            self.rewrite(folder, eagle_aux_hidden_state_layer_ids=[1, 3])
        pair = with_head(tiny_pair, folder)
        assert isinstance(pair.drafter, EagleDrafter)
        assert pair.drafter._model.head.shape == replace(shape, frequencies=pair.drafter._model.head.shape.frequencies)
        plain = with_head(tiny_pair, saved(tmp_path / "plain", SHAPE))
        assert (drafted(pair) - drafted(plain)).abs().max() > 0.1

    def rewrite(self, folder: Path, **changes: Any) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def test_eagle1_with_norms(self, tiny_pair: Pair, tmp_path: Path) -> None:
        shape = replace(FIRST, final_norm=True, embedding_norm=True, first_norm=True, fc_bias=True)
        prefixes = {"layers.0.": "transformer.", "fc.": "fusion_fc.", "norm.": "pre_lm_head_layernorm."}
        prefixes |= {"embedding_norm.": "embedding_layernorm."}
        config = LAYOUTS["speculators1"][2] | {"layernorms": True, "fusion_bias": True}
        folder = save_eagle(tmp_path / "head", renamed(random_head(shape).state_dict(), prefixes), config)
        drafter = with_head(tiny_pair, folder).drafter
        assert isinstance(drafter, EagleDrafter)
        assert drafter._model.head.shape == replace(shape, frequencies=drafter._model.head.shape.frequencies)

    def test_rotary_settings(self, tiny_pair: Pair, tmp_path: Path) -> None:
        """Of the config's; Llama 3.1's factors as `transformers` makes them."""
        scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        scaling |= {"original_max_position_embeddings": 64, "rope_theta": 500.0}
        folder = saved(tmp_path / "head", SHAPE)
        self.rewrite(folder, rope_scaling=scaling)
        drafter = with_head(tiny_pair, folder).drafter
        assert isinstance(drafter, EagleDrafter)
        config = LlamaConfig(
            hidden_size=32, num_attention_heads=4, max_position_embeddings=512, rope_parameters=scaling
        )
        expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        torch.testing.assert_close(drafter._model.head.rotary.frequencies, expected)


class TestDraftVocabulary:
    def test_other_ids_are_never_proposed(self, tiny_pair: Pair, tmp_path: Path) -> None:
        """With rows of its own, or with the target's: `d2t` says by how much an id is more than its row."""
        output = tiny_pair.target.model.lm_head.weight.detach()[IDS]
        own = with_head(tiny_pair, saved(tmp_path / "own", SHAPE, **MAPS, **{"lm_head.weight": output}))
        shared = with_head(tiny_pair, saved(tmp_path / "shared", SHAPE, **MAPS))
        whole = drafted(with_head(tiny_pair, saved(tmp_path / "whole", SHAPE)))[0]
        for pair in (own, shared):
            said = drafted(pair)[0]
            torch.testing.assert_close(said[IDS], whole[IDS])
            assert said.isneginf().sum() == VOCAB - len(IDS)
        text = RecordedText(*self.text(shared))
        (annotation,) = shared.drafter.annotate([text])
        outside = ~np.isin(text.tokens, IDS.numpy())
        assert outside[1:].any() and (annotation.ranks[outside] == -1).all()
        inside = ~outside[1:]
        assert (annotation.ranks[1:, 0][inside] >= 0).all() and (annotation.ranks < len(IDS)).all()

    def text(self, pair: Pair) -> tuple[list[int], np.ndarray, torch.Tensor]:
        prompt, tokens = pair.encode("Once"), np.array([50, 60, 61, 62, 200, 44])
        (states,) = pair.target.states_along([prompt], [tokens], pair.drafter.traits.hidden_layers)
        return prompt, tokens, states

    @pytest.mark.parametrize(
        ("maps", "said"),
        [
            ({"d2t": IDS, "t2d": MAPS["t2d"]}, "d2t and t2d name different ids"),
            ({"d2t": 6 * IDS}, "ids twice, or that the target does not have: it is no table of offsets"),
            ({"d2t": MAPS["d2t"] - 1, "t2d": MAPS["t2d"]}, "d2t and t2d name different ids"),
        ],
    )
    def test_absolute_ids_are_refused(
        self, maps: dict[str, torch.Tensor], said: str, tiny_pair: Pair, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError, match=said):
            with_head(tiny_pair, saved(tmp_path, SHAPE, **maps))


class TestWiring:
    """What is wired wrongly is refused at load."""

    def wrong(self, tiny_pair: Pair, tmp_path: Path, said: str = "differ by", **more: torch.Tensor) -> None:
        with pytest.raises(ModelError, match=f"the load-time self-check failed: .*{said}"):
            with_head(tiny_pair, saved(tmp_path / "head", SHAPE, **more))

    def test_what_is_right_passes(self, tiny: Pair) -> None:
        check = tiny.describe()["draft"]["self_check"]
        assert check["error"] < 1e-3
        assert check["control"] > 1

    def test_features_one_token_late(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        commit = EagleDrafter.commit

        def late(self: EagleDrafter, tree: Any, accepted: Any, hidden: torch.Tensor) -> None:
            commit(self, tree, accepted, hidden.roll(1, 0))

        monkeypatch.setattr(EagleDrafter, "commit", late)
        self.wrong(tiny_pair, tmp_path)

    def test_the_normed_state_is_fed_back(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def leave(self: EagleHead, states: torch.Tensor, kept: list[KeyValues]) -> Out:
            said = self.norm(states)
            return Out(said, said, kept)

        monkeypatch.setattr(EagleHead, "leave", leave)
        self.wrong(tiny_pair, tmp_path)

    def test_drafted_states_are_kept(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Accepted tokens are not read again: what was drafted stands for them."""
        draft, commit = EagleDrafter.draft, EagleDrafter.commit
        last: list[Any] = []

        def drifting(self: EagleDrafter, *asked: Any) -> Any:
            whole = eagle_drafter.below_one
            monkeypatch.setattr(eagle_drafter, "below_one", lambda *given: last.append(whole(*given)) or last[-1])
            tree = draft(self, *asked)
            monkeypatch.setattr(eagle_drafter, "below_one", whole)
            return tree

        def kept(self: EagleDrafter, tree: Any, accepted: Any, hidden: torch.Tensor) -> None:
            commit(self, tree, accepted, hidden)
            own = [KeyValues(*(part[0, :, : len(accepted)] for part in layer)) for layer in last[-1]._own]
            self._past = [past.then(new) for past, new in zip(self._past, own, strict=True)]
            self._tokens, self._features = self._tokens[:0], self._features[-1:]

        monkeypatch.setattr(EagleDrafter, "draft", drifting)
        monkeypatch.setattr(EagleDrafter, "commit", kept)
        self.wrong(tiny_pair, tmp_path)

    def test_d2t_is_taken_for_ids(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        offsets = {"d2t": torch.arange(1, 31)}  # which would be ids too
        monkeypatch.setattr(loading, "draft_ids", lambda tensors, *given: tensors["d2t"])
        self.wrong(tiny_pair, tmp_path, **offsets)

    def test_starts_see_one_entry_too_many(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Along texts only: the next token's entry leaks."""
        whole: Callable[..., Any] = eagle_along.Drafted
        monkeypatch.setattr(
            eagle_along, "Drafted", lambda model, past, seen, *more: whole(model, past, seen | seen.roll(1, 1), *more)
        )
        self.wrong(tiny_pair, tmp_path, "ranks along a text are not those of drafting it")


def tokens_per_step(zoo: Heads, tree: str, budget: int) -> float:
    tallies = replayed(zoo, tree, budget)
    return sum(counted.new_tokens - 1 for counted in tallies) / sum(counted.steps for counted in tallies)


@pytest.fixture(scope="module")
def zoo() -> Heads:
    return heads_on(load_pair("zoo", Eagle()), ("The harbour was", "def add(a, b):", "List three"), 28)


TREES = [("chain", 4), ("kary", 8), ("medusa", 63), ("measured", 16)]


@pytest.mark.parametrize(("tree", "budget"), TREES)
def test_live_is_replay(tree: str, budget: int, zoo: Heads) -> None:
    assert tokens_per_step(zoo, tree, budget) > 1.2


@pytest.mark.parametrize(
    "shape", [BestFirst(max_children=5), ExpandRerank(top_k=4, steps=5), BeamSearch(width=3)], ids=lambda s: s.kind
)
def test_dynamic_trees_are_replay_of_the_largest_budgets(shape: Any, zoo: Heads) -> None:
    expansions = list(zoo.pair.drafter.expand(zoo.texts, shape.at(24)))
    for budget in (6, 24):
        plan = shape.at(budget)
        tallies, _ = replay_dynamic(zoo.packed, expansions, plan)
        for prompt, counted in zip(zoo.prompts, tallies, strict=True):
            assert untimed(counted) == zoo.live(plan, prompt)


def test_the_text_is_the_targets_own(zoo: Heads) -> None:
    plan = registry()["kary"]().at(14)
    for prompt in zoo.prompts[:2]:
        made = decode(Verifier.of(zoo.pair), zoo.pair.drafter, plan, Greedy(), Sampling(), prompt, zoo.ending).finish()
        assert made.tokens == decode_plainly(Verifier(zoo.pair.target), Sampling(), prompt, zoo.ending)


def test_starts_in_parts_are_starts_together(zoo: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BestFirst(max_children=4).at(12)
    whole = next(zoo.pair.drafter.expand(zoo.texts[:1], plan))
    monkeypatch.setattr(eagle_along, "SCORES", {"cpu": 5 * 12 * 200, "cuda": 1})
    parts = next(zoo.pair.drafter.expand(zoo.texts[:1], plan))
    for name in ("parent", "rank", "token"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    (annotation,) = zoo.pair.drafter.annotate(zoo.texts[:1])
    np.testing.assert_array_equal(annotation.ranks, zoo.annotations[0].ranks)


def test_given_trees_are_scored_as_they_are_drafted(zoo: Heads) -> None:
    """Against the live tree of one start."""
    topology = registry()["kary"]().at(6).topology
    assert topology is not None
    (said,) = zoo.pair.drafter.score(zoo.texts[:1], [GivenTrees.of(topology)], 1.0)
    text, start = zoo.texts[0], 5
    assert text.hidden is not None
    ids = [*text.prompt_ids, *text.tokens[:start].tolist()]
    zoo.pair.drafter.begin(Prefilled(ids, text.hidden[: len(ids)]))
    tree = zoo.pair.drafter.draft(int(text.tokens[start]), registry()["kary"]().at(6), Drawing(keep_probs=True))
    assert said.expansion.token[start].tolist() == tree.token_list()[1:]
    assert tree.draft_probs is not None
    reached = [1.0]
    for node, parent in enumerate(topology.parents[1:].tolist(), start=1):
        reached.append(reached[parent] * float(tree.draft_probs[node]))
    np.testing.assert_allclose(said.expansion.log_prob[start], np.log(reached[1:]), atol=1e-4)


def test_logits_along_texts_are_the_first_offsets(zoo: Heads) -> None:
    slices = list(zoo.pair.drafter.logits_along(zoo.texts, 7))
    assert [part.shape[1] for part in slices[:2]] == [1, 7]
    whole = torch.cat(slices, 1)
    for row, (text, annotation) in enumerate(zip(zoo.texts, zoo.annotations, strict=True)):
        best = whole[row, 1 : len(text.tokens)].argmax(-1).tolist()
        assert best == annotation.top_ids[1:, 0].tolist()


def test_drawn_children_are_lossless(tiny: Pair) -> None:
    """Runs, and says the same twice."""
    plan, prompt = registry()["kary"]().at(6), tiny.encode("Once")
    texts = []
    for _ in range(2):
        source = RandomSource(torch.Generator().manual_seed(1))
        made = decode(
            Verifier.of(tiny), tiny.drafter, plan, NoReplacement(), Sampling(1.0), prompt, Ending(8), source
        ).finish()
        texts.append(made.tokens)
    assert texts[0] == texts[1]


def test_eagle3s_layers() -> None:
    assert default_layers(32, "x") == (2, 16, 29)
    assert default_layers(8, "x") == (2, 4, 5)
    with pytest.raises(ConfigError, match="the target has 4 layers, too few for three different ones of EAGLE-3"):
        default_layers(4, "x")


@pytest.mark.parametrize(
    ("change", "config", "said"),
    [
        ({}, {"eagle_aux_hidden_state_layer_ids": None}, "the target has 3 layers, too few for three different ones"),
        ({}, {"eagle_aux_hidden_state_layer_ids": [1, 1, 2]}, "expected different ones of 0 to 3"),
        ({}, {"eagle_aux_hidden_state_layer_ids": [1, 2]}, "fc reads 3 states of the target, and config.json names 2"),
        ({}, {"speculators_model_type": "dflash"}, "config.json describes dflash, not an EAGLE head"),
        ({}, {"speculators_model_type": "eagle"}, "config.json describes eagle, and its tensors are EAGLE-3's"),
        ({}, {"rope_scaling": {"rope_type": "yarn"}}, "config.json has rope type yarn"),
        ({"norm.weight": torch.ones(9)}, {}, "norm.weight is 9; a head of this target has 32"),
        ({"odd.weight": torch.ones(9)}, {}, "odd.weight is no part of an EAGLE-3, the authors' head"),
        ({"lm_head.weight": torch.ones(9, 32)}, {}, "lm_head has 9 rows of 258 ids, and no d2t says which"),
        ({"fc.weight": torch.ones(32, 90)}, {}, "fc.weight is 32 x 90; the target's states have 32 numbers"),
    ],
)
def test_bad_input_is_one_line(
    change: dict[str, torch.Tensor],
    config: dict[str, Any],
    said: str,
    tiny_pair_folders: PairFolders,
    tmp_path: Path,
    run: Any,
) -> None:
    tensors = renamed(random_head(SHAPE).state_dict(), {"layers.0.": "midlayer."}) | change
    folder = save_eagle(tmp_path / "head", tensors, CONFIG | config)
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    grid = [*pair, "drafter=eagle", f"drafter.path={folder}", "budget=3", "tree=kary"]
    ended = run("sweep", *grid, "--out", tmp_path / "out", "--dry-run")
    assert ended.code == USAGE
    assert said in ended.err.splitlines()[-1]


def test_too_deep_a_tree(tiny_pair_folders: PairFolders, tmp_path: Path, run: Any) -> None:
    pair = [f"pair.target.path={tiny_pair_folders.target}", "drafter=eagle", f"drafter.path={saved(tmp_path, SHAPE)}"]
    ended = run("sweep", *pair, "drafter.depth=2", "tree=chain", "budget=3", "--out", tmp_path / "out", "--dry-run")
    assert ended.code == USAGE
    assert "chain has 3 levels; drafter=eagle-d2 makes at most 2" in ended.err.splitlines()[-1]


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no layout of EAGLE heads is known that has a\.weight; expected"):
        eagle_names({}, {"a.weight": (1,)}, None, "x")


@pytest.mark.slow
def test_live_is_replay_on_twenty_prompts() -> None:
    texts = [prompt.text for prompt in load_prompts(PromptSpec())[::4]]
    zoo = heads_on(load_pair("zoo", Eagle()), texts, 48)
    assert len(texts) == 20
    for tree, budget in TREES:
        assert tokens_per_step(zoo, tree, budget) > 1.2
