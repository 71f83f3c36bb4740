"""The keys `train.*`."""

from __future__ import annotations

from dataclasses import dataclass

from specdraft.errors import ConfigError, did_you_mean

DTYPES, LABELS = ("bfloat16", "float32"), ("distribution", "text")


@dataclass
class Training:
    """What all kinds of training are told.

    Attributes:
        text: a file or a folder of text (.txt; .jsonl with a `text` in each row); beside it, or alone: the target's
            answers to `prompts`.
        tokens: of the text that are read, at most, from documents drawn at random; left out: all.
        window: tokens of the text that the target reads at once.
        continued: so many windows' beginnings are continued by the target itself, as `sampling` says.
        beginning: tokens of such a beginning.
        whole: whether the windows themselves are learnt from too; without them only what the target says itself is.
        held_out: one of so many documents and prompts is not learnt from (one of so many windows, where there are fewer
            documents); drafting is tried on these.
        steps: of the optimizer.
        positions: tokens that a step learns from.
        lr: the highest learning rate; it rises over `warmup` of the steps and falls as a cosine.
        weight_decay: of AdamW.
        clip: the largest norm of a step's gradient.
        seed: of the order of texts and of what starts at random.
        save_every: steps between two checkpoints.
        dtype: of the weights that are written.
    """

    text: str | None = None
    tokens: int | None = None
    window: int = 256
    continued: int = 0
    beginning: int = 16
    whole: bool = True
    held_out: int = 20
    steps: int = 1500
    positions: int = 2048
    lr: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    save_every: int = 100
    dtype: str = "bfloat16"

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        least = {"tokens": 1, "window": 16, "continued": 0, "beginning": 2, "held_out": 2, "steps": 1, "positions": 1}
        least |= {"seed": 0}
        for key, low in {**least, "save_every": 1, **self._least()}.items():
            value = getattr(self, key)
            if value is not None and value < low:
                raise ConfigError(f"train.{key}={value} is out of range; expected {low} or more")
        for key in ("lr", "clip"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"train.{key}={getattr(self, key)} is out of range; expected more than 0")
        if not (0 <= self.warmup <= 1 and self.weight_decay >= 0):
            raise ConfigError(
                f"train.warmup={self.warmup} train.weight_decay={self.weight_decay}: out of range; expected 0 to 1, "
                "and 0 or more"
            )
        if self.beginning >= self.window:
            raise ConfigError(f"train.beginning={self.beginning} leaves nothing of train.window={self.window}")
        if self.text is None and (self.tokens is not None or self.continued):
            raise ConfigError("train.tokens and train.continued have no effect without train.text")
        if not self.whole and self.text is not None and not self.continued:
            raise ConfigError("train.whole=false leaves nothing of train.text without train.continued")
        self._check_choice("dtype", DTYPES)

    def _least(self) -> dict[str, int]:
        """The least values of a kind's own keys."""
        return {}

    def _check_choice(self, key: str, known: tuple[str, ...]) -> None:
        value = getattr(self, key)
        if value not in known:
            raise ConfigError(f"train.{key}={value} is not known{did_you_mean(value, known)}")


@dataclass
class HeadTraining(Training):
    """Heads that read the target's last state.

    Attributes:
        heads: depths that are learnt; the first one is for the token after the root.
        blocks: residual blocks of a head.
        decay: head k counts `decay ** k`, from 0.
        labels: the target's distribution, or the text's tokens alone.
        candidates: of the ids that no text has, how many a step compares, drawn anew each time and weighted for the
            others (sampled softmax, Jean et al. 2015); left out: all. It saves most of a large vocabulary's time.
    """

    heads: int = 4
    blocks: int = 1
    decay: float = 0.8
    labels: str = "distribution"
    candidates: int | None = None

    def check(self) -> None:
        """See `Training.check`."""
        super().check()
        self._check_choice("labels", LABELS)
        self._above_zero("decay")

    def _above_zero(self, *keys: str) -> None:
        for key in keys:
            if not getattr(self, key) > 0:
                raise ConfigError(f"train.{key}={getattr(self, key)} is out of range; expected more than 0")

    def _least(self) -> dict[str, int]:
        return {"heads": 1, "blocks": 1, "candidates": 1}


@dataclass
class HydraTraining(HeadTraining):
    """Heads that read the path's tokens too (Ankner et al. 2024, section 3)."""


@dataclass
class RedrafterTraining(HeadTraining):
    """A recurrent head on the target's last state (Zhang et al. 2024, section 3); `heads` is how deep it drafts while
    it learns."""


@dataclass
class MedusaTraining(HeadTraining):
    """Heads as Medusa's (Cai et al. 2024, section 2.2.1).

    Attributes:
        joint: train the target with its heads (Medusa-2, section 2.2.2), towards the distribution that it had.
        heads_weight: what the heads' loss counts beside the target's own, with `joint`.
        target_lr: the target's learning rate, with `joint`.
    """

    joint: bool = False
    heads_weight: float = 0.2
    target_lr: float = 1e-4

    def check(self) -> None:
        """See `Training.check`."""
        super().check()
        self._above_zero("heads_weight", "target_lr")
        if self.joint and (self.labels == "text" or self.candidates is not None):
            raise ConfigError(
                "train.joint learns from the whole distribution; leave train.labels=text and train.candidates out"
            )


@dataclass
class NanoTraining(Training):
    """A model of the last few tokens that learns the target's distribution.

    Attributes:
        span: tokens that it sees, the last one included.
        width: of its embeddings; `inner`: between its two matrices.
    """

    span: int = 6
    width: int = 96
    inner: int = 384
    lr: float = 3e-3
    dtype: str = "float32"

    def _least(self) -> dict[str, int]:
        return {"span": 1, "width": 2, "inner": 1}


@dataclass
class DraftTraining(Training):
    """A draft model of the target's architecture that learns its distribution (Hinton et al. 2015).

    Attributes:
        layers, width, inner, attention_heads: of the draft model; `width` left out: the target's.
    """

    layers: int = 1
    width: int | None = None
    inner: int | None = None
    attention_heads: int | None = None
    lr: float = 2e-3
    weight_decay: float = 0.1
    dtype: str = "float32"

    def _least(self) -> dict[str, int]:
        return {"layers": 1, "width": 2, "inner": 1, "attention_heads": 1}


@dataclass
class ParallelTraining(Training):
    """A block head as DFlash's (Chen et al. 2026, section 4).

    Attributes:
        block: slots of a block: the root and masks; it proposes one level less.
        layers, inner, attention_heads: of the head; left out: a layer as the target's.
        target_layers: layers of the target whose output it reads, from 0; left out: DFlash's, as many as three.
        mask_token: what stands in the slots behind the root; left out: the target's end of sequence, which is no root.
        gamma: the loss of depth k counts `exp(-(k - 1) / gamma)`.
    """

    block: int = 5
    layers: int = 1
    inner: int | None = None
    attention_heads: int | None = None
    target_layers: list[int] | None = None
    mask_token: int | None = None
    gamma: float = 4.0

    def check(self) -> None:
        """See `Training.check`."""
        super().check()
        if not self.gamma > 0:
            raise ConfigError(f"train.gamma={self.gamma} is out of range; expected more than 0")

    def _least(self) -> dict[str, int]:
        return {"block": 2, "layers": 1, "inner": 1, "attention_heads": 1, "mask_token": 0}


@dataclass
class EagleTraining(Training):
    """An EAGLE-3 head that learns the target's distribution by training-time test (Li et al. 2025, section 3.2).

    Attributes:
        depths: how deep it drafts while it learns: each pass but the first one reads what the one before it made.
        decay: pass s counts `decay ** s`, from 0.
        layers, inner, attention_heads: of the head; left out: a layer as the target's.
        aux_layers: of the target's states those that it reads, as `transformers` counts them; left out: EAGLE-3's.
        draft_vocab: of the target's ids so many, the most frequent ones of the texts, are proposed; left out: all.
        start: a folder with an EAGLE-3 head of the same sizes that goes on learning; left out: a new one.
        products: the type of matrix products while it learns: bfloat16 is about twice as fast where a processor has it.
    """

    depths: int = 4
    decay: float = 0.8
    layers: int = 1
    inner: int | None = None
    attention_heads: int | None = None
    aux_layers: list[int] | None = None
    draft_vocab: int | None = None
    start: str | None = None
    products: str = "float32"

    def check(self) -> None:
        """See `Training.check`."""
        super().check()
        if not self.decay > 0:
            raise ConfigError(f"train.decay={self.decay} is out of range; expected more than 0")
        self._check_choice("products", DTYPES)

    def _least(self) -> dict[str, int]:
        return {"depths": 1, "layers": 1, "inner": 1, "attention_heads": 1, "draft_vocab": 2}
