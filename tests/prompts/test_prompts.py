from __future__ import annotations

import json
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from specdraft.errors import ConfigError, PromptError
from specdraft.prompts import Message, Prompt, PromptSpec, digest_of_each, load_prompts, prompts_digest, spread

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"


def jsonl(path: Path, *rows: Any) -> PromptSpec:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return PromptSpec(kind="jsonl", path=str(path))


def test_bundled() -> None:
    prompts = load_prompts(PromptSpec())
    assert len(prompts) == len({p.prompt_id for p in prompts}) == len({p.text for p in prompts}) == 80
    assert Counter(p.category for p in prompts) == dict.fromkeys(("story", "drama", "maths", "code", "reference"), 16)
    assert all(p.text.strip() for p in prompts)


def grams(text: str, size: int = 8) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[i:] for i in range(size)), strict=False))


def corpus_texts() -> Iterator[tuple[str, str]]:
    for path in sorted(CORPUS.iterdir()):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            yield path.name, "\n".join(f"{row['question']} {re.sub(r'<<.*?>>', '', row['answer'])}" for row in rows)
        else:
            yield path.name, path.read_text(encoding="utf-8")


def library_texts() -> Iterator[tuple[str, str]]:
    from pydoc_data import topics

    library = Path(sysconfig.get_paths()["stdlib"])
    for path in library.rglob("*.py"):
        if "site-packages" not in path.parts:
            yield str(path.relative_to(library)), path.read_text(encoding="utf-8", errors="ignore")
    yield from topics.topics.items()


@pytest.mark.parametrize("texts", [corpus_texts, pytest.param(library_texts, marks=pytest.mark.slow)])
def test_no_bundled_prompt_was_trained_on(texts: Any) -> None:
    if texts is corpus_texts and not CORPUS.is_dir():
        pytest.skip("the training text is not here")
    own = {gram: p.prompt_id for p in load_prompts(PromptSpec()) for gram in grams(p.text)}
    assert len(own) > 1000
    seen = {(own[gram], name, " ".join(gram)) for name, text in texts() for gram in grams(text) & own.keys()}
    assert not seen


def instruct_rows() -> list[dict[str, Any]]:
    text = files("specdraft").joinpath("bundled/instruct.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_instruct() -> None:
    prompts, rows = load_prompts(PromptSpec("instruct")), instruct_rows()
    assert Counter(p.category for p in prompts) == dict.fromkeys(
        ("translation", "summarization", "qa", "math_reasoning", "rag"), 16
    ) | {"multi_turn": 18}
    assert len({p.prompt_id for p in prompts}) == len({p.text for p in prompts}) == 98
    assert PromptSpec("instruct").label == "instruct"
    for row in rows:
        several, read = row["category"] == "multi_turn", row["category"] in ("summarization", "rag")
        named = {"kind"} if several else {"source"} if read else set()
        assert set(row) == {"question_id", "category", "turns"} | named
        assert len(row["turns"]) == (2 if several else 1)
        assert all(20 < len(turn) < 2000 and turn == turn.strip() for turn in row["turns"])
        assert not read or len(row["turns"][0]) > 450


def test_no_instruction_repeats_another_or_a_public_benchmark() -> None:
    """No 8 words in a row; of the benchmarks those that are here."""
    seen: dict[tuple[str, ...], str] = {}
    for row in instruct_rows():
        own = set().union(*map(grams, row["turns"]))
        assert not own & seen.keys()
        seen |= dict.fromkeys(own, row["question_id"])
    assert len(seen) > 5000
    public = [CORPUS / "gsm8k_train.jsonl", CORPUS.parent / "prompts" / "humaneval.jsonl"]
    for path in filter(Path.is_file, public):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            shared = grams(" ".join(row.get("turns", [row.get("question")]))) & seen.keys()
            assert not shared, (path.name, seen[shared.pop()])


def test_passages_stand_in_the_work_that_they_name() -> None:
    if not CORPUS.is_dir():
        pytest.skip("the works are not here")
    works = {path.stem.split("_")[-1]: " ".join(path.read_text().split()) for path in CORPUS.glob("*.txt")}
    checked = 0
    for row in (row for row in instruct_rows() if "source" in row):
        texts = [text for last_word, text in works.items() if last_word in row["source"].lower()]
        for passage in (part for part in row["turns"][0].split("\n\n") if len(part) > 300):
            words = passage.split(maxsplit=6)[6]  # without what may stand before it in its paragraph
            assert any(words in text for text in texts), row["question_id"]
            checked += 1
    assert checked == 35


def test_jsonl_schemas(tmp_path: Path) -> None:
    spec = jsonl(
        tmp_path / "p.jsonl",
        {"question_id": 81, "category": "writing", "turns": ["first", "second"]},
        "",
        {"prompt": "plain \u00e9\u2028text"},
        {"question_id": None, "category": None, "prompt": "nulls are absences"},
    )
    assert load_prompts(spec) == [
        Prompt("81", "writing", "first", 2, following=("second",)),
        Prompt("3", "all", "plain \u00e9\u2028text"),
        Prompt("4", "all", "nulls are absences"),
    ]
    assert spec.label == "p.jsonl"


CASES: list[tuple[bytes, dict[str, Any], list[Prompt]]] = [
    (b'\xef\xbb\xbf{"prompt": "the ship"}\n', {}, [Prompt("1", "all", "the ship")]),
    (b'{"question": "How many oars?"}', {"column": "question"}, [Prompt("1", "all", "How many oars?")]),
    (b'{"task_id": "Demo/7", "prompt": "def add(a, b):\\n"}', {}, [Prompt("Demo/7", "all", "def add(a, b):\n")]),
    (b'{"question_id": 3, "task_id": "Demo/7", "prompt": "a"}', {}, [Prompt("3", "all", "a")]),
    (
        b'{"said": ["one", "two", "three"]}',
        {"column": "said"},
        [Prompt("1", "all", "one", 3, following=("two", "three"))],
    ),
    (b'{"prompt": "p", "instruction": "i"}', {}, [Prompt("1", "all", "p")]),
    (
        b'\n[{"instruction": "Name three ships.", "input": "", "output": ""},\n'
        b' {"instruction": "Name a port.", "input": "in Spain", "output": ""}, {"prompt": "x", "category": "c"}]\n',
        {},
        [
            Prompt("1", "all", "Name three ships."),
            Prompt("2", "all", "Name a port.\n\nin Spain"),
            Prompt("3", "c", "x"),
        ],
    ),
]


@pytest.mark.parametrize(("written", "changes", "prompts"), CASES)
def test_files_as_people_have_them(
    tmp_path: Path, written: bytes, changes: dict[str, Any], prompts: list[Prompt]
) -> None:
    (tmp_path / "p.json").write_bytes(written)
    assert load_prompts(PromptSpec(path=str(tmp_path / "p.json"), **changes)) == prompts


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('{"prompt": "the ship"}'.encode("utf-16"), "is UTF-16 text; expected UTF-8 (iconv -f UTF-16 -t UTF-8"),
        ('{"prompt": "the ship"}'.encode("utf-16-le"), "is UTF-16LE text; expected UTF-8"),
        ('{"prompt": "the ship"}'.encode("utf-32"), "is UTF-32 text; expected UTF-8"),
        (
            b'[{"prompt": "a"},\n 3]',
            "item 2: expected an object with 'turns', 'prompt' or 'messages' (or 'instruction'",
        ),
        (b'[{"prompt": "a"},\n', "line 2: not JSON: "),
        (b'[{"prompt": "a"}, {"prompt": "b", "question_id": 1}]', "item 2: the prompt id '1' is already that of "),
        (b'[{"instruction": ""}]', "item 1: expected text in 'turns', 'prompt' or 'messages' (or 'instruction'"),
        (b"[]", "there are no prompts in it"),
    ],
)
def test_files_that_cannot_be_meant(tmp_path: Path, written: bytes, words: str) -> None:
    (tmp_path / "p.json").write_bytes(written)
    with pytest.raises(PromptError) as raised:
        load_prompts(PromptSpec("jsonl", str(tmp_path / "p.json")))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"path": "org/questions"}, "prompts.path=org/questions: no such file; prompts=hf takes a dataset"),
        ({"column": "text"}, "prompts.column=text has no effect: it is for prompts=jsonl and hf"),
        (
            {"kind": "instruct", "path": "p.jsonl"},
            "prompts.path=p.jsonl: prompts=instruct takes no path; leave one of them out",
        ),
        ({"split": "train"}, "prompts.split=train has no effect: it is for prompts=hf"),
        ({"path": "p.jsonl", "split": "test"}, "and these are prompts=jsonl; leave it out"),
    ],
)
def test_keys_that_mean_nothing(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_prompts(PromptSpec(**spec))
    assert words in str(raised.value)


def test_a_path_to_a_file_is_not_the_bundled_prompts(tmp_path: Path) -> None:
    (tmp_path / "questions").write_text('{"prompt": "a"}')
    assert PromptSpec(path=str(tmp_path / "questions")).kind == PromptSpec(path="none.jsonl").kind == "jsonl"
    assert PromptSpec("hf", "org/set.json").kind == "hf"
    assert PromptSpec(path=str(tmp_path)).kind == "bundled"


def test_jsonl_with_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b'{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
    assert [p.text for p in load_prompts(PromptSpec("jsonl", str(tmp_path / "p")))] == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (['{"prompt": "a"}', '{"prompt": '], ["line 2", "not JSON", "column"]),
        (["", "3"], ["line 2", "'turns', 'prompt' or 'messages'"]),
        (["{}"], ["line 1", "'turns', 'prompt' or 'messages'"]),
        (['{"prompt": ""}'], ["line 1", "'turns', 'prompt' or 'messages'"]),
        (['{"prompt": 7}'], ["line 1", "'turns', 'prompt' or 'messages'"]),
        (['{"turns": []}'], ["line 1", "'turns'"]),
        (['{"turns": "text"}'], ["line 1", "'turns'"]),
        (['{"turns": [1]}'], ["line 1", "'turns'"]),
        (['{"prompt": "\\ud800"}'], ["line 1", "surrogate"]),
        (["[" * 100_000], ["line 1", "nested"]),
        (
            ['{"question_id": "x", "prompt": "a"}', "", '{"question_id": "x", "prompt": "b"}'],
            ["line 3", "'x'", "line 1"],
        ),
        (['{"question_id": 2, "prompt": "a"}', '{"prompt": "b"}'], ["line 2", "'2'", "line 1"]),
        ([], ["no prompts"]),
        (["", " "], ["no prompts"]),
    ],
)
def test_bad_jsonl(tmp_path: Path, rows: list[str], words: list[str]) -> None:
    spec = jsonl(tmp_path / "p.jsonl", *rows)
    with pytest.raises(PromptError) as raised:
        load_prompts(spec)
    for word in (*words, str(tmp_path / "p.jsonl")):
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"none\.jsonl: No such file"):
        load_prompts(PromptSpec("jsonl", str(tmp_path / "none.jsonl")))
    with pytest.raises(PromptError, match="Is a directory"):
        load_prompts(PromptSpec("jsonl", str(tmp_path)))
    (tmp_path / "latin").write_bytes(b'{"prompt": "\xe9t\xe9"}')
    with pytest.raises(PromptError, match=r"not UTF-8 text.* byte 12"):
        load_prompts(PromptSpec("jsonl", str(tmp_path / "latin")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "jsonll"}, ["prompts.kind='jsonll'", "did you mean 'jsonl'?"]),
        ({"kind": "jsonl"}, ["prompts.path is empty"]),
        ({"kind": "hf", "path": ""}, ["prompts.path is empty"]),
        ({"limit": 0}, ["prompts.limit=0", "1 or more"]),
        ({"categories": []}, ["prompts.categories=[]"]),
        ({"categories": ["stroy"]}, ["'stroy'", "did you mean 'story'?"]),
        ({"chat_template": "yes"}, ["prompts.chat_template='yes'"]),
    ],
)
def test_bad_specs(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_prompts(PromptSpec(**changes))
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("limit", [1, 4, 5, 16, 79, 80, 200])
def test_limit_spreads_over_categories(limit: int) -> None:
    everything, chosen = load_prompts(PromptSpec()), load_prompts(PromptSpec(limit=limit))
    assert len(chosen) == min(limit, 80)
    assert chosen == [p for p in everything if p in chosen]
    counts = Counter(p.category for p in chosen)
    if limit >= 5:
        assert len(counts) == 5
        assert max(counts.values()) - min(counts.values()) <= 1


def test_limit_with_uneven_categories() -> None:
    prompts = [Prompt(str(i), "ab"[i > 4], "") for i in range(7)]  # five of a, two of b
    assert [p.prompt_id for p in spread(prompts, 5)] == ["0", "1", "2", "5", "6"]
    assert (
        load_prompts(PromptSpec(categories=["code"], limit=3))
        == [p for p in load_prompts(PromptSpec()) if p.category == "code"][:3]
    )


def test_digest() -> None:
    one = [Prompt("1", "a", "x"), Prompt("2", "a", "y")]
    others = [
        one[::-1],
        one[:1],
        [one[0], Prompt("2", "a", "z")],
        [one[0], Prompt("3", "a", "y")],
        [one[0], Prompt("2", "b", "y")],
        [one[0], Prompt("2", "a", "y", before=(Message("system", "s"),))],
        [one[0], Prompt("2", "a", "y", before=(Message("system", "t"),))],
        [one[0], Prompt("2", "a", "y", before=(Message("developer", "t"),))],
    ]
    assert prompts_digest(one) == "ea9701baec5c15cd"  # studies written by earlier versions resume
    assert prompts_digest(one) == prompts_digest(list(one))
    assert len({prompts_digest(prompts) for prompts in (one, *others)}) == 9
    assert digest_of_each(one).items() < digest_of_each([*others[3], *one[::-1]]).items()


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


class TestMessages:
    TALK: ClassVar = [said("system", "be brief"), said("user", "Hi"), said("assistant", "Hello."), said("user", "Why?")]
    BEFORE = (Message("system", "be brief"), Message("user", "Hi"), Message("assistant", "Hello."))

    @pytest.mark.parametrize(
        ("row", "asked"),
        [
            ({"messages": [said("user", "Hi")]}, ("Hi",)),
            ({"messages": TALK}, ("Why?", 1, BEFORE)),
            ({"messages": [*TALK, said("assistant", "So."), said("assistant", "Well.")]}, ("Why?", 1, BEFORE, 2)),
            ({"messages": TALK[:3]}, ("Hi", 1, BEFORE[:1], 1)),
            ({"messages": [said("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]}, ("a\nb",)),
            ({"messages": TALK, "prompt": "Hi"}, ("Hi",)),  # as ever
            ({"messages": TALK, "prompt": None, "turns": None}, ("Why?", 1, BEFORE)),
            ({"prompt": TALK}, ("Why?", 1, BEFORE)),
        ],
    )
    def test_rows(self, tmp_path: Path, row: dict[str, Any], asked: Any) -> None:
        (prompt,) = load_prompts(jsonl(tmp_path / "p.jsonl", row))
        assert prompt == Prompt("1", "all", *asked)

    def test_of_a_column(self, tmp_path: Path) -> None:
        spec = jsonl(tmp_path / "p.jsonl", {"chosen": self.TALK, "prompt": "no"})
        spec.column = "chosen"
        assert load_prompts(spec)[0].before == self.BEFORE

    @pytest.mark.parametrize(
        ("messages", "words"),
        [
            ("Hi", 'messages: \'Hi\'; expected a list of messages, each an object {"role", "content"}'),
            ({"role": "user", "content": "Hi"}, "messages: {'role': 'user', 'content': 'Hi'}; expected a list"),
            ([], "messages: []; expected a list of messages"),
            (["Hi"], 'messages[0]: \'Hi\'; expected an object {"role", "content"}'),
            ([{"content": "Hi"}], "messages[0]: there is no role; expected one of system, developer, user, assistant"),
            ([{"from": "human", "value": "Hi"}], "messages[0]: there is no role"),
            ([said("user", "Hi"), said("tool", "3")], "messages[1]: role 'tool'; expected one of system,"),
            ([said("user", 7)], "messages[0]: content 7; expected text, or a list of parts that are text"),
            ([said("user", "")], "messages[0]: content ''; expected text"),
            ([said("user", [])], "messages[0]: content []; expected text"),
            ([said("user", None)], "messages[0]: content None; expected text"),
            ([said("user", ["a"])], 'messages[0].content[0]: \'a\'; expected {"type": "text", "text"}'),
            ([said("user", [{"type": "image_url", "image_url": "x"}])], "messages[0].content[0]: {'type': 'image_url'"),
            ([said("assistant", "Hi")], "messages: no message has the role user; expected one to continue"),
            ([said("user", "Hi"), said("assistant", None, tool_calls=[{}])], "messages[1]: has tool_calls: calls of"),
            ([said("user", "\ud800")], "holds half of a surrogate pair"),
            ([said("system", "\ud800"), said("user", "Hi")], "holds half of a surrogate pair"),
        ],
    )
    def test_forms_that_are_not_known(self, tmp_path: Path, messages: Any, words: str) -> None:
        with pytest.raises(PromptError) as raised:
            load_prompts(jsonl(tmp_path / "p.jsonl", {"prompt": "a"}, {"messages": messages}))
        assert str(raised.value).startswith(f"{tmp_path / 'p.jsonl'}, line 2: ")
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_tools_of_a_row(self, tmp_path: Path) -> None:
        with pytest.raises(PromptError, match="line 1: has tools: calls of tools are not measured"):
            load_prompts(jsonl(tmp_path / "p.jsonl", {"messages": self.TALK, "tools": [{"type": "function"}]}))

    def test_a_long_value_is_not_repeated_whole(self, tmp_path: Path) -> None:
        with pytest.raises(PromptError) as raised:
            load_prompts(jsonl(tmp_path / "p.jsonl", {"messages": "x" * 9999}))
        assert len(str(raised.value)) < 300


class TestSystem:
    def test_it_stands_in_front(self, tmp_path: Path) -> None:
        spec = jsonl(tmp_path / "p.jsonl", {"prompt": "a"}, {"messages": TestMessages.TALK[1:]})
        spec.system = "be brief"
        first, second = load_prompts(spec)
        assert first.before == (Message("system", "be brief"),)
        assert second.before == TestMessages.BEFORE

    def test_of_its_own(self, tmp_path: Path) -> None:
        spec = jsonl(tmp_path / "p.jsonl", {"messages": TestMessages.TALK})
        spec.system = "be kind"
        with pytest.raises(PromptError, match=r"line 1: has a system message of its own beside prompts\.system"):
            load_prompts(spec)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"system": ""}, "prompts.system is empty"),
            ({"system": "\udce9"}, "no UTF-8 text"),
            ({"system": "x", "chat_template": "none"}, "prompts.system has no effect with prompts.chat_template=none"),
        ],
    )
    def test_what_cannot_be_meant(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError) as raised:
            load_prompts(PromptSpec(**changes))
        assert words in str(raised.value)


class TestHuggingFace:
    def test_a_dataset(self, tmp_path: Path) -> None:
        pytest.importorskip("datasets")
        jsonl(tmp_path / "train.jsonl", {"prompt": "a", "note": "x"}, {"prompt": "b", "note": "y"})
        spec = PromptSpec("hf", str(tmp_path))
        assert [p.text for p in load_prompts(spec)] == ["a", "b"]
        spec.column = "note"
        assert [p.text for p in load_prompts(spec)] == ["x", "y"]

    @pytest.fixture
    def rows(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """What a stand-in for the library finds."""
        rows: list[dict[str, Any]] = []
        stand_in = ModuleType("datasets")

        def load_dataset(path: str, subset: str = "", *, split: str) -> list[dict[str, Any]]:
            if split != "train":
                raise ValueError(f"Unknown split {split}\nmore")
            return [row for row in rows if row.get("subset", "") == subset]

        vars(stand_in)["load_dataset"] = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", stand_in)
        return rows

    def test_rows(self, rows: list[dict[str, Any]]) -> None:
        rows += [{"turns": ["a"], "category": "c", "question_id": 9}, {"prompt": "b", "question_id": None}]
        assert load_prompts(PromptSpec("hf", "some/set")) == [Prompt("9", "c", "a"), Prompt("2", "all", "b")]

    def test_a_subset(self, rows: list[dict[str, Any]]) -> None:
        rows += [{"prompt": "a", "subset": "main"}, {"prompt": "b", "subset": "other"}]
        assert [p.text for p in load_prompts(PromptSpec("hf", "some/set", subset="main"))] == ["a"]

    def test_errors(self, rows: list[dict[str, Any]]) -> None:
        rows.append({"text": 3})
        with pytest.raises(PromptError, match="some/set, row 1: expected text in 'turns', 'prompt' or 'messages'"):
            load_prompts(PromptSpec("hf", "some/set"))
        with pytest.raises(PromptError, match="some/set, row 1: expected text in 'text'"):
            load_prompts(PromptSpec("hf", "some/set", column="text"))
        with pytest.raises(PromptError, match=r"prompts\.path=some/set: Unknown split test$"):
            load_prompts(PromptSpec("hf", "some/set", split="test"))

    def test_library_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(PromptError, match=r"pip install 'specdraft\[datasets\]'"):
            load_prompts(PromptSpec("hf", "some/set"))
