"""What was run, on what: the facts that make a study's numbers repeatable. No environment variable is read."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from specdraft.models.placement import gpu_names, thread_count

LIBRARIES = ("specdraft", "torch", "transformers", "tokenizers", "hydra-core", "omegaconf", "numpy", "pandas", "scipy")


def environment() -> dict[str, Any]:
    """Versions, source revision and hardware."""
    libraries = {name: _installed(name) for name in LIBRARIES}
    return {
        "python": platform.python_version(),
        "libraries": libraries,
        "source": source_revision(),
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": cpu_name(),
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": gpu_names(),
        },
        "threads": thread_count(),
    }


@cache
def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


@cache
def source_revision() -> dict[str, Any] | None:
    """The commit of the source tree that runs, and whether it was changed when this was first asked; None outside a
    checkout."""
    folder = Path(__file__).parent.parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
        status = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain", "--", "."],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", "errors.py"],
            check=False,
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())} if tracked.returncode == 0 else None
