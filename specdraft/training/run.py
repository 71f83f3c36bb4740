"""`specdraft train`: from overrides to a folder that `drafter.path=` or `pair.draft.path=` takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import torch

from specdraft.config import override_groups, own_keys
from specdraft.drafters import DrafterSpec
from specdraft.drafters.draft_model import Model
from specdraft.drafters.eagle import Eagle
from specdraft.drafters.hydra import Hydra
from specdraft.drafters.medusa import Medusa
from specdraft.drafters.nano import Nano
from specdraft.drafters.pair import Pair, load_pair
from specdraft.drafters.parallel import Parallel
from specdraft.drafters.redrafter import Redrafter
from specdraft.errors import ConfigError, ResultsError
from specdraft.models.facts import naming
from specdraft.models.files import ModelFiles, first_line
from specdraft.models.memory import out_of_memory
from specdraft.models.output_layer import OutputLayer
from specdraft.models.spec import ModelSpec
from specdraft.results.files import to_csv, write_atomically
from specdraft.study.combination import Combination
from specdraft.study.plan import one_combination
from specdraft.study.refusals import refuse_encoder_decoder, refuse_without_effect
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import Watch
from specdraft.training.card import Made, card
from specdraft.training.draft_model import check_sizes, draft_objective, new_draft_model, new_window_model
from specdraft.training.eagle import aux_layers, eagle_objective, shape_of
from specdraft.training.eagle_files import write_head
from specdraft.training.folder import CARD, HEADS, LOG, SINGLE, WHOLE, WORK, claimed, write_heads, write_model
from specdraft.training.held_out import held_out
from specdraft.training.joint import TARGET, joint_objective
from specdraft.training.loop import Objective, Trained, checkpoint, train
from specdraft.training.medusa import medusa_objective
from specdraft.training.parallel import config_of, new_shape, parallel_objective, read
from specdraft.training.path_heads import hydra_objective, redrafter_config, redrafter_objective
from specdraft.training.settings import (
    DraftTraining,
    EagleTraining,
    HydraTraining,
    MedusaTraining,
    NanoTraining,
    ParallelTraining,
    RedrafterTraining,
    Training,
)
from specdraft.training.states import TextStates, digest_of, text_states
from specdraft.training.texts import Texts, gather_texts

WITHOUT_EFFECT = ("drafter", "tree", "budget", "acceptance", "pruning", "length", "engine", "experiment",
                  "most_combinations")  # fmt: skip
Asked = TypeVar("Asked", bound=Training)


class Job(NamedTuple):
    """What is trained on, and where it goes."""

    pair: Pair
    combination: Combination
    texts: Texts
    states: TextStates
    about: dict[str, Any]
    out: Path
    watch: Watch

    @property
    def work(self) -> Path:
        """What is needed while training, and deleted after it."""
        return self.out / WORK

    @property
    def store(self) -> TraceStore:
        """Of what the target writes for training only."""
        return TraceStore(self.work / "traces")


def train_medusa(overrides: list[str], out: Path, config_dir: Path | None, fresh: bool, watch: Watch) -> Made:
    """Medusa heads, or with `train.joint` a target with its heads.

    Args:
        overrides: in Hydra's grammar; `train.*` as in `MedusaTraining`.
        out: the folder that is written; what a killed run left there is gone on with.
        config_dir: the user's configs.
        fresh: start over.
        watch: told how far it is.

    Raises:
        ConfigError, PromptError, ModelError, ResultsError: see `gather_texts`, `text_states`, `train`; or `out` holds
            something else.
    """
    with _enough_memory():
        asked, job = _begin("medusa", MedusaTraining, overrides, out, config_dir, fresh, watch)
        return _joint(job, asked) if asked.joint else _medusa(job, asked)


def train_draft(overrides: list[str], out: Path, config_dir: Path | None, fresh: bool, watch: Watch) -> Made:
    """A draft model; see `train_medusa`, with `DraftTraining`."""
    with _enough_memory():
        asked, job = _begin("draft", DraftTraining, overrides, out, config_dir, fresh, watch, check_sizes)
        trained, parameters = _distil(new_draft_model(job.pair, asked), asked, job)
        job.pair.files.target.tokenizer.save_pretrained(out)
        spec = job.pair.files.spec
        written = replace(spec, draft=ModelSpec(str(job.out), device=spec.target.device))
        drafting = load_pair(written, Model(), target_of=job.pair)
        return _finish("A draft model", asked, job, trained, parameters, drafting, "pair.draft.path=DIR")


def train_nano(overrides: list[str], out: Path, config_dir: Path | None, fresh: bool, watch: Watch) -> Made:
    """A model of the last few tokens; see `train_medusa`, with `NanoTraining`."""
    with _enough_memory():
        asked, job = _begin("nano", NanoTraining, overrides, out, config_dir, fresh, watch)
        trained, parameters = _distil(new_window_model(job.pair, asked), asked, job)
        drafting = load_pair(job.pair.files.spec, Nano(path=str(out)), target_of=job.pair)
        kind = "A model of the last few tokens"
        return _finish(kind, asked, job, trained, parameters, drafting, "drafter=nano drafter.path=DIR")


def train_parallel(overrides: list[str], out: Path, config_dir: Path | None, fresh: bool, watch: Watch) -> Made:
    """A block head; see `train_medusa`, with `ParallelTraining`."""
    with _enough_memory():
        asked, job = _begin("parallel", ParallelTraining, overrides, out, config_dir, fresh, watch, new_shape, read)
        head, objective = parallel_objective(job.pair, job.states, asked)
        config = config_of(head.shape, job.pair.files.target.layers)
        drafter = Parallel(path=str(out), depth=head.shape.depths)
        return _heads("A block head", drafter, objective, config, asked, job)


def train_hydra(overrides: list[str], out: Path, config_dir: Path | None, fresh: bool, watch: Watch) -> Made:
    """Hydra heads; see `train_medusa`, with `HydraTraining`."""
    with _enough_memory():
        asked, job = _begin("hydra", HydraTraining, overrides, out, config_dir, fresh, watch)
        objective = hydra_objective(job.pair, job.states, asked)
        config = {"hydra_num_heads": asked.heads, "hydra_num_layers": asked.blocks, "grounded_heads": True}
        return _heads("Hydra heads", Hydra(path=str(out), heads=asked.heads), objective, config, asked, job)


def train_redrafter(overrides: list[str], out: Path, config_dir: Path | None, fresh: bool, watch: Watch) -> Made:
    """A recurrent drafter; see `train_medusa`, with `RedrafterTraining`."""
    with _enough_memory():
        asked, job = _begin("redrafter", RedrafterTraining, overrides, out, config_dir, fresh, watch)
        objective = redrafter_objective(job.pair, job.states, asked)
        config = redrafter_config(job.states.states.shape[1], job.pair.target.vocab, asked)
        return _heads("A recurrent head", Redrafter(path=str(out), depth=asked.heads), objective, config, asked, job)


def _heads(
    kind: str, drafter: DrafterSpec, objective: Objective, config: Mapping[str, Any], asked: Training, job: Job
) -> Made:
    """Train heads, write them as model.safetensors, and try them."""
    trained = train(objective, asked, job.about, job.work, job.watch)
    _write_heads(objective.parameters, config, SINGLE, asked, job)
    drafting = load_pair(job.pair.files.spec, drafter, target_of=job.pair)
    changed = {name: value for name, value in drafter.parameters.items() if value != getattr(type(drafter), name)}
    words = [
        f"drafter={drafter.kind}",
        "drafter.path=DIR",
        *(f"drafter.{key}={value}" for key, value in changed.items()),
    ]
    return _finish(kind, asked, job, trained, _count(objective.parameters), drafting, " ".join(words))


def train_eagle(overrides: list[str], out: Path, config_dir: Path | None, fresh: bool, watch: Watch) -> Made:
    """An EAGLE-3 head; see `train_medusa`, with `EagleTraining`."""
    with _enough_memory():
        begun = _begin("eagle", EagleTraining, overrides, out, config_dir, fresh, watch, shape_of, aux_layers)
        asked, job = begun
        head, vocabulary, objective = eagle_objective(job.pair, job.states, asked)
        trained = train(objective, asked, job.about, job.work, job.watch)
        write_head(job.out, head, vocabulary, aux_layers(job.pair.files.target, asked), job.pair.files.target, asked)
        drafting = load_pair(job.pair.files.spec, Eagle(path=str(job.out)), target_of=job.pair)
        kind, parameters = "An EAGLE-3 head", _count(objective.parameters)
        return _finish(kind, asked, job, trained, parameters, drafting, "drafter=eagle drafter.path=DIR")


def _distil(model: Any, asked: Training, job: Job) -> tuple[Trained, int]:
    """Train and write a model that learns the target's distribution; how that went, and how many numbers it has."""
    trained = train(draft_objective(job.pair, model, job.states, asked), asked, job.about, job.work, job.watch)
    _write_model(model, asked, job, job.out)
    return trained, _count(dict(model.named_parameters()))


def _medusa(job: Job, asked: MedusaTraining) -> Made:
    objective = medusa_objective(job.pair, job.states, asked)
    trained = train(objective, asked, job.about, job.work, job.watch)
    _write_heads(objective.parameters, _config(asked), HEADS, asked, job)
    drafting = load_pair(job.pair.files.spec, Medusa(path=str(job.out), heads=asked.heads), target_of=job.pair)
    return _finish("Medusa heads", asked, job, trained, _count(objective.parameters), drafting, _use(asked))


def _joint(job: Job, asked: MedusaTraining) -> Made:
    model, objective = joint_objective(job.pair, job.states, asked)
    trained = train(objective, asked, job.about, job.work, job.watch)
    heads = {name: tensor for name, tensor in objective.parameters.items() if not name.startswith(TARGET)}
    _write_model(model, asked, job, job.out / WHOLE)
    job.pair.files.target.tokenizer.save_pretrained(job.out / WHOLE)
    _write_heads(heads, _config(asked), HEADS, asked, job)
    spec = job.pair.files.spec
    spec = replace(spec, target=ModelSpec(str(job.out / WHOLE), device=spec.target.device))
    drafting = load_pair(spec, Medusa(path=str(job.out), heads=asked.heads))
    use = f"pair.target.path=DIR/{WHOLE} {_use(asked)}"
    kind, parameters = "A target and its Medusa heads", _count(objective.parameters)
    return _finish(kind, asked, job, trained, parameters, drafting, use)


def _config(asked: MedusaTraining) -> dict[str, Any]:
    return {"medusa_num_heads": asked.heads, "medusa_num_layers": asked.blocks}


def _use(asked: MedusaTraining) -> str:
    return "drafter=medusa drafter.path=DIR" + (f" drafter.heads={asked.heads}" if asked.heads != Medusa.heads else "")


def _begin(
    kind: str,
    schema: type[Asked],
    overrides: list[str],
    out: Path,
    config_dir: Path | None,
    fresh: bool,
    watch: Watch,
    check: Callable[[ModelFiles, Asked], Any] = lambda target, asked: None,
    layers: Callable[[ModelFiles, Asked], tuple[int, ...]] = lambda target, asked: (),
) -> tuple[Asked, Job]:
    """Everything before the first step; all that needs no forward is checked before the first one. `layers`: of the
    target's states those that are kept beside the last one."""
    command = f"train {kind}"
    asked, others = own_keys("train", overrides, schema)
    asked.check()
    refuse_without_effect(command, others, WITHOUT_EFFECT, "it trains a drafter and runs no tree")
    combination = one_combination(command, [*others, "drafter=ngram"], config_dir)
    prompts_said = "prompts" in override_groups(others)
    refuse_encoder_decoder(command, combination.pair.target)
    check(combination.pair.target, asked)
    context = combination.pair.target.context_length
    if context is not None and asked.window > context:
        raise ConfigError(f"train.window={asked.window} is more than the target's context of {context}")
    with claimed(out, fresh):
        pair = load_pair(combination.pair)
        OutputLayer(pair.target, pair.files.target.spec.path)  # says what cannot be learnt from
        store = TraceStore(out / WORK / "traces")
        texts = gather_texts(pair, combination, asked, prompts_said, store, watch)
    about: dict[str, Any] = {"kind": kind, "target": pair.files.weights[0], "texts": digest_of(texts.learnt)}
    about |= {"dtype": str(pair.target.dtype), "asked": asdict(replace(asked, save_every=1, text=None))}
    checkpoint(out / WORK, about)  # before anything of it is overwritten
    states = text_states(pair, texts.learnt, out / WORK, watch, layers(combination.pair.target, asked))
    return asked, Job(pair, combination, texts, states, about, out, watch)


def _write_model(model: Any, asked: Training, job: Job, folder: Path) -> None:
    write_model(model, asked.dtype, job.pair.target.model.generation_config, job.work / "model", folder)


def _write_heads(
    parameters: Mapping[str, torch.Tensor], config: Mapping[str, Any], name: str, asked: Training, job: Job
) -> None:
    base = {"base_model_name_or_path": naming(job.pair.files.target)["path"]}
    write_heads(parameters, asked.dtype, {**config, **base}, job.out, name)


def _finish(kind: str, asked: Training, job: Job, trained: Trained, parameters: int, drafting: Pair, use: str) -> Made:
    """Try what was written, describe it, and put away what was needed on the way."""
    target = job.pair.files.target
    held = held_out(drafting, job.texts.held_out, job.store, job.watch)
    learnt = len(job.texts.learnt), len(job.states.learnt_ids)
    made = Made(
        kind, naming(target)["path"], target.weights_hash, job.texts.source, *learnt, parameters, trained, held, use
    )
    write_atomically(job.out / CARD, card(made, asked))
    write_atomically(job.out / LOG, to_csv(pd.DataFrame(trained.log)))
    shutil.rmtree(job.work)  # a run that is killed here is trained already
    return made


def _count(parameters: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in parameters.values())


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ResultsError(
            f"out of memory while training ({first_line(error)}); try a smaller train.positions or train.window; what "
            "was done is kept"
        ) from error
