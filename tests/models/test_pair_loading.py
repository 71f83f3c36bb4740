from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants as hub
from safetensors.torch import load_file, save_file
from support.tiny_models import BOS, EOS, VOCAB, PairFolders, byte_tokenizer, change_json, save_model, tiny_llama

from specdraft.drafters.pair import Pair, find_pair, load_pair
from specdraft.errors import ConfigError, ModelError, PromptError, UnsupportedModelError
from specdraft.models import files as files_module
from specdraft.models.files import find_model
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.study.plan import plan_study

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folders(tiny_pair_folders: PairFolders, tmp_path: Path) -> PairFolders:
    """A copy to write into."""
    return PairFolders(*(Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in tiny_pair_folders))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_pair_of_folders_is_loaded_checked_and_gives_back_text(
    tiny_pair: Pair, tiny_pair_folders: PairFolders
) -> None:
    assert tiny_pair.name == "tiny"
    assert tiny_pair.target.vocab == tiny_pair.drafter.model.vocab == VOCAB
    assert tiny_pair.target.dtype == torch.float32
    assert tiny_pair.target_check.passed
    assert tiny_pair.drafter.check.passed
    assert tiny_pair.files.context_length == 512
    assert tiny_pair.eos_ids == {EOS}
    ids = tiny_pair.encode("naïve\n\t x")
    assert ids[0] == BOS
    assert BOS not in ids[1:]
    assert tiny_pair.decode(ids) == "naïve\n\t x"
    saved = load_file(tiny_pair_folders.target / "model.safetensors")
    assert all(torch.equal(saved[name], weight) for name, weight in tiny_pair.target.model.state_dict().items())


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    folder = save_model(tmp_path, tiny_llama(tie_word_embeddings=True))
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert load_pair(PairFolders(folder, folder).spec()).target_check.passed


def test_a_target_is_used_again_by_the_next_pair(tiny_pair: Pair, tiny_pair_folders: PairFolders) -> None:
    target, draft = tiny_pair_folders
    again = load_pair(PairFolders(target, target).spec(), target_of=tiny_pair)
    assert again.target is tiny_pair.target
    assert again.drafter.model is not tiny_pair.target
    assert load_pair(PairFolders(draft, draft).spec(), target_of=tiny_pair).target is not tiny_pair.target


def test_a_target_keeps_its_ids_whatever_its_drafter_has(tiny_pair: Pair, tmp_path: Path) -> None:
    smaller = save_model(tmp_path, tiny_llama(vocab_size=VOCAB - 2))
    again = load_pair(PairSpec("tiny", tiny_pair.files.target.spec, ModelSpec(str(smaller))), target_of=tiny_pair)
    assert again.target is tiny_pair.target
    assert (again.target.vocab, again.drafter.model.vocab, again.files.shared_ids) == (VOCAB, VOCAB - 2, VOCAB - 2)


@pytest.mark.parametrize("path", ["./nowhere", "/no/where/at/all", "~/no-such-folder-here", "a/b/c", "with space"])
def test_a_missing_folder_is_named_with_its_key(path: str, tiny_pair_folders: PairFolders) -> None:
    with pytest.raises(ModelError, match=r"^pair\.draft\.path=") as caught:
        find_pair(PairSpec("p", ModelSpec(str(tiny_pair_folders.target)), ModelSpec(path)))
    assert str(caught.value) == f"pair.draft.path={path}: no such folder"


def test_a_file_is_no_folder(folders: PairFolders) -> None:
    with pytest.raises(ModelError, match=r"config\.json: this is a file; expected a folder with config\.json"):
        find_model(ModelSpec(str(folders.target / "config.json")), "pair.target")
    path = folders.target / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"this is a GGUF file .*, which is not read; expected a folder"):
        find_model(ModelSpec(str(path)), "pair.target")


def test_weights_that_can_run_code_are_refused(folders: PairFolders) -> None:
    weights = folders.target / "model.safetensors"
    torch.save(load_file(weights), folders.target / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match=r"path=.*: there are no \.safetensors weights, only pytorch_model\.bin \("):
        find_pair(folders.spec())
    assert find_pair(folders.spec(), weights=False).shared_ids == VOCAB


def test_a_folder_without_config_is_no_saved_model(folders: PairFolders) -> None:
    (folders.draft / "config.json").unlink()
    with pytest.raises(ModelError, match=r"pair\.draft\.path=.*no config\.json"):
        find_pair(folders.spec())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a valid JSON file"),
        ("{}", "model_type"),
        ('{"model_type": "llamb"}', "llamb"),
        ('{"model_type": "llama", "hidden_size": "32"}', "hidden_size.* expected int"),
        ('{"model_type": "llama", "num_attention_heads": 5}', "not a multiple of the number of attention heads"),
    ],
)
def test_an_unusable_config_is_one_line(folders: PairFolders, text: str, message: str) -> None:
    (folders.target / "config.json").write_text(text)
    with pytest.raises(ModelError, match=f"target: no usable config.json: .*{message}") as caught:
        load_pair(folders.spec())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b), lambda b: b"{}" + b]
)
def test_corrupted_weights_are_one_line(folders: PairFolders, damage: Callable[[bytes], bytes]) -> None:
    path = folders.draft / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match="draft: the weights cannot be loaded: ") as caught:
        load_pair(folders.spec())
    assert "\n" not in str(caught.value)


def test_missing_weights_are_not_made_up(folders: PairFolders) -> None:
    change_weights(folders.target, lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(
        ModelError,
        match=r"target: the weights are incomplete: 1 tensors are missing, as model\.layers\.1\.mlp\.up_proj",
    ):
        load_pair(folders.spec())


def test_weights_of_another_shape_are_refused(folders: PairFolders) -> None:
    change_weights(folders.target, lambda w: w.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(ModelError, match="target: the weights cannot be loaded: "):
        load_pair(folders.spec())


def test_weights_that_are_not_numbers_are_refused(folders: PairFolders) -> None:
    change_weights(folders.target, lambda w: w["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(ModelError, match=r"target: the weights are damaged: model\.norm\.weight holds NaN or infinity"):
        load_pair(folders.spec())


@pytest.mark.parametrize(("name", "kind"), [("model.embed_tokens.weight", "input"), ("lm_head.weight", "output")])
def test_embeddings_that_are_all_zero_are_refused(folders: PairFolders, name: str, kind: str) -> None:
    change_weights(folders.draft, lambda w: w[name].zero_())
    with pytest.raises(ModelError, match=f"draft: the weights are damaged: the {kind} embeddings are all zero"):
        load_pair(folders.spec())


def test_a_model_that_is_gated_out_needs_no_weights(folders: PairFolders) -> None:
    (folders.draft / "config.json").write_text('{"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2}')
    with pytest.raises(UnsupportedModelError, match="takes no position_ids"):
        find_pair(folders.spec(), weights=False).check()


def test_differing_tokenizers_are_refused(folders: PairFolders) -> None:
    text = (folders.draft / "tokenizer.json").read_text(encoding="utf-8")
    vocab = json.loads(text)["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    swapped = json.loads(text)
    swapped["model"]["vocab"] = vocab
    (folders.draft / "tokenizer.json").write_text(json.dumps(swapped), encoding="utf-8")
    with pytest.raises(ModelError, match=r"pair tiny: the tokenizers of .*target and .*draft differ \(first at 'a'\)"):
        load_pair(folders.spec())


def test_tokenizers_with_one_vocabulary_but_other_text_rules_are_refused(folders: PairFolders) -> None:
    changed = json.loads((folders.draft / "tokenizer.json").read_text(encoding="utf-8"))
    changed["normalizer"] = {"type": "Lowercase"}
    (folders.draft / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(ModelError, match=r"the tokenizers of .* differ \(first at 'The quick brown fox"):
        load_pair(folders.spec())


def test_a_folder_without_tokenizer_is_one_line(folders: PairFolders) -> None:
    for path in folders.target.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="target: no usable tokenizer: ") as caught:
        load_pair(folders.spec())
    assert "\n" not in str(caught.value)


def test_ids_that_no_tokenizer_knows_are_out_on_both_sides(tmp_path: Path) -> None:
    target = save_model(tmp_path / "target", tiny_llama(vocab_size=VOCAB + 14))
    draft = save_model(tmp_path / "draft", tiny_llama(1, vocab_size=VOCAB + 6))
    pair = load_pair(PairFolders(target, draft).spec())
    assert pair.files.shared_ids == pair.target.vocab == pair.drafter.model.vocab == VOCAB
    assert pair.target.prefill([0, 5]).logits.shape == pair.drafter.model.prefill([0, 5]).logits.shape == (VOCAB,)


def test_the_context_is_the_shorter_of_the_two(folders: PairFolders) -> None:
    change_json(folders.draft / "config.json", max_position_embeddings=128)
    assert find_pair(folders.spec()).context_length == 128
    change_json(folders.target / "config.json", max_position_embeddings=64)
    assert find_pair(folders.spec()).context_length == 64


def test_tokens_of_the_target_alone_are_no_difference_but_no_prompt_either(tmp_path: Path) -> None:
    longer = byte_tokenizer(extra_tokens=("Ġ!",))
    target = save_model(tmp_path / "target", tiny_llama(vocab_size=VOCAB + 1), longer)
    draft = save_model(tmp_path / "draft", tiny_llama(vocab_size=VOCAB))
    found = find_pair(PairFolders(target, draft).spec())
    found.check()
    assert (found.shared_ids, found.target.known_ids) == (VOCAB, VOCAB + 1)
    found.target.tokenizer.add_tokens(["<only-here>"])
    with pytest.raises(PromptError, match=f"needs token {VOCAB + 1}; the target knows {VOCAB + 1} ids"):
        found.encode("a <only-here> b")


def test_a_prompt_without_tokens_is_refused(folders: PairFolders) -> None:
    assert find_pair(folders.spec()).encode("") == [BOS]
    changed = json.loads((folders.target / "tokenizer.json").read_text(encoding="utf-8"))
    changed["post_processor"] = None
    (folders.target / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(PromptError, match="the prompt has no tokens"):
        find_pair(folders.spec()).encode("")


def test_a_chat_template_is_applied_without_a_second_bos(tmp_path: Path, tiny_pair_folders: PairFolders) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if "
        "add_generation_prompt %} [me] {% endif %}"
    )
    target = save_model(tmp_path, tiny_llama(), byte_tokenizer(chat_template=template))
    pair = find_pair(PairFolders(target, tiny_pair_folders.draft).spec())
    plain = find_pair(tiny_pair_folders.spec())
    assert pair.encode("Hi") == plain.encode("[user] Hi [me] ")
    assert pair.encode("Hi").count(BOS) == 1
    assert pair.encode("Hi", chat_template="none") == plain.encode("Hi")
    assert plain.encode("Hi", chat_template="auto") == plain.encode("Hi")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('Roles must alternate\\nand so on') }}", "Roles must alternate"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content.nothing.at_all }}", "has no attribute 'nothing'"),
    ],
)
def test_a_chat_template_that_fails(tmp_path: Path, tiny_pair_folders: PairFolders, template: str, words: str) -> None:
    target = save_model(tmp_path, tiny_llama(), byte_tokenizer(chat_template=template))
    pair = find_pair(PairFolders(target, tiny_pair_folders.draft).spec())
    with pytest.raises(PromptError) as raised:
        pair.encode("Hi")
    line = str(raised.value)
    assert line.startswith(f"the chat template of {target} fails: ")
    assert words in line
    assert line.endswith("; prompts.chat_template=none does without it")
    assert "\n" not in line
    assert pair.encode("Hi", chat_template="none")


def test_end_of_sequence_is_the_targets_set_in_generation_config(folders: PairFolders) -> None:
    change_json(folders.target / "generation_config.json", eos_token_id=[EOS, 7, 9])
    change_json(folders.draft / "generation_config.json", eos_token_id=11)
    assert load_pair(folders.spec()).eos_ids == {EOS, 7, 9}


def test_end_of_sequence_falls_back_to_the_config_and_may_be_absent(folders: PairFolders) -> None:
    (folders.target / "generation_config.json").unlink()
    change_json(folders.target / "config.json", eos_token_id=[3, 4])
    assert load_pair(folders.spec()).eos_ids == {3, 4}
    change_json(folders.target / "config.json", eos_token_id=None)
    assert load_pair(folders.spec()).eos_ids == frozenset()


def test_odd_generation_settings_of_a_checkpoint_do_no_harm(folders: PairFolders) -> None:
    change_json(folders.target / "generation_config.json", temperature=0.3, top_k=5, do_sample=False, max_length=20)
    assert load_pair(folders.spec()).eos_ids == {EOS}


def test_code_from_a_repository_is_never_run(folders: PairFolders) -> None:
    spec = folders.spec()
    spec.draft.trust_remote_code = True
    with pytest.raises(ConfigError, match=r"pair\.draft\.trust_remote_code=true is refused"):
        load_pair(spec)
    trap = folders.target / "ran"
    (folders.target / "mine.py").write_text(f"open({str(trap)!r}, 'w')\n")
    change_json(
        folders.target / "config.json",
        model_type="mine",
        auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"},
    )
    with pytest.raises(ModelError, match="custom code"):
        load_pair(folders.spec())
    assert not trap.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": ""}, r"pair\.target\.path is empty"),
        ({"dtype": "float23"}, r"pair\.target\.dtype='float23' is not known; did you mean 'float32'\?"),
        ({"quantize": "4bits"}, r"pair\.target\.quantize='4bits' is not known; did you mean '4bit'\?"),
    ],
)
def test_values_that_mean_no_model_are_refused_by_key(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_pair(PairSpec("p", ModelSpec(**{"path": "x"} | changes), ModelSpec("x")))


def test_an_unknown_drafter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"drafter=modle: there is no such drafter; did you mean 'model'\?"):
        plan_study(["drafter=modle"])


@pytest.mark.parametrize(("device", "message"), [("banana", "is not a device"), ("cuda:97", "this machine has")])
def test_a_device_that_is_not_there_is_refused(folders: PairFolders, device: str, message: str) -> None:
    spec = folders.spec()
    spec.target.device = device
    with pytest.raises(ConfigError, match=message):
        load_pair(spec)


def test_a_bundled_model_that_does_not_exist_has_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("target", "draft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.setattr(files_module, "zoo_folder", lambda: tmp_path)
    with pytest.raises(ModelError) as caught:
        find_model(ModelSpec("zoo:targte"), "pair.target")
    assert (
        str(caught.value)
        == "pair.target.path=zoo:targte: no such bundled model; did you mean 'target'? (known: draft, target)"
    )
    assert find_model(ModelSpec("zoo:target"), "pair.target").folder == tmp_path / "target"


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_without_network_says_so(offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(ModelError) as caught:
        find_model(ModelSpec("someone/something"), "pair.target")
    assert str(caught.value) == (
        "pair.target.path=someone/something: no such folder here, not in the hub's cache, and the hub cannot be reached"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "the repository is gated; accept its licence on the hub and log in"),
        ("RepositoryNotFoundError", "no such folder here, and no such repository on the hub"),
        ("RevisionNotFoundError", "the repository has no revision 'v9'"),
        ("HFValidationError", "neither a folder nor a hub id: "),
    ],
)
def test_what_the_hub_answers_is_one_line(error: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = getattr(huggingface_hub.errors, error)

    def refuse(*_: Any, **__: Any) -> None:
        raise kind.__new__(kind, "first line\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=message) as caught:
        find_model(ModelSpec("someone/something", revision="v9"), "pair.target")
    assert str(caught.value).startswith("pair.target.path=someone/something: ")
    assert "\n" not in str(caught.value)


def test_only_text_and_safetensors_are_fetched_from_the_hub(
    folders: PairFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    snapshot = folders.target.rename(folders.target.parent / COMMIT)

    def download(repo: str, **options: Any) -> str:
        calls.append((repo, options))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = find_model(ModelSpec("someone/something", revision="main"), "pair.target")
    assert find_model(ModelSpec("someone/something"), "pair.target", weights=False).folder == found.folder == snapshot
    assert found.revision == COMMIT
    (repo, options), (_, without_weights) = calls
    assert (repo, options["revision"]) == ("someone/something", "main")
    assert set(options["allow_patterns"]) == {"*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"}
    assert "*.safetensors" not in without_weights["allow_patterns"]


def test_the_weights_hash_follows_all_that_decides_what_is_decoded(folders: PairFolders) -> None:
    def digest(folder: Path) -> str:
        return find_model(ModelSpec(str(folder)), "pair.target").weights_hash

    hashes = [digest(folders.target), digest(folders.draft)]
    assert digest(Path(shutil.copytree(folders.target, folders.target.parent / "elsewhere"))) == hashes[0]
    (folders.target / "README.md").write_text("words")
    assert digest(folders.target) == hashes[0]
    change_weights(folders.target, lambda w: w["model.norm.weight"].add_(1e-3))
    hashes.append(digest(folders.target))
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        change_json(folders.target / name, extra=1)
        hashes.append(digest(folders.target))
    assert len(set(hashes)) == 6


def test_the_weights_hash_does_not_change_with_the_library(
    folders: PairFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_model(ModelSpec(str(folders.target)), "pair.target").weights_hash
    monkeypatch.setattr("transformers.configuration_utils.__version__", "5.99.0")
    assert find_model(ModelSpec(str(folders.target)), "pair.target").weights_hash == first


def test_checking_leaves_the_config_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart", "d_model": 16, "vocab_size": 32}')
    files = find_model(ModelSpec(str(tmp_path)), "pair.target", weights=False)
    before = files.config.to_dict()
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        files.check_supported()
    assert files.config.to_dict() == before
