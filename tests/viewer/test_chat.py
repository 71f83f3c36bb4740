"""How a prompt and its reply are shown where a chat template goes around the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Run
from support.tiny_models import PairFolders, byte_tokenizer, save_model, tiny_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from specdraft.drafters.pair import PairFiles, find_pair
from specdraft.models.prompt_reader import Piece
from specdraft.viewer.page import page
from specdraft.viewer.steps import Shown
from specdraft.viewer.terminal import prompt_text, whole_text

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }} [end]{% endfor %} [me]"
MARKED = (Piece("[user] ", True), Piece("Hi", False), Piece(" [me]", True))


def shown(*prompt: Piece) -> Shown:
    return Shown({"tree": "chain"}, prompt, "Hello", 3, [], str)


class TestText:
    def test_marks_are_dim_and_what_is_said_is_not(self) -> None:
        text = prompt_text(MARKED)
        assert text.plain == "[user] Hi [me]"
        assert [(text.plain[span.start : span.end], span.style) for span in text.spans] == [
            ("[user] ", "dim"),
            (" [me]", "dim"),
        ]

    def test_a_prompt_without_marks_is_dim(self) -> None:
        assert [span.style for span in prompt_text([Piece("Hi", False)]).spans] == ["dim"]

    @pytest.mark.parametrize(
        ("prompt", "text"),
        [
            (MARKED, "\n[user] Hi [me]\nHello"),
            ((*MARKED[:2], Piece(" [me]\n", True)), "\n[user] Hi [me]\nHello"),
            ((Piece("Hi", False),), "\nHiHello"),  # the text goes on
        ],
    )
    def test_a_reply_begins_a_line(self, prompt: tuple[Piece, ...], text: str) -> None:
        assert whole_text(shown(*prompt)).plain == text

    def test_the_page_tells_them_apart(self) -> None:
        written = page(shown(*MARKED))
        assert '<bdi class="mark">[user] </bdi><bdi class="said">Hi</bdi><bdi class="mark"> [me]</bdi>' in written
        assert '<span class="chat">' in written
        assert '<span class="prompt"><bdi class="said">Hi</bdi></span>' in page(shown(Piece("Hi", False)))


class TestCommands:
    @pytest.fixture
    def pair(self, tiny_pair_folders: PairFolders, tmp_path: Path) -> list[str]:
        folder = save_model(tmp_path / "chat", tiny_llama(), byte_tokenizer(chat_template=CHAT))
        chosen = [f"pair.target.path={folder}", f"pair.draft.path={tiny_pair_folders.draft}", "max_new_tokens=4"]
        return [*chosen, "tree=chain", "budget=2"]

    def test_generate(self, run: Run, pair: list[str]) -> None:
        said = run("generate", "Hi", *pair, "prompts.system=be brief").out
        assert said.startswith("[system] be brief [end][user] Hi [end] [me]\n")
        assert said.count("\n[system] be brief [end][user] Hi [end] [me]\n") == 1

    def test_replay(self, run: Run, pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
        (tmp_path / "p.jsonl").write_text('{"prompt": "Hi"}\n')
        said = run("replay", "1", *pair, f"prompts.path={tmp_path / 'p.jsonl'}").out
        assert said.startswith("[user] Hi [end] [me]\n")


def test_a_word_keeps_its_space_behind_others(tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
    """Decoders of Llama 2's kind drop the space in front of a text's first word."""
    vocab = {"<unk>": 0, "\u2581up": 1, "\u2581to": 2}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    save_model(tmp_path, tiny_llama(), PreTrainedTokenizerFast(tokenizer_object=backend))
    spec = PairFolders(tmp_path, tiny_pair_folders.draft).spec()
    files: PairFiles = find_pair(spec)
    assert (files.decode([1, 2]), files.decode([2], after=[1]), files.decode([2])) == ("up to", " to", "to")
