"""`specdraft.simulate`: equal to a sweep, from a training loop, without a trace on disk."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support.tiny_models import PairFolders, byte_tokenizer, tiny_pair_models
from transformers import AutoModelForCausalLM, AutoTokenizer

import specdraft
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError, ModelError, PromptError, UserError
from specdraft.models import self_check
from specdraft.models.language_model import LanguageModel
from specdraft.prompts import PromptSpec
from specdraft.sampling.distribution import Sampling
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study
from specdraft.study.simulate import COLUMNS, COUNTED, Simulator, simulate
from specdraft.study.simulated import kind_of
from specdraft.trees.shapes.kary import Kary

TEXTS = ["Once upon", "def f(x):", "It was late", "Anna has 12 apples", "A new day"]
TREES = ["chain budget=2,4", {"tree": "kary", "k": 3, "budget": 6}, "best_first budget=4", "sequoia budget=4"]
ASKED = ["tree=chain,kary,best_first,sequoia", "tree.k=3", "budget=2,4,6"]


@pytest.fixture(autouse=True)
def no_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "traces"
    monkeypatch.setenv("SPECDRAFT_TRACES", str(folder))
    return folder


def swept(folder: Path, folders: PairFolders, *more: str) -> pd.DataFrame:
    (folder / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    models = [f"pair.{role}.{key}" for role, path in zip(("target", "draft"), folders, strict=True)
              for key in (f"path={path}", "device=cpu")]  # fmt: skip
    study = ["pair.name=tiny", f"prompts.path={folder / 'p.jsonl'}", "max_new_tokens=16", "report=false"]
    plan = plan_study([*models, *study, "cost.measure=off", *ASKED, *more])
    return run_study(plan, folder / "study").tables["summary.csv"]


def assert_equal_to(summary: pd.DataFrame, found: pd.DataFrame) -> None:
    """Every row is one of the sweep's."""
    keys = ["tree", "budget", "acceptance"]
    both = found.merge(summary, on=keys, suffixes=("", "_swept"))
    assert len(both) == len(found)
    for column in COLUMNS:
        if column not in (*keys, "drafter"):
            pd.testing.assert_series_equal(both[column], both[f"{column}_swept"], check_names=False, check_dtype=False)


def test_it_is_what_a_sweep_says(tiny_pair_folders: PairFolders, tmp_path: Path, no_traces: Path) -> None:
    summary = swept(tmp_path, tiny_pair_folders)
    before = sorted(path.name for path in no_traces.rglob("*"))
    target, draft = (AutoModelForCausalLM.from_pretrained(folder) for folder in tiny_pair_folders)
    tokenizer = AutoTokenizer.from_pretrained(tiny_pair_folders.target)
    simulator = Simulator((target, tokenizer), TEXTS, max_new_tokens=16)
    for drafter in (draft, tiny_pair_folders.draft):
        found = simulator.run(drafter, TREES)
        assert list(found) == COLUMNS and found["tree"].tolist() == [
            "chain",
            "chain",
            "kary-k3",
            "best_first",
            "sequoia",
        ]
        assert_equal_to(summary, found)
    assert sorted(path.name for path in no_traces.rglob("*")) == before


def test_sampled_texts_too(tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
    sampled = ["sampling.temperature=0.8", "acceptance=topk,recursive", "tree=chain,kary", "budget=2,6"]
    summary = swept(tmp_path, tiny_pair_folders, *sampled)
    pair = load_pair(tiny_pair_folders.spec())
    trees = ["chain budget=2", "kary k=3 budget=6 acceptance=recursive", "kary k=3 budget=6"]
    found = simulate(pair, None, trees, TEXTS, max_new_tokens=16, sampling=Sampling(0.8), acceptance="topk")
    assert found["acceptance"].tolist() == ["topk", "recursive", "topk"]
    assert_equal_to(summary, found)


def test_a_training_loop(monkeypatch: pytest.MonkeyPatch, no_traces: Path) -> None:
    """The target runs once. Each look at the draft leaves it as it was: modes, gradients, randomness."""
    target, draft = tiny_pair_models()
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(0.2 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    simulator = Simulator((target, byte_tokenizer()), TEXTS, max_new_tokens=16)
    draft.train()
    draft.model.layers[0].eval()
    draft.lm_head.weight.requires_grad_(False)
    optimiser = torch.optim.AdamW([w for w in draft.parameters() if w.requires_grad], lr=3e-3)
    starts = [torch.tensor([[0, *text.encode()[:2]]]) for text in TEXTS]
    how = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    texts = torch.cat([target.generate(start, **how) for start in starts])
    seen, modes = [], [module.training for module in draft.modules()]
    forward, forwards = LanguageModel.forward, list[Any]()

    def counting(self: LanguageModel, *args: Any, **kwargs: Any) -> Any:
        forwards.append(self.model)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LanguageModel, "forward", counting)
    checked, own_check = list[Any](), self_check.self_check

    def checking(model: Any, name: str) -> Any:
        checked.append(name)
        return own_check(model, name)

    monkeypatch.setattr(self_check, "self_check", checking)
    for step in range(41):
        if step % 20 == 0:
            state, gradients = torch.get_rng_state(), [w.grad for w in draft.parameters()]
            seen.append(simulator.run(draft, ["chain budget=4", "kary budget=6"])["block_efficiency"].tolist())
            assert [module.training for module in draft.modules()] == modes
            assert all(a is b for a, b in zip(gradients, (w.grad for w in draft.parameters()), strict=True))
            assert torch.equal(state, torch.get_rng_state())
            if step == 0:
                read, forwards[:] = [model for model in forwards if model is target], []
                assert read
        optimiser.zero_grad()
        wanted = target(texts).logits.detach().softmax(-1)
        loss = -(wanted * draft(texts).logits.log_softmax(-1)).sum(-1).mean()
        loss.backward()
        optimiser.step()
    assert all(model is not target for model in forwards)
    assert checked == ["draft"]
    assert seen[2][0] > seen[0][0] and seen[2][1] > seen[0][1]
    fresh = simulate((target, byte_tokenizer()), draft, ["chain budget=4", "kary budget=6"], TEXTS, max_new_tokens=16)
    again = simulator.run(copy.deepcopy(draft).eval(), ["chain budget=4", "kary budget=6"])
    pd.testing.assert_frame_equal(fresh, again)
    assert not no_traces.exists()


def test_states_of_the_target_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, trees = PromptSpec(limit=2), ["chain budget=2", "kary budget=4"]
    simulator = Simulator("zoo", prompts, max_new_tokens=8)
    by = {name: simulator.run(f"zoo:{name}", trees) for name in ("medusa", "eagle")}
    named = simulate("zoo", "medusa", trees, prompts, max_new_tokens=8)  # of the pair's heads
    monkeypatch.setattr(LanguageModel, "states_along", None)
    for name, before in by.items():
        pd.testing.assert_frame_equal(simulator.run(f"zoo:{name}", trees), before)
        assert set(before["drafter"]) == {name}
    pd.testing.assert_frame_equal(named, by["medusa"])


def test_ways_to_say_the_same(tiny_pair: Pair, tiny_pair_folders: PairFolders) -> None:
    simulator = Simulator(tiny_pair, [tiny_pair.encode(text) for text in TEXTS], max_new_tokens=12)
    ways: Sequence[Any] = [
        "kary k=3 budget=6",
        {"tree": "kary", "k": 3, "budget": 6},
        (Kary(k=3), 6),
        "tree=kary tree.k=3 budget=6",
    ]
    found = [simulator.run(None, [way]) for way in ways]
    assert all(one.equals(found[0]) for one in found)
    assert len(simulator.run(None, ways)) == 1
    texts = simulate(tiny_pair, tiny_pair_folders.draft, ways[:1], TEXTS, max_new_tokens=12)
    pd.testing.assert_frame_equal(texts, found[0])
    assert specdraft.simulate is simulate and specdraft.Simulator is Simulator
    assert (found[0][[*COUNTED]] > 0).all(axis=None)
    assert simulator.run("ngram variant=vllm", ways[:1])["drafter"].tolist() == ["ngram-vvllm"]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"medusa_num_heads": 4}, "medusa"),
        ({"architectures": ["LlamaForCausalLMEagle3"]}, "eagle"),
        ({"architectures": ["DFlashDraftModel"]}, "parallel"),
        ({"architectures": ["LlamaForCausalLM"]}, "model"),
        ({"num_draft_layers": 1, "rnn": True}, "redrafter"),
        ({"architectures": None}, "model"),
    ],
)
def test_what_a_checkpoint_is(config: dict[str, Any], kind: str) -> None:
    assert kind_of(config) == kind


@pytest.mark.parametrize(
    ("drafter", "trees", "said"),
    [
        (None, [], "trees=[]; expected a list of trees"),
        (None, "chain budget=4", "trees='chain budget=4'; expected a list"),
        (None, ["chian budget=4"], "chian"),
        (None, ["chain budget"], "'budget': expected key=value"),
        (None, ["chain depth=4"], "depth"),
        (None, ["chain prompts=instruct"], "prompts"),
        (None, ["kary k=0"], "k=0"),
        (None, [{"k": 3}], "names no tree"),
        (None, ["chain pruning=adaptive"], "weighs measured costs"),
        (None, ["chain acceptance=typical"], "chain acceptance=typical"),
        (3, ["chain"], "drafter is int; expected a model in memory"),
        ("ngrams", ["chain"], "drafter='ngrams': neither a folder nor a drafter; did you mean 'ngram'?"),
        ("medusa", ["chain"], "drafter.path is empty; drafter=medusa needs weights"),
        ("ngram", ["best_first budget=4"], "drafter=ngram gives none"),
        ("zoo:none", ["chain"], "zoo:none"),
        ("zoo:medusa", ["chain"], ""),  # heads of another width
    ],
)
def test_bad_input(tiny_pair: Pair, drafter: Any, trees: Any, said: str) -> None:
    simulator = Simulator(tiny_pair, TEXTS[:1], max_new_tokens=4)
    with pytest.raises(UserError) as error:
        simulator.run(drafter, trees)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_bad_prompts_and_targets(tiny_pair: Pair) -> None:
    wrong: list[tuple[Any, str]] = [
        ([], "there are no prompts"),
        ([3], "prompt '1': 3; expected a text"),
        (["a", ""], "prompt '2'"),
        ([[9999]], "needs token 9999"),
        (["x" * 600], "exceed the context of 512"),
    ]
    for prompts, said in wrong:
        with pytest.raises(PromptError, match=said):
            Simulator(tiny_pair, prompts).run(None, ["chain"])
    with pytest.raises(ConfigError, match="target is int; expected the name of a pair"):
        Simulator(3, TEXTS)
    with pytest.raises(ConfigError, match="zooo"):
        Simulator("zooo", TEXTS)
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        Simulator(tiny_pair, TEXTS, max_new_tokens=0)
    with pytest.raises(ConfigError, match="drafter is None, and the target came without one"):
        Simulator((tiny_pair.target.model, byte_tokenizer()), TEXTS[:1]).run(None, ["chain"])
    with pytest.raises((ModelError, ConfigError)):
        Simulator(tiny_pair, TEXTS[:1]).run("zoo:draft", ["chain"])
