"""Medusa heads: what they say in every layout, where their states come from, live and replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.drafting import record_all
from support.medusa import fitted_heads, save_heads
from support.position_wise import Heads, check_static
from support.recorded import untimed
from support.tallied import replay_dynamic
from support.tiny_models import VOCAB, PairFolders

from specdraft.acceptance import Greedy
from specdraft.commands.options import USAGE
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import GivenTrees, Prefilled, RecordedText
from specdraft.drafters.loaded import last_state, medusa
from specdraft.drafters.loaded.medusa import MedusaDrafter
from specdraft.drafters.medusa import Medusa
from specdraft.drafters.pair import Pair, load_pair, pair_of_models
from specdraft.errors import ModelError
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import recorded_texts
from specdraft.trees.shapes import registry
from specdraft.trees.shapes.best_first import BestFirst, BestFirstPlan
from specdraft.trees.shapes.measured import Measured

WIDTH, HEADS = 32, 3


def random_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """In the authors' layout."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for head in range(HEADS):
        tensors[f"{head}.0.linear.weight"] = 0.2 * torch.randn(WIDTH, WIDTH, generator=generator)
        tensors[f"{head}.0.linear.bias"] = torch.randn(WIDTH, generator=generator)
        tensors[f"{head}.1.weight"] = torch.randn(VOCAB, WIDTH, generator=generator)
    return tensors


def said_by(tensors: Mapping[str, torch.Tensor], state: torch.Tensor, head: int) -> torch.Tensor:
    """`U (x + SiLU(W x + b))`, spelled out."""
    inside = tensors[f"{head}.0.linear.weight"] @ state + tensors[f"{head}.0.linear.bias"]
    return tensors[f"{head}.1.weight"] @ (state + inside * torch.sigmoid(inside))


def as_vllm(tensors: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    named = {}
    for head in range(HEADS):
        for part in ("weight", "bias"):
            named[f"{prefix}blocks.{head}.layers.0.{part}"] = tensors[f"{head}.0.linear.{part}"]
        named[f"{prefix}lm_heads.{head}.weight"] = tensors[f"{head}.1.weight"]
    return named


def with_heads(tiny_pair: Pair, folder: Path, heads: int = HEADS) -> Pair:
    return load_pair(tiny_pair.files.spec, Medusa(path=str(folder), heads=heads), target_of=tiny_pair)


def logits_of(pair: Pair, states: torch.Tensor) -> torch.Tensor:
    assert isinstance(pair.drafter, MedusaDrafter)
    return pair.drafter._heads(states, HEADS)


class TestLayouts:
    def check(self, tiny_pair: Pair, folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        states = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(9))
        made = logits_of(with_heads(tiny_pair, folder), states)
        expected = torch.stack([torch.stack([said_by(tensors, x, head) for head in range(HEADS)]) for x in states])
        torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)

    def test_own_output_layers(self, tiny_pair: Pair, tmp_path: Path) -> None:
        tensors = random_tensors()
        self.check(tiny_pair, save_heads(tmp_path / "a", tensors, "medusa_lm_head.safetensors"), tensors)
        whole = {f"medusa_head.{name}": tensor for name, tensor in tensors.items()} | {"model.x": torch.ones(1)}
        self.check(tiny_pair, save_heads(tmp_path / "b", whole), tensors)
        self.check(tiny_pair, save_heads(tmp_path / "c", as_vllm(tensors), num_hidden_layers=1), tensors)
        self.check(tiny_pair, save_heads(tmp_path / "d", as_vllm(tensors, "medusa_heads.")), tensors)

    def test_the_targets_output_layer(self, tiny_pair: Pair, tmp_path: Path) -> None:
        output = tiny_pair.target.model.lm_head.weight.detach()
        tensors = random_tensors() | {f"{head}.1.weight": output for head in range(HEADS)}
        blocks = {name: tensor for name, tensor in tensors.items() if "linear" in name}
        self.check(tiny_pair, save_heads(tmp_path / "a", blocks), tensors)
        shared = {name: tensor for name, tensor in as_vllm(tensors).items() if "lm_heads" not in name}
        self.check(tiny_pair, save_heads(tmp_path / "b", shared | {"lm_head.weight": output}), tensors)

    def test_a_part_of_the_vocabulary(self, tiny_pair: Pair, tmp_path: Path) -> None:
        tensors, ids = random_tensors(), torch.arange(100, 40, -2)
        mapped = {name: tensor[ids] if "lm_heads" in name else tensor for name, tensor in as_vllm(tensors).items()} | {
            "token_map": ids
        }
        state = torch.randn(WIDTH)
        made = logits_of(with_heads(tiny_pair, save_heads(tmp_path, mapped)), state[None])[0, 1]
        torch.testing.assert_close(made[ids], said_by(tensors, state, 1)[ids], atol=1e-4, rtol=1e-4)
        assert made.isneginf().sum() == VOCAB - len(ids)


@pytest.fixture
def tiny(tiny_pair: Pair, tmp_path: Path) -> Pair:
    return with_heads(tiny_pair, save_heads(tmp_path / "heads", random_tensors()))


def target_states(pair: Pair, tokens: Sequence[int]) -> torch.Tensor:
    """`[n, width]` after the final norm, straight from the model."""
    with torch.inference_mode():
        states: torch.Tensor = pair.target.model.model(torch.tensor([list(tokens)])).last_hidden_state[0]
    return states


def test_every_step_drafts_from_the_state_before_its_root(tiny: Pair) -> None:
    """Slow and plain: after each step the whole text goes through the target again."""
    prompt, plan, tensors = tiny.encode("Once upon"), registry()["kary"]().at(6), random_tensors()
    decoding = decode(Verifier.of(tiny), tiny.drafter, plan, Greedy(), Sampling(), prompt, Ending(12)).finish()
    text = [*prompt, decoding.first]
    for step in decoding.steps:
        state = target_states(tiny, text)[-2]
        best = [said_by(tensors, state, head).argsort(descending=True) for head in range(HEADS)]
        drafted = zip(step.tree.token_list()[1:], step.tree.topology.paths[1:], strict=True)
        assert all(token == best[len(path) - 1][path[-1]] for token, path in drafted)
        text += step.tokens


class TestWiring:
    """What is wired wrongly is refused at load, or makes replay differ from decoding."""

    def wrong(self, tiny_pair: Pair, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="the target's states are not those that its heads read: logits differ by"):
            with_heads(tiny_pair, save_heads(tmp_path / "heads", random_tensors()))

    def test_what_is_right_passes(self, tiny: Pair) -> None:
        check = tiny.describe()["draft"]["self_check"]
        assert check["error"] < 1e-3
        assert check["control"] > 1

    def test_one_token_early_at_the_prompt(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def begin(self: MedusaDrafter, prompt: Prefilled) -> None:
            assert prompt.hidden is not None
            self._before = prompt.hidden[-2:-1, 0]

        monkeypatch.setattr(MedusaDrafter, "begin", begin)
        self.wrong(tiny_pair, tmp_path)

    def test_the_state_of_the_root_after_a_step(
        self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def commit(self: MedusaDrafter, tree: Any, accepted: Any, hidden: torch.Tensor) -> None:
            self._before = hidden[:1, 0]

        monkeypatch.setattr(MedusaDrafter, "commit", commit)
        self.wrong(tiny_pair, tmp_path)

    def test_the_state_before_the_norm(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(last_state, "LAST", -2)
        self.wrong(tiny_pair, tmp_path)

    def test_heads_in_another_order(self, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = medusa.MedusaHeads.__call__
        monkeypatch.setattr(
            medusa.MedusaHeads, "__call__", lambda self, states, count: whole(self, states, count).flip(1)
        )
        with pytest.raises(AssertionError):
            TestLayouts().test_own_output_layers(tiny_pair, tmp_path)

    def test_texts_read_one_token_late(self, zoo: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
        def late(text: RecordedText) -> torch.Tensor:
            assert text.hidden is not None
            return text.hidden[len(text.prompt_ids) :, 0]

        monkeypatch.setattr(medusa, "states_before", late)
        with pytest.raises(AssertionError):
            check_static(zoo.annotated(), "chain", 4)


PROMPTS = ("The harbour was", "def add(a, b):", "List three")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Heads:
    target = load_pair("zoo")
    prompts, ending = [target.encode(text) for text in PROMPTS], Ending(28, target.eos_ids)
    trajectories = record_all(target.target, prompts, ending)
    folder = fitted_heads(tmp_path_factory.mktemp("heads"), target.target, prompts[:2], trajectories[:2])
    pair = load_pair(target.files.spec, Medusa(path=str(folder)), target_of=target)
    texts = recorded_texts(pair, list(zip(prompts, trajectories, strict=True)))
    return Heads(pair, prompts, ending, texts, []).annotated()


@pytest.mark.parametrize(("tree", "budget"), [("chain", 4), ("kary", 14), ("medusa", 63), ("measured", 16)])
def test_live_is_replay(tree: str, budget: int, zoo: Heads) -> None:
    assert check_static(zoo, tree, budget) > 10


def test_the_text_is_the_targets_own(zoo: Heads) -> None:
    plan, setting = registry()["kary"]().at(14), (Greedy(), Sampling())
    for prompt in zoo.prompts[:2]:
        decoding = decode(Verifier.of(zoo.pair), zoo.pair.drafter, plan, *setting, prompt, zoo.ending).finish()
        assert decoding.tokens == decode_plainly(Verifier(zoo.pair.target), Sampling(), prompt, zoo.ending)


class TestBestFirst:
    LARGEST = BestFirst(max_depth=4, max_children=5).at(32)

    @pytest.mark.parametrize("budget", [6, 32])
    def test_live_is_replay_of_the_largest_budgets_trees(self, budget: int, zoo: Heads) -> None:
        plan = BestFirst(max_depth=4, max_children=5).at(budget)
        tallies, _ = replay_dynamic(zoo.packed, list(zoo.pair.drafter.expand(zoo.texts, self.LARGEST)), plan)
        for prompt, counted in zip(zoo.prompts, tallies, strict=True):
            assert untimed(counted) == zoo.live(plan, prompt)

    def test_they_are_the_best_of_all_paths(self, zoo: Heads) -> None:
        """Every path of the cartesian product, scored and sorted."""
        text = zoo.texts[0]
        trees = next(zoo.pair.drafter.expand([text], BestFirstPlan(20, 3, 3)))
        assert text.hidden is not None
        state = text.hidden[len(text.prompt_ids) + 4, 0]  # of a root at position 5
        log_probs = torch.log_softmax(logits_of(zoo.pair, state[None])[0], -1).sort(-1, descending=True).values.double()
        paths = [p for depth in (1, 2, 3) for p in np.ndindex(*[3] * depth)]
        scores = [sum(float(log_probs[d, rank]) for d, rank in enumerate(path)) for path in paths]
        best = sorted(zip(scores, paths, strict=True), key=lambda each: (-each[0], len(each[1]), each[1]))[:20]
        found: list[tuple[int, ...]] = [()]
        for parent, rank in zip(trees.parent[5].tolist(), trees.rank[5].tolist(), strict=True):
            found.append((*found[parent], rank))
        assert found[1:] == [path for _, path in best]
        np.testing.assert_allclose(trees.log_prob[5], [score for score, _ in best], atol=1e-4)


def test_given_trees_are_scored_by_the_heads(zoo: Heads) -> None:
    topology = registry()["kary"]().at(6).topology
    assert topology is not None
    (said,) = zoo.pair.drafter.score(zoo.texts[:1], [GivenTrees.of(topology)], 0.5)
    state = target_states(zoo.pair, [*zoo.prompts[0], *zoo.texts[0].tokens[:3].tolist()])[-1]  # of a root at 3
    log_probs, ids = torch.log_softmax(logits_of(zoo.pair, state[None])[0] / 0.5, -1).sort(-1, descending=True)
    for node, path in enumerate(topology.paths[1:]):
        assert said.expansion.token[3, node] == ids[len(path) - 1, path[-1]]
        expected = sum(float(log_probs[d, rank]) for d, rank in enumerate(path))
        assert said.expansion.log_prob[3, node] == pytest.approx(expected, abs=1e-4)


def test_logits_along_texts_are_the_first_heads(zoo: Heads) -> None:
    slices = list(zoo.pair.drafter.logits_along(zoo.texts, 7))
    whole = torch.cat(slices, 1)
    assert [part.shape[1] for part in slices[:2]] == [1, 7]
    for row, (text, annotation) in enumerate(zip(zoo.texts, zoo.annotations, strict=True)):
        best = whole[row, 1 : len(text.tokens)].argmax(-1).tolist()
        assert best == annotation.top_ids[1:, 0].tolist()
        assert [i for i, right in enumerate(best == text.tokens[1:]) if right] == [
            i for i, rank in enumerate(annotation.ranks[1:, 0]) if rank == 0
        ]
    assert (zoo.annotations[0].ranks[:3] == -1).tolist() == [[True] * 4, [False] + [True] * 3, [False] * 2 + [True] * 2]


def test_fitted_trees_end_where_the_heads_end(zoo: Heads) -> None:
    assert Measured().fit(300, zoo.packed).depth == 4
    two = with_heads(zoo.pair, Path(str(zoo.pair.files.drafter.path)), heads=2)
    assert [a.ranks.shape[1] for a in two.drafter.annotate(zoo.texts[:1])] == [2]


def test_models_in_memory(tiny_pair: Pair, tmp_path: Path) -> None:
    folder = save_heads(tmp_path, random_tensors())
    spec = Medusa(path=str(folder), heads=2)
    pair = pair_of_models(tiny_pair.target.model, None, tiny_pair.files.target.tokenizer, spec)
    states = torch.randn(2, WIDTH)
    assert isinstance(pair.drafter, MedusaDrafter)
    expected = F.linear(states, torch.eye(WIDTH))
    torch.testing.assert_close(pair.drafter._heads(expected, 2)[0, 1], said_by(random_tensors(), states[0], 1))


@pytest.mark.parametrize(
    ("heads", "asked", "said"),
    [
        ({}, ["drafter.heads=4"], "drafter.heads=4 is out of range; {folder} has 3"),
        ({}, ["drafter.heads=0"], "drafter.heads=0 is out of range; expected 1 or more"),
        ({}, ["drafter.heads=2", "tree=chain"], "chain has 3 levels; drafter=medusa-h2 makes at most 2"),
        ({"0.1.weight": torch.ones(9, 32)}, [], "0.1.weight is 9 x 32; heads of this target have 258 x 32"),
        ({"fc.weight": torch.ones(1)}, [], "fc.weight is no part of Medusa heads in the authors' layout"),
    ],
)
def test_bad_input_is_one_line(
    heads: dict[str, torch.Tensor],
    asked: list[str],
    said: str,
    tiny_pair_folders: PairFolders,
    tmp_path: Path,
    run: Any,
) -> None:
    folder = save_heads(tmp_path / "heads", random_tensors() | heads)
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    grid = [*pair, "drafter=medusa", f"drafter.path={folder}", "drafter.heads=3", "budget=3", "tree=kary", *asked]
    ended = run("sweep", *grid, "--out", tmp_path / "out", "--dry-run")
    assert ended.code == USAGE
    assert said.format(folder=folder) in ended.err.splitlines()[-1]


def test_a_pickle_is_refused(tiny_pair_folders: PairFolders, tmp_path: Path, run: Any) -> None:
    folder = save_heads(tmp_path / "heads", random_tensors())
    (folder / "model.safetensors").rename(folder / "medusa_lm_head.pt")
    grid = [f"pair.target.path={tiny_pair_folders.target}", "drafter=medusa", f"drafter.path={folder}"]
    ended = run("sweep", *grid, "--out", tmp_path / "out")
    assert ended.code == USAGE
    assert "there are no .safetensors weights, only medusa_lm_head.pt (other formats can run code" in ended.err
