"""A draft model read by the target's output layer: live, annotated and replayed; and files that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.recorded import untimed
from support.tallied import replay, replay_dynamic
from support.tiny_models import PairFolders, byte_tokenizer

from specdraft import SpeculativeDecoder
from specdraft.acceptance import Greedy, Recursive
from specdraft.decoding.decode import Ending, decode, decode_plainly
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.aligned import Aligned
from specdraft.drafters.base import RecordedText
from specdraft.drafters.loaded.aligned import AffineMap, AlignedDrafter, AlignedHead, HeadedModel
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, load_pair, pair_of_models
from specdraft.errors import ConfigError, ModelError
from specdraft.models.batch import along
from specdraft.models.cached_model import CachedModel
from specdraft.models.output_layer import OutputLayer
from specdraft.replay.static import pack
from specdraft.results.metrics import tally
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import drafter_name, find_traces, pair_traces
from specdraft.traces.rule_records import Part
from specdraft.traces.store import TraceStore
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

WIDTH = 32  # of both tiny models


def write(path: Path, pair: Pair, weight: torch.Tensor, bias: torch.Tensor, **facts: str) -> Path:
    target, draft = (files.weights_hash for files in pair.files.models)
    known = {"kind": "alignment", "target": target, "draft": draft}
    save_file({"weight": weight, "bias": bias}, path, known | facts)
    return path


@pytest.fixture(scope="module")
def file(tiny_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map that is near enough to the identity for drafts to be accepted, and far enough to be another drafter."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.eye(WIDTH) + 0.08 * torch.randn(WIDTH, WIDTH, generator=rng)
    return write(
        tmp_path_factory.mktemp("alignment") / "near.safetensors", tiny_pair, weight, torch.full((WIDTH,), 0.1)
    )


@pytest.fixture(scope="module")
def aligned(tiny_pair: Pair, file: Path) -> Pair:
    return load_pair(tiny_pair.files.spec, Aligned(path=str(file)), target_of=tiny_pair)


def text(pair: Pair) -> RecordedText:
    return RecordedText(pair.encode("Once upon"), np.arange(2, 22))


def test_the_logits_are_the_targets_output_layer_on_mapped_states(aligned: Pair, file: Path) -> None:
    """Beside `transformers` on the whole text, at every position."""
    assert isinstance(aligned.drafter, AlignedDrafter)
    draft, target = aligned.drafter.model, aligned.target
    tensors = AffineMap.read(type("F", (), {"tensors": lambda self: load(file)})(), torch.device("cpu"))
    said = text(aligned)
    ids = torch.tensor([[*said.prompt_ids, *said.tokens[:-1].tolist()]])
    with torch.inference_mode():
        states = draft.model(ids, output_hidden_states=True).hidden_states[-1][0]
        wanted = target.model.lm_head(states @ tensors.weight.T + tensors.bias)[len(said.prompt_ids) - 1 :]
        found = torch.cat(list(along(draft, [said.prompt_ids], [said.tokens], 7)), 1)[0]
    torch.testing.assert_close(found, wanted[:, : draft.vocab], atol=1e-4, rtol=1e-4)


def load(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: load_file(path)[name] for name in ("weight", "bias")}


@pytest.mark.parametrize("kept", [0, 1, 3, torch.tensor([0, 4])], ids=str)
def test_logits_are_kept_as_they_are_asked_for(kept: Any, aligned: Pair) -> None:
    assert isinstance(aligned.drafter, AlignedDrafter)
    model, ids = aligned.drafter.model, torch.arange(6)[None]
    with torch.inference_mode():
        whole, none = model.forward(ids)
        some, hidden = model.forward(ids, (1, 0), logits_to_keep=kept)
    places = list(range(6))[-kept:] if isinstance(kept, int) else kept
    torch.testing.assert_close(some, whole[:, places], atol=1e-4, rtol=1e-4)
    assert none is None
    assert hidden.shape == (1, 6, 2, WIDTH)


def test_the_identity_drafts_as_the_models_own_layer_does(tiny_pair: Pair, tmp_path: Path) -> None:
    """The tiny models have the same output layer."""
    path = write(tmp_path / "same.safetensors", tiny_pair, torch.eye(WIDTH), torch.zeros(WIDTH))
    same = load_pair(tiny_pair.files.spec, Aligned(path=str(path)), target_of=tiny_pair)
    (own,), (mapped,) = (pair.drafter.annotate([text(pair)]) for pair in (tiny_pair, same))
    assert own.ranks.tolist() == mapped.ranks.tolist() and np.array_equal(own.top_ids, mapped.top_ids)
    np.testing.assert_allclose(own.top_probs, mapped.top_probs, atol=1e-5)


def test_what_is_read_again_drafts_alike(aligned: Pair, file: Path, tmp_path: Path) -> None:
    copied = tmp_path / "other-name.safetensors"
    copied.write_bytes(file.read_bytes())
    again = load_pair(aligned.files.spec, Aligned(path=str(copied)), target_of=aligned)
    for first, second in zip(*(pair.drafter.annotate([text(pair)])[0] for pair in (aligned, again)), strict=True):
        assert np.array_equal(first, second)
    assert again.draft_facts == aligned.draft_facts


def test_an_alignment_is_another_drafter(tiny_pair: Pair, aligned: Pair, tmp_path: Path) -> None:
    """In what traces are named by, in what a manifest says, and in what it proposes."""
    assert aligned.draft_facts["weights"] != tiny_pair.draft_facts["weights"]
    assert aligned.files.weights[1] == aligned.draft_facts["weights"]
    assert aligned.draft_facts == aligned.files.drafter.facts(aligned.files.draft, aligned.files.target)
    assert aligned.files.drafter.label == "aligned-near"
    assert aligned.drafter.describe()["alignment"]["file"] == "near.safetensors"
    assert drafter_name(aligned.files).endswith("draft and near.safetensors")
    own, mapped = (pair.drafter.annotate([text(pair)])[0] for pair in (tiny_pair, aligned))
    assert not np.array_equal(own.top_ids, mapped.top_ids)
    prompt, ending, store = aligned.encode("Once"), Ending(4, aligned.eos_ids), TraceStore(tmp_path)
    pair_traces(tiny_pair, {"a": prompt}, Sampling(), ending, store)
    assert find_traces(tiny_pair.files, prompt, Sampling(), 4, store) is not None
    assert find_traces(aligned.files, prompt, Sampling(), 4, store) is None


PLANS: list[Plan] = [Chain().at(4), Kary().at(6), Kary(k=3).at(12), BestFirst().at(8)]


@pytest.mark.parametrize("plan", PLANS, ids=["chain", "binary", "ternary", "best_first"])
def test_replay_is_live_and_the_text_is_the_targets(plan: Plan, aligned: Pair, tmp_path: Path) -> None:
    prompts = {"a": aligned.encode("Once upon"), "b": aligned.encode("x"), "c": aligned.encode("def f(")}
    ending, setting = Ending(16, aligned.eos_ids), (plan, Greedy(), Sampling())
    traces = pair_traces(aligned, prompts, Sampling(), ending, TraceStore(tmp_path))
    packed = pack([a.ranks for a in traces.annotations.values()], [t.tokens for t in traces.trajectories.values()])
    if plan.nested is not None:
        texts = [RecordedText(prompts[name], traces.trajectories[name].tokens) for name in prompts]
        counted = replay_dynamic(packed, list(aligned.drafter.expand(texts, plan.nested)), plan.nested)[0]
    else:
        assert plan.topology is not None
        counted = replay(plan.topology, packed)
    for replayed, prompt in zip(counted, prompts.values(), strict=True):
        decoding = decode(Verifier.of(aligned), aligned.drafter, *setting, prompt, ending).finish()
        assert decoding.tokens == decode_plainly(Verifier(aligned.target), Sampling(), prompt, ending)
        live = tally(decoding.first, decoding.steps, 0, 0, dynamic=plan.dynamic)
        assert untimed(replayed) == untimed(live)
    assert sum(one.accepted_tokens for one in counted) > 4


def test_children_are_drawn_from_its_distribution(aligned: Pair, tmp_path: Path) -> None:
    sampling, ending = Sampling(temperature=1.0), Ending(6, aligned.eos_ids)
    prompt = aligned.encode("Once upon")
    traces = pair_traces(
        aligned, {"a": prompt}, sampling, ending, TraceStore(tmp_path), parts=[Part(), Part(Recursive())], children=2
    )
    tokens = traces.trajectories["a"].tokens
    draft, target = (
        torch.cat(list(along(model, [prompt], [tokens], 8)), 1)[0].double().softmax(-1).numpy()
        for model in (aligned.drafter.model, aligned.target)  # type: ignore[attr-defined]
    )
    overlap = np.minimum(draft, target).sum(-1)
    np.testing.assert_allclose(traces.records["a"]["overlap"][1:], overlap[1:], atol=1e-5)


def test_states_are_read_by_a_linear_layer_only(tiny_pair: Pair) -> None:
    layer = OutputLayer(tiny_pair.target, "tiny")
    with pytest.raises(ModelError, match=r"gives states of width 5; the target's are 32"):
        AlignedHead(AffineMap(torch.ones(5, WIDTH), torch.ones(5)), layer)

    class Scaled(CachedModel):
        def forward(self, *given: Any, **inputs: Any) -> Any:
            logits, hidden = super().forward(*given, **inputs)
            return logits * 0.5, hidden

    with pytest.raises(ModelError, match=r"scaled: its logits are not its output layer on its last state"):
        OutputLayer(Scaled(tiny_pair.target.model, tiny_pair.target.vocab), "scaled")


def test_a_head_may_stand_in_for_any_other(tiny_pair: Pair) -> None:
    assert isinstance(tiny_pair.drafter, ModelDrafter)
    model = tiny_pair.drafter.model
    free = HeadedModel(model, lambda states: states.float() @ model.model.lm_head.weight.T)
    said = [
        drafter.annotate([text(tiny_pair)])[0].ranks.tolist() for drafter in (ModelDrafter(free), tiny_pair.drafter)
    ]
    assert said[0] == said[1]


def test_files_that_are_refused(tiny_pair: Pair, file: Path, tmp_path: Path) -> None:
    def refused(path: Path | None, **changes: Any) -> str:
        with pytest.raises(ConfigError) as error:
            load_pair(replace(tiny_pair.files.spec, **changes), Aligned(path=str(path) if path else None))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "drafter.path is empty; drafter=aligned needs an alignment" in refused(None)
    assert "no such file; expected one that specdraft fit alignment" in refused(tmp_path / "none.safetensors")
    assert "this is a folder" in refused(tmp_path)
    (damaged := tmp_path / "damaged.safetensors").write_bytes(file.read_bytes()[:-4])
    assert "cut off or damaged" in refused(damaged)
    turned = write(tmp_path / "turned.safetensors", tiny_pair, torch.eye(WIDTH), torch.ones(5))
    assert "expected weight [target width, draft width]" in refused(turned)
    other = write(tmp_path / "other.safetensors", tiny_pair, torch.eye(WIDTH), torch.ones(WIDTH), draft="feed")
    assert "it was fitted to another draft (weights feed)" in refused(other)
    nothing = write(tmp_path / "nothing.safetensors", tiny_pair, torch.eye(WIDTH), torch.ones(WIDTH), kind="lora")
    assert "kind='lora'; expected kind='alignment'" in refused(nothing)
    narrow = write(tmp_path / "narrow.safetensors", tiny_pair, torch.ones(WIDTH, 5), torch.ones(WIDTH))
    with pytest.raises(ModelError, match=r"narrow.safetensors maps states of width 5; the draft's are 32"):
        load_pair(tiny_pair.files.spec, Aligned(path=str(narrow)))
    heads = load_pair(replace(tiny_pair.files.spec, heads={"aligned": str(file)}), Aligned(), target_of=tiny_pair)
    assert heads.files.drafter.label == "aligned"


def test_a_pickled_file_is_refused_with_what_converts_it(
    tiny_pair: Pair, tmp_path: Path, tiny_pair_folders: PairFolders
) -> None:
    """What the message says makes a file that is taken."""
    path = tmp_path / "mine.pt"
    torch.save({"weight": torch.eye(WIDTH), "bias": torch.zeros(WIDTH), "epoch": 3}, path)
    with pytest.raises(ConfigError, match=r"\.pt files can run code when they are loaded, and are refused") as error:
        load_pair(tiny_pair.files.spec, Aligned(path=str(path)))
    code = str(error.value).partition('python -c "')[2].removesuffix('"')
    exec(code, {})
    found = load_pair(tiny_pair.files.spec, Aligned(path=str(path.with_suffix(".safetensors"))), target_of=tiny_pair)
    assert isinstance(found.drafter, AlignedDrafter)


def test_models_in_memory_have_no_alignment(tiny_pair: Pair, file: Path) -> None:
    assert isinstance(tiny_pair.drafter, ModelDrafter)
    models = (tiny_pair.target.model, tiny_pair.drafter.model.model)
    with pytest.raises(ConfigError, match=r"needs models in folders: an alignment names their weights"):
        pair_of_models(*models, byte_tokenizer(), Aligned(path=str(file)))


def test_a_decoder_drafts_through_an_alignment(tiny_pair: Pair, aligned: Pair, file: Path) -> None:
    through, wanted = (
        [step.tree.token_list() for step in decoder.generate("Once upon a time").steps]
        for decoder in (
            SpeculativeDecoder(tiny_pair, "kary", 6, 24, alignment=str(file)),
            SpeculativeDecoder(aligned, "kary", 6, 24),
        )
    )
    plain = SpeculativeDecoder(tiny_pair, "kary", 6, 24).generate("Once upon a time").steps
    assert through == wanted != [step.tree.token_list() for step in plain]
    with pytest.raises(ConfigError, match=r"this pair has drafter=aligned-near: expected drafter=model$"):
        SpeculativeDecoder(aligned, alignment=str(file))
