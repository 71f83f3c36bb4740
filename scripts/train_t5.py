"""Train the bundled encoder-decoder pair: to copy a text, and to put back small words that were left out of it.

    python scripts/train_t5.py --corpus FOLDER [--work FOLDER] [--only target] [--steps N]

Everything that shapes the result stands in train_t5.yaml. Text is read from `--corpus` (.txt files, and the questions
of .jsonl ones). A stopped run continues from its last checkpoint, with another `--steps` if need be: the learning rate
stays until the last fifth of the steps. Written: specdraft/zoo/<model>-t5/ and specdraft/zoo/training_log_t5.csv.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

ROOT = Path(__file__).resolve().parent.parent
PAD, EOS = 0, 1
IGNORED = -100  # a label that no loss is taken of


def sentences(folder: Path) -> list[list[str]]:
    """Texts as lists of sentences, a list a paragraph."""
    paragraphs: list[str] = []
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text(encoding="utf-8").replace("\r", "")
        paragraphs += re.split(r"\n\n+", text)
    for path in sorted(folder.glob("*.jsonl")):
        paragraphs += [json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()]
    whole = (" ".join(paragraph.split()) for paragraph in paragraphs)
    return [re.split(r"(?<=[.!?;:])\s+", paragraph) for paragraph in whole if paragraph]


def train_tokenizer(texts: list[list[str]], vocab_size: int, out: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE that ends every text with </s>, as T5's tokenizer does."""
    if not (out / "tokenizer.json").exists():
        bpe = Tokenizer(models.BPE())
        bpe.normalizer = normalizers.Prepend(" ")  # the first word is read as any other
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<pad>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator((" ".join(text) for text in texts), trainer)
        bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
        PreTrainedTokenizerFast(
            tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
        ).save_pretrained(out)
    return PreTrainedTokenizerFast.from_pretrained(out)


def passage(texts: list[list[str]], cfg: DictConfig, rng: np.random.Generator) -> list[str]:
    """Words of neighbouring sentences, about as many as are drawn."""
    text, most = texts[rng.integers(len(texts))], rng.integers(cfg.words.least, cfg.words.most)
    words: list[str] = []
    for sentence in text[rng.integers(len(text)) :]:
        words += sentence.split()
        if len(words) >= most:
            break
    return words[: 2 * most]


def without_small_words(words: list[str], cfg: DictConfig, rng: np.random.Generator) -> list[str]:
    """Some texts are left as they are."""
    share = rng.choice(cfg.dropped)
    return [word for word in words if word.lower() not in cfg.small_words or rng.random() >= share] or words


def random_tokens(cfg: DictConfig, rng: np.random.Generator) -> list[int]:
    """Any tokens, which are copied as they are: what no text of the corpus has is read too."""
    count = rng.integers(cfg.random.least, cfg.random.most)
    return [*rng.integers(EOS + 1, cfg.tokenizer.vocab_size, count).tolist(), EOS]


def batches(
    texts: list[list[str]], tokenizer: PreTrainedTokenizerFast, cfg: DictConfig, seed: int, first: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless `[batch, longest]` inputs and labels of about equal lengths; each is made from seed and number."""
    encode, number = tokenizer.backend_tokenizer.encode_batch, first // cfg.pool
    while True:
        rng = np.random.default_rng([seed, number])
        pool = [passage(texts, cfg, rng) for _ in range(cfg.pool * cfg.training.batch)]
        given = [text.ids for text in encode([" ".join(without_small_words(words, cfg, rng)) for words in pool])]
        wanted = [text.ids for text in encode([" ".join(words) for words in pool])]
        for row in range(int(cfg.random.share * len(pool))):
            given[row] = wanted[row] = random_tokens(cfg, rng)
        order = np.argsort([len(ids) for ids in wanted], kind="stable")
        for rows in rng.permutation(order.reshape(cfg.pool, -1)):
            yield padded([given[row] for row in rows], PAD), padded([wanted[row] for row in rows], IGNORED)
        number += 1


def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])


def build(spec: DictConfig, cfg: DictConfig) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=cfg.tokenizer.vocab_size,
            d_model=spec.d_model,
            d_kv=spec.d_kv,
            d_ff=spec.d_ff,
            num_layers=spec.layers,
            num_decoder_layers=spec.decoder_layers,
            num_heads=spec.heads,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            decoder_start_token_id=PAD,
            pad_token_id=PAD,
            eos_token_id=EOS,
        )
    )


def loss_on(
    model: T5ForConditionalGeneration, inputs: torch.Tensor, labels: torch.Tensor, cfg: DictConfig
) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=cfg.autocast == "bfloat16"):
        loss: torch.Tensor = model(input_ids=inputs, attention_mask=(inputs != PAD).long(), labels=labels).loss
    return loss


@torch.no_grad()
def held_out(model: T5ForConditionalGeneration, rows: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
    """Nats a token, and the share of tokens that are the most probable ones, float32."""
    model.eval()
    loss = right = count = 0.0
    for inputs, labels in rows:
        out = model(input_ids=inputs, attention_mask=(inputs != PAD).long(), labels=labels)
        there = labels != IGNORED
        loss += float(out.loss) * int(there.sum())
        right += int((out.logits.argmax(-1) == labels)[there].sum())
        count += int(there.sum())
    model.train()
    return loss / count, right / count


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Up in the first steps, down in the last fifth."""
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / (0.2 * steps))


def train_model(
    name: str, cfg: DictConfig, parts: tuple[list[list[str]], ...], zoo: Path, work: Path, steps: int
) -> None:
    spec, t, out = cfg.models[name], cfg.training, zoo / f"{name}-t5"
    torch.manual_seed(cfg.seed)
    tokenizer = train_tokenizer(parts[0], cfg.tokenizer.vocab_size, work / "tokenizer")
    model, done, seconds = build(spec, cfg).train(), 0, 0.0
    optimizer = torch.optim.AdamW(model.parameters(), betas=(t.beta1, t.beta2), weight_decay=t.weight_decay)
    checkpoint = work / f"{name}.pt"
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done, seconds = kept["step"], kept["seconds"]
    checked = batches(parts[1], tokenizer, cfg, cfg.seed + 1)
    rows = [next(checked) for _ in range(cfg.pool)]
    done -= done % cfg.pool
    stream, start, losses = batches(parts[0], tokenizer, cfg, cfg.seed, done), time.perf_counter() - seconds, []
    for step in range(done, steps):
        inputs, labels = next(stream)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, spec.lr, t.warmup_steps)
        loss = loss_on(model, inputs, labels, cfg)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), t.clip)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % t.eval_every == 0 or step + 1 == steps:
            seconds = time.perf_counter() - start
            note(
                zoo,
                name,
                step + 1,
                seconds,
                sum(losses[-t.eval_every :]) / len(losses[-t.eval_every :]),
                *held_out(model, rows),
            )
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1, "seconds": seconds}, checkpoint)
    save(model, tokenizer, out)


def note(zoo: Path, name: str, step: int, seconds: float, *losses: float) -> None:
    """A line of the log."""
    path = zoo / "training_log_t5.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as handle:
        if new:
            csv.writer(handle).writerow(["model", "step", "seconds", "train_loss", "held_out_loss", "held_out_right"])
        csv.writer(handle).writerow([name, step, round(seconds), *(f"{loss:.4f}" for loss in losses)])
    print(name, step, round(seconds), *(f"{loss:.4f}" for loss in losses), flush=True)


def save(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """In bfloat16, which halves the files."""
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(
    corpus: Annotated[Path, typer.Option(help="where the texts are")],
    work: Annotated[Path, typer.Option(help="for checkpoints")] = Path("work-t5"),
    zoo: Annotated[Path, typer.Option(help="where the models go")] = ROOT / "specdraft" / "zoo",
    only: Annotated[str, typer.Option(help="one model")] = "",
    steps: Annotated[int, typer.Option(help="other than in train_t5.yaml")] = 0,
) -> None:
    cfg = OmegaConf.load(Path(__file__).with_suffix(".yaml"))
    assert isinstance(cfg, DictConfig)
    torch.set_num_threads(cfg.threads)
    work.mkdir(parents=True, exist_ok=True)
    texts = sentences(corpus)
    every = cfg.held_out_every
    parts = [t for i, t in enumerate(texts) if i % every], [t for i, t in enumerate(texts) if not i % every]
    for name in [only] if only else cfg.models:
        train_model(name, cfg, parts, zoo, work, steps or cfg.models[name].steps)


if __name__ == "__main__":
    typer.run(main)
