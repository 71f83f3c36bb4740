"""How a study's losslessness is known, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from specdraft.report.words import Text, join, plural, say


def certificate_text(certificate: Any, summary: pd.DataFrame) -> Text:
    """What a manifest's certificate says; nothing where there is none.

    Args:
        certificate: of the manifest.
        summary: the study's combinations, of which `engine` and `temperature` are read where they are there.
    """
    return join(_sentences(certificate, summary)) if isinstance(certificate, dict) and certificate else ()


def _sentences(certificate: dict[str, Any], summary: pd.DataFrame) -> Iterator[Text]:
    if compared := _count(certificate, "compared"):
        yield say(
            "{} compared with plain greedy decoding of the target: {} identical, {} at a near-tie of two "
            "tokens, {} that should not be.",
            plural(compared, "greedy text was decoded live and", "greedy texts were decoded live and"),
            f"{_count(certificate, 'identical'):,}",
            plural(_count(certificate, "ties"), "difference"),
            plural(_count(certificate, "bugs"), "difference"),
        )
    else:
        yield say("No greedy text of this study was decoded live, so none was compared with plain decoding.")
    if replayed := _count(certificate, "replayed"):
        yield say(
            "{} the target's own recorded texts, which no tree changes.",
            plural(replayed, "row is replayed along", "rows are replayed along"),
        )
    if sampled := _sampled_live(summary):
        yield say(
            "{} decoded live: a sampled text cannot be compared word by word, so its rule was checked by enumeration "
            "(manifest.json: certificate.rules).",
            plural(sampled, "sampled combination was", "sampled combinations were"),
        )
    live = certificate.get("live")
    if checks := [check for check in live if isinstance(check, dict)] if isinstance(live, list) else []:
        passed = sum(bool(check.get("passed")) for check in checks)
        yield say("Beside the study, {} of {} of live texts passed.", passed, plural(len(checks), "check"))


def _count(certificate: dict[str, Any], key: str) -> int:
    """A number of texts, or of a list of them."""
    value = certificate.get(key)
    return len(value) if isinstance(value, list) else value if isinstance(value, int) else 0


def _sampled_live(summary: pd.DataFrame) -> int:
    if not {"engine", "temperature"} <= set(summary):
        return 0
    sampled = pd.to_numeric(summary["temperature"], errors="coerce") > 0
    return int((sampled & (summary["engine"] == "live")).sum())
