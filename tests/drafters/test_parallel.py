"""Block heads: what they say in every layout, what each start sees, live and replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.block import SHAPE, block_said, random_block, save_block, speculators_config, zlab_config
from support.position_wise import Heads, check_best_first, check_static, heads_on
from support.tiny_models import VOCAB, PairFolders

from specdraft.acceptance import Greedy
from specdraft.commands.options import USAGE
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded import parallel
from specdraft.drafters.loaded.parallel import ParallelDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.drafters.parallel import Parallel
from specdraft.errors import ModelError
from specdraft.models.block_head import Attention, BlockHead
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import registry
from specdraft.trees.shapes.chain import Chain


def with_block(tiny_pair: Pair, folder: Path, depth: int = 4) -> Pair:
    return load_pair(tiny_pair.files.spec, Parallel(path=str(folder), depth=depth), target_of=tiny_pair)


@pytest.fixture
def tiny(tiny_pair: Pair, tmp_path: Path) -> Pair:
    return with_block(tiny_pair, save_block(tmp_path / "block", random_block(), zlab_config()))


@pytest.mark.parametrize("config", [zlab_config, speculators_config])
@pytest.mark.parametrize("first", [0, 1])
def test_what_a_block_says(config: Any, first: int, tiny_pair: Pair, tmp_path: Path) -> None:
    """Slow and plain, below a root after a prompt; `first` 0: the root's own slot proposes too."""
    if (config, first) == (zlab_config, 0):
        return
    shape, text = replace(SHAPE, first=first), tiny_pair.encode("Once upon a")
    told = config(shape) | ({} if first else {"sample_from_anchor": True})
    pair = with_block(tiny_pair, save_block(tmp_path / "block", random_block(), told), shape.depths)
    with torch.inference_mode():
        pair.drafter.begin(parallel.Prefilled(text[:-1], Verifier.of(pair).prefill(text[:-1]).hidden))
        assert isinstance(pair.drafter, ParallelDrafter)
        made = pair.drafter.now(text[-1], shape.depths)
    expected = block_said(random_block(), tiny_pair.target.model, text, len(text) - 1, shape)
    torch.testing.assert_close(made, expected, atol=2e-3, rtol=1e-3)


def test_every_step_drafts_from_the_text_before_its_root(tiny: Pair) -> None:
    """Slow and plain: after each step the whole text goes through the target again."""
    prompt, plan, tensors = tiny.encode("Once"), registry()["kary"]().at(6), random_block()
    decoding = decode(Verifier.of(tiny), tiny.drafter, plan, Greedy(), Sampling(), prompt, Ending(6)).finish()
    text = [*prompt, decoding.first]
    for step in decoding.steps:
        said = block_said(tensors, tiny.target.model, text, len(text) - 1)
        drafted = zip(step.tree.token_list()[1:], step.tree.topology.paths[1:], strict=True)
        assert all(token == said[len(path) - 1].argsort(descending=True)[path[-1]] for token, path in drafted)
        text += step.tokens


def test_a_rewound_prompt_drafts_the_same(tiny: Pair) -> None:
    prompt, setting = tiny.encode("Once upon"), (Chain().at(4), Greedy(), Sampling())
    verifier = Verifier.of(tiny)
    first = decode(verifier, tiny.drafter, *setting, prompt, Ending(12)).finish()
    again = decode(verifier, tiny.drafter, *setting, prompt, Ending(12), again=True).finish()
    for one, other in zip(first.steps, again.steps, strict=True):
        assert one.tree.token_list() == other.tree.token_list()


class TestWiring:
    """What is wired wrongly is refused at load, or is not what is spelled out."""

    def wrong(self, tiny_pair: Pair, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="what the block head drafts is not what it says along a text"):
            with_block(tiny_pair, save_block(tmp_path / "block", random_block(), zlab_config()))

    def spelled_out(self, tiny_pair: Pair, tmp_path: Path) -> None:
        with pytest.raises(AssertionError):
            test_what_a_block_says(zlab_config, 1, tiny_pair, tmp_path)

    def test_what_is_right_passes(self, tiny: Pair) -> None:
        check = tiny.describe()["draft"]["self_check"]
        assert check["error"] < 1e-3
        assert check["control"] > 0.1

    def test_the_block_stays_in_the_context(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def commit(self: ParallelDrafter, tree: Any, accepted: Any, hidden: torch.Tensor) -> None:
            self._append(torch.cat([hidden, hidden[-1:]]))

        monkeypatch.setattr(ParallelDrafter, "commit", commit)
        self.wrong(tiny_pair, tmp_path)

    def test_the_root_is_not_committed(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ParallelDrafter, "commit", lambda self, tree, accepted, hidden: self._append(hidden[1:]))
        self.wrong(tiny_pair, tmp_path)

    def test_positions_start_over_with_each_step(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = ParallelDrafter._keys
        monkeypatch.setattr(ParallelDrafter, "_keys", lambda self, hidden, first: keys(self, hidden, 0))
        self.wrong(tiny_pair, tmp_path)

    def test_starts_see_their_roots_along_texts(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = BlockHead.forward

        def forward(self: BlockHead, embedded: Any, roots: Any, context: Any, seen: torch.Tensor) -> torch.Tensor:
            more = seen.sum(-1, keepdim=True) == torch.arange(seen.shape[-1])
            return whole(self, embedded, roots, context, seen | more)

        monkeypatch.setattr(BlockHead, "forward", forward)
        self.wrong(tiny_pair, tmp_path)

    def test_layers_keep_their_order(self, tiny_pair: Pair, tmp_path: Path) -> None:
        config = zlab_config()
        config["dflash_config"]["target_layer_ids"] = [1, 0]
        save_block(tmp_path / "other", random_block(), config)
        drafter = with_block(tiny_pair, tmp_path / "other").drafter
        assert drafter.traits.hidden_layers == (2, 1)

    def test_values_of_other_slots(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = Attention.keys_of

        def keys_of(self: Attention, states: torch.Tensor, positions: torch.Tensor) -> Any:
            made = keys(self, states, positions)
            return made._replace(values=made.values.roll(1, -3)) if states.ndim == 4 else made

        monkeypatch.setattr(Attention, "keys_of", keys_of)
        self.spelled_out(tiny_pair, tmp_path)

    def test_slots_one_late(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = BlockHead.forward
        monkeypatch.setattr(BlockHead, "forward", lambda self, *given: whole(self, *given).roll(1, 2))
        self.spelled_out(tiny_pair, tmp_path)

    def test_the_norm_of_keys_is_left_out(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = Attention.__init__

        def init(self: Attention, shape: Any) -> None:
            whole(self, shape)
            self.k_norm.forward = lambda states: states  # type: ignore[method-assign]

        monkeypatch.setattr(Attention, "__init__", init)
        self.spelled_out(tiny_pair, tmp_path)


PROMPTS = ("The harbour was", "def add(a, b):", "List three")


@pytest.fixture(scope="module")
def zoo() -> Heads:
    return heads_on(load_pair("zoo", Parallel()), PROMPTS, 28)


@pytest.mark.parametrize(("tree", "budget"), [("chain", 4), ("kary", 14), ("medusa", 63), ("measured", 16)])
def test_live_is_replay(tree: str, budget: int, zoo: Heads) -> None:
    assert check_static(zoo, tree, budget) > 10


@pytest.mark.parametrize("budget", [6, 32])
def test_best_first_trees_live_and_replayed(budget: int, zoo: Heads) -> None:
    check_best_first(zoo, budget)


def test_the_text_is_the_targets_own(zoo: Heads) -> None:
    plan, setting = registry()["kary"]().at(14), (Greedy(), Sampling())
    for prompt in zoo.prompts[:2]:
        decoding = decode(Verifier.of(zoo.pair), zoo.pair.drafter, plan, *setting, prompt, zoo.ending).finish()
        assert decoding.tokens == decode_plainly(Verifier(zoo.pair.target), Sampling(), prompt, zoo.ending)


@pytest.mark.slow
def test_live_is_replay_on_twenty_prompts() -> None:
    pair = load_pair("zoo", Parallel())
    heads = heads_on(pair, [prompt.text for prompt in load_prompts(PromptSpec())[:20]], 48)
    for tree, budget in (("chain", 4), ("kary", 14), ("medusa", 63), ("measured", 16)):
        assert check_static(heads, tree, budget) > 200


def test_starts_in_parts_say_the_same(zoo: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    text, drafter = zoo.texts[0], zoo.pair.drafter
    assert isinstance(drafter, ParallelDrafter)
    with torch.inference_mode():
        whole = drafter.along(text)(0, len(text.tokens) - 1, 4)
        monkeypatch.setattr(parallel, "SCORES", 5000)
        parts = drafter.along(text)
        torch.testing.assert_close(whole, torch.cat([parts(0, 9, 4), parts(9, len(text.tokens) - 1, 4)]))


REFUSED = {
    "another target": ({"hidden_size": 16}, {}, "hidden_size=16; this target's states have 32 numbers"),
    "no layout": ({"dflash_config": None}, {}, "no other layout of block heads is known"),
    "a mask that is no token": (
        {"dflash_config": {"target_layer_ids": [0, 1], "mask_token_id": VOCAB}},
        {},
        f"mask_token_id={VOCAB} is out of range; the target has {VOCAB} embeddings",
    ),
    "the last layer": (
        {"dflash_config": {"target_layer_ids": [0, 2], "mask_token_id": 7}},
        {},
        "it reads what goes into layer 3 of its target, from 0; this one has 3 layers, and heads read 1 to 2",
    ),
    "no layers": (
        {"dflash_config": {"target_layer_ids": [], "mask_token_id": 7}},
        {},
        "config.json says target_layer_ids=[]; expected a list of layers",
    ),
    "no block": ({"block_size": 1}, {}, "config.json says block_size=1; expected a whole number, 2 or more"),
    "stretched": ({"rope_scaling": {"type": "yarn"}}, {}, "rotary positions of type 'yarn' are not supported"),
    "windows": ({"layer_types": ["sliding_attention"]}, {}, "layers with a sliding window are not supported"),
    "a missing tensor": ({}, {"hidden_norm.weight": None}, "hidden_norm.weight is missing; the head is not whole"),
    "an extra tensor": ({}, {"markov_w1.weight": torch.zeros(2)}, "markov_w1.weight is no part of a block head"),
    "another size": (
        {},
        {"fc.weight": torch.zeros(32, 32)},
        "fc.weight is 32 x 32; its config.json and this target ask for 32 x 64",
    ),
    "fewer ids": ({}, {"lm_head.weight": torch.zeros(9, 32)}, f"its output layer has 9 ids; this target's has {VOCAB}"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_heads_are_refused(what: str, tiny_pair_folders: PairFolders, tmp_path: Path, run: Any) -> None:
    config, changed, said = REFUSED[what]
    tensors = {name: t for name, t in (random_block() | changed).items() if t is not None}
    folder = save_block(tmp_path / "block", tensors, zlab_config() | config)
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    grid = [*pair, "drafter=parallel", f"drafter.path={folder}", "budget=3", "tree=chain"]
    ended = run("sweep", *grid, "--out", tmp_path / "out", "--dry-run")
    assert ended.code == USAGE
    assert said in ended.err.splitlines()[-1]


def test_trees_end_where_the_block_ends(tiny_pair_folders: PairFolders, tmp_path: Path, run: Any) -> None:
    folder = save_block(tmp_path / "block", random_block(), zlab_config())
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    grid = [*pair, "drafter=parallel", f"drafter.path={folder}", "tree=chain", "--out", tmp_path / "out", "--dry-run"]
    ended = run("sweep", *grid, "budget=3", "drafter.depth=5")
    assert ended.code == USAGE
    assert f"drafter.depth=5 is out of range; the block of {folder} proposes 4 tokens" in ended.err
    ended = run("sweep", *grid, "budget=5")
    assert ended.code == USAGE
    assert "5 levels" in ended.err


def test_damaged_weights_are_refused(tiny_pair: Pair, tmp_path: Path) -> None:
    folder = save_block(tmp_path / "block", random_block(), zlab_config())
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut off or damaged"):
        with_block(tiny_pair, folder)
