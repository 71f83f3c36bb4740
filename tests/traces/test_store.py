from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.command_line import Run
from support.drafting import annotate
from support.tiny_models import PairFolders, save_model, tiny_llama

from specdraft.acceptance import Membership
from specdraft.commands.options import DONE, USAGE
from specdraft.decoding.ending import Ending
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ResultsError
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling
from specdraft.traces import library as traces
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.record import record_trajectories
from specdraft.traces.rule_records import parts_of
from specdraft.traces.store import FORMAT, TraceStore, default_folder

ABOUT: dict[str, Any] = {
    "kind": "trajectory",
    "target": {"weights": "ab12", "dtype": "float32", "vocab": 258},
    "sampling": {"temperature": 0.0, "top_p": 1.0},
    "prompt": "c0ffee",
    "eos_ids": [1, 2],
}
TENSORS = {
    "tokens": np.arange(5),
    "gaps": np.linspace(0, 1, 5, dtype=np.float32),
    "wide": np.ones((2, 3), dtype=np.int32),
}
NEW = 6


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return tmp_path / "traces"


@pytest.fixture
def store(folder: Path) -> TraceStore:
    return TraceStore(folder)


@pytest.fixture(scope="module")
def prompts(tiny_pair: Pair) -> dict[str, list[int]]:
    return {name: tiny_pair.encode(text) for name, text in (("a", "Once upon a time"), ("b", "x"), ("c", "def f(x):"))}


class Calls:
    """What was recorded, and in which order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.recorded: list[list[int]] = []
        self.annotated: list[list[int]] = []

        def recording(model: Any, listed: Any, *given: Any) -> Any:
            self.recorded += listed
            return record_trajectories(model, listed, *given)

        original = ModelDrafter.annotate

        def annotating(drafter: ModelDrafter, texts: Any) -> Any:
            self.annotated += [list(text.prompt_ids) for text in texts]
            return original(drafter, texts)

        patch.setattr(traces, "record_trajectories", recording)
        patch.setattr(ModelDrafter, "annotate", annotating)

    @property
    def counts(self) -> tuple[int, int]:
        """Prompts recorded and annotated since it was last asked."""
        found = len(self.recorded), len(self.annotated)
        self.recorded, self.annotated = [], []
        return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def record(pair: Pair, prompts: dict[str, list[int]], store: TraceStore, ending: Ending | None = None) -> PairTraces:
    return pair_traces(pair, prompts, Sampling(), ending or Ending(NEW, pair.eos_ids), store)


def assert_equal(first: PairTraces, second: PairTraces) -> None:
    for one, two in ((first.trajectories, second.trajectories), (first.annotations, second.annotations)):
        assert one.keys() == two.keys()
        for name in one:
            for x, y in zip(one[name], two[name], strict=True):
                assert x.dtype == y.dtype
                assert x.dtype.kind == "f" or np.array_equal(x, y)
                np.testing.assert_allclose(x, y, atol=1e-4)  # the batch may have been another one


def files_of(store: TraceStore, kind: str) -> list[Path]:
    return [store.folder / f"{t.key}.json" for t in store.list() if t.about["kind"] == kind]


class TestStore:
    def test_round_trip(self, store: TraceStore) -> None:
        assert store.get(ABOUT) is None
        key = store.put(ABOUT, TENSORS)
        assert key == TraceStore.key(ABOUT)
        found = store.get(ABOUT)
        assert found is not None
        assert found.keys() == TENSORS.keys()
        for name, value in TENSORS.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype
        assert sorted(os.listdir(store.folder)) == [f"{key}.json", f"{key}.safetensors"]

    def test_a_trace_is_replaced_as_a_whole(self, store: TraceStore) -> None:
        store.put(ABOUT, TENSORS)
        store.put(ABOUT, {"tokens": np.arange(3)[::-1]})  # not contiguous
        found = store.get(ABOUT)
        assert found is not None
        assert {name: value.tolist() for name, value in found.items()} == {"tokens": [2, 1, 0]}

    def test_the_key_depends_on_everything_and_on_no_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        changed: list[dict[str, Any]] = [ABOUT | {name: "other"} for name in ABOUT]
        changed += [{name: value for name, value in ABOUT.items() if name != left_out} for left_out in ABOUT]
        changed += [
            ABOUT | {"new": None},
            ABOUT | {"target": ABOUT["target"] | {"vocab": 257}},
            ABOUT | {"eos_ids": [2, 1]},
        ]
        keys = [TraceStore.key(about) for about in (ABOUT, *changed)]
        assert len(set(keys)) == len(keys)
        assert TraceStore.key(dict(reversed(ABOUT.items()))) == keys[0]
        monkeypatch.setattr("specdraft.traces.store.FORMAT", FORMAT + 1)
        assert TraceStore.key(ABOUT) not in keys

    def test_list_find_and_remove(self, store: TraceStore) -> None:
        assert list(store.list()) == []
        keys = sorted(store.put(ABOUT | {"prompt": str(n)}, TENSORS) for n in range(40))
        listed = list(store.list())
        assert [trace.key for trace in listed] == keys
        assert listed[0].size_bytes == sum(path.stat().st_size for path in store.folder.glob(f"{keys[0]}.*"))
        for key in keys:
            assert store.find(key).key == key
            assert store.find(key[:12]).about == store.find(key).about
        twins = next(k[:1] for k in keys if sum(other[:1] == k[:1] for other in keys) > 1)  # 40 keys, 16 digits
        with pytest.raises(ResultsError, match=rf"^\d+ traces with key '{twins}' in .*; give more digits$"):
            store.find(twins)
        store.remove(keys[0])
        assert [trace.key for trace in store.list()] == keys[1:]
        assert len(os.listdir(store.folder)) == 2 * 39
        for wrong in (keys[0], "", "xyz", f"{keys[1]}0", "*", "../x"):
            with pytest.raises(ResultsError, match=r"^no trace with key ") as caught:
                store.find(wrong)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 300

    def test_what_is_no_trace_is_not_listed(self, store: TraceStore) -> None:
        key = store.put(ABOUT, TENSORS)
        others = {
            "half": "",
            "list": "[]",
            "number": "3",
            "empty": "{}",
            "about": '{"about": 3}',
            "kind": '{"about": {"x": 1}}',
            "deep": "[",
        }
        for name, text in others.items():
            (store.folder / f"{name}.json").write_text(text * (100_000 if name == "deep" else 1))
            (store.folder / f"{name}.safetensors").write_bytes(b"")
        (store.folder / "alone.json").write_text(json.dumps({"about": ABOUT}))
        assert [trace.key for trace in store.list()] == [key]

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ResultsError, match=f"^{tmp_path / place}/.*: cannot be written: "):
            TraceStore(tmp_path / place).put(ABOUT, TENSORS)
        assert TraceStore(tmp_path / place).get(ABOUT) is None
        assert list(TraceStore(tmp_path / place).list()) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_permission(self, store: TraceStore) -> None:
        store.folder.mkdir(mode=0o500)
        with pytest.raises(ResultsError, match="cannot be written"):
            store.put(ABOUT, TENSORS)

    def test_a_full_disk_leaves_no_trace(self, store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResultsError, match=r"cannot be written: No space left on device"):
            store.put(ABOUT, TENSORS)
        assert os.listdir(store.folder) == []

    def test_what_a_killed_write_left_is_deleted_at_the_next_use(
        self, store: TraceStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key, living, dead = store.put(ABOUT, TENSORS), os.getpid(), 4_000_000_000
        monkeypatch.setattr("psutil.pid_exists", lambda process: process == living)

        def left(name: str, age_s: float) -> Path:
            path = store.folder / name
            path.write_bytes(b"half")
            os.utime(path, (time.time() - age_s,) * 2)
            return path

        gone = [left(f".{key}.safetensors.{dead}.tmp", 60), left(f".{key}.json.{living}.tmp", 200_000)]
        kept = [
            left(f".{key}.json.{dead}.tmp", 0),  # another machine may be writing it
            left(f".{key}.safetensors.{living}.tmp", 60),
            left(f".notes.{dead}.tmp", 200_000),
        ]
        store.check_writable()
        assert not any(path.exists() for path in gone)
        assert all(path.exists() for path in kept)
        assert store.get(ABOUT) is not None

    def test_the_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert default_folder() == tmp_path / "traces"
        monkeypatch.setenv("SPECDRAFT_TRACES", "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert default_folder() == tmp_path / "cache" / "specdraft" / "traces"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_folder() == tmp_path / ".cache" / "specdraft" / "traces"


def without_json(path: Path) -> None:
    path.unlink()


def without_tensors(path: Path) -> None:
    path.with_suffix(".safetensors").unlink()


def truncated(path: Path) -> None:
    tensors = path.with_suffix(".safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-3])


def emptied(path: Path) -> None:
    path.with_suffix(".safetensors").write_bytes(b"")


def one_bit_flipped(path: Path) -> None:
    content = bytearray(path.with_suffix(".safetensors").read_bytes())
    content[-1] ^= 1
    path.with_suffix(".safetensors").write_bytes(content)


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{")


def nested(path: Path) -> None:
    path.write_text("[" * 200_000)


def half_written(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def other_json(path: Path) -> None:
    path.write_text(json.dumps({"about": 1, "sha256": None}))


def a_list(path: Path) -> None:
    path.write_text("[1]")


def about_another(path: Path) -> None:
    header = json.loads(path.read_text())
    header["about"]["libraries"] = {"torch": "1.0"}
    path.write_text(json.dumps(header))


def foreign_tensors(path: Path) -> None:
    save_file({"weight": np.ones(3, dtype=np.float32)}, path.with_suffix(".safetensors"))


def foreign_tensors_with_their_digest(path: Path) -> None:
    import hashlib

    foreign_tensors(path)
    header = json.loads(path.read_text())
    header["sha256"] = hashlib.sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()
    path.write_text(json.dumps(header))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = [
    without_json,
    without_tensors,
    truncated,
    emptied,
    one_bit_flipped,
    garbage,
    nested,
    half_written,
    other_json,
    a_list,
]
HARMS += [about_another, foreign_tensors]


@pytest.mark.parametrize("harm", [*HARMS, a_folder], ids=lambda harm: harm.__name__)
def test_a_damaged_trace_is_not_there(harm: Callable[[Path], None], store: TraceStore) -> None:
    key = store.put(ABOUT, TENSORS)
    harm(store.folder / f"{key}.json")
    assert store.get(ABOUT) is None


def test_a_trace_under_another_key_is_not_there(store: TraceStore) -> None:
    other = ABOUT | {"prompt": "1dea"}
    first, second = store.put(ABOUT, TENSORS), store.put(other, {"tokens": np.zeros(3)})
    for suffix in (".json", ".safetensors"):
        paths = [store.folder / f"{key}{suffix}" for key in (first, second)]
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, reversed(contents), strict=True):
            path.write_bytes(content)
        assert (store.get(ABOUT), store.get(other)) == (None, None)  # first the JSON is swapped, then both are


class TestPairTraces:
    def test_recorded_once_read_ever_after(
        self, tiny_pair: Pair, prompts: dict[str, list[int]], store: TraceStore, calls: Calls
    ) -> None:
        first = record(tiny_pair, prompts, store)
        assert calls.counts == (3, 3)
        again = record(tiny_pair, prompts, TraceStore(store.folder))
        assert calls.counts == (0, 0)
        assert_equal(first, again)
        for name in prompts:
            np.testing.assert_array_equal(first.trajectories[name].gaps, again.trajectories[name].gaps)
            np.testing.assert_array_equal(first.annotations[name].top_probs, again.annotations[name].top_probs)
        assert list(first.trajectories) == list(first.annotations) == list(prompts)

    @pytest.mark.parametrize("kind", ["trajectory", "annotation"])
    @pytest.mark.parametrize("harm", [*HARMS, foreign_tensors_with_their_digest], ids=lambda harm: harm.__name__)
    def test_what_is_damaged_is_recorded_again(
        self,
        harm: Callable[[Path], None],
        kind: str,
        tiny_pair: Pair,
        prompts: dict[str, list[int]],
        store: TraceStore,
        calls: Calls,
    ) -> None:
        first = record(tiny_pair, {"a": prompts["a"], "b": prompts["b"]}, store)
        harm(files_of(store, kind)[0])
        assert calls.counts == (2, 2)
        assert_equal(first, record(tiny_pair, {"a": prompts["a"], "b": prompts["b"]}, store))
        assert calls.counts == ((1, 0) if kind == "trajectory" else (0, 1))
        record(tiny_pair, {"a": prompts["a"], "b": prompts["b"]}, store)
        assert calls.counts == (0, 0)

    def test_traces_of_two_prompts_swapped(
        self, tiny_pair: Pair, prompts: dict[str, list[int]], store: TraceStore, calls: Calls
    ) -> None:
        first = record(tiny_pair, prompts, store)
        one, two = files_of(store, "trajectory")[:2]
        for suffix in (".json", ".safetensors"):
            paths = one.with_suffix(suffix), two.with_suffix(suffix)
            contents = [path.read_bytes() for path in paths]
            for path, content in zip(paths, reversed(contents), strict=True):
                path.write_bytes(content)
        assert calls.counts == (3, 3)
        assert_equal(first, record(tiny_pair, prompts, store))
        assert calls.counts == (2, 0)

    def test_an_annotation_belongs_to_one_text(
        self,
        tiny_pair: Pair,
        prompts: dict[str, list[int]],
        store: TraceStore,
        calls: Calls,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A trajectory that is recorded again and came out otherwise (a near-tie) needs new ranks."""
        record(tiny_pair, {"a": prompts["a"]}, store)
        (path,) = files_of(store, "trajectory")
        path.unlink()
        recording = traces.record_trajectories

        def otherwise(*given: Any) -> Any:
            ((row, text),) = recording(*given)
            return [(row, text._replace(tokens=np.array([text.tokens[0] ^ 2, *text.tokens[1:]])))]

        monkeypatch.setattr(traces, "record_trajectories", otherwise)
        found = record(tiny_pair, {"a": prompts["a"]}, store)
        assert calls.counts == (2, 2)
        (expected,) = annotate(tiny_pair.drafter.model, [prompts["a"]], [found.trajectories["a"]])
        np.testing.assert_array_equal(found.annotations["a"].ranks, expected.ranks)

    def test_everything_that_matters_is_in_the_key(
        self,
        tiny_pair: Pair,
        prompts: dict[str, list[int]],
        store: TraceStore,
        calls: Calls,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        one = {"a": prompts["a"]}
        record(tiny_pair, one, store)
        assert calls.counts == (1, 1)
        for ending in (Ending(NEW + 1, tiny_pair.eos_ids), Ending(NEW, frozenset([250]))):
            record(tiny_pair, one, store, ending)
            assert calls.counts == (1, 1)
        record(tiny_pair, {"a": prompts["a"][:-1]}, store)
        assert calls.counts == (1, 1)
        record(tiny_pair, {"another id": prompts["a"]}, store)
        assert calls.counts == (0, 0)
        monkeypatch.setattr(traces, "libraries", lambda: {"torch": "0.1"})
        record(tiny_pair, one, store)
        assert calls.counts == (1, 1)

    def test_batches_are_stored_as_they_are_done(
        self, tiny_pair: Pair, store: TraceStore, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        many = {str(n): [5 + n, *range(40, 40 + n % 4)] for n in range(35)}
        recording, done = traces.record_trajectories, []

        def interrupted(*given: Any) -> Any:
            if len(done) == 1:
                raise KeyboardInterrupt
            done.append(1)
            return recording(*given)

        with monkeypatch.context() as patch:
            patch.setattr(traces, "record_trajectories", interrupted)
            with pytest.raises(KeyboardInterrupt):
                record(tiny_pair, many, store, Ending(2))
        assert len(list(store.list())) == 16
        assert calls.counts == (16, 0)
        notes: list[str] = []
        pair_traces(tiny_pair, many, Sampling(), Ending(2), store, notes.append)
        assert calls.counts == (19, 35)
        assert [note.split()[:2] for note in notes] == [
            ["recorded", "16"],
            ["recorded", "3"],
            *[["annotated", "16"]] * 2,
            ["annotated", "3"],
        ]

    def test_an_unwritable_store(self, tiny_pair: Pair, prompts: dict[str, list[int]], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ResultsError, match=f"^{tmp_path / 'file'}/.*cannot be written"):
            record(tiny_pair, prompts, TraceStore(tmp_path / "file"))


@contextmanager
def forwards(model: Any) -> Iterator[list[int]]:
    """The number of rows of each forward."""
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield rows
    hook.remove()


def test_pairs_with_one_target_share_trajectories(
    tiny_pair: Pair,
    tiny_pair_folders: PairFolders,
    prompts: dict[str, list[int]],
    store: TraceStore,
    tmp_path: Path,
    calls: Calls,
) -> None:
    spec = PairFolders(
        tiny_pair_folders.target, save_model(tmp_path / "draft", tiny_llama(seed=5, num_hidden_layers=1))
    ).spec("other")
    other = load_pair(spec)
    with forwards(tiny_pair.target.model) as target, forwards(tiny_pair.drafter.model.model) as draft:
        first = record(tiny_pair, prompts, store)
        assert len(target) <= NEW
        assert draft == [3, 3]
    calls.counts  # noqa: B018
    with forwards(other.target.model) as target, forwards(other.drafter.model.model) as draft:
        second = record(other, prompts, store)
        assert (target, draft) == ([], [3, 3])
    assert calls.counts == (0, 3)
    for name in prompts:
        np.testing.assert_array_equal(first.trajectories[name].tokens, second.trajectories[name].tokens)
    assert any((first.annotations[name].ranks != second.annotations[name].ranks).any() for name in prompts)


class TestOtherWeights:
    def test_under_the_same_name(
        self,
        tiny_pair_folders: PairFolders,
        prompts: dict[str, list[int]],
        store: TraceStore,
        tmp_path: Path,
        calls: Calls,
    ) -> None:
        folders = PairFolders(*(Path(shutil.copytree(f, tmp_path / f.name)) for f in tiny_pair_folders))
        record(load_pair(folders.spec()), prompts, store)
        assert calls.counts == (3, 3)
        for role, expected in (("draft", (0, 3)), ("target", (3, 3))):
            pair = load_pair(folders.spec())
            changed = (pair.target if role == "target" else pair.drafter.model).model
            with torch.no_grad():
                changed.lm_head.weight *= 1.01
            changed.save_pretrained(tmp_path / role)
            record(load_pair(folders.spec()), prompts, store)
            assert calls.counts == expected


class TestCommand:
    @pytest.fixture
    def keys(self, tiny_pair: Pair, prompts: dict[str, list[int]], store: TraceStore) -> list[str]:
        record(tiny_pair, prompts, store, Ending(2))
        return [trace.key for trace in store.list()]

    def test_list(self, run: Run, keys: list[str], folder: Path) -> None:
        said = run("traces", "list", "--json")
        assert said.code == DONE
        listed = json.loads(said.out)
        assert [one["key"] for one in listed] == keys
        assert sorted(one["about"]["kind"] for one in listed) == ["annotation"] * 3 + ["trajectory"] * 3
        assert sum(one["size_bytes"] for one in listed) == sum(path.stat().st_size for path in folder.iterdir())
        said = run("traces", "list", "--each")
        assert (said.code, said.err) == (DONE, "")
        assert all(key in said.out for key in keys)
        assert said.out.splitlines()[-1].startswith("6 traces, 0.0 MiB in ")

    def test_list_of_nothing(self, run: Run, folder: Path) -> None:
        assert json.loads(run("traces", "list", "--json").out) == []
        assert "0 traces" in run("traces", "list").out
        assert not folder.exists()

    def test_list_passes_over_foreign_files(self, run: Run, keys: list[str], folder: Path) -> None:
        for name, text in (
            ("x", "{}"),
            ("y", '{"about": {"kind": 3}}'),
            ("z", '{"about": {"kind": "trajectory", "target": 1}}'),
        ):
            (folder / f"{name}.json").write_text(text)
            (folder / f"{name}.safetensors").write_bytes(b"")
        said = run("traces", "list")
        assert said.code == DONE, said
        assert "6 traces" in said.out
        assert run("traces", "rm", "--all").code == DONE
        assert sorted(path.stem for path in folder.iterdir()) == ["x", "x", "y", "y", "z", "z"]

    def test_show(self, run: Run, keys: list[str], store: TraceStore) -> None:
        for key in (keys[0], keys[0][:10]):
            said = run("traces", "show", key)
            assert (said.code, said.err) == (DONE, "")
            shown = json.loads(said.out)
            assert (shown["key"], shown["about"]) == (keys[0], store.find(keys[0]).about)

    def test_rm(self, run: Run, keys: list[str], store: TraceStore, folder: Path) -> None:
        said = run("traces", "rm", keys[0], keys[1][:10])
        assert (said.code, said.out) == (DONE, "2 traces deleted\n")
        assert [trace.key for trace in store.list()] == keys[2:]
        assert run("traces", "rm", "--all").out == "4 traces deleted\n"
        assert list(folder.iterdir()) == []
        assert run("traces", "rm", "--all").out == "0 traces deleted\n"

    def test_a_trace_that_is_named_twice_is_deleted_once(self, run: Run, keys: list[str]) -> None:
        assert run("traces", "rm", keys[0], keys[0]).out == "1 traces deleted\n"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["show", "nothing"], "error: no trace with key 'nothing' in "),
            (["show", ""], "error: no trace with key '' in "),
            (["rm"], "error: traces rm needs keys, or --all"),
            (["rm", "KEY", "--all"], "error: traces rm needs keys, or --all"),
            (["rm", "KEY", "nothing"], "error: no trace with key 'nothing' in "),
        ],
    )
    def test_bad_input(self, arguments: list[str], says: str, run: Run, keys: list[str], store: TraceStore) -> None:
        said = run("traces", *(keys[0] if word == "KEY" else word for word in arguments))
        assert (said.code, said.out) == (USAGE, "")
        (line,) = said.err.splitlines()
        assert line.startswith(says)
        assert [trace.key for trace in store.list()] == keys

    @pytest.mark.parametrize("arguments", [["show"], ["list", "--nothing"], ["nothing"]])
    def test_unknown_words(self, arguments: list[str], run: Run) -> None:
        assert run("traces", *arguments).code == USAGE


def test_a_text_is_recorded_anew_for_all_that_it_depends_on(tiny_pair: Pair, store: TraceStore, calls: Calls) -> None:
    def recorded(pair: Pair = tiny_pair, **changes: Any) -> tuple[int, int]:
        given = {
            "sampling": Sampling(1.0),
            "ending": Ending(NEW, pair.eos_ids),
            "draw": "0/0",
            "children": 2,
            "parts": parts_of(Membership()),
        } | changes
        traces = pair_traces(pair, {"b": prompt}, store=store, **given)
        assert traces.records["b"]["membership.pi"].shape[1] == given["children"]
        return calls.counts

    def held(role: str, **how: str) -> Pair:
        files = getattr(tiny_pair.files, role)
        return replace(
            tiny_pair, files=replace(tiny_pair.files, **{role: replace(files, spec=replace(files.spec, **how))})
        )

    prompt = tiny_pair.encode("x")
    assert recorded() == (1, 1)
    assert recorded() == recorded(children=4) == recorded() == (0, 0)
    wider = CachedModel(copy.deepcopy(tiny_pair.target.model).double(), tiny_pair.target.vocab)
    others = [replace(tiny_pair, target=wider), held("target", quantize="8bit")]
    assert [recorded(pair) for pair in others] == [(1, 1)] * len(others)
    for sampling in (Sampling(0.8), Sampling(1.0, top_k=9), Sampling(1.0, top_p=0.9)):
        assert recorded(sampling=sampling) == (1, 1)
    for ending in (Ending(NEW + 1, tiny_pair.eos_ids), Ending(NEW, frozenset([7]))):
        assert recorded(ending=ending) == (1, 1)
    assert [recorded(draw=draw) for draw in ("0/1", "1/0")] == [(1, 1)] * 2


def test_a_text_without_its_end_is_recorded_again(tiny_pair: Pair, store: TraceStore, calls: Calls) -> None:
    prompt = {"b": tiny_pair.encode("x")}
    whole = record(tiny_pair, prompt, store)
    (stored,) = [trace for trace in store.list() if trace.about["kind"] == "trajectory"]
    store.put(stored.about, {name: values[:-1] for name, values in whole.trajectories["b"]._asdict().items()})
    calls.counts  # noqa: B018
    assert_equal(record(tiny_pair, prompt, store), whole)
    assert calls.counts == (1, 0)
