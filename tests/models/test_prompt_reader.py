from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run, one_line
from support.tiny_models import BOS, PairFolders, byte_tokenizer, save_model, tiny_llama

from specdraft.config import Settings
from specdraft.drafters.pair import PairFiles, find_pair
from specdraft.errors import PromptError
from specdraft.models import prompt_reader
from specdraft.models.prompt_reader import Piece, PromptReader, within_seconds
from specdraft.prompts import Message
from specdraft.study.combination import encode_prompts
from specdraft.study.plan import plan_study

CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} [end]{% endfor %}"
    "{% if add_generation_prompt %} [me] {% endif %}"
)
AROUND = len("[user]  [end] [me] ") + 1  # bytes, and <s>


def reader(template: Any = None, use: str = "auto") -> PromptReader:
    return PromptReader(byte_tokenizer(chat_template=template), "MODEL", use)


def written(ids: list[int]) -> str:
    return str(byte_tokenizer().decode(ids, skip_special_tokens=False))


class TestCutting:
    @pytest.mark.parametrize("kept", [1, 2, 9, 19])
    def test_the_template_stays_whole(self, kept: int) -> None:
        ids = reader(CHAT).end_ids("0123456789" * 2, AROUND + kept)
        assert written(ids) == f"<s>[user] {('0123456789' * 2)[-kept:]} [end] [me] "
        assert len(ids) == AROUND + kept

    def test_what_the_tokenizer_puts_before_a_text_stays(self) -> None:
        assert reader().end_ids("x" * 20, 5) == [BOS, *reader().ids("xxxx")[1:]]

    def test_characters_of_several_tokens_are_not_cut_through(self) -> None:
        assert written(reader(CHAT, "none").end_ids("\u00e9" * 9, 6)) == "<s>\u00e9\u00e9"

    @pytest.mark.parametrize(("template", "most"), [(CHAT, AROUND), (None, 1)])
    def test_no_room(self, template: str | None, most: int) -> None:
        with pytest.raises(PromptError, match=f"max_prompt_tokens={most} leaves no room for the prompt beside the"):
            reader(template).end_ids("abc", most)

    def test_of_a_pair(self, chat_pair: PairFiles) -> None:
        short, settings = "x" * 11, Settings(max_prompt_tokens=AROUND + 11)
        assert chat_pair.encode_to_fit(short, "auto", settings, 4) == (chat_pair.encode(short), False, False)
        assert chat_pair.encode_to_fit(f"long {short}", "auto", settings, 4) == (chat_pair.encode(short), True, False)


@pytest.fixture(scope="module")
def chat_pair(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    folder = save_model(tmp_path_factory.mktemp("chat"), tiny_llama(), byte_tokenizer(chat_template=CHAT))
    return find_pair(PairFolders(folder, tiny_pair_folders.draft).spec())


@pytest.mark.parametrize(
    ("template", "text", "twice"),
    [
        (CHAT, "Hi", False),
        (CHAT, "what is a [user]?", True),
        (CHAT, "<s>Hi", True),
        (CHAT, "Hi, what does <s> mean?", True),  # a special token that the template puts there
        (CHAT, "what does </s> mean?", False),  # one that it does not
        (None, "<s>Hi", True),
        (None, "<s> [user] Hi", True),
        (None, "[user] Hi", False),
        ("{{ messages[0].content }}", "[user] Hi", False),
    ],
)
def test_marks_that_are_there_already(template: str | None, text: str, twice: bool) -> None:
    assert reader(template).holds_marks(text) is twice
    if template is None:
        assert (reader().ids(text)[:2] == [BOS, BOS]) is twice
    assert reader(CHAT, "none").holds_marks(text) is text.startswith("<s>")


def test_a_tokenizer_without_bos_puts_none_twice() -> None:
    plain = byte_tokenizer()
    plain.backend_tokenizer.post_processor = None  # type: ignore[assignment]
    assert not PromptReader(plain, "MODEL").holds_marks("<s>Hi")


BEFORE = ("", "[system] be brief [end]", "[system] be kind [end]")
TALK = (Message("system", "be brief"), Message("user", "Hi"), Message("assistant", "Hello."))
SYSTEM_LEFT_OUT = (
    "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endif %}{% endfor %}"
)
SYSTEM_REFUSED = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
)


class TestMessages:
    def test_a_conversation_is_rendered_whole(self) -> None:
        ids = reader(CHAT).ids("Why?", TALK)
        assert written(ids) == (
            "<s>[system] be brief [end][user] Hi [end][assistant] Hello. [end][user] Why? [end] [me] "
        )

    @pytest.mark.parametrize(
        ("template", "use", "words"),
        [
            (None, "auto", "MODEL has no chat template, and only there is a place for messages before the last one"),
            (CHAT, "none", "MODEL is read with prompts.chat_template=none, and only there is a place"),
            (SYSTEM_LEFT_OUT, "auto", "the chat template of MODEL leaves out the message of system (prompts.system"),
            (
                SYSTEM_REFUSED,
                "auto",
                "the chat template of MODEL fails: System role not supported; it was given the messages of system "
                "(prompts.system, or the row's own), and the user's",
            ),
        ],
    )
    def test_no_place_for_a_system_prompt(self, template: str | None, use: str, words: str) -> None:
        with pytest.raises(PromptError) as raised:
            reader(template, use).ids("Why?", TALK[:1])
        assert str(raised.value).startswith(words)
        assert "prompts.system" in str(raised.value)
        assert "\n" not in str(raised.value)
        assert reader(template, use).ids("Why?")

    def test_of_a_message_that_another_one_holds(self) -> None:
        """Only its place counts: a text that stands elsewhere does not hide that it is left out."""
        with pytest.raises(PromptError, match="leaves out the message of system"):
            reader(SYSTEM_LEFT_OUT).ids("Why be brief?", TALK[:1])
        assert reader(SYSTEM_LEFT_OUT).ids("Why?", TALK[1:])

    @pytest.mark.parametrize(
        ("most", "kept"),
        [
            (85, "[system] be brief [end][user] Hi [end][assistant] Hello. [end][user] Why? [end] [me] "),
            (84, "[system] be brief [end][user] Why? [end] [me] "),
            (46, "[system] be brief [end][user] Why? [end] [me] "),
            (45, "[system] be brief [end][user] hy? [end] [me] "),
        ],
    )
    def test_the_oldest_turns_are_cut_first(self, most: int, kept: str) -> None:
        ids = reader(CHAT).end_ids("Why?", most + 1, TALK)
        assert written(ids) == f"<s>{kept}"

    def test_no_room(self) -> None:
        with pytest.raises(PromptError, match="beside the chat template and the system prompt"):
            reader(CHAT).end_ids("Why?", 43, TALK)

    def test_marks_in_an_earlier_message(self, chat_pair: PairFiles) -> None:
        before = (Message("user", "[user] Hi"), TALK[2])
        assert chat_pair.encode_to_fit("Why?", "auto", Settings(), 4, before).marked_twice
        assert not chat_pair.encode_to_fit("Why?", "auto", Settings(), 4, TALK).marked_twice


class TestPieces:
    def test_marks_are_told_from_what_is_said(self) -> None:
        assert reader(CHAT).pieces(" Why? ", TALK[1:]) == [
            Piece("<s>[user] ", True),
            Piece("Hi", False),
            Piece(" [end][assistant] ", True),
            Piece("Hello.", False),
            Piece(" [end][user]  ", True),
            Piece("Why?", False),
            Piece("  [end] [me] ", True),
        ]

    def test_a_text_that_is_said_twice(self) -> None:
        pieces = reader(CHAT).pieces("Hi", TALK[1:])
        assert [piece.text for piece in pieces if not piece.mark] == ["Hi", "Hello.", "Hi"]
        assert (
            "".join(piece.text for piece in pieces) == "<s>[user] Hi [end][assistant] Hello. [end][user] Hi [end] [me] "
        )

    def test_a_text_that_the_template_changes_is_not_told_apart(self) -> None:
        assert reader("[a] {{ messages[0].content | upper }} [b]").pieces("Hi") == [Piece("[a] HI [b]", True)]

    @pytest.mark.parametrize(("template", "use"), [(None, "auto"), (CHAT, "none")])
    def test_without_a_template(self, template: str | None, use: str) -> None:
        assert reader(template, use).pieces("Hi") == [Piece("Hi", False)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ('strftime_now("%d %b %Y")', "26 Jul 2024"),
        ("strftime_now( '%Y-%m-%d' )", "2024-07-26"),
        ("strftime_now('%H:%M') ~ strftime_now('%A')", "00:00Friday"),
    ],
)
def test_today_is_a_fixed_day(asked: str, said: str) -> None:
    template = "{% if strftime_now is defined %}{{ " + asked + " }}{% endif %}: {{ messages[0].content }}"
    for given in (template, {"default": template, "rag": "x"}):
        assert written(reader(given).ids("Hi")) == f"{said}: Hi"
        assert reader(given).dated
        assert not reader(given, "none").dated
    assert not reader(CHAT).dated


FOR_EVER = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (FOR_EVER, "it did not come to an end in 0.2 seconds"),
        (DOUBLING, "it did not come to an end in 0.2 seconds"),
        ("{{ 9**9**9**9 }}", "it raises to a power"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth"),
        ("{{ none + 1 }}", "unsupported operand"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'x' * 99999999999999 }}", "MemoryError"),
        ({"rag": "x"}, "multiple chat templates with no default"),
    ],
)
def test_templates_that_fail(monkeypatch: pytest.MonkeyPatch, template: Any, why: str) -> None:
    monkeypatch.setattr(prompt_reader, "MOST_SECONDS", 0.2)
    before, started = sys.gettrace(), time.monotonic()
    with pytest.raises(PromptError) as raised:
        reader(template).ids("Hi")
    assert str(raised.value).startswith("the chat template of MODEL fails: ")
    assert why in str(raised.value)
    assert str(raised.value).endswith("; prompts.chat_template=none does without it")
    assert time.monotonic() - started < 5
    assert sys.gettrace() is before
    assert reader(template, "none").ids("Hi") == reader().ids("Hi")


def test_named_templates() -> None:
    assert written(reader({"default": CHAT, "rag": "x"}).ids("Hi")) == "<s>[user] Hi [end] [me] "


def test_within_seconds_gives_what_the_call_gives() -> None:
    assert within_seconds(1, lambda: 3) == 3
    with pytest.raises(KeyError):
        within_seconds(1, lambda: {}["x"])


def test_a_text_that_is_none() -> None:
    for template in (CHAT, None):
        with pytest.raises(PromptError, match="the prompt is not UTF-8 text"):
            reader(template).ids("caf\udce9")


class TestCommands:
    """On a target with a chat template."""

    @pytest.fixture
    def chat(self, chat_pair: PairFiles, tmp_path: Path) -> list[str]:
        rows = [{"turns": ["Hi", "And?"]}, {"prompt": "[user] Hi"}, {"prompt": "word " * 40}]
        (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
        models = [
            f"pair.{role}.path={model.spec.path}"
            for role, model in zip(("target", "draft"), chat_pair.models, strict=True)
        ]
        return [
            *models,
            "pair.name=custom",
            "tree=chain",
            "budget=2",
            "max_new_tokens=4",
            f"prompts.path={tmp_path / 'p.jsonl'}",
        ]

    NOTES = (
        "only the first turn is measured of 1 of 3 prompts, which have more",
        "1 of 3 prompts cut to max_prompt_tokens=64 on the left of their text (custom)",
        "1 of 3 prompts hold the BOS or the chat template's marks already and get them twice (custom): give the plain "
        "text, or prompts.chat_template=none and no BOS",
    )

    def test_a_plan_says_it(self, run: Run, chat: list[str], tmp_path: Path) -> None:
        given = ["sweep", *chat, "max_prompt_tokens=64", "--dry-run"]
        said = run(*given)
        assert [line.removeprefix("note: ") for line in said.out.splitlines() if line.startswith("note: ")] == [
            *self.NOTES
        ]
        notes = json.loads(run(*given, "--json").out)["notes"]
        assert [note["text"] for note in notes] == list(self.NOTES)
        assert [(note["kind"], note["prompts"]) for note in notes] == [
            ("first turn", 1),
            ("cut", 1),
            ("marked twice", 1),
        ]

    def test_a_sweep_says_it_and_the_report_too(self, run: Run, chat: list[str], tmp_path: Path) -> None:
        out = tmp_path / "out"
        said = run("sweep", *chat, "max_prompt_tokens=64", "engine=live", "--out", out, "report=false")
        for text in self.NOTES:
            assert f"note: {text}" in said.err.splitlines()
        assert [note["text"] for note in json.loads((out / "manifest.json").read_text())["prompt_notes"]] == [
            *self.NOTES
        ]
        run("report", out, "--format", "md")
        for text in self.NOTES:
            assert f"Prompts: {text}." in (out / "report.md").read_text().replace("\\", "").replace("`", "")

    def test_system_prompts_are_told_apart(self, chat: list[str]) -> None:
        """In the text, in the identity of a study, and in the names of its combinations."""
        listed = {}
        for name, system in (
            ("none", []),
            ("brief", ["prompts.system=be brief"]),
            ("kind", ["prompts.system=be kind"]),
        ):
            plan = plan_study([*chat, *system, "engine=live"])
            (combination,) = plan.combinations
            ids = encode_prompts(combination.pair, plan.prompts, plan.combinations)["1"]
            listed[name] = (combination.identifier, plan.identity["prompts"], written(ids))
        identifiers, digests, texts = map(set, zip(*listed.values(), strict=True))
        assert len(identifiers) == len(digests) == 3
        assert texts == {f"<s>{before}[user] Hi [end] [me] " for before in BEFORE}

    def test_messages(self, run: Run, chat: list[str], tmp_path: Path) -> None:
        talk = [{"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "So?"), ("user", "b"))]
        rows = [{"messages": talk}, {"messages": talk[:2]}, {"prompt": "x"}]
        (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
        said = run("sweep", *chat, "--dry-run")
        (note,) = [line for line in said.out.splitlines() if line.startswith("note: ")]
        assert note == "note: 1 of 3 prompts are measured up to their last turn of the user; what follows is left out"
        said = run("sweep", *chat, "engine=live", "report=false", "--out", tmp_path / "out")
        assert said.code == 0
        kinds = [n["kind"] for n in json.loads((tmp_path / "out" / "manifest.json").read_text())["prompt_notes"]]
        assert kinds == ["reply"]

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (("sweep", "prompts.limit=1", "--dry-run"), "prompt '1': "),
            (("sweep", "prompts.limit=1"), "prompt '1': "),
            (("generate", "Hi"), "error: "),
        ],
    )
    def test_a_system_prompt_without_a_template(
        self, run: Run, tiny_pair_folders: PairFolders, command: tuple[str, ...], words: str
    ) -> None:
        pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
        line = one_line(run(*command, *pair, "tree=chain", "budget=2", "prompts.system=be brief"))
        assert f"{words}{tiny_pair_folders.target} has no chat template, and only there is a place for messages" in line
        assert ": system (prompts.system, or the row's own)" in line

    def test_a_date_is_said(self, run: Run, chat: list[str], tmp_path: Path) -> None:
        target = save_model(
            tmp_path / "dated", tiny_llama(), byte_tokenizer(chat_template="{{ strftime_now('%Y') }}" + CHAT)
        )
        said = run("sweep", f"pair.target.path={target}", *chat[1:], "--dry-run")
        text = "note: the chat template puts the day's date into prompts, and is told 2024-07-26 (custom)"
        assert text in said.out.splitlines()
        assert text in run("generate", "Hi", f"pair.target.path={target}", *chat[1:-1], "--json").err.splitlines()

    def test_generate_says_it(self, run: Run, chat: list[str]) -> None:
        said = run("generate", "<s>Hi", *chat[:-1], "--json")
        assert said.err.startswith("note: 1 of 1 prompts hold the BOS")
        assert run("generate", "Hi", *chat[:-1], "--json").err == ""

    def test_not_utf_8(self, run: Run, chat: list[str]) -> None:
        assert one_line(run("generate", "caf\udce9", *chat[:-1])) == "error: the prompt is not UTF-8 text"

    def test_a_list_of_named_templates(self, run: Run, tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
        target = save_model(tmp_path / "target", tiny_llama(), byte_tokenizer())
        config = json.loads((target / "tokenizer_config.json").read_text())
        config["chat_template"] = [{"name": "rag", "template": "x"}]
        (target / "tokenizer_config.json").write_text(json.dumps(config))
        pair = [f"pair.target.path={target}", f"pair.draft.path={tiny_pair_folders.draft}", "tree=chain", "budget=2"]
        pair += ["prompts.limit=1", "max_prompt_tokens=20"]
        line = one_line(run("sweep", *pair, "--dry-run"))
        assert line.endswith("prompts.chat_template=none does without it")
        assert run("sweep", *pair, "--dry-run", "prompts.chat_template=none").code == 0


CHAIN = ("pair=zoo", "tree=chain", "budget=2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "x", "engine=replay"), "engine=replay has no effect in generate: generate always decodes"),
        (("replay", "x", "engine=live"), "engine=live has no effect in replay: replay always reads traces"),
        (("certify", "engine=replay"), "engine=replay has no effect in certify"),
        (("generate", "x", "repeats=3"), "repeats=3 has no effect in generate: it is for a whole study"),
        (("replay", "x", "output.steps=true"), "output.steps=true has no effect in replay"),
        (("replay", "x", "max_time_s=1"), "max_time_s=1 has no effect in replay: nothing is decoded"),
        (("certify", "report=false"), "report=false has no effect in certify"),
        (("generate", "x", "prompts.limit=3"), "prompts.limit=3 has no effect in generate: the prompt is the one"),
        (("generate", "x", "prompts=jsonl", "prompts.path=p.jsonl"), "prompts=jsonl has no effect in generate"),
        (("trees", "show", "kary", "max_new_tokens=3"), "max_new_tokens=3 has no effect in trees show"),
        (("sweep", *CHAIN, "pair.draft.revision=main"), "pair.draft.revision=main has no effect: "),
        (
            ("sweep", *CHAIN, "prompts=bundled", "prompts.path=p.jsonl"),
            "prompts=bundled does not go with prompts.path=p.jsonl",
        ),
    ],
)
def test_keys_without_effect(run: Run, arguments: tuple[str, ...], words: str) -> None:
    line = one_line(run(*arguments))
    assert words in line
    assert "leave" in line
