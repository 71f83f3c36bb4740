"""A draft model that learns the target's distribution at every token of its texts (Hinton et al. 2015)."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F

from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles
from specdraft.models.output_layer import OutputLayer
from specdraft.training.loop import Objective
from specdraft.training.settings import DraftTraining, NanoTraining, Training
from specdraft.training.states import TextStates
from specdraft.training.windows import Teacher, Windows


def new_draft_model(pair: Pair, asked: DraftTraining) -> Any:
    """A model of the target's architecture with fewer or narrower layers, its weights at random. Raises as
    `check_sizes`."""
    torch.manual_seed(asked.seed)
    return _of_config(_config(pair.files.target, asked)).to(pair.target.device).train()


def check_sizes(target: ModelFiles, asked: DraftTraining) -> None:
    """Raise `ConfigError` where the target's architecture takes no such sizes."""
    with torch.device("meta"):
        _of_config(_config(target, asked))


def _config(target: ModelFiles, asked: DraftTraining) -> Any:
    config = copy.deepcopy(target.config)
    text = config.get_text_config()
    text.num_hidden_layers = asked.layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: asked.layers]
    if asked.attention_heads is not None:
        text.num_attention_heads = text.num_key_value_heads = asked.attention_heads
    if asked.width is not None:
        if asked.width % text.num_attention_heads:
            raise ConfigError(
                f"train.width={asked.width} is no multiple of {text.num_attention_heads} attention heads "
                "(train.attention_heads)"
            )
        text.hidden_size, text.intermediate_size = asked.width, 4 * asked.width
    if asked.width is not None or asked.attention_heads is not None:
        text.head_dim = text.hidden_size // text.num_attention_heads
        if text.head_dim % 2:
            raise ConfigError(
                f"train.width, train.attention_heads: {text.head_dim} numbers of a head; expected an even number"
            )
    text.intermediate_size = asked.inner or text.intermediate_size
    return config


def _of_config(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"train.layers, train.width: the target takes no such sizes: {said}") from error


def new_window_model(pair: Pair, asked: NanoTraining) -> Any:
    """A model of the last few tokens, its weights at random."""
    from specdraft.models.window_model import WindowConfig, WindowModel

    torch.manual_seed(asked.seed)
    config = WindowConfig(pair.target.vocab, asked.span, asked.width, asked.inner)
    return WindowModel(config).to(pair.target.device).train()


def draft_objective(pair: Pair, model: Any, states: TextStates, asked: Training) -> Objective:
    """Cross-entropy to the target's distribution, of any causal model of tokens."""
    teacher = Teacher(OutputLayer(pair.target, pair.files.target.spec.path), pair.target.vocab, states)
    windows = Windows(states, asked.positions, pair.target.vocab, pair.target.device, asked.seed)

    def step(number: int) -> dict[str, torch.Tensor]:
        total = torch.zeros(())
        for part, (count,) in windows.of_step(number):
            logits = model(part.ids, use_cache=False).logits[part.row, part.column, : pair.target.vocab].float()
            loss = F.cross_entropy(logits, teacher.probs(part.place), reduction="sum") / count
            torch.autograd.backward(loss)
            total += loss.detach().cpu()
        return {"loss": total}

    return Objective(dict(model.named_parameters()), step)
