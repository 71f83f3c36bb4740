"""Which share of this machine each worker has."""

from __future__ import annotations

import os
from typing import NamedTuple

import psutil

from specdraft.config import Settings
from specdraft.errors import ConfigError
from specdraft.models.placement import thread_count
from specdraft.study.executors.worker import Threads


class Share(NamedTuple):
    """Of each of some workers.

    Attributes:
        gpus: graphics cards of each.
        devices: what each sees as `CUDA_VISIBLE_DEVICES`; empty where there are no graphics cards for them.
    """

    workers: int
    threads: Threads
    gpus: int
    devices: list[str]


def share_of(settings: Settings) -> Share:
    """By the settings, and by what this machine has.

    Raises:
        ConfigError: there are fewer graphics cards than are asked for.
    """
    asked, cards = settings.resources, _cards()
    each = min(1, cards) if asked.gpus_of_worker is None else asked.gpus_of_worker
    cores = psutil.cpu_count(logical=False) or 1
    workers = asked.workers or (cards // each if each and cards >= each else cores)
    if each * workers > cards:
        for_whom = f"{workers} worker{'s' if workers > 1 else ''}"
        there = f"{cards} graphics card{'' if cards == 1 else 's'}"
        raise ConfigError(f"{asked.gpus_key}={each} for {for_whom}: this machine has {there}")
    seen = visible(cards)
    devices = [",".join(seen[n * each : (n + 1) * each]) for n in range(workers)] if each else []
    alone = settings.threads or thread_count()
    return Share(workers, Threads(beside=max(1, alone // workers), alone=alone), each, devices)


def visible(cards: int) -> list[str]:
    """The graphics cards of this process as `CUDA_VISIBLE_DEVICES` names them: workers share those and no others."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    return said.split(",")[:cards] if said else [str(card) for card in range(cards)]


def _cards() -> int:
    """Graphics cards that torch could use here, 0 where it has none."""
    import torch

    return torch.cuda.device_count()
