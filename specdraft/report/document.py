"""What a report holds, before it becomes HTML or Markdown: both are written from this, so they say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from specdraft.report.canvas import Drawn
from specdraft.report.figures import draw
from specdraft.report.findings import ALONE, VERDICTS, Findings, Lead
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.words import Name, Text, names, plural, say
from specdraft.results.intervals import number
from specdraft.results.metrics import COUNTS, RATIOS, TIMES

MOST_HEADLINES = 6
ESTIMATES = ("est_tokens_per_s", "est_speedup")
QUESTION = (
    "A large language model (the target) writes one token per pass. A cheap drafter can propose a small tree of "
    "next tokens, and one pass "
    "of the target checks all of them: the tokens that fit are kept, so a pass yields more than one token."
)
METRICS = (
    (
        "block_efficiency",
        "(accepted_tokens + bonus_tokens) / steps: tokens per verification step, that is, per pass of the target "
        "over a "
        "tree. Plain decoding: 1.",
    ),
    ("acceptance_length", "accepted_tokens / steps: draft tokens only, the bonus is not counted."),
    ("acceptance_rate", "accepted_tokens / drafted_tokens: the share of draft tokens that are kept."),
    (
        "alpha",
        "mean overlap of the two models' distributions along the text: the chance that one draft token is accepted.",
    ),
    ("conditional, marginal", "by depth: accepted / reached, and accepted / all steps of the combination."),
    (
        "rank",
        "a child's place among its siblings: 1 is the drafter's first choice (under sampling: drawn first). accepted / "
        "reached, where reached counts the steps that accepted its parent.",
    ),
    (
        "tokens_per_s, speedup",
        "measured, live decoding only; speedup is the time of plain decoding in the same run over wall_s.",
    ),
    (
        "est_tokens_per_s, est_speedup",
        "estimates from the counts and the pair's measured cost of a draft level and of verifying n tokens. "
        "Never measurements.",
    ),
    (
        "loop_share",
        "share of tokens that end the third or later occurrence of a 4-gram: above 0.3, acceptance measures loops.",
    ),
    (
        "_lo, _hi",
        "95 % intervals over prompts (not over steps), from the study's own files: percentile bootstrap within "
        "categories, or the delta method with few prompts.",
    ),
)
LIMITS = (
    (
        "The leader is picked after looking, and its interval is not corrected for that or for the number of "
        "comparisons: of many leads with a 95 % interval above 0, some can be luck."
    ),
    "Intervals say how far the numbers carry over to other prompts of the same kind, not to other models, "
    "languages or hardware.",
    "More tokens per pass is not the same as faster: a bigger tree costs more to draft and to check.",
    "The rule `typical` is not lossless: its text is not the target's own. Compare its counts with care.",
)
REFERENCES = (
    (
        "Leviathan, Kalman, Matias 2023: Fast Inference from Transformers via Speculative Decoding (speculative "
        "decoding; the closed form for chains)."
    ),
    "Chen et al. 2023: Accelerating Large Language Model Decoding with Speculative Sampling.",
    "Miao et al. 2024: SpecInfer (token trees, recursive rejection).",
    "Cai et al. 2024: Medusa (fixed trees, typical acceptance).",
    "Chen et al. 2024: Sequoia (the best tree for an acceptance vector, sampling without replacement).",
    "Sun et al. 2023: SpecTr (block efficiency, k-seq). Sun et al. 2024: block verification.",
    "Li et al. 2024: EAGLE and EAGLE-2. Stern et al. 2018: blockwise parallel decoding.",
    "Okabe, Ito 2008: Color Universal Design (the palette).",
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        brief: the columns that a Markdown page shows; empty for all.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: Text = ()
    brief: tuple[str, ...] = ()


@dataclass
class Document:
    """A report in the order in which it is read."""

    title: str
    question: list[Text]
    answer: list[Text]
    confidence: str
    reasons: list[Text]
    gaps: list[Text]
    tiles: list[tuple[str, str]]
    headline: Table | None
    drawn: Drawn
    tables: list[Table] = field(default_factory=list)
    run: list[tuple[str, Text]] = field(default_factory=list)


def compose(study: StudyFiles) -> Document:
    """A study's report."""
    findings = Findings(study)
    word, reasons = findings.confidence()
    heads = sorted(findings.headlines.values(), key=lambda lead: lead.verdict == ALONE)  # those with a rival first
    return Document(
        title=study.name,
        question=_question(findings),
        answer=findings.answer(),
        confidence=word,
        reasons=reasons,
        gaps=list(findings.gaps()),
        tiles=_tiles(findings),
        headline=_winners("headline", "In short", heads[:MOST_HEADLINES], len(heads)) if heads else None,
        drawn=draw(findings),
        tables=_tables(findings),
        run=_run(study),
    )


def _question(findings: Findings) -> list[Text]:
    rows = findings.rows
    asked = say(
        "Which shape of tree, at each size (node budget), gets the most tokens accepted, and what is that worth "
        "in time?"
    )
    if rows.empty:
        return [say("{}", QUESTION), asked]
    pairs = names([visible(pair) for pair in dict.fromkeys(rows["pair"])])
    asked = say(
        "For {} {}: which shape of tree, at each size (node budget), gets the most tokens accepted, and what is "
        "that worth in time?",
        "the model pair" if rows["pair"].nunique() == 1 else "the model pairs",
        pairs,
    )
    return [say("{}", QUESTION), asked]


def _tiles(findings: Findings) -> list[tuple[str, str]]:
    rows = findings.rows
    engines = (
        "replayed and live"
        if len(findings.live) and len(findings.estimated)
        else "decoded live"
        if len(findings.live)
        else "replayed"
    )
    counts = [
        (rows["pair"].nunique(), "model pair", ""),
        (rows["tree"].nunique(), "shape", ""),
        (rows["budget"].nunique(), "budget", ""),
        (findings.prompts, "prompt", ""),
        (len(rows), "combination", f", {engines}"),
    ]
    tiles = [
        ("?" if count is None else f"{count:,}", f"{word}{'' if count == 1 else 's'}{more}")
        for count, word, more in counts
    ]
    if len(findings.study.panels) > rows["pair"].nunique():
        tiles.insert(1, (f"{len(findings.study.panels):,}", "settings"))
    return tiles if len(rows) else tiles[3:4]


def _winners(name: str, title: str, leads: list[Lead], total: int) -> Table:
    columns = (
        "setting",
        "nodes",
        "first",
        "tokens per pass [95 %]",
        "runner-up",
        "lead [95 %]",
        "verdict",
        "hindsight (reference)",
    )
    rows = [
        (
            lead.panel,
            str(lead.budget),
            " = ".join(map(visible, lead.trees)),
            str(lead.value),
            visible(lead.runner or "–"),
            str(lead.lead),
            lead.verdict,
            number(lead.hindsight),
        )
        for lead in leads
    ]
    said = [
        f"{word}: {meaning.partition(': ')[2] or meaning}"
        for word, meaning in VERDICTS.items()
        if any(lead.verdict == word for lead in leads)
    ]
    note = (
        "Verdicts: "
        + "; ".join(said)
        + ". Hindsight is fitted on the prompts that it is scored on, and does not compete."
    )
    more = f" {len(leads)} of {total} settings; the others are in the table of winners." if len(leads) < total else ""
    return Table(name, title, columns, rows, say("{}{}", note, more))


def _tables(findings: Findings) -> list[Table]:
    study, tables = findings.study, []
    if findings.leads:
        tables.append(
            _winners(
                "winners",
                "The winner of each budget, and its lead over the runner-up",
                findings.leads,
                len(findings.leads),
            )
        )
    written = study.written
    if len(written):
        ratios = [name for ratio in RATIOS for name in (ratio, f"{ratio}_lo", f"{ratio}_hi")]
        wanted = ["pair", *study.varying, "tree", "budget", "nodes", "depth", *COUNTS, *ratios, *TIMES, "combination"]
        columns = [name for name in dict.fromkeys(wanted) if name in written and (written[name] != "").any()]
        brief = [
            "pair",
            *study.varying,
            "tree",
            "budget",
            "block_efficiency",
            "block_efficiency_lo",
            "block_efficiency_hi",
            "acceptance_length",
            "acceptance_rate",
            "speedup",
            "est_speedup",
        ]
        rows = list(written[columns].map(visible).itertuples(index=False, name=None))
        note = say(
            "Numbers as summary.csv has them.{}",
            " Columns that begin with est_ are estimates." if set(columns) & set(ESTIMATES) else "",
        )
        tables.append(
            Table(
                "summary",
                "All combinations",
                tuple(columns),
                rows,
                note,
                tuple(name for name in brief if name in columns),
            )
        )
    if study.failures:
        rows = [
            tuple(visible(failure.get(key) or "–") for key in ("combination", "prompt_id", "error", "overrides"))
            for failure in study.failures
        ]
        tables.append(Table("failures", "What failed", ("combination", "prompt", "error", "to repeat it"), rows))
    return tables


def _run(study: StudyFiles) -> list[tuple[str, Text]]:
    """The manifest in words; parts that are not there, or not as expected, are passed over."""
    facts: list[tuple[str, Text]] = []

    def add(label: str, *values: Any) -> None:
        told = [visible(value) for value in values if value not in (None, "", [], {})]
        if told:
            facts.append((label, say("{}", ", ".join(told))))

    add(
        "study",
        study.name,
        _pre("seed ", study.about("study", "seed")),
        _pre("prompts ", study.about("study", "prompts")),
    )
    add("prompts", study.about("prompts"))
    for pair, roles in _items(study.about("models")):
        for role, model in _items(roles):
            if isinstance(model, dict):
                size = model.get("parameters")
                facts.append(
                    (
                        f"{visible(pair)}, {visible(role)}",
                        say(
                            "{}{}{}{}{}",
                            Name(visible(model.get("path", "?"))),
                            f", {size:,} parameters" if isinstance(size, int) else "",
                            *(f", {visible(model[key])}" if model.get(key) else "" for key in ("dtype", "device")),
                            f", weights {visible(model['weights'])}" if model.get("weights") else "",
                        ),
                    )
                )
    hardware = study.about("hardware")
    if isinstance(hardware, dict):
        gpus = hardware.get("gpus")
        add(
            "hardware",
            hardware.get("system"),
            hardware.get("cpu"),
            _pre("", hardware.get("cores"), " cores"),
            _pre("", hardware.get("memory_gib"), " GiB"),
            *(gpus if isinstance(gpus, list) and gpus else ["no GPU"]),
        )
    add("threads", study.about("threads"))
    add(
        "software",
        _pre("Python ", study.about("python")),
        *(f"{name} {version}" for name, version in _items(study.about("libraries"))),
    )
    source = study.about("source")
    if isinstance(source, dict):
        add("source", source.get("commit"), "changed since" if source.get("dirty") else "unchanged")
    wall = study.about("wall_s")
    if isinstance(wall, int | float):
        add("time", f"{wall:,.0f} s")
    skipped = study.about("skipped")
    if isinstance(skipped, list) and skipped:
        add("skipped", plural(len(skipped), "combination") + " that do not fit together (manifest.json names each)")
    add("certificate", study.about("certificate", "kind"), *_certificate(study))
    add("intervals", study.about("intervals"))
    return facts


def _certificate(study: StudyFiles) -> list[str]:
    told = []
    for key in ("compared", "identical", "replayed"):
        if isinstance(count := study.about("certificate", key), int):
            told.append(f"{count:,} {key}")
    for key in ("ties", "bugs"):
        if isinstance(found := study.about("certificate", key), list):
            told.append(plural(len(found), key[:-1]))
    return told


def _pre(before: str, value: Any, after: str = "") -> str | None:
    return None if value is None else f"{before}{value}{after}"


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
