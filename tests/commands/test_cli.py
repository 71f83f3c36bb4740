from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from support.command_line import Run, one_line
from support.tiny_models import PairFolders

from specdraft import cli
from specdraft.commands.options import DONE, INTERNAL, INTERRUPTED, SOME_FAILED, USAGE
from specdraft.drafters import pair as pair_module
from specdraft.errors import UserError
from specdraft.models import loading
from specdraft.models.files import zoo_folder
from specdraft.study import ledger
from specdraft.study import run as sweep
from specdraft.study.engines import live
from specdraft.trees.shapes import registry
from specdraft.trees.shapes.published import published_trees


@pytest.fixture(scope="module")
def pair(tiny_pair_folders: PairFolders) -> list[str]:
    return [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]


@pytest.fixture
def small(pair: list[str], tmp_path: Path) -> list[str]:
    """A sweep of one combination on two prompts into `tmp_path / "out"`."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "Once upon"}\n{"prompt": "def f(x):"}\n')
    prompts = ["prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}"]
    return [
        *pair,
        *prompts,
        "tree=chain",
        "budget=2",
        "max_new_tokens=6",
        "engine=live",
        "report=false",
        "--out",
        str(tmp_path / "out"),
    ]


class TestSweep:
    def test_done(self, run: Run, small: list[str], tmp_path: Path) -> None:
        said = run("sweep", *small)
        assert said.code == DONE
        assert "block" in said.out
        assert "chain" in said.out
        assert said.out.splitlines()[-1].startswith(f"{tmp_path / 'out'}: 2 new rows, 0 reused, ")
        assert "decode 2 rows" in said.err
        assert "0 new rows, 2 reused" in run("sweep", *small).out
        assert "2 new rows, 0 reused" in run("sweep", *small, "--fresh").out

    def test_a_narrow_terminal_shows_the_keys(
        self, run: Run, small: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "20")
        said = run("sweep", *small, "tree=chain,kary", "max_new_tokens=6,7", "tree.k=2,3")
        words = " ".join(said.out.split())
        for keys in ("target+draft chain 6, 2 nodes: ", "target+draft kary-k3 7, 2 nodes: "):
            assert keys in words, said.out
        assert "note: tree.k applies to tree=kary; without it: chain" in said.err

    def test_own_trees_have_names(self, run: Run, small: list[str]) -> None:
        own = [*small, "tree=paths", "--dry-run", "--json"]
        said = run("sweep", *own, "tree.paths=[(0,),(1,)]", "tree.name=fork")
        assert [row["tree"] for row in json.loads(said.out)["combinations"]] == ["fork"]
        for changes, word in (
            (["tree.paths=[[0]],[[0],[1]]", "tree.name=fork"], "two different trees are called 'fork'"),
            (["tree.paths=[[0]]", "tree.name=kary-k3"], "reads as the shape 'kary'"),
            (["tree.paths=[[0]]", "tree.name='=1'"], "tree.name='=1'"),
        ):
            assert word in one_line(run("sweep", *own, *changes))

    def test_two_orders_of_one_tree_are_one_tree(self, run: Run, small: list[str]) -> None:
        both = [*small, "tree=paths", "tree.paths=[[0],[1],[0,0]],[[1],[0],[0,0]]", "--json"]
        for sampling in ([], ["sampling.temperature=1", "acceptance=recursive"]):
            plan = json.loads(run("sweep", *both, *sampling, "--dry-run").out)
            assert [row["nodes"] for row in plan["combinations"]] == [3] and len(plan["skipped"]) == 1
        said = run("sweep", *both)
        shown = json.loads(said.out)
        assert (said.code, len(shown["summary"]), shown["skipped"], shown["failed"]) == (0, 1, 1, 0)
        assert "has a size of its own (3 nodes) and runs once" in said.err

    def test_report(self, run: Run, small: list[str], tmp_path: Path) -> None:
        assert "report: " not in run("sweep", *small).out and not (tmp_path / "out/report.html").exists()
        said = run("sweep", *small, "report=true")
        assert f"report: {tmp_path / 'out/report.html'}" in said.out.splitlines()
        assert (tmp_path / "out/figures/block-efficiency.png").is_file() and (tmp_path / "out/report.md").is_file()
        run("sweep", *small, "--fresh")
        assert not (tmp_path / "out/report.html").exists()

    def test_report_that_fails_is_one_line(
        self, run: Run, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from specdraft.report import writing

        def failing(*_: object, **__: object) -> None:
            raise RuntimeError("not\ntoday")

        monkeypatch.setattr(writing, "write_report", failing)
        said = run("sweep", *small, "report=true", "--json")
        assert said.code == DONE and json.loads(said.out)["combinations"] == 1
        (line,) = [line for line in said.err.splitlines() if "no report" in line]
        assert line == f"no report was written: RuntimeError: not (specdraft report {tmp_path / 'out'} tries again)"

    def test_json(self, run: Run, small: list[str], tmp_path: Path) -> None:
        said = run("sweep", *small, "tree=chain,medusa", "budget=2,4", "--json")
        assert said.code == DONE
        found = json.loads(said.out)
        assert list(found) == ["study", "out", "combinations", "skipped", "failed", "summary"]
        assert (found["study"], found["out"], found["combinations"]) == ("default", str(tmp_path / "out"), 3)
        assert (found["skipped"], found["failed"]) == (1, 0)
        assert [(row["tree"], row["budget"]) for row in found["summary"]] == [
            ("chain", 2),
            ("chain", 4),
            ("medusa", 63),
        ]
        assert found["summary"][0]["steps"] > 0
        assert 0 <= found["summary"][0]["acceptance_rate"] <= 1
        assert found["summary"][0]["acceptance_rate_lo"] is None  # fewer than 5 prompts
        assert "skipped: " in said.err
        assert "medusa has a size of its own" in said.err

    def test_some_failed(self, run: Run, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        decode = live.decode

        def failing(verifier: Any, drafter: Any, plan: Any, *rest: Any, **how: Any) -> Any:
            if plan.nodes == 3:
                raise RuntimeError("boom")
            return decode(verifier, drafter, plan, *rest, **how)

        monkeypatch.setattr(live, "decode", failing)
        said = run("sweep", *small, "budget=2,3", "--json")
        assert said.code == 3
        assert (json.loads(said.out)["failed"], json.loads(said.out)["combinations"]) == (1, 1)
        assert "failed: target+draft chain budget=3: RuntimeError: boom" in said.err
        assert f"1 combinations failed; see {tmp_path / 'out' / 'failures.jsonl'}" in said.err

    def test_print_config(self, run: Run, small: list[str], tmp_path: Path) -> None:
        said = run("sweep", *small, "--print-config")
        assert (said.code, said.err) == (DONE, "")
        config = OmegaConf.to_container(OmegaConf.create(said.out))
        assert isinstance(config, dict)
        assert (config["max_new_tokens"], config["tree"], config["budget"]) == (6, {"kind": "chain"}, 2)
        assert not (tmp_path / "out").exists()

    def test_dry_run(self, run: Run, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run("sweep", *small)
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        monkeypatch.setattr(loading, "load_model", lambda *given: pytest.fail("a model was loaded"))
        grid = [*small, "tree=kary,medusa,chain", "budget=2,3", "--dry-run"]
        said = run("sweep", *grid, "--json")
        assert (said.code, said.err) == (DONE, "")
        found = json.loads(said.out)
        listed = [(c["tree"], c["budget"], c["nodes"], c["depth"], c["reused"]) for c in found["combinations"]]
        assert listed == [
            ("kary", 2, 2, 1, 0),
            ("kary", 3, 3, 2, 0),
            ("medusa", 63, 63, 4, 0),
            ("chain", 2, 2, 2, 2),
            ("chain", 3, 3, 3, 0),
        ]
        assert [skipped["reason"] for skipped in found["skipped"]] == [
            "medusa has a size of its own (63 nodes) and runs once"
        ]
        text = run("sweep", *grid).out
        assert "medusa" in text
        assert "skipped: " in text
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
        run("sweep", *grid, "--out", tmp_path / "other")
        assert not (tmp_path / "other").exists()

    def test_default_folder(self, run: Run, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert run("sweep", *small[:-2], "name=mine").code == DONE
        assert (tmp_path / "results" / "mine" / "records.csv").is_file()

    def test_folder_with_brackets(self, run: Run, small: list[str], tmp_path: Path) -> None:
        folder = tmp_path / "[bold]x"
        assert f"{folder}: 2 new rows" in run("sweep", *small, "--out", folder).out


def test_the_numbers_of_exit_codes() -> None:
    assert (DONE, INTERNAL, USAGE, SOME_FAILED, INTERRUPTED) == (0, 1, 2, 3, 130)


class TestExitCodes:
    def test_interrupted_in_the_middle(
        self, run: Run, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*given: Any, **how: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(live, "decode", interrupted)
        said = run("sweep", *small)
        assert (said.code, said.out) == (INTERRUPTED, "")
        assert said.err.splitlines()[-1] == "interrupted; run the same command again to resume"
        assert (tmp_path / "out" / "records.csv").is_file()

    @pytest.mark.parametrize(
        ("name", "times", "code"), [("SIGINT", 1, 130), ("SIGTERM", 1, 143), ("SIGHUP", 1, 129), ("SIGINT", 2, 130)]
    )
    def test_signals(
        self,
        run: Run,
        small: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        times: int,
        code: int,
    ) -> None:
        """In the middle of a sweep, where rows are done; the second one arrives while the tables are written."""
        decode, write_tables, rows = live.decode, ledger.write_tables, iter(range(100))

        def decoding(*given: Any, **how: Any) -> Any:
            if next(rows) == 3:
                signal.raise_signal(getattr(signal, name))
            return decode(*given, **how)

        def writing(*given: Any) -> None:
            for _ in range(times - 1):
                signal.raise_signal(getattr(signal, name))
            write_tables(*given)

        monkeypatch.setattr(live, "decode", decoding)
        monkeypatch.setattr(ledger, "write_tables", writing)
        before = {number: signal.signal(number, signal.default_int_handler) for number in cli.SIGNALS}
        try:
            said = run("sweep", *small, "budget=range(2,8)")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        assert (said.code, said.out) == (code, "")
        assert said.err.splitlines()[-1] == "interrupted; run the same command again to resume"
        records = (tmp_path / "out/records.csv").read_text().splitlines()
        assert 1 < len(records) == (tmp_path / "out/journal.jsonl").read_bytes().count(b'"row"') + 1

    def test_ignored_signals_stay_ignored(self, run: Run, small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        decode = live.decode

        def decoding(*given: Any, **how: Any) -> Any:
            signal.raise_signal(signal.SIGHUP)
            return decode(*given, **how)

        monkeypatch.setattr(live, "decode", decoding)
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert run("sweep", *small).code == 0
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_a_signal_while_libraries_load(self, tmp_path: Path) -> None:
        """From the first line of `main` on there is no traceback, and a process that is started with SIGINT ignored
        can be tested too."""
        code = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from specdraft.cli import main
assert "typer" not in sys.modules
threading.Timer(0.02, signal.raise_signal, [signal.SIGINT]).start()
sys.argv = ["specdraft", "sweep", "--dry-run"]
main()
"""
        command = [sys.executable, "-c", code]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert (ended.returncode, ended.stdout) == (130, "")
        assert ended.stderr.splitlines()[-1] == "interrupted; run the same command again to resume"
        assert "Traceback" not in ended.stderr

    def test_internal_error(self, run: Run, small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*given: Any) -> None:
            raise ZeroDivisionError("no such luck")

        monkeypatch.setattr(sweep, "run_study", broken)
        line = one_line(run("sweep", *small), INTERNAL)
        assert line == "internal error: ZeroDivisionError: no such luck (specdraft --debug shows where)"

    def test_debug_shows_the_traceback(self, small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["specdraft", "--debug", "sweep", *small, "budget=0"])
        with pytest.raises(UserError, match="budget=0"):
            cli.main()

    @pytest.mark.parametrize("arguments", [["sweep", "--no-such-option"], ["no-such-command"], ["trees", "show"]])
    def test_usage_errors(self, run: Run, arguments: list[str]) -> None:
        said = run(*arguments)
        assert (said.code, said.out) == (USAGE, "")
        assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["budgt=4"], ["'budgt'", "did you mean 'budget'?"]),
        (["tre=chain"], ["'tre'", "did you mean 'tree'?"]),
        (["tree=chian"], ["tree=chian", "did you mean 'chain'?"]),
        (["tree=kary", "tree.kk=2"], ["tree.kk", "did you mean 'k'?"]),
        (["budget=0"], ["budget=0", "1 or more"]),
        (["budget=-4"], ["budget=-4", "1 or more"]),
        (["budget=four"], ["budget", "four"]),
        (["budget=2.5"], ["budget", "2.5"]),
        (["budget=interval(1,4)"], ["interval()", "range()"]),
        (["tree=chain", "budget=511"], ["prompt '1'", "511 draft levels", "context of 512"]),
        (["tree=wide", "budget=259"], ["259 different children", "258 tokens"]),
        (["tree=kary", "tree.k=0"], ["tree.k=0", "1 or more"]),
        (["tree=beam", "tree.width=-1"], ["tree.width=-1", "1 or more"]),
        (["tree=branching", "tree.factors=[]"], ["tree.factors=[]"]),
        (["tree=paths"], ["tree.paths is empty"]),
        (["tree=paths", "tree.paths=[[0],[1,0]]"], ["tree.paths", "[1, 0] has no parent"]),
        (["tree=paths", "tree.paths=[[0],[0]]"], ["tree.paths", "[0] is listed twice"]),
        (["tree=paths", "tree.paths=[[0],[-1]]"], ["tree.paths", "[-1]"]),
        (["tree=paths", "tree.paths=[0,1]"], ["tree.paths"]),
        (["tree=published", "tree.name=medussa/mc_sim_7b_63"], ["tree.name", "did you mean 'medusa/mc_sim_7b_63'?"]),
        (["prompts.path=/nowhere.jsonl"], ["/nowhere.jsonl", "No such file"]),
        (["max_new_tokens=0"], ["max_new_tokens=0"]),
        (["max_new_tokens=600"], ["prompt '1'", "context of 512"]),
        (["sampling.temperature=-0.7"], ["sampling.temperature=-0.7"]),
        (["pair.target.path=/nowhere/model"], ["pair.target.path=/nowhere/model", "no such folder"]),
        (
            ["pair.draft.path=someone/not-in-the-cache"],
            ["pair.draft.path=someone/not-in-the-cache", "hub cannot be reached"],
        ),
        (["pair.target.path=zoo:targt"], ["pair.target.path=zoo:targt", "no such bundled model"]),
        (["pair.target.dtype=float8"], ["pair.target.dtype='float8'", "did you mean 'float"]),
        (["pair.target.device=cuda:99"], ["device=cuda:99", "CUDA devices"]),
        (["--config-dir", "/nowhere"], ["--config-dir /nowhere", "no such folder"]),
    ],
)
def test_bad_input(run: Run, small: list[str], tmp_path: Path, changes: list[str], words: list[str]) -> None:
    line = one_line(run("sweep", *small, *changes))
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no prompts"]),
        ('{"prompt": "a"}\n{"prompt": \n', ["line 2", "not JSON"]),
        ('{"text": "a"}\n', ["line 1", "'turns', 'prompt' or 'messages'"]),
        ('{"prompt": "a", "question_id": 1}\n{"prompt": "b", "question_id": 1}\n', ["line 2", "'1'", "line 1"]),
        ('{"prompt": ""}\n', ["line 1", "'turns', 'prompt' or 'messages'"]),
        (json.dumps({"prompt": "x" * 600}), ["prompt '1'", "601 tokens", "context of 512", "max_prompt_tokens=504"]),
    ],
)
def test_bad_prompt_files(run: Run, small: list[str], tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    line = one_line(run("sweep", *small))
    for word in words:
        assert word in line, line
    assert not (tmp_path / "out").exists()


class TestBadModels:
    @pytest.fixture
    def folders(self, tiny_pair_folders: PairFolders, tmp_path: Path) -> PairFolders:
        return PairFolders(*(Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in tiny_pair_folders))

    def refused(self, run: Run, small: list[str], folders: PairFolders) -> str:
        return one_line(run("sweep", *small, f"pair.target.path={folders.target}", f"pair.draft.path={folders.draft}"))

    def test_no_safetensors(self, run: Run, small: list[str], folders: PairFolders) -> None:
        (folders.draft / "model.safetensors").rename(folders.draft / "pytorch_model.bin")
        line = self.refused(run, small, folders)
        assert f"pair.draft.path={folders.draft}: there are no .safetensors weights" in line

    def test_other_tokenizer(self, run: Run, small: list[str], folders: PairFolders) -> None:
        path = folders.draft / "tokenizer.json"
        content = json.loads(path.read_text())
        vocab = content["model"]["vocab"]
        vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
        path.write_text(json.dumps(content))
        line = self.refused(run, small, folders)
        assert "the tokenizers of" in line
        assert "first at 'a'" in line

    def test_prompt_without_tokens(self, run: Run, small: list[str], folders: PairFolders, tmp_path: Path) -> None:
        for folder in folders:
            content = json.loads((folder / "tokenizer.json").read_text())
            content |= {
                "post_processor": None,
                "normalizer": {"type": "Strip", "strip_left": True, "strip_right": True},
            }
            (folder / "tokenizer.json").write_text(json.dumps(content))
        (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"question_id": "blank", "prompt": "  "}\n')
        assert "prompt 'blank': the prompt has no tokens" in self.refused(run, small, folders)

    def test_damaged_weights(self, run: Run, small: list[str], folders: PairFolders) -> None:
        (folders.draft / "model.safetensors").write_bytes(b"not weights")
        assert "the weights cannot be loaded" in self.refused(run, small, folders)


class TestBadFolders:
    def test_another_study(self, run: Run, small: list[str], tmp_path: Path) -> None:
        run("sweep", *small)
        line = one_line(run("sweep", *small, "seed=1"))
        assert (
            line == f"error: {tmp_path / 'out'}: holds another study (seed differ); choose another --out, or start "
            "over with --fresh"
        )

    @pytest.mark.parametrize("out", ["p.jsonl", "p.jsonl/below", "/proc/out"])
    def test_cannot_be_written(self, run: Run, small: list[str], tmp_path: Path, out: str) -> None:
        assert f"error: {tmp_path / out}: cannot be written: " in one_line(
            run("sweep", *small, "--out", tmp_path / out)
        )


class TestTrees:
    def test_list(self, run: Run) -> None:
        said = run("trees", "list", "--json")
        found = json.loads(said.out)
        assert (said.code, said.err) == (DONE, "")
        assert {shape["kind"] for shape in found["shapes"]} == set(registry())
        assert {tree["name"]: tree["nodes"] for tree in found["published"]}["medusa/mc_sim_7b_63"] == 63
        assert len(found["published"]) == len(published_trees())
        text = run("trees", "list").out
        assert all(name in text for name in [*registry(), "medusa/mc_sim_7b_63"])

    def test_show_json(self, run: Run) -> None:
        said = run("trees", "show", "kary", "budget=4", "tree.k=2", "--format", "json")
        assert json.loads(said.out) == {
            "tree": "kary",
            "nodes": 4,
            "depth": 2,
            "sibling_closed": True,
            "paths": [[0], [1], [0, 0], [0, 1]],
        }

    def test_show_text(self, run: Run) -> None:
        lines = run("trees", "show", "beam", "budget=3").out.splitlines()
        assert lines[0] == "beam: 3 nodes, 2 levels"
        assert [line.split()[-1] for line in lines[1:]] == ["root", "0", "0/0", "1"]

    def test_show_a_published_tree(self, run: Run) -> None:
        for name in ("medusa", "medusa/mc_sim_7b_63"):
            assert run("trees", "show", name).out.startswith("medusa: 63 nodes, 4 levels")

    def test_show_as_medusa_choices(self, run: Run) -> None:
        said = run("trees", "show", "branching", "budget=5", "tree.factors=[2,1]", "--format", "medusa")
        assert (said.code, said.out, said.err) == (DONE, "[[0], [1], [0, 0], [1, 0], [0, 0, 0]]\n", "")
        for name in ("eagle", "hydra/single", "medusa/zephyr_stage2"):
            assert run("trees", "show", name, "--format", "medusa").err == ""
        wide = run("trees", "show", "wide", "budget=12", "--format", "medusa")
        assert (len(json.loads(wide.out)), wide.code) == (12, DONE)
        assert wide.err == "note: this tree needs TOPK=12 in medusa/model/utils.py, which says 10\n"

    def test_show_as_sglang_settings(self, run: Run) -> None:
        said = run("trees", "show", "chain", "budget=3", "--format", "sglang")
        assert json.loads(said.out) == {
            "speculative_num_steps": 3,
            "speculative_eagle_topk": 1,
            "speculative_num_draft_tokens": 4,
        }

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["chian"], ["tree=chian", "did you mean 'chain'?"]),
            (["chain", "budget=0"], ["budget=0"]),
            (["chain,kary"], ["one tree at a time"]),
            (["chain", "--format", "yaml"], ["--format 'yaml'", "known: json, medusa, sglang, text"]),
            (["medusa", "--format", "sglang"], ["SGLang cannot", "10 children of the root"]),
            (["measured", "--format", "medusa"], ["fitted to traces"]),
        ],
    )
    def test_bad_input(self, run: Run, arguments: list[str], words: list[str]) -> None:
        line = one_line(run("trees", "show", *arguments))
        assert all(word in line for word in words), line


class TestFit:
    @pytest.fixture
    def chosen(self, pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
        (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"a {n} b"}) + "\n" for n in range(3)))
        return [*pair, "prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}", "max_new_tokens=12"]

    @pytest.mark.parametrize("name", ["sequoia", "measured", "hindsight"])
    def test_a_file_that_tree_paths_reads(self, run: Run, chosen: list[str], tmp_path: Path, name: str) -> None:
        out = tmp_path / "tree.json"
        said = run("trees", "fit", name, *chosen, "budget=6", "--out", out, "--json")
        assert said.code == DONE
        assert any("recorded 3 trajectories" in line for line in said.err.splitlines())
        assert said.err.splitlines()[-1] == f"{out}: written"
        facts = json.loads(out.read_text())
        assert json.loads(said.out) == facts
        assert (facts["tree"], facts["pair"], facts["nodes"], facts["fitted_on"]) == (name, "target+draft", 6, 3)
        assert len(facts["paths"]) == 6 and all(path[:-1] in [*facts["paths"], []] for path in facts["paths"])
        again = run("trees", "fit", name, *chosen, "budget=6")
        assert again.out.splitlines()[0].startswith(f"{name}: 6 nodes, {facts['depth']} levels, fitted on 3 prompts")
        assert again.err == ""  # everything was there
        shown = json.loads(run("trees", "show", "paths", f"tree.file={out}", "--format", "json").out)
        assert shown["paths"] == facts["paths"] and shown["tree"].startswith("paths-")

    def test_the_tree_is_what_a_study_in_sample_has(self, run: Run, chosen: list[str], tmp_path: Path) -> None:
        """`hindsight` of a study is fitted on all of its prompts too."""
        out = tmp_path / "tree.json"
        run("trees", "fit", "measured", *chosen, "budget=4", "--out", out)
        both = run("sweep", *chosen, "tree=hindsight", "budget=4", "report=false", "--out", tmp_path / "a", "--json")
        read = run(
            "sweep", *chosen, "tree=paths", f"tree.file={out}", "report=false", "--out", tmp_path / "b", "--json"
        )
        fitted, written = (json.loads(said.out)["summary"] for said in (both, read))
        by_tree = {row["tree"]: row["block_efficiency"] for row in [*fitted, *written]}
        (label,) = [tree for tree in by_tree if tree.startswith("paths-")]
        assert by_tree[label] == by_tree["hindsight"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["chain"], ["tree=chain is not fitted to traces", "trees show"]),
            (["best_first"], ["tree=best_first is not fitted to traces"]),
            (["sequoia", "budget=0"], ["budget=0"]),
            (["sequoia", "budget=4,8"], ["trees fit shows one combination", "make 2"]),
            (["sequoia", "tree.max_depth=1", "tree.max_children=3"], ["room for 3 nodes only"]),
            (["sequoia", "--out", "/no/such/folder/tree.json"], ["--out", "there is no folder"]),
        ],
    )
    def test_bad_input(self, run: Run, chosen: list[str], arguments: list[str], words: list[str]) -> None:
        line = one_line(run("trees", "fit", *arguments, *chosen))
        assert all(word in line for word in words), line


class TestGenerate:
    def test_json(self, run: Run, pair: list[str]) -> None:
        said = run("generate", "Hello there", *pair, "tree=adaptive", "budget=9", "max_new_tokens=7", "--json")
        assert (said.code, said.err) == (DONE, "")
        found = json.loads(said.out)
        assert found["new_tokens"] == len(found["token_ids"]) <= 7
        seconds = ["prefill_s", "draft_s", "verify_s", "other_s", "wall_s"]
        assert {"text", "steps", "acceptance_rate", "acceptance_length", *seconds} <= found.keys()
        assert found["block_efficiency"] == pytest.approx((found["new_tokens"] - 1) / found["steps"])
        assert found["timed_out"] is False
        assert len(found["trees"]) == found["steps"]
        emitted = found["token_ids"][:1]
        for tree in found["trees"]:
            nodes, scores = tree["nodes"], [node["cumulative_log_prob"] for node in tree["nodes"]]
            assert all(scores[n] <= scores[node["parent"]] for n, node in enumerate(nodes) if n)
            for above, n in zip([0, *tree["best"]], tree["best"], strict=False):
                assert n == max((m for m, node in enumerate(nodes) if node["parent"] == above), key=lambda m: scores[m])
            emitted += [nodes[n]["token"] for n in tree["accepted"]] + [tree["bonus"]] * (tree["bonus"] is not None)
        assert emitted == found["token_ids"]

    def test_a_step_as_files(self, run: Run, pair: list[str], tmp_path: Path) -> None:
        asked = ["generate", "Hello there", *pair, "tree=kary", "budget=6", "max_new_tokens=9", "--no-live"]
        names = {option: tmp_path / f"step.{option}" for option in ("png", "svg", "dot")}
        said = run(*asked, *(word for option, path in names.items() for word in (f"--{option}", str(path))))
        assert said.code == DONE and said.err.count(": written") == 3
        trees = json.loads(run(*asked, "--json").out)["trees"]
        most = max(trees, key=lambda tree: len(tree["accepted"]))
        assert names["png"].read_bytes().startswith(b"\x89PNG")
        assert names["svg"].read_text(encoding="utf-8").count("\u2713") == 1 + len(most["accepted"])
        assert names["dot"].read_text(encoding="utf-8").count("\u2713") == len(most["accepted"])
        assert run(*asked, "--dot", str(names["dot"]), "--step", "1").code == DONE
        assert names["dot"].read_text(encoding="utf-8").count("\u2713") == len(trees[0]["accepted"])

    def test_a_step_that_is_not_there_writes_nothing(self, run: Run, pair: list[str], tmp_path: Path) -> None:
        asked = ["generate", "Hello there", *pair, "max_new_tokens=5", "--html", str(tmp_path / "p.html")]
        for step in ("0", "99"):
            said = run(*asked, "--svg", str(tmp_path / "s.svg"), "--step", step)
            assert said.code == USAGE and f"--step {step}: expected 1 to" in said.err
        said = run(*asked, "--step", "1")
        assert said.code == USAGE and "--step says which step is written" in said.err
        assert run(*asked, "--dot", str(tmp_path / "s.txt")).code == USAGE
        assert list(tmp_path.iterdir()) == []

    def test_text(self, run: Run, pair: list[str]) -> None:
        out = run("generate", "[bold]Hello", *pair, "tree=kary", "budget=3", "max_new_tokens=7").out
        assert out.startswith("[bold]Hello")
        assert "\nstep 1: " in out
        assert "\u2717 " in out
        assert " accepted + " in out
        assert "block efficiency" in out
        assert "wall " in out

    def test_sampled(self, run: Run, pair: list[str]) -> None:
        def tokens(*overrides: str) -> list[int]:
            own = ["tree=kary", "budget=3", "max_new_tokens=7", "sampling=sample", "acceptance=recursive"]
            found: list[int] = json.loads(run("generate", "Hello there", *pair, *own, *overrides, "--json").out)[
                "token_ids"
            ]
            return found

        assert tokens() == tokens("seed=0") != tokens("seed=1")
        assert tokens("sampling.temperature=0") == tokens("sampling.temperature=0", "acceptance=greedy")

    def test_json_without_a_step(self, run: Run, pair: list[str]) -> None:
        found = json.loads(run("generate", "Once", *pair, "max_new_tokens=1", "--json").out)
        assert (found["steps"], found["acceptance_rate"], found["block_efficiency"]) == (0, None, None)
        assert "acceptance rate -" in run("generate", "Once", *pair, "max_new_tokens=1").out

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (["budget=2,4"], ["one combination", "make 2"]),
            (["budget=0"], ["budget=0"]),
            (["tree=chian"], ["did you mean 'chain'?"]),
            (["max_new_tokens=600"], ["context of 512"]),
            (["sampling.temperature=-1"], ["sampling.temperature=-1"]),
            (["sampling.temperature=1"], ["the rule greedy needs sampling.temperature=0"]),
            (["acceptance=block", "tree=kary"], ["the rule block is for chains only"]),
            (["acceptance=typical", "acceptance.delta=0"], ["acceptance.delta=0"]),
            (["pair.target.path=/nowhere/x"], ["no such folder"]),
        ],
    )
    def test_bad_input(
        self, run: Run, pair: list[str], monkeypatch: pytest.MonkeyPatch, changes: list[str], words: list[str]
    ) -> None:
        monkeypatch.setattr(loading, "load_model", lambda *given: pytest.fail("a model was loaded"))
        line = one_line(run("generate", "Once", *pair, *changes))
        assert all(word in line for word in words), line

    def test_long_prompt(self, run: Run, pair: list[str]) -> None:
        assert "max_prompt_tokens=" in one_line(run("generate", "x" * 600, *pair))
        assert run("generate", "x" * 600, *pair, "max_prompt_tokens=20", "max_new_tokens=2").code == DONE


class TestDoctor:
    @pytest.mark.parametrize("fine", [True, False])
    def test_exit_code(self, run: Run, monkeypatch: pytest.MonkeyPatch, fine: bool) -> None:
        from specdraft.commands import doctor

        found = [doctor.Finding("libraries", True, "[1.0]"), doctor.Finding("models", fine, "all there")]
        monkeypatch.setattr(doctor, "findings", lambda: iter(found))
        said = run("doctor")
        assert said.code == (DONE if fine else INTERNAL)
        assert said.out.splitlines() == [
            "ok     libraries: [1.0]",
            f"{'ok    ' if fine else 'BROKEN'} models: all there",
        ]

    def test_what_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from specdraft.commands import doctor

        def broken() -> str:
            raise ValueError("not today")

        monkeypatch.setattr(doctor, "_models", lambda: "stand-ins")
        monkeypatch.setattr(doctor, "_decoding", broken)
        found = {finding.what: finding for finding in doctor.findings()}
        assert [name for name, finding in found.items() if not finding.fine] == ["tree decoding"]
        assert found["tree decoding"].detail == "ValueError: not today"
        assert "torch" in found["libraries"].detail
        assert found["prompts"].detail == "80 bundled prompts in 5 categories"

    def test_models_and_decoding_are_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from specdraft.commands import doctor

        load, loaded = pair_module.load_pair, list[str]()
        monkeypatch.setattr(doctor, "_configs", lambda: "looked at above")
        monkeypatch.setattr(pair_module, "load_pair", lambda name: loaded.append(name) or load("zoo-tiny"))
        found = {finding.what: finding for finding in doctor.findings()}
        assert [name for name, finding in found.items() if not finding.fine] == []
        folders = {path.parent.name for path in zoo_folder().glob("*/config.json")}
        assert set(found["bundled models"].detail.split(", ")) == folders >= {"target", "draft"}
        assert loaded == ["zoo"]
        words = r"(\d+) tokens in (\d+) steps; self-check (\S+) \(wrong on purpose: (\S+)\)"
        told = re.fullmatch(words, found["tree decoding"].detail)
        assert told, found["tree decoding"].detail
        tokens, steps, error, control = map(float, told.groups())
        assert tokens == 16 and 0 < steps < 16 and error < 1e-2 * control


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"], ["trees", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["specdraft", *{arguments!r}]
from specdraft.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
heavy = {{"torch", "transformers", "numpy", "pandas", "scipy", "hydra"}} & set(sys.modules)
assert not heavy, heavy
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "100"}
    )
    assert said.returncode == 0, said.stderr
    assert "Usage" in said.stdout
