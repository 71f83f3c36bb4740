"""Hydra heads and recurrent drafters: what they say of a path in every layout, live and replayed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support.drafting import record_all
from support.path_heads import (
    fitted_path_heads,
    hydra_said,
    random_hydra,
    random_redrafter,
    redrafter_config,
    redrafter_said,
    save_tensors,
)
from support.position_wise import Heads, check_best_first, check_static, heads_on
from support.tiny_models import VOCAB, PairFolders

from specdraft.acceptance import Greedy
from specdraft.commands.options import USAGE
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import DrafterSpec
from specdraft.drafters.base import GivenTrees, RecordedText
from specdraft.drafters.hydra import Hydra
from specdraft.drafters.loaded import last_state, path_wise
from specdraft.drafters.loaded.hydra import HydraHeads
from specdraft.drafters.loaded.path_wise import PathWiseDrafter, TreeOfPaths
from specdraft.drafters.loaded.redrafter import RecurrentHeads
from specdraft.drafters.pair import Pair, load_pair
from specdraft.drafters.redrafter import Redrafter
from specdraft.errors import ModelError
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import registry
from specdraft.trees.shapes.beam_search import BeamSearch
from specdraft.trees.shapes.best_first import BestFirst, BestFirstPlan

WIDTH, DEPTHS = 32, 3


class Kind(NamedTuple):
    """Tensors, what config.json says, the drafter of a folder, and what is said of a state and a path."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    drafter: Callable[[str], DrafterSpec]
    said: Callable[..., torch.Tensor]

    def on(self, tiny_pair: Pair, folder: Path) -> Pair:
        save_tensors(folder, self.tensors, self.config)
        return load_pair(tiny_pair.files.spec, self.drafter(str(folder)), target_of=tiny_pair)


def hydra(path: str) -> DrafterSpec:
    return Hydra(path=path, heads=DEPTHS)


def redrafter(path: str) -> DrafterSpec:
    return Redrafter(path=path, depth=DEPTHS)


KINDS = {
    "hydra": Kind(random_hydra(WIDTH, VOCAB), {}, hydra, hydra_said),
    "hydra-one-block": Kind(random_hydra(WIDTH, VOCAB, blocks=1), {}, hydra, hydra_said),
    "redrafter": Kind(random_redrafter(WIDTH, VOCAB, 24), redrafter_config(WIDTH, 24), redrafter, redrafter_said),
    "redrafter-wide": Kind(
        random_redrafter(WIDTH, VOCAB, 64, 1), redrafter_config(WIDTH, 64, 1), redrafter, redrafter_said
    ),
    "redrafter-sums": Kind(
        random_redrafter(WIDTH, VOCAB, 24, 1, rnn=False),
        redrafter_config(WIDTH, 24, 1, rnn=False),
        redrafter,
        redrafter_said,
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def state_before_root(pair: Pair, text: list[int]) -> torch.Tensor:
    """`[width]` after the final norm, straight from the model; the root is the text's last token."""
    with torch.inference_mode():
        states: torch.Tensor = pair.target.model.model(torch.tensor([text[:-1]])).last_hidden_state[0, -1]
    return states


def check_steps(kind: Kind, pair: Pair, plan: Any) -> None:
    """Slow and plain: after each step the whole text goes through the target again, and each path through the heads."""
    prompt, embed = pair.encode("Once upon"), pair.target.model.get_input_embeddings().weight.detach()
    decoding = decode(Verifier.of(pair), pair.drafter, plan, Greedy(), Sampling(), prompt, Ending(9)).finish()
    text = [*prompt, decoding.first]
    for step in decoding.steps:
        state, tokens, topology = state_before_root(pair, text), step.tree.token_list(), step.tree.topology
        for node, path in enumerate(topology.paths):
            if node:
                above = [embed[tokens[topology.paths.index(path[:length])]] for length in range(len(path))]
                said = kind.said(kind.tensors, state, above)
                assert tokens[node] == said.argsort(descending=True)[path[-1]]
        text += step.tokens


@pytest.mark.parametrize("tree", ["kary", "chain"])
def test_every_node_is_drafted_from_its_path(tree: str, kind: Kind, tiny_pair: Pair, tmp_path: Path) -> None:
    check_steps(kind, kind.on(tiny_pair, tmp_path / "heads"), registry()[tree]().at(3 if tree == "chain" else 14))


def test_dynamic_trees_too(kind: Kind, tiny_pair: Pair, tmp_path: Path) -> None:
    check_steps(kind, kind.on(tiny_pair, tmp_path / "heads"), BestFirst(max_depth=3, max_children=4).at(12))


def test_the_targets_output_layer(tiny_pair: Pair, tmp_path: Path) -> None:
    output = tiny_pair.target.model.lm_head.weight.detach()
    tensors = random_hydra(WIDTH, VOCAB)
    inside = {name: tensor for name, tensor in tensors.items() if "hydra_mlp" in name}
    outputs = {f"hydra_lm_head.{head}.weight": output for head in range(DEPTHS)}
    outputs |= {f"hydra_lm_head.{head}.bias": torch.zeros(VOCAB) for head in range(DEPTHS)}
    whole = Kind(inside | outputs, {}, hydra, hydra_said)
    check_steps(whole, Kind(inside, {}, hydra, hydra_said).on(tiny_pair, tmp_path / "a"), registry()["kary"]().at(14))
    tensors = random_redrafter(WIDTH, VOCAB, WIDTH)
    inside = {name: tensor for name, tensor in tensors.items() if name != "lm_head.2.weight"}
    config = redrafter_config(WIDTH, WIDTH)
    whole = Kind(inside | {"lm_head.2.weight": output}, config, redrafter, redrafter_said)
    pair = Kind(inside, config, redrafter, redrafter_said).on(tiny_pair, tmp_path / "b")
    check_steps(whole, pair, registry()["kary"]().at(14))


class TestWiring:
    """What is wired wrongly is refused at load, or is not what is spelled out."""

    KIND = KINDS["hydra"]

    def wrong(self, tiny_pair: Pair, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="the target's states are not those that its heads read"):
            self.KIND.on(tiny_pair, tmp_path / "heads")

    def spelled_out(self, kind: str, tiny_pair: Pair, tmp_path: Path) -> None:
        with pytest.raises(AssertionError):
            test_every_node_is_drafted_from_its_path("kary", KINDS[kind], tiny_pair, tmp_path)

    def test_the_state_before_the_norm(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(last_state, "LAST", -2)
        self.wrong(tiny_pair, tmp_path)

    def test_the_state_of_the_root(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def commit(self: PathWiseDrafter, tree: Any, accepted: Any, hidden: torch.Tensor) -> None:
            self._before = hidden[:1, 0]

        monkeypatch.setattr(PathWiseDrafter, "commit", commit)
        self.wrong(tiny_pair, tmp_path)

    def test_texts_read_one_token_late(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = PathWiseDrafter._ids
        monkeypatch.setattr(PathWiseDrafter, "_ids", lambda self, tokens: ids(self, np.roll(tokens, -1)))
        self.wrong(tiny_pair, tmp_path)

    def test_all_of_a_level_read_the_first_path(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = TreeOfPaths._read
        monkeypatch.setattr(TreeOfPaths, "_read", lambda self, above, *given: read(self, 0 * above + above[0], *given))
        self.spelled_out("hydra", tiny_pair, tmp_path)

    @pytest.mark.parametrize(("kind", "heads"), [("hydra", HydraHeads), ("redrafter", RecurrentHeads)])
    def test_the_root_is_not_read(
        self, kind: str, heads: type, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = heads.read  # type: ignore[attr-defined]
        monkeypatch.setattr(
            heads, "read", lambda self, carried, tokens, depth: read(self, carried, tokens * (depth > 0), depth)
        )
        self.spelled_out(kind, tiny_pair, tmp_path)

    def test_a_cell_that_forgets(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read = RecurrentHeads.read

        def forgets(self: RecurrentHeads, carried: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
            return read(self, self.begin(carried.chunk(2, -1)[0]), *given)

        monkeypatch.setattr(RecurrentHeads, "read", forgets)
        self.spelled_out("redrafter", tiny_pair, tmp_path)


PROMPTS = ("The harbour was", "def add(a, b):", "List three")


def zoo_with(kind: str, texts: tuple[str, ...], new_tokens: int, folder: Path) -> Heads:
    """The bundled target with heads that were fitted to two of the texts."""
    pair = load_pair("zoo")
    prompts = [pair.encode(text) for text in texts[:2]]
    recorded = record_all(pair.target, prompts, Ending(new_tokens, pair.eos_ids))
    fitted_path_heads(folder, kind, pair.target, prompts, recorded)
    drafter = Hydra(path=str(folder)) if kind == "hydra" else Redrafter(path=str(folder))
    return heads_on(load_pair(pair.files.spec, drafter, target_of=pair), texts, new_tokens)


@pytest.fixture(scope="module", params=["hydra", "redrafter"])
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Heads:
    return zoo_with(request.param, PROMPTS, 28, tmp_path_factory.mktemp("heads"))


@pytest.mark.parametrize(("tree", "budget"), [("chain", 4), ("kary", 14), ("medusa", 63), ("measured", 16)])
def test_live_is_replay(tree: str, budget: int, zoo: Heads) -> None:
    assert check_static(zoo, tree, budget) > 10


@pytest.mark.parametrize("budget", [6, 32])
def test_best_first_trees_live_and_replayed(budget: int, zoo: Heads) -> None:
    check_best_first(zoo, budget)
    check_best_first(zoo, budget, BeamSearch(width=3))


@pytest.mark.parametrize("drafter", [Hydra(), Redrafter()])
def test_starts_in_parts_grow_the_same_trees(drafter: DrafterSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = heads_on(load_pair("zoo", drafter), PROMPTS[:1], 28)
    plan = BestFirst(max_depth=4, max_children=5).at(16)
    (whole,) = heads.pair.drafter.expand(heads.texts, plan)
    monkeypatch.setattr(path_wise, "starts_at_once", lambda plan: 5)
    (parts,) = heads.pair.drafter.expand(heads.texts, plan)
    for one, other in zip(whole[:3], parts[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_text_is_the_targets_own(zoo: Heads) -> None:
    plan, setting = registry()["kary"]().at(14), (Greedy(), Sampling())
    decoding = decode(Verifier.of(zoo.pair), zoo.pair.drafter, plan, *setting, zoo.prompts[0], zoo.ending).finish()
    assert decoding.tokens == decode_plainly(Verifier(zoo.pair.target), Sampling(), zoo.prompts[0], zoo.ending)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hydra", "redrafter"])
def test_live_is_replay_on_twenty_prompts(kind: str, tmp_path: Path) -> None:
    texts = tuple(prompt.text for prompt in load_prompts(PromptSpec())[:20])
    heads = zoo_with(kind, texts, 48, tmp_path)
    for tree, budget in (("chain", 4), ("kary", 14), ("medusa", 63), ("measured", 16)):
        assert check_static(heads, tree, budget) > 50


def test_given_trees_are_scored_by_what_is_expanded(zoo: Heads) -> None:
    """Best-first trees, scored as given ones: the same tokens and probabilities."""
    text = zoo.texts[0]
    trees = next(zoo.pair.drafter.expand([text], BestFirstPlan(20, 4, 3)))
    (said,) = zoo.pair.drafter.score([text], [GivenTrees(trees.parent, trees.rank)], 1.0)
    np.testing.assert_array_equal(said.expansion.token, trees.token)
    np.testing.assert_allclose(said.expansion.log_prob, trees.log_prob, atol=1e-4)


def test_logits_along_texts_are_those_of_the_roots_children(zoo: Heads) -> None:
    whole = torch.cat(list(zoo.pair.drafter.logits_along(zoo.texts, 7)), 1)
    for row, (text, annotation) in enumerate(zip(zoo.texts, zoo.annotations, strict=True)):
        assert whole[row, 1 : len(text.tokens)].argmax(-1).tolist() == annotation.top_ids[1:, 0].tolist()
        assert annotation.ranks.shape == (len(text.tokens), 4)


def test_ranks_along_a_text_are_those_of_its_paths(kind: Kind, tiny_pair: Pair, tmp_path: Path) -> None:
    pair = kind.on(tiny_pair, tmp_path / "heads")
    text, embed = tiny_pair.encode("Once upon a t"), tiny_pair.target.model.get_input_embeddings().weight.detach()
    prompt, tokens = text[:5], np.array(text[5:])
    (states,) = pair.target.states_along([prompt], [tokens], (-1,))
    (annotation,) = pair.drafter.annotate([RecordedText(prompt, tokens, states)])
    for root in range(len(tokens) - 1):
        for depth in range(1, min(DEPTHS, len(tokens) - 1 - root) + 1):
            path = [embed[token] for token in tokens[root : root + depth].tolist()]
            said = kind.said(kind.tensors, state_before_root(pair, text[: 6 + root]), path)
            rank = said.argsort(descending=True).tolist().index(int(tokens[root + depth]))
            assert annotation.ranks[root + depth, depth - 1] == rank


HYDRA_REFUSED = {
    "another target": ({"hydra_mlp.1.0.linear.weight": torch.zeros(32, 64)}, "heads of this target have 32 x 96"),
    "a prefix layer": ({"prefix_embeding_layer.norm.weight": torch.zeros(32)}, "(Hydra++) are not supported"),
    "no part": ({"medusa.0": torch.zeros(2)}, "medusa.0 is no part of Hydra heads in the authors' layout"),
    "no way round": ({"hydra_mlp.2.0.res_connection.weight": None}, "hydra_mlp.2.0.res_connection.weight is missing"),
    "a head less": ({f"hydra_lm_head.1.{part}": None for part in ("weight", "bias")}, "head 1 lacks its output layer"),
}


@pytest.mark.parametrize("what", HYDRA_REFUSED)
def test_bad_hydra_heads(what: str, tiny_pair_folders: PairFolders, tmp_path: Path, run: Any) -> None:
    changed, said = HYDRA_REFUSED[what]
    refused("hydra", KINDS["hydra"].tensors | changed, {}, said, tiny_pair_folders, tmp_path, run, "drafter.heads=3")


REDRAFTER_REFUSED = {
    "another target": ({"hidden_size": 16}, {}, "hidden_size=16; this target's states have 32 numbers"),
    "no layout": ({"exit_dim": None}, {}, "config.json says exit_dim=None; a recurrent drafter in the authors' layout"),
    "no cell": ({"rnn": False}, {}, "rnn_u.bias is no part of a recurrent drafter as config.json describes it"),
    "a missing tensor": ({}, {"rnn_u.bias": None}, "rnn_u.bias is missing; the head is not whole"),
    "no output layer": ({}, {"lm_head.2.weight": None}, "lm_head.2.weight is missing, and exit_dim=24 does not fit"),
    "other ids": ({}, {"lm_head.2.weight": torch.zeros(9, 24)}, f"is 9 x 24; heads of this target have {VOCAB} x 24"),
}


@pytest.mark.parametrize("what", REDRAFTER_REFUSED)
def test_bad_recurrent_heads(what: str, tiny_pair_folders: PairFolders, tmp_path: Path, run: Any) -> None:
    config, changed, said = REDRAFTER_REFUSED[what]
    tensors, config = KINDS["redrafter"].tensors | changed, redrafter_config(WIDTH, 24) | config
    refused("redrafter", tensors, config, said, tiny_pair_folders, tmp_path, run)


def refused(
    kind: str, tensors: dict[str, Any], config: Any, said: str, pair: PairFolders, folder: Path, run: Any, *more: str
) -> None:
    save_tensors(folder / "heads", {name: t for name, t in tensors.items() if t is not None}, config)
    grid = [f"pair.{role}.path={getattr(pair, role)}" for role in ("target", "draft")]
    grid += [f"drafter={kind}", f"drafter.path={folder / 'heads'}", "budget=3", "tree=chain", *more]
    ended = run("sweep", *grid, "--out", folder / "out", "--dry-run")
    assert ended.code == USAGE
    assert said in ended.err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["hydra", "redrafter"])
def test_trees_end_where_the_heads_end(kind: str, tiny_pair_folders: PairFolders, tmp_path: Path, run: Any) -> None:
    name = "heads" if kind == "hydra" else "depth"
    save_tensors(tmp_path / "heads", KINDS[kind].tensors, KINDS[kind].config)
    grid = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    grid += [f"drafter={kind}", f"drafter.path={tmp_path / 'heads'}", f"drafter.{name}=3", "budget=4", "tree=chain"]
    ended = run("sweep", *grid, "--out", tmp_path / "out", "--dry-run")
    assert ended.code == USAGE
    assert "4 levels" in ended.err
