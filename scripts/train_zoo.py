"""Train the bundled models: tokenizer, target, draft, tiny draft, distilled draft.

    python scripts/train_zoo.py --data FOLDER [--work FOLDER] [--only target] [--smoke]

Everything that shapes the result stands in train_zoo.yaml. A stopped run continues from its last
checkpoint. Text is read from `--data` (plain .txt files; gsm8k_train.jsonl), and from the running
Python's standard library. Written: specdraft/zoo/<model>/ and specdraft/zoo/training_log.csv.
"""

from __future__ import annotations

import csv
import json
import math
import platform
import re
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from specdraft.models.gate import cache_name

ROOT = Path(__file__).resolve().parent.parent
STDLIB_SKIP = {
    "test",
    "tests",
    "site-packages",
    "idlelib",
    "lib2to3",
    "__pycache__",
    "encodings",
    "turtledemo",
    "ensurepip",
}


@dataclass
class Corpus:
    """Documents by domain, split into training and held-out text."""

    train: dict[str, list[str]] = field(default_factory=dict)
    held_out: dict[str, list[str]] = field(default_factory=dict)

    def add(self, domain: str, groups: list[list[str]], every: int) -> None:
        """Hold out every `every`-th group of documents (a group is never divided)."""
        for i, documents in enumerate(groups):
            part = self.held_out if i % every == every - 1 else self.train
            part.setdefault(domain, []).extend(documents)


def chunks(text: str, size: int, boundary: str = r"\n\n+") -> list[str]:
    """Cut a text at paragraph ends into documents of about `size` characters."""
    documents, current = [], ""
    for part in re.split(f"(?<=\n\n)(?={boundary})" if boundary != r"\n\n+" else r"(?<=\n\n)", text):
        if current and len(current) + len(part) > size:
            documents.append(current.strip("\n"))
            current = ""
        current += part
    return [d for d in [*documents, current.strip("\n")] if d.strip()]


def unwrap(novel: str) -> str:
    """Join the hard-wrapped lines of each paragraph."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", novel.replace("\r", ""))


def read_corpus(folder: Path, cfg: DictConfig) -> Corpus:
    corpus, every, size = Corpus(), cfg.held_out_every, cfg.document_chars
    drama: list[str] = []
    novels: list[str] = []
    for path in sorted(folder.rglob("*.txt")):
        text = path.read_text(encoding="utf-8")
        if "shakespeare" in path.name:
            drama += chunks(text, size)
        else:
            novels += chunks(unwrap(text), size)
    corpus.add("story", [[d] for d in novels], every)
    corpus.add("drama", [[d] for d in drama], every)
    for path in sorted(folder.rglob("gsm8k_train.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        answers = [re.sub(r"<<.*?>>", "", row["answer"]) for row in rows]
        solved = [f"Question: {r['question'].strip()}\nAnswer: {a.strip()}" for r, a in zip(rows, answers, strict=True)]
        corpus.add("maths", [[d] for d in solved], every)
    files: list[list[str]] = []
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(stdlib.rglob("*.py")):
        if STDLIB_SKIP & set(path.relative_to(stdlib).parts) or path.name == "topics.py":
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        if text.isascii() and 200 < len(text) < 400_000:
            files.append(chunks(text, size, r"(?:def|class|@|if|import|from|#)"))
    corpus.add("code", files, every)
    from pydoc_data import topics

    corpus.add("reference", [chunks(text, size) for text in topics.topics.values()], every)
    return corpus


def train_tokenizer(corpus: Corpus, vocab_size: int, out: Path) -> PreTrainedTokenizerFast:
    if not (out / "tokenizer.json").exists():
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator((d for docs in corpus.train.values() for d in docs), trainer)
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        PreTrainedTokenizerFast(
            tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
        ).save_pretrained(out)
    return PreTrainedTokenizerFast.from_pretrained(out)


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> list[np.ndarray]:
    return [np.array([*e.ids, 1], dtype=np.int64) for e in tokenizer.backend_tokenizer.encode_batch(documents)]


def batches(documents: list[np.ndarray], batch: int, seq_len: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless [batch, seq_len + 1] rows of shuffled, packed documents; the order depends on the seed only."""
    rng, need = np.random.default_rng(seed), batch * seq_len + 1
    buffer = np.empty(0, dtype=np.int64)
    while True:
        for index in rng.permutation(len(documents)):
            buffer = np.concatenate([buffer, documents[index]])
            while len(buffer) >= need:
                rows = np.lib.stride_tricks.sliding_window_view(buffer[:need], seq_len + 1)[::seq_len]
                yield torch.from_numpy(rows.copy())
                buffer = buffer[need - 1 :]


def build(spec: DictConfig, cfg: DictConfig) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=cfg.tokenizer.vocab_size,
            hidden_size=spec.hidden,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            num_key_value_heads=spec.heads,
            intermediate_size=spec.ffn,
            max_position_embeddings=cfg.max_position_embeddings,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=None,
        )
    )


def autocast(cfg: DictConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=cfg.autocast == "bfloat16")


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, documents: list[np.ndarray], seq_len: int, limit: int = 40) -> float:
    """Mean next-token loss in nats over the first `seq_len` tokens of held-out documents (fp32)."""
    model.eval()
    total = count = 0.0
    for ids in documents[:limit]:
        row = torch.from_numpy(ids[: seq_len + 1])[None]
        logits = model(row[:, :-1], use_cache=False).logits
        total += float(F.cross_entropy(logits[0], row[0, 1:], reduction="sum"))
        count += row.shape[1] - 1
    model.train()
    return total / max(count, 1)


@torch.no_grad()
def sample_target(
    target: LlamaForCausalLM, train: list[np.ndarray], cfg: DictConfig, cache_file: Path
) -> list[np.ndarray]:
    """The target's own continuations of training-text prefixes, kept in `cache_file`."""
    if cache_file.exists():
        return list(np.load(cache_file))
    s, rng = cfg.samples, np.random.default_rng(cfg.seed + 1)
    torch.manual_seed(cfg.seed + 1)
    usable = [d for d in train if len(d) > s.prefix_tokens + 1]
    rows: list[np.ndarray] = []
    target.eval()
    while len(rows) * s.length < s.tokens:
        picks = rng.integers(len(usable), size=s.batch)
        starts = [int(rng.integers(len(usable[i]) - s.prefix_tokens)) * int(rng.random() < 0.5) for i in picks]
        ids = torch.tensor(np.stack([usable[i][o : o + s.prefix_tokens] for i, o in zip(picks, starts, strict=True)]))
        temperature = torch.tensor([s.temperatures[i % len(s.temperatures)] for i in range(s.batch)])[:, None]
        cache, feed = DynamicCache(), ids
        while ids.shape[1] < s.length:
            with autocast(cfg):
                kept = {str(cache_name(type(target))): cache, "use_cache": True}
                logits = target(feed, **kept, logits_to_keep=1).logits[:, -1].float()
            feed = torch.multinomial(torch.softmax(logits / temperature, -1), 1)
            ids = torch.cat([ids, feed], 1)
        rows.extend(ids.numpy())
        print(f"samples: {len(rows) * s.length:,} tokens", flush=True)
    np.save(cache_file, np.stack(rows))
    return rows


def loss_on(
    model: LlamaForCausalLM, teacher: LlamaForCausalLM | None, rows: torch.Tensor, cfg: DictConfig
) -> torch.Tensor:
    """Cross-entropy on the text, or KL(teacher || model) at every position."""
    with autocast(cfg):
        logits = model(rows[:, :-1], use_cache=False).logits.float()
    if teacher is None:
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    with torch.no_grad(), autocast(cfg):
        wanted = torch.log_softmax(teacher(rows[:, :-1], use_cache=False).logits.float(), -1)
    return F.kl_div(
        torch.log_softmax(logits, -1).flatten(0, 1), wanted.flatten(0, 1), log_target=True, reduction="batchmean"
    )


def make_optimizer(model: LlamaForCausalLM, t: DictConfig) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": t.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(t.beta1, t.beta2))


def learning_rate(step: int, steps: int, spec: DictConfig, t: DictConfig) -> float:
    peak, lowest, warmup = float(spec.get("lr") or t.lr), float(t.min_lr), int(t.warmup_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return lowest + 0.5 * (peak - lowest) * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train_model(
    name: str, cfg: DictConfig, corpus_ids: dict[str, dict[str, list[np.ndarray]]], zoo: Path, work: Path
) -> None:
    spec, t = cfg.models[name], cfg.training
    if (zoo / name / "model.safetensors").exists():
        print(f"{name}: already there")
        return
    torch.manual_seed(cfg.seed)
    model = build(spec, cfg)
    if spec.get("start_from"):
        model.load_state_dict(LlamaForCausalLM.from_pretrained(zoo / spec.start_from).state_dict())
    text = [d for docs in corpus_ids["train"].values() for d in docs]
    stream = batches(text, t.batch, t.seq_len, cfg.seed)
    teacher, own = None, None
    if spec.get("teacher"):
        teacher = LlamaForCausalLM.from_pretrained(zoo / spec.teacher).eval()
        own = batches(sample_target(teacher, text, cfg, work / "samples.npy"), t.batch, t.seq_len, cfg.seed + 2)
    optimizer = make_optimizer(model, t)
    steps, checkpoint = spec.tokens // (t.batch * t.seq_len), work / f"{name}.pt"
    log: list[dict[str, Any]] = []
    done, elapsed = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done, elapsed, log = state["step"], state["elapsed_s"], state["log"]
    choose = np.random.default_rng(cfg.seed + 3)
    started, running = time.perf_counter() - elapsed, []
    for step in range(steps):
        use_own = own is not None and choose.random() < cfg.samples.share
        rows = next(own if use_own and own is not None else stream)
        if step < done:
            continue  # replay the data order up to the checkpoint
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, spec, t)
        loss = loss_on(model, teacher, rows, cfg)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), t.clip)
        optimizer.step()
        running.append(float(loss.detach()))
        if (step + 1) % t.eval_every == 0 or step + 1 == steps:
            documents = 200 if step + 1 == steps else 25
            held = {d: held_out_loss(model, docs, t.seq_len, documents) for d, docs in corpus_ids["held_out"].items()}
            log.append(log_row(name, step + 1, t, time.perf_counter() - started, running, held))
            running = []
        if (step + 1) % t.checkpoint_every == 0 or step + 1 == steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "elapsed_s": time.perf_counter() - started,
                "log": log,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    model.generation_config.eos_token_id = 1
    model.save_pretrained(zoo / name)
    PreTrainedTokenizerFast.from_pretrained(work / "tokenizer").save_pretrained(zoo / name)
    append_log(zoo / "training_log.csv", log)


def log_row(
    name: str, step: int, t: DictConfig, elapsed_s: float, losses: list[float], held: dict[str, float]
) -> dict[str, Any]:
    row = {"model": name, "step": step, "tokens": step * t.batch * t.seq_len, "elapsed_s": round(elapsed_s, 1)}
    row |= {"train_loss": round(float(np.mean(losses)), 4)} | {f"held_out_{d}": round(v, 4) for d, v in held.items()}
    print(json.dumps(row), flush=True)
    return row


def append_log(path: Path, log: list[dict[str, Any]]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(log[0]))
        if new:
            writer.writeheader()
        writer.writerows(log)


def main(
    data: Annotated[Path, typer.Option(help="folder with the training text")],
    config: Annotated[Path, typer.Option(help="the recipe")] = ROOT / "scripts" / "train_zoo.yaml",
    out: Annotated[Path, typer.Option(help="where the models go")] = ROOT / "specdraft" / "zoo",
    work: Annotated[Path, typer.Option(help="checkpoints, samples")] = ROOT / "zoo_work",
    only: Annotated[list[str] | None, typer.Option(help="train these models only")] = None,
    smoke: Annotated[bool, typer.Option(help="a few steps of everything, to try the script")] = False,
    text_only: Annotated[Path | None, typer.Option(help="write the training text as JSONL, and train nothing")] = None,
) -> None:
    cfg = OmegaConf.load(config)
    assert isinstance(cfg, DictConfig)
    if smoke:
        OmegaConf.update(cfg, "training", {"eval_every": 4, "checkpoint_every": 4, "seq_len": 64, "batch": 4})
        OmegaConf.update(cfg, "samples", {"tokens": 4096, "length": 64, "batch": 16})
        for name in cfg.models:
            cfg.models[name].tokens = 8 * 4 * 64
    torch.set_num_threads(cfg.threads)
    corpus = read_corpus(data, cfg)
    if text_only:
        rows = [{"domain": domain, "text": text} for domain, texts in corpus.train.items() for text in texts]
        text_only.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(corpus, cfg.tokenizer.vocab_size, work / "tokenizer")
    ids = {
        part: {d: encode(tokenizer, docs) for d, docs in getattr(corpus, part).items()}
        for part in ("train", "held_out")
    }
    sizes = {part: {d: sum(map(len, docs)) for d, docs in domains.items()} for part, domains in ids.items()}
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "tokens": sizes,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_threads": cfg.threads,
    }
    (out / "corpus.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about), flush=True)
    for name in only or list(cfg.models):
        train_model(name, cfg, ids, out, work)


if __name__ == "__main__":
    typer.run(main)
