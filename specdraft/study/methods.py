"""Methods side by side on one target: what `specdraft bench methods` runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from specdraft.bench.method_tables import Kind, MethodTables, Named, method_tables
from specdraft.bench.methods import Decoded, Measured, Method, Rounds
from specdraft.decoding.decode import decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, PairFiles, load_pair
from specdraft.errors import UserError
from specdraft.losslessness.ties import compare_greedy
from specdraft.models.language_model import Assistance, LanguageModel
from specdraft.models.placement import dtype_label
from specdraft.prompts import Prompt
from specdraft.results.manifest import environment
from specdraft.results.metrics import Tally, looped_tokens
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import model_label
from specdraft.study.failures import explain
from specdraft.study.generate import SpeculativeDecoder
from specdraft.study.method_plan import PLAIN, MethodsPlan, PeerSpec, PlannedMethod
from specdraft.study.progress import Progress
from specdraft.study.run import threads


@dataclass
class MethodsRun:
    """A benchmark while it runs and after it: what was measured is there when it is interrupted.

    Attributes:
        rounds: see `Rounds`; None before anything is loaded.
        missing: method -> why it cannot run.
        wall_s: seconds of the rounds.
    """

    plan: MethodsPlan
    rounds: Rounds | None = None
    missing: dict[str, str] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)
    dtype: str = ""
    device: str = ""
    wall_s: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)
    _pairs: dict[str, Pair] = field(default_factory=dict)

    def run(self, progress: Progress | None = None) -> None:
        """Load and measure. Raises `UserError` where the target cannot be loaded, or plain decoding fails."""
        watch = progress or Progress()
        with threads(self.plan.settings.threads):
            self.environment = environment()
            watch.stage("load", 1 + len(self.plan.methods), "models")
            target = load_pair(self.plan.target)
            self.dtype, self.device = dtype_label(self.plan.target.target), str(target.target.device)
            self.models = {"target": target.describe()["target"]}
            watch.done(1)
            methods = [*self._loaded(target, watch), *self._peers(target)]
            same = partial(_same, target, self.plan.prompt_ids)
            plain = Method(PLAIN, _Plain(self.plan, target))
            self.rounds = Rounds(plain, methods, self.plan.prompts, same, watch)
            began = time.perf_counter()
            try:
                self.rounds.run(self.plan.spec)
            finally:
                self.wall_s = time.perf_counter() - began

    def _loaded(self, target: Pair, watch: Progress) -> list[Method]:
        methods = []
        for planned in self.plan.methods:
            if planned.files is None:
                self.missing[planned.name] = planned.reason
            else:
                try:
                    methods.append(self._method(planned, self._pair(planned.files, target)))
                except Exception as error:  # another method may still run
                    self.missing[planned.name] = explain(error)
            watch.done(1)
        return methods

    def _pair(self, files: PairFiles, target: Pair) -> Pair:
        """A pair with its weights in memory: methods that differ in their trees share it."""
        key = repr((files.spec, files.drafter))
        if key not in self._pairs:
            self._pairs[key] = load_pair(files, target_of=target)
        return self._pairs[key]

    def _method(self, planned: PlannedMethod, pair: Pair) -> Method:
        groups, settings = planned.point.groups, planned.point.settings
        decoder = SpeculativeDecoder(
            pair,
            groups["tree"],
            settings.budget,
            settings.max_new_tokens,
            groups["acceptance"],
            groups["sampling"].target,
            max_prompt_tokens=settings.max_prompt_tokens,
            pruning=groups["pruning"],
            length=groups["length"],
        )
        self.models[planned.name] = pair.describe()["draft"]
        return Method(planned.name, _Ours(decoder, self.plan.prompt_ids), groups["acceptance"].lossless)

    def _peers(self, target: Pair) -> list[Method]:
        methods, assistant = list[Method](), None
        for name, spec in self.plan.spec.chosen_peers.items():
            try:
                if spec.assisted:
                    assistant = assistant or self._assistant(target)
                methods.append(Method(name, _Peer(self.plan, target, _assistance(spec, assistant))))
            except Exception as error:  # another peer may still run
                self.missing[name] = explain(error)
        return methods

    def _assistant(self, target: Pair) -> LanguageModel:
        if self.plan.assistant is None:
            raise UserError(self.plan.no_assistant)
        drafter = self._pair(self.plan.assistant, target).drafter
        assert isinstance(drafter, ModelDrafter)
        return drafter.model

    @property
    def failed(self) -> dict[str, str]:
        """Methods that ended while they ran, and why."""
        return self.rounds.failed if self.rounds else {}

    @property
    def measured(self) -> list[Measured]:
        """Every method, prompt and round so far."""
        return self.rounds.measured if self.rounds else []

    @property
    def narrow(self) -> bool:
        """Whether timing leaves all speed-ups as narrow as was asked for."""
        return self.rounds is not None and self.rounds.widest <= self.plan.spec.width

    def tables(self) -> MethodTables:
        """See `method_tables`."""
        planned = {method.name: method for method in self.plan.methods}
        named = [Named(PLAIN, Kind.PLAIN)]
        named += [Named(name, Kind.OURS, **_keys(method)) for name, method in planned.items()]
        named += [Named(name, Kind.PEER) for name in self.plan.spec.chosen_peers]
        widths = self.rounds.widths if self.rounds else {}
        return method_tables(self.measured, named, self.missing | self.failed, widths)

    def facts(self) -> dict[str, Any]:
        """What was run, on what, and how sure it is: for `benchmark_results.json`."""
        plan = self.plan
        return {
            "pair": plan.target.spec.name,
            "target": model_label(plan.target.spec.target),
            "dtype": self.dtype,
            "device": self.device,
            "prompts": plan.prompt_spec.label,
            "prompt_count": len(plan.prompts),
            "max_new_tokens": plan.settings.max_new_tokens,
            "rounds": 1 + max((one.round for one in self.measured), default=-1),
            "width": plan.spec.width,
            "narrow": self.narrow,
            "wall_s": self.wall_s,
            "methods": plan.said,
            "peers": {name: asdict(peer) for name, peer in plan.spec.chosen_peers.items()},
            "ties": self.rounds.ties if self.rounds else [],
            "models": self.models,
            "environment": self.environment,
        }


def _keys(method: PlannedMethod) -> dict[str, Any]:
    groups = method.point.groups
    limits = groups["tree"].limits(method.point.settings.budget)
    return {"drafter": groups["drafter"].label, "tree": groups["tree"].label, "nodes": limits.nodes}


def _same(target: Pair, ids: Mapping[str, list[int]], prompt: Prompt, plain: list[int], text: list[int]) -> Any:
    return compare_greedy(target.target, target.target_check, ids[prompt.prompt_id], plain, text)


class _Plain:
    """The target alone, by this package's engine."""

    def __init__(self, plan: MethodsPlan, target: Pair) -> None:
        self._ids, self._verifier = plan.prompt_ids, Verifier(target.target)
        self._ending = Ending(plan.settings.max_new_tokens, target.eos_ids)

    def __call__(self, prompt: Prompt) -> Decoded:
        ids = self._ids[prompt.prompt_id]
        started = time.perf_counter()
        tokens = decode_plainly(self._verifier, Sampling(), ids, self._ending)
        return _counted(tokens, time.perf_counter() - started, steps=len(tokens) - 1)


class _Ours:
    """One drafter and tree, by this package's engine."""

    def __init__(self, decoder: SpeculativeDecoder, ids: Mapping[str, list[int]]) -> None:
        self._decoder, self._ids = decoder, ids

    def __call__(self, prompt: Prompt) -> Decoded:
        try:
            started = time.perf_counter()
            decoding = self._decoder.start(self._ids[prompt.prompt_id]).finish()
            wall_s = time.perf_counter() - started
        except Exception as error:  # whatever goes wrong in one method must not stop the others
            raise UserError(explain(error)) from error
        return Decoded(decoding.tokens, self._decoder.finished(decoding, wall_s).tally)


class _Peer:
    """`transformers`' own `generate`."""

    def __init__(self, plan: MethodsPlan, target: Pair, assistance: Assistance) -> None:
        self._ids, self._new, self._target = plan.prompt_ids, plan.settings.max_new_tokens, target
        self._assistance = assistance

    def __call__(self, prompt: Prompt) -> Decoded:
        ids, eos = self._ids[prompt.prompt_id], self._target.eos_ids
        try:
            started = time.perf_counter()
            tokens = self._target.target.generate(ids, self._new, eos, self._assistance)
            return _counted(tokens, time.perf_counter() - started)
        except Exception as error:  # as above
            raise UserError(explain(error)) from error


def _counted(tokens: list[int], wall_s: float, steps: int = 0) -> Decoded:
    """A text of the target alone (`steps`: its forwards after the prefill, where they are known)."""
    looped = looped_tokens(tokens)
    return Decoded(tokens, Tally(steps, 0, 0, steps, len(tokens), looped, wall_s=wall_s))


def _assistance(spec: PeerSpec, assistant: LanguageModel | None) -> Assistance:
    of_assistant = {
        name: value
        for name in ("num_assistant_tokens", "assistant_confidence_threshold")
        if (value := getattr(spec, name)) is not None
    }
    return Assistance(assistant, of_assistant, spec.prompt_lookup_num_tokens)
