"""The report, without a browser: its numbers are those of the files, text stays text, bad input is one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft import cli
from specdraft.commands.options import USAGE
from specdraft.errors import ConfigError, ResultsError
from specdraft.report import page
from specdraft.report.answer import answer
from specdraft.report.confidence import confidence
from specdraft.report.findings import Findings, findings_of
from specdraft.report.leads import difference
from specdraft.report.markdown import code, escaped
from specdraft.report.study_files import StudyFiles, read_study, visible
from specdraft.report.words import plain
from specdraft.report.writing import parse_formats, write_report
from specdraft.results.intervals import Interval

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
NASTY = (
    "<script>alert('x')</script>",
    "a\"b'c",
    "line\nbreak",
    "\u202eevil",
    "שלום",
    "🌳|tree",
    "`*_[x](y)",
    "</script><!--",
    "{{ 7 * 7 }}",
)


class Reader(HTMLParser):
    """Tables by id, the text of script elements, and every element's name."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.titles: dict[str, list[str]] = {}
        self.scripts: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._table = self._script = ""
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "div" and (given.get("id") or "").startswith("table-"):
            self._table = str(given["id"]).removeprefix("table-")
            self.tables[self._table], self.titles[self._table] = [], []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self.titles[self._table].append(given.get("title") or "")
            self._cell = True
        if tag == "script":
            self._script = given.get("id") or (
                f"rows-{self._table}" if given.get("class") == "rows" else f"code-{len(self.scripts)}"
            )
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False
        if tag == "script":
            self._script = ""

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] += data
        elif self._cell:
            self.tables[self._table][-1][-1] += data
        if not self._script:
            self.text += data


def read_html(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def rows_of(reader: Reader, table: str) -> tuple[list[str], list[list[str]]]:
    """Header and all rows as they are shown, those of later pages too."""
    head, *rows = reader.tables[table]
    if f"rows-{table}" not in reader.scripts:
        return head, rows
    return head, [[cell[0] if isinstance(cell, list) else cell for cell in row] for row in _listed(reader, table)]


def full_rows_of(reader: Reader, table: str) -> list[list[str]]:
    """All rows with all the digits of their numbers."""
    if f"rows-{table}" in reader.scripts:
        return [[cell[1] if isinstance(cell, list) else cell for cell in row] for row in _listed(reader, table)]
    head, *rows = reader.tables[table]
    cells = [cell for row in rows for cell in row]
    said = [title or cell for title, cell in zip(reader.titles[table][len(head) :], cells, strict=True)]
    return [said[start : start + len(head)] for start in range(0, len(said), len(head))]


def _listed(reader: Reader, table: str) -> list[list[str | list[str]]]:
    return list(json.loads(reader.scripts[f"rows-{table}"]))


@pytest.fixture(autouse=True)
def small_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making Vega's bundle takes seconds; one test has the real one."""
    monkeypatch.setattr(page, "vega_bundle", lambda: "/* vega */")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "mine")


def html_of(folder: Path) -> Reader:
    write_report(folder, formats=("html",))
    return read_html(folder / "report.html")


class TestNumbers:
    def test_all_combinations_equal_summary_csv(self, tmp_path: Path) -> None:
        folder = tmp_path / "reference"
        shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("*.svg", "figures", "records.csv"))
        reader = html_of(folder)
        head, rows = rows_of(reader, "summary")
        written = pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False)
        whole = full_rows_of(reader, "summary")
        said = [(name, row) for row in whole for name in row[head.index("combination")].split(", ")]
        assert len(rows) == len(whole) > page.PAGE_ROWS
        assert len(said) == len(written) and {name for name, _ in said} == set(written["combination"])
        by_name = written.set_index("combination")
        for name in ("block_efficiency", "block_efficiency_lo", "acceptance_rate_hi", "est_speedup", "steps"):
            assert [row[head.index(name)] for _, row in said] == list(by_name.loc[[name for name, _ in said], name])
        merged = [(row[head.index("tree")], row[head.index("budget")]) for row in whole if row[0] == "zoo"]
        assert ("chain = sequoia = measured = hindsight", "2") in merged and ("kary", "16") in merged
        shown = [float(row[head.index("block_efficiency")]) for row in rows]
        assert shown == [round(float(row[head.index("block_efficiency")]), 2) for row in whole]
        assert not {column for column in written if (written[column] == "").all()} & set(head)
        assert rows[: page.PAGE_ROWS] == reader.tables["summary"][1:]

    def test_winners_equal_summary_and_comparisons(self, tmp_path: Path) -> None:
        reader = html_of(write_study(tmp_path / "s", trees=("chain", "kary", "wide", "hindsight"), budgets=(2, 4, 8)))
        head, rows = rows_of(reader, "winners")
        summary, compared = pd.read_csv(tmp_path / "s/summary.csv"), pd.read_csv(tmp_path / "s/comparisons.csv")
        assert len(rows) == 3
        for row in rows:
            said = dict(zip(head, row, strict=True))
            fair = summary[(summary["budget"] == int(said["nodes"])) & (summary["tree"] != "hindsight")].sort_values(
                "block_efficiency"
            )
            first, second = fair.iloc[-1], fair.iloc[-2]
            assert (said["first"], said["runner-up"]) == (first["tree"], second["tree"])
            assert said["tokens per pass [95 %]"].startswith(
                f"{first['block_efficiency']:.2f} [{first['block_efficiency_lo']:.2f}"
            )
            pair = compared[
                (compared["budget"] == first["budget"])
                & (compared["tree_a"] == second["tree"])
                & (compared["tree_b"] == first["tree"])
            ]
            assert (
                str(
                    Interval(
                        -pair["difference"].iloc[0], -pair["difference_hi"].iloc[0], -pair["difference_lo"].iloc[0]
                    )
                )
                == said["lead [95 %]"]
            )
            assert said["verdict"] == ("clear" if -pair["difference_hi"].iloc[0] > 0 else "open")

    def test_figures_draw_the_same_numbers(self, study: Path) -> None:
        datasets = json.loads(html_of(study).scripts["datasets"])
        summary, opening = pd.read_csv(study / "summary.csv"), datasets["opening"]
        lines = [
            value for value, part in zip(opening["block_efficiency"], opening["part"], strict=True) if part == "line"
        ]
        assert lines == list(summary["block_efficiency"])
        assert datasets["curves"]["acceptance_rate_hi"] == list(summary["acceptance_rate_hi"])

    def test_markdown_says_the_same(self, study: Path) -> None:
        write_report(study, formats=("html", "md"))
        text, reader = (study / "report.md").read_text(), read_html(study / "report.html")
        head, rows = rows_of(reader, "summary")
        for row in rows:
            assert (
                f"| {escaped(row[head.index('tree')])} | {row[head.index('budget')]} | "
                f"{row[head.index('block_efficiency')]} |" in text
            )
        for row in rows_of(reader, "winners")[1]:
            assert f"| {' | '.join(map(escaped, row))} |" in text

    def test_lead_in_either_order(self, study: Path) -> None:
        findings = findings_of(read_study(study))
        ahead = difference(findings.differences, "zoo", 2, "chain", "kary")
        behind = difference(findings.differences, "zoo", 2, "kary", "chain")
        assert tuple(ahead) == pytest.approx((-behind.value, -behind.high, -behind.low))

    def test_settings_are_told_apart(self, tmp_path: Path) -> None:
        folder = write_study(tmp_path / "s", settings=(("rejection", 0.7), ("kseq", 1.0)))
        study = read_study(folder)
        assert study.panels == ["zoo · rejection · T=0.7", "zoo · kseq · T=1"]
        assert {lead.panel for lead in findings_of(study).leads} == set(study.panels)
        reader = html_of(folder)
        assert {"settings", "theory"} <= set(json.loads(reader.scripts["specs"]))


class TestClaims:
    """Nothing is said to win that an interval does not support."""

    def leads(self, folder: Path, low: float, high: float) -> Findings:
        compared = pd.read_csv(folder / "comparisons.csv")
        ordered = compared["difference"] >= 0
        compared.loc[ordered, ["difference_lo", "difference_hi"]] = (low, high)
        compared.loc[~ordered, ["difference_lo", "difference_hi"]] = (-high, -low)
        compared.to_csv(folder / "comparisons.csv", index=False)
        return findings_of(read_study(folder))

    def test_clear(self, study: Path) -> None:
        findings = self.leads(study, 0.001, 0.02)
        assert "its lead is clear at the 95 % level" in plain(answer(findings)[0])
        assert confidence(findings).word.startswith("High")

    def test_open(self, study: Path) -> None:
        findings = self.leads(study, -0.001, 0.02)
        assert "no proven winner" in plain(answer(findings)[0])
        assert confidence(findings).word.startswith("Low")
        assert {lead.verdict for lead in findings.leads} == {"open"}

    def test_few_prompts_are_not_high_confidence(self, tmp_path: Path) -> None:
        findings = self.leads(write_study(tmp_path / "s", prompts=5), 0.001, 0.02)
        assert confidence(findings).word.startswith("Fair")

    def test_hindsight_never_wins(self, tmp_path: Path) -> None:
        folder = write_study(tmp_path / "s", trees=("chain", "kary", "hindsight", "hindsight-max_depth4"))
        assert {tree for lead in findings_of(read_study(folder)).leads for tree in lead.trees} <= {"chain", "kary"}

    def test_equal_trees_share_the_first_place(self, study: Path) -> None:
        summary, compared = pd.read_csv(study / "summary.csv"), pd.read_csv(study / "comparisons.csv")
        summary["block_efficiency"] = 2.0
        compared[["difference", "difference_lo", "difference_hi"]] = 0
        summary.to_csv(study / "summary.csv", index=False)
        compared.to_csv(study / "comparisons.csv", index=False)
        findings = findings_of(read_study(study))
        assert [(lead.trees, lead.verdict) for lead in findings.leads] == [(("chain", "kary"), "all equal")] * 2
        assert "there is no winner" in plain(answer(findings)[0])

    def test_live_times_are_measured_and_replayed_ones_estimates(self, study: Path, tmp_path: Path) -> None:
        replayed, live = html_of(study), html_of(write_study(tmp_path / "live", live=True))
        assert {"est-speedup"} == {"est-speedup", "speedup", "latency"} & set(json.loads(replayed.scripts["specs"]))
        assert {"speedup", "latency"} == {"est-speedup", "speedup", "latency"} & set(json.loads(live.scripts["specs"]))
        assert "An estimate, not a measurement" in replayed.text and "An estimate" not in live.text


class TestText:
    def test_names_from_the_data_appear_as_text(self, tmp_path: Path) -> None:
        folder = write_study(tmp_path / "s", pairs=NASTY[:2], trees=("chain", *NASTY))
        reader = html_of(folder)
        shown = {row[rows_of(reader, "summary")[0].index("tree")] for row in rows_of(reader, "summary")[1]}
        assert shown == {"chain", *map(visible, NASTY)}
        assert not [tag for tag, _ in reader.tags if tag in ("img", "iframe", "object")]
        scripts = [given for tag, given in reader.tags if tag == "script"]
        assert len(scripts) == len(reader.scripts) and all(set(given) <= {"type", "id", "class"} for given in scripts)
        assert "49" not in {cell for row in reader.tables["summary"] for cell in row}
        for name in ("datasets", "specs"):
            json.loads(reader.scripts[name])

    def test_markdown_names(self, tmp_path: Path) -> None:
        folder = write_study(tmp_path / "s", trees=("chain", *NASTY))
        write_report(folder, formats=("md",))
        text = (folder / "report.md").read_text(encoding="utf-8")
        outside = re.sub(r"(`+).*?\1", "", text)
        assert "<script" not in outside.replace("\\<script", "")
        table = text[text.index("### All combinations") :].split("\n\n")[1].splitlines()
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(re.findall(r"(?<!\\)\|", table[0]))}

    @pytest.mark.parametrize(
        ("word", "as_code"), [("a", "`a`"), ("`a", "`` `a ``"), ("a|b", "`a\\|b`"), ("a``b", "```a``b```"), (" ", " ")]
    )
    def test_code(self, word: str, as_code: str) -> None:
        assert code(word) == as_code

    def test_visible(self) -> None:
        assert visible("a\nb\u202ec\x00 🌳 שלום") == "a\\nb\\u202ec\\x00 🌳 שלום"

    def test_no_address_that_a_browser_would_fetch(self, study: Path) -> None:
        reader = html_of(study)
        links = [
            value
            for _, given in reader.tags
            for name, value in given.items()
            if name in ("src", "href", "action", "srcset")
        ]
        assert all(value is not None and value.startswith(("#", "data:")) for value in links)


def run(
    *arguments: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["specdraft", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


def edit(name: str, **columns: Any) -> Any:
    def change(folder: Path) -> None:
        table = pd.read_csv(folder / name, dtype=str)
        for column, value in columns.items():
            if value is None:
                table = table.drop(columns=column)
            else:
                table[column] = value
        table.to_csv(folder / name, index=False)

    return change


def write(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content)


REFUSED = {
    "no such folder": (shutil.rmtree, "no such folder"),
    "no summary": (lambda folder: (folder / "summary.csv").unlink(), "holds no results (summary.csv is missing)"),
    "an empty file": (write("summary.csv", b""), "cannot be read as a table"),
    "not a table": (write("summary.csv", b"\x00\xff\xfe" * 40), "summary.csv"),
    "another table": (write("summary.csv", b"a,b\n1,2\n"), "has no column combination, pair, "
                      "tree, budget, steps, block_efficiency"),
    "a missing column": (edit("summary.csv", block_efficiency=None), "has no column block_efficiency"),
    "text for a number": (edit("summary.csv", block_efficiency="fast"), "block_efficiency='fast' is not a number"),
    "no budget": (edit("summary.csv", budget=""), "budget"),
    "no rows at all": (
        lambda folder: (folder / "summary.csv").write_text((folder / "summary.csv").read_text().splitlines()[0]),
        "no rows",
    ),
    "a folder for a file": (lambda folder: ((folder / "summary.csv").unlink(), (folder / "summary.csv").mkdir()),
                            "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(study: Path, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    change, words = REFUSED[case]
    change(study)
    status, out, err = run("report", study, capsys=capsys, monkeypatch=monkeypatch)
    assert (status, out) == (USAGE, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ") and words in line and str(study) in line


MISSING = {
    "no intervals": (edit("summary.csv", block_efficiency_lo=None, block_efficiency_hi=None), "No intervals"),
    "foreign columns": (edit("summary.csv", colour="red"), "which are passed over: colour"),
    "no comparisons": (lambda folder: (folder / "comparisons.csv").unlink(), "comparisons.csv is missing"),
    "no positions": (lambda folder: (folder / "positions.csv").unlink(), "positions.csv is missing"),
    "damaged nodes": (write("nodes.csv", b"x,y\n1,2\n"), "nodes.csv: has no column combination"),
    "text in lengths": (edit("lengths.csv", steps="many"), "lengths.csv: steps holds text where numbers are expected"),
    "odd rank paths": (edit("nodes.csv", rank_path="a/b"), "rank paths that cannot be read"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    "damaged manifest": (write("manifest.json", b"{"), "manifest.json cannot be read"),
    "odd manifest": (write("manifest.json", b'{"study": 3, "models": [1], "prompts": "x", "wall_s": []}'),
    "study mine"),
    "damaged failures": (write("failures.jsonl", b"[1]\n"), "failures.jsonl cannot be read"),
    "infinite": (edit("summary.csv", block_efficiency=float("inf")), "No combination has results"),
    "no steps": (edit("summary.csv", block_efficiency=""), "took no step"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_said(study: Path, case: str) -> None:
    change, words = MISSING[case]
    change(study)
    if case == "no steps":
        table = pd.read_csv(study / "summary.csv")
        table["block_efficiency"] = table["block_efficiency"].astype(float)
        table.loc[0, "block_efficiency"] = 2
        table.to_csv(study / "summary.csv", index=False)
    write_report(study, formats=("html", "md"))
    reader = read_html(study / "report.html")
    assert words in " ".join(reader.text.split())
    figures = {given["id"] for tag, given in reader.tags if tag == "figure"}
    charts = {f"figure-{given['data-figure']}" for _, given in reader.tags if given.get("data-figure")}
    assert charts <= figures and len(figures - charts) == reader.text.count("Not drawn")


STUDIES: dict[str, tuple[dict[str, Any], str]] = {
    "one prompt": ({"prompts": 1}, "There is one prompt: no interval: fewer than 5 prompts."),
    "four prompts": ({"prompts": 4}, "There are 4 prompts: no interval: fewer than 5 prompts."),
    "a single shape": ({"trees": ("chain",)}, "A single shape (chain) was measured: nothing can win."),
    "a single budget": ({"budgets": (4,)}, "A single budget (4 nodes) was measured"),
    "one of each": ({"trees": ("chain",), "budgets": (4,), "prompts": 1},
    "one shape at one budget gives a single cell"),
    "hindsight alone": ({"trees": ("hindsight",)}, "only hindsight trees were measured"),
    "200 shapes": ({"trees": ("chain", *(f"kary-k{k}" for k in range(2, 201)))},
    "Of 200 shapes the 12 with the highest"),
    "40 settings": ({"settings": tuple((f"rule{i}", 0) for i in range(40))}, "9 of 40 settings are drawn"),
}  # fmt: skip


@pytest.mark.parametrize("case", STUDIES)
def test_odd_studies(tmp_path: Path, case: str) -> None:
    sizes, words = STUDIES[case]
    folder = write_study(tmp_path / "s", **sizes)
    write_report(folder, formats=("html", "md", "png") if case in ("one of each", "one prompt") else ("html", "md"))
    assert words in " ".join(read_html(folder / "report.html").text.split())
    assert (folder / "report.html").stat().st_size < 3e6


def test_failures_only(study: Path) -> None:
    header = (study / "summary.csv").read_text().splitlines()[0]
    (study / "summary.csv").write_text(header + "\n")
    failure = {
        "combination": "0",
        "prompt_id": None,
        "error": "<b>CUDA</b> out of memory",
        "overrides": "pair=zoo tree=chain",
    }
    (study / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    write_report(study)
    reader = read_html(study / "report.html")
    assert "There is no answer" in reader.text and "No figure can be drawn" in reader.text
    assert rows_of(reader, "failures")[1] == [["0", "–", "<b>CUDA</b> out of memory", "pair=zoo tree=chain"]]
    assert "No combination has results; 1 failure is recorded below." in (study / "report.md").read_text().replace(
        "\\", ""
    )


class TestTargets:
    def test_files(self, study: Path) -> None:
        written = write_report(study)
        assert written[:2] == [study / "report.html", study / "report.md"]
        names = {path.stem for path in written[2:]}
        assert {
            "block-efficiency",
            "lead",
            "acceptance-length",
            "acceptance-rate",
            "heat",
            "depth",
            "rank",
            "lengths",
            "est-speedup",
        } <= names
        assert all(
            path.parent == study / "figures" and path.read_bytes().startswith(b"\x89PNG") for path in written[2:]
        )
        for link in re.findall(r"!\[.*?\]\(<(.*?)>\)", (study / "report.md").read_text()):
            assert (study / link).is_file()

    def test_out(
        self, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        status, out, _ = run("report", study, "--out", tmp_path / "a b.md", capsys=capsys, monkeypatch=monkeypatch)
        assert status == 0 and out.startswith(f"{tmp_path / 'a b.md'} (") and len(out.splitlines()) == 1
        assert not (study / "report.html").exists() and not (study / "figures").exists()
        assert "![" not in (tmp_path / "a b.md").read_text()
        write_report(study, tmp_path / "b.html", ("html", "md", "png"))
        assert (tmp_path / "b.html").is_file() and "](<mine/figures/lead.png>)" in (tmp_path / "b.md").read_text()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--format", "pdf"], "--format 'pdf' is not known"),
            (["--format", ","], "--format '' is not known"),
            (["--format", "htm"], "did you mean 'html'"),
            (["--out", "none/x.html"], "there is no folder"),
            (["--out", "."], "this is a folder"),
            (["--out", "x.md", "--format", "html"], "its ending does not fit"),
            (["--out", "x.pdf", "--format", "html"], "ends in .html or .md"),
            (["--out", "x.txt", "--format", "html,md"], "expected a file that ends in .html or .md"),
            (["--out", "x.html", "--format", "png"], "pictures go to"),
        ],
    )
    def test_refused(
        self,
        study: Path,
        arguments: list[str],
        words: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(study.parent)
        status, out, err = run("report", study, *arguments, capsys=capsys, monkeypatch=monkeypatch)
        assert (status, out, len(err.splitlines())) == (USAGE, "", 1) and words in err

    def test_unwritable(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "TemporaryFile", refused)
        with pytest.raises(ResultsError, match=r"report\.html: cannot be written: Permission denied"):
            write_report(study)

    def test_figures_is_a_file(self, study: Path) -> None:
        (study / "figures").write_text("")
        with pytest.raises(ResultsError, match="figures: cannot be written"):
            write_report(study)

    def test_formats(self) -> None:
        assert parse_formats(None) == ("html", "md", "png")
        assert parse_formats(None, Path("x.md")) == ("md",) and parse_formats(None, Path("x")) == ("html",)
        assert parse_formats(" PNG,html ,png") == ("png", "html")
        with pytest.raises(ConfigError):
            parse_formats("html,doc")


def test_needs_no_torch(study: Path, tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from specdraft.report.writing import write_report
write_report(Path({str(study)!r}), formats=("md", "png"))
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    assert (
        subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(cli.__file__).parent.parent).returncode
        == 0
    )


@pytest.mark.slow
def test_bundle_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page.vega_bundle.cache_clear()
    made = page.vega_bundle()
    assert "window.specdraftEmbed" in made and "</script" not in made
    (kept,) = (tmp_path / "cache/specdraft").iterdir()
    kept.write_text("torn")
    page.vega_bundle.cache_clear()
    assert page.vega_bundle() == made == kept.read_text(encoding="utf-8")
    write_report(study, formats=("html",))
    assert 8e5 < (study / "report.html").stat().st_size < 1.5e6
    page.vega_bundle.cache_clear()


def test_study_files_are_typed(study: Path) -> None:
    assert isinstance(read_study(study), StudyFiles) and os.fspath(read_study(study).folder) == str(study)


@pytest.mark.slow
@pytest.mark.parametrize("many", ["shapes", "settings"])
def test_five_thousand_combinations(tmp_path: Path, many: str) -> None:
    pairs, budgets = tuple(f"pair{i}" for i in range(5)), (2, 4, 8, 16, 32)
    if many == "shapes":
        write_study(tmp_path / "s", pairs, ("chain", *(f"kary-k{k}" for k in range(2, 200)), "hindsight"), budgets)
    else:
        settings = tuple((f"rule{i}", t / 4) for i in range(8) for t in range(5))
        write_study(tmp_path / "s", pairs, ("chain", "kary", "wide", "beam", "hindsight"), budgets, settings)
    write_report(tmp_path / "s")
    reader = read_html(tmp_path / "s/report.html")
    assert len(rows_of(reader, "summary")[1]) == 4975 + 25
    assert (tmp_path / "s/report.html").stat().st_size < 14e6  # Vega, which is left out here, is 1 MB
    assert "are drawn" in reader.text and "5,000 rows, 50 at a time" in reader.text
