"""A pair for speed at real sizes without a download: random weights, of which the later blocks say little.

    python scripts/make_layered_pair.py OUT [--size llama-3.2-1b] [--first 4] [--agree 0.75]

Writes OUT/target, and OUT/draft: the target's first blocks with its embeddings, final norm and output layer. What the
later blocks add is scaled down until both choose the same token at a share `agree` of the places of the target's own
texts, which is printed, with the share at random places. Texts are noise: sizes and shares are what times are of. The
tokenizer is that of the bundled models.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from specdraft.models.files import find_model
from specdraft.models.spec import ModelSpec
from specdraft.results.files import check_folder_writable

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 4096, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    },
    "llama-3.2-1b": {
        "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    },
    "llama-3.1-8b": {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
}  # fmt: skip
ALL = {"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
       "tie_word_embeddings": False}  # fmt: skip
ROWS, TOKENS = 8, 64  # texts, and tokens of each, that agreement is measured on
LEAST, MOST, HALVINGS = 1e-3, 10.0, 14  # factors that are tried
NEAR = 0.04  # of the share that was asked for
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


class Layered:
    """A model whose later blocks can be turned down.

    Args:
        config: of it.
        first: blocks that stay as they are.
    """

    def __init__(self, config: dict[str, Any], first: int, device: torch.device) -> None:
        torch.manual_seed(0)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        with torch.device(device):
            self.model = LlamaForCausalLM(LlamaConfig(**config | ALL)).eval().to(dtype)
        self.first, self._factor = first, 1.0

    @torch.no_grad()
    def turn(self, factor: float) -> None:
        """What the later blocks add is as many times what it was at random."""
        for block in self.model.model.layers[self.first :]:
            for layer in (block.self_attn.o_proj, block.mlp.down_proj):
                layer.weight.mul_(factor / self._factor)
        self._factor = factor

    @torch.inference_mode()
    def agreement(self, ids: torch.Tensor, since: int = 0) -> float:
        """The share of places of texts `[B, T]`, from one on, at which the first blocks alone choose what all do."""
        states = self.model.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        early = self.model.model.norm(states[self.first])
        head = self.model.lm_head
        same = [head(row[since:]).argmax(-1) == head(whole[since:]).argmax(-1)
                for row, whole in zip(early, states[-1], strict=True)]  # fmt: skip
        return float(torch.stack(same).float().mean())

    @torch.inference_mode()
    def along(self, ids: torch.Tensor) -> float:
        """The same along the texts that all blocks make of prompts `[B, T]`."""
        texts = self.model.generate(ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0,
                                    attention_mask=torch.ones_like(ids))  # fmt: skip
        return self.agreement(texts, ids.shape[1] - 1)

    def tune(self, ids: torch.Tensor, share: float) -> float:
        """Find the factor at which the share along texts is as asked for; it falls as the factor grows. The share that
        is found."""
        low, high = math.log(LEAST), math.log(MOST)
        found = 0.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            self.turn(math.exp(middle))
            found = self.along(ids)
            if abs(found - share) <= NEAR:
                break
            low, high = (middle, high) if found > share else (low, middle)
        return found

    def draft(self) -> LlamaForCausalLM:
        """The first blocks as a model of its own."""
        config = LlamaConfig(**self.model.config.to_dict() | {"num_hidden_layers": self.first, "layer_types": None})
        with torch.device("meta"):
            short = LlamaForCausalLM(config)
        weights = self.model.state_dict()
        short.load_state_dict({name: weights[name] for name in short.state_dict()}, assign=True)
        return short


def main(
    out: Annotated[Path, typer.Argument(help="a folder")],
    size: Annotated[str, typer.Option(help=f"one of {', '.join(SIZES)}")] = "llama-3.2-1b",
    first: Annotated[int | None, typer.Option(help="blocks of the draft; left out: a quarter")] = None,
    agree: Annotated[float, typer.Option(help="share of places at which both choose the same token")] = 0.75,
) -> None:
    if size not in SIZES:
        raise typer.BadParameter(f"{size}: there is no such size; expected one of {', '.join(SIZES)}")
    blocks = int(SIZES[size]["num_hidden_layers"])
    kept = blocks // 4 if first is None else first
    if not (0 < kept < blocks and 0 < agree < 1):
        raise typer.BadParameter(
            f"--first {kept} --agree {agree}: expected 1 to {blocks - 1} blocks, a share in (0, 1)"
        )
    check_folder_writable(out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pair, known = Layered(SIZES[size], kept, device), find_model(ModelSpec("zoo:target"), "pair.target")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, known.known_ids, (ROWS, TOKENS), generator=generator).to(device)
    found = pair.tune(ids, agree)
    for name, model in (("target", pair.model), ("draft", pair.draft())):
        model.generation_config.eos_token_id = None
        model.save_pretrained(out / name)
        for file in TOKENIZER:
            shutil.copy(known.folder / file, out / name / file)
    told = f"agreement {found:.3f} along the target's texts, {pair.agreement(ids):.3f} at random places"
    typer.echo(f"{out}: {size}, draft of {kept} of {blocks} blocks; {told}")
    if abs(found - agree) > NEAR:
        raise SystemExit(f"{out}: agreement {found:.3f} is not {agree:g}; another --first may do")


if __name__ == "__main__":
    typer.run(main)
