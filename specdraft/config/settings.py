"""The keys of a study that belong to no group."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from specdraft.errors import ConfigError, check_name, did_you_mean

ENGINES = ("auto", "live", "replay")
MEASURES = ("auto", "off", "again")
EXECUTORS = ("local", "processes", "ray")
RECORDS = ("csv", "parquet", "none")
CACHES = ("auto", "dynamic", "static", "graph")  # auto: what was measured to be the fastest on a device


@dataclass
class OutputSpec:
    """What else is written."""

    steps: bool = False  # steps.csv: one row per verification step
    records: str = "csv"  # the form of the table of all rows: csv, parquet or none


@dataclass
class CostSpec:
    """What replayed estimates of time are made of."""

    measure: str = "auto"  # `auto`: where nothing is stored; `again`: even then; `off`: no estimates
    context: int = 128  # committed tokens of each text that they are of
    batch: int = 1  # texts that go together
    table: str | None = None  # a file of `specdraft bench costs --out`: nothing is measured

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        if self.measure == "False":  # so YAML reads `off`
            self.measure = "off"
        if self.measure not in MEASURES:
            raise ConfigError(f"cost.measure={self.measure!r} is not known{did_you_mean(self.measure, MEASURES)}")
        for key in ("context", "batch"):
            if (value := getattr(self, key)) < 1:
                raise ConfigError(f"cost.{key}={value} is out of range; expected 1 or more")
        if self.table is not None and self.measure != "auto":
            raise ConfigError(f"cost.measure={self.measure} has no effect with cost.table={self.table}; leave one out")


@dataclass
class TargetResources:
    """What a target has."""

    gpus: int | None = None  # graphics cards that its layers are divided over; None: what pair.target.device says


@dataclass
class ResourceSpec:
    """What the workers of an executor, and targets, have."""

    workers: int | None = None  # None: one for each graphics card, else for each physical core
    gpus: int | None = None  # graphics cards of a worker; None: those of its target, else one, where there are any
    address: str | None = None  # of a Ray cluster; None: one on this machine, for this study
    target: TargetResources = field(default_factory=TargetResources)

    @property
    def gpus_of_worker(self) -> int | None:
        """Graphics cards that each worker is to have; None: nobody says."""
        return self.target.gpus if self.gpus is None else self.gpus

    @property
    def gpus_key(self) -> str:
        """The key that says so."""
        return "resources.target.gpus" if self.gpus is None else "resources.gpus"

    def check(self, executor: str) -> None:
        """Raise `ConfigError` for values out of range, or without effect under an executor."""
        given = {"workers": self.workers, "gpus": self.gpus, "target.gpus": self.target.gpus}
        for key, value in given.items():
            if value is not None and value < 1:
                raise ConfigError(f"resources.{key}={value} is out of range; expected 1 or more")
        for key in ("workers", "gpus"):
            if executor == "local" and given[key] is not None:
                raise ConfigError(
                    f"resources.{key}={given[key]} has no effect with executor=local, which has no workers; expected "
                    f"executor={' or '.join(EXECUTORS[1:])}"
                )
        if self.gpus is not None and self.gpus < (self.target.gpus or 0):
            raise ConfigError(
                f"resources.target.gpus={self.target.gpus} does not go with resources.gpus={self.gpus}, the graphics "
                "cards of a whole worker; expected no more than these"
            )
        if self.address is not None and executor != "ray":
            raise ConfigError(f"resources.address={self.address} has no effect without executor=ray")


@dataclass
class Settings:
    """The keys of a study that belong to no group."""

    name: str = "default"
    budget: int = 8
    max_new_tokens: int = 64
    max_prompt_tokens: int | None = None
    max_time_s: float | None = None  # no step of a live text is begun later than so many seconds after its prompt
    engine: str = "auto"
    batch: int = 1  # live texts that are decoded side by side
    cache: str = "auto"  # what live decoding keeps keys and values in
    seed: int = 0
    repeats: int = 1
    report: bool = True  # figures and a report at the end of a sweep
    certify: bool = False
    most_combinations: int = 100_000  # a grid with more of them is refused before it is expanded
    output: OutputSpec = field(default_factory=OutputSpec)
    cost: CostSpec = field(default_factory=CostSpec)
    executor: str = "local"  # where the work is done: in this process, or by workers
    resources: ResourceSpec = field(default_factory=ResourceSpec)
    threads: int | None = None  # of the processor; None: one for each physical core, as torch has it

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        for key, least in (("max_new_tokens", 1), ("max_prompt_tokens", 1), ("repeats", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"{key}={value} is out of range; expected {least} or more")
        if self.max_time_s is not None and not 0 < self.max_time_s < inf:
            raise ConfigError(f"max_time_s={self.max_time_s} is out of range; expected seconds, above 0")
        cores = os.cpu_count() or 1
        if self.threads is not None and not 1 <= self.threads <= cores:
            raise ConfigError(
                f"threads={self.threads} is out of range; expected 1 to {cores}, the cores of this machine"
            )
        self.cost.check()
        self._check_executor()
        if self.engine not in ENGINES:
            raise ConfigError(f"engine={self.engine!r} is not known{did_you_mean(self.engine, ENGINES)}")
        if self.cache not in CACHES:
            raise ConfigError(f"cache={self.cache!r} is not known{did_you_mean(self.cache, CACHES)}")
        if self.output.records not in RECORDS:
            hint = did_you_mean(self.output.records, RECORDS)
            raise ConfigError(f"output.records={self.output.records!r} is not known{hint}")
        if self.name in ("", "..") or Path(self.name).name != self.name:
            raise ConfigError(f"name={self.name!r} is not a study name; expected a plain file name")
        check_name("name", self.name)

    def _check_executor(self) -> None:
        if self.executor not in EXECUTORS:
            raise ConfigError(f"executor={self.executor!r} is not known{did_you_mean(self.executor, EXECUTORS)}")
        self.resources.check(self.executor)
