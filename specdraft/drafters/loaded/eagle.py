"""An EAGLE head read from its folder, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F

from specdraft.drafters.base import Target
from specdraft.drafters.eagle import Eagle
from specdraft.drafters.loaded.by_offset import Known
from specdraft.drafters.loaded.eagle_check import check_wiring
from specdraft.drafters.loaded.eagle_drafter import EagleDrafter
from specdraft.drafters.loaded.eagle_model import EagleModel, Embeddings, Rows
from specdraft.drafters.loaded.head_tensors import described, head_tensors
from specdraft.errors import ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.eagle_head import EagleHead
from specdraft.models.eagle_layout import EMBEDDINGS, MAPS, OUTPUT, EagleNames
from specdraft.models.head_files import HeadFiles
from specdraft.models.output_layer import OutputLayer

Tensors = Mapping[str, torch.Tensor]


def load_eagle(spec: Eagle, files: HeadFiles, target: Target) -> EagleDrafter:
    """The drafter of `files`.

    Raises:
        ConfigError: they are no head of this target.
        ModelError: they cannot be read, the target's output layer is no linear one on its last state, or what is
            drafted is not what the head says of the text.
    """
    names, model = spec.names(files), target.load()
    stored = head_tensors(files, names.tensors.values(), model)
    tensors = {ours: stored[name] for ours, name in names.tensors.items()}
    eagle = eagle_model(names, tensors, model, files, target.files.spec.path)
    weights = {name: tensor for name, tensor in tensors.items() if name not in MAPS}
    description = described(files, weights, model) | {
        "layout": names.layout,
        "aux_layers": list(names.aux_layers),
        "head": names.shape.as_dict(),
        "output_layer": "own" if OUTPUT in tensors else "the target's",
        "embeddings": "own" if EMBEDDINGS in tensors else "the target's",
        "proposed_ids": eagle.proposed,
    }
    traits = replace(spec.traits, hidden_layers=names.aux_layers)
    drafter = EagleDrafter(eagle, Known(traits, spec.facts(files, target.files), description))
    description["self_check"] = check_wiring(drafter, eagle, tensors.get("d2t"), names.aux_layers, files.spec.path)
    return drafter


def eagle_model(
    names: EagleNames, tensors: Tensors, target: CachedModel, files: HeadFiles, target_name: str
) -> EagleModel:
    """The head with what it shares with the target. Raises as `load_eagle`."""
    with torch.device("meta"):
        head = EagleHead(names.shape)
    head.rotary.frequencies = torch.tensor(names.shape.frequencies, device=target.device)
    own = {name: tensor for name, tensor in tensors.items() if name not in (*MAPS, OUTPUT, EMBEDDINGS)}
    head.load_state_dict(own, strict=True, assign=True)
    ids = draft_ids(tensors, int(files.config.get_text_config().vocab_size), files.spec.path)
    rows = _rows(tensors.get(OUTPUT), ids, target, target_name)
    return EagleModel(
        head.eval().requires_grad_(False), _embeddings(tensors.get(EMBEDDINGS), target), rows, ids, target
    )


def _rows(own: torch.Tensor | None, ids: torch.Tensor | None, target: CachedModel, target_name: str) -> Rows:
    if own is not None:
        return lambda states: F.linear(states, own).float()
    shared = OutputLayer(target, target_name)
    some = None if ids is None else ids.to(shared.weight.device)
    return lambda states: shared(states, some)


def _embeddings(own: torch.Tensor | None, target: CachedModel) -> Embeddings:
    if own is not None:
        return lambda ids: F.embedding(ids.to(own.device), own)
    layer = target.model.get_input_embeddings()
    return lambda ids: layer(ids.to(layer.weight.device))


def draft_ids(tensors: Tensors, vocab: int, name: str) -> torch.Tensor | None:
    """`[rows]` the ids that rows of the output layer stand for; None: their numbers. `d2t` says how much more than its
    number each one is.

    Raises:
        ModelError: ids that the target does not have, or twice, or others than `t2d` says.
    """
    if "d2t" not in tensors:
        return None
    ids = torch.arange(len(tensors["d2t"]), device=tensors["d2t"].device) + tensors["d2t"].long()
    there = torch.zeros(vocab, dtype=torch.bool, device=ids.device)
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocab or len(set(ids.tolist())) < len(ids):
        raise ModelError(f"{name}: d2t gives ids twice, or that the target does not have: it is no table of offsets")
    there[ids] = True
    if "t2d" in tensors and not torch.equal(there, tensors["t2d"].bool()):
        raise ModelError(f"{name}: d2t and t2d name different ids")
    return ids
