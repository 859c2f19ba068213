"""Shapes of models and settings of training runs; everything that decides what a run computes is in these two values.

First hop of `model/`: a recipe's `[train]` section becomes a `TrainConfig`, and that and a snapshot's vocabulary become
a `ModelConfig`.
"""

import difflib
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a Llama-like decoder: RMSNorm before each part, rotary positions, grouped queries, SwiGLU, no biases."""

    n_layer: int
    """Blocks."""
    n_head: int
    """Query heads."""
    n_kv_head: int
    """Key/value heads; n_head is multi-head, 1 multi-query, between them grouped-query (arXiv:2305.13245)."""
    head_dim: int
    """Width of a head; 64 is faster than 32 at the same n_head * head_dim."""
    n_embd: int
    """Width of the residual stream."""
    ffn_dim: int
    """Hidden width of the SwiGLU part; 8/3 * n_embd costs as much as a plain part of 4 * n_embd (arXiv:2002.05202)."""
    vocab_size: int = 4096
    """Tokens; training takes it from the snapshot's tokenizer."""
    seq_len: int = 256
    """Tokens of context."""
    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths (arXiv:2104.09864)."""
    tie_embeddings: bool = True
    """Use the embedding as the output matrix too."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""

    def __post_init__(self) -> None:
        for name in (
            "n_layer",
            "n_head",
            "n_kv_head",
            "head_dim",
            "n_embd",
            "ffn_dim",
            "vocab_size",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name}: expected at least 1, got {getattr(self, name)}")
        if self.seq_len < 2:
            raise ConfigError(f"train.seq_len: expected at least 2 tokens, got {self.seq_len}")
        if self.n_head % self.n_kv_head:
            raise ConfigError(
                f"train.n_kv_head: expected a divisor of n_head = {self.n_head}, got {self.n_kv_head}"
            )
        if self.head_dim % 2:
            raise ConfigError(
                f"train.head_dim: expected an even number (rotary pairs), got {self.head_dim}"
            )
        if self.rope_theta <= 1 or self.norm_eps <= 0:
            raise ConfigError(
                f"train: expected rope_theta > 1 and norm_eps > 0, got {self.rope_theta} and {self.norm_eps}"
            )

    @property
    def num_params(self) -> int:
        """Trained numbers, embeddings included."""
        attention = 2 * self.n_embd * self.head_dim * (self.n_head + self.n_kv_head)
        block = attention + 3 * self.n_embd * self.ffn_dim + 2 * self.n_embd
        embeddings = self.vocab_size * self.n_embd * (1 if self.tie_embeddings else 2)
        return self.n_layer * block + self.n_embd + embeddings


PRESETS: dict[str, ModelConfig] = {
    "1m": ModelConfig(n_layer=4, n_head=2, n_kv_head=1, head_dim=64, n_embd=128, ffn_dim=352),
    "2m": ModelConfig(n_layer=4, n_head=3, n_kv_head=1, head_dim=64, n_embd=192, ffn_dim=512),
    "5m": ModelConfig(n_layer=6, n_head=4, n_kv_head=2, head_dim=64, n_embd=256, ffn_dim=688),
    "20m": ModelConfig(
        n_layer=6, n_head=8, n_kv_head=2, head_dim=64, n_embd=512, ffn_dim=1408, seq_len=512
    ),
}
"""Named after their size at 4,096 tokens of vocabulary: 1.3M, 2.4M, 5.4M and 19M parameters."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: which model, how long, how fast, and what is recorded on the way."""

    preset: str = "5m"
    """Shape to start from, see PRESETS."""
    overrides: dict[str, int | float | bool] = field(default_factory=dict)
    """Fields of ModelConfig that differ from the preset, such as n_layer."""
    seq_len: int | None = None
    """Tokens of a training window; None takes the preset's."""
    steps: int = 1000
    """Optimizer steps of the whole run."""
    batch_tokens: int = 8192
    """Tokens of one optimizer step; a multiple of seq_len."""
    micro_batch_size: int | None = None
    """Sequences a forward pass; None takes as many as make 4,096 tokens on a CPU, 32,768 on a GPU."""
    lr: float = 2e-3
    """Highest learning rate."""
    min_lr: float = 0.0
    """Learning rate of the last step."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """cosine falls from the warm-up on; wsd holds, then falls linearly over the last decay_steps."""
    decay_steps: int | None = None
    """Steps of the fall under wsd; None is a fifth of the run (arXiv:2405.18392). Not for cosine."""
    weight_decay: float = 0.1
    """Decoupled decay of all matrices but embeddings."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""
    grad_clip: float = 1.0
    """Gradients of a larger norm are scaled down to it."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the matrix products; auto is bf16 where the hardware has it. Weights are kept in fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is a GPU if there is one."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the blocks (about 10 s on 2 cores); auto does it where there is a compiler and the run is long enough."""
    seed: int = 0
    """Decides initial weights and order of samples."""
    eval_every: int = 100
    """Steps between evaluations; there is always one at the end."""
    eval_tokens: int = 65_536
    """Validation tokens of an evaluation on the way: the same sample each time, taken evenly from all domains."""
    final_eval_tokens: int = 2_000_000
    """Validation tokens of the evaluation at the end, at most: a quarter of what the run trains on, but no less than on
    the way. A smaller validation split is scored whole."""
    checkpoint_every: int = 100
    """Steps between checkpoints; there is always one at the end and at an interruption."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; at least 2, so that a damaged one can be passed over."""
    sample_prompts: tuple[str, ...] = ("",)
    """Texts to be continued at each evaluation; an empty one is the beginning of a document."""
    sample_tokens: int = 64
    """Most tokens of such a continuation."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"train.preset: {_unknown(self.preset, list(PRESETS))}")
        names = [item.name for item in fields(ModelConfig)]
        for name in self.overrides:
            if name not in names:
                raise ConfigError(f"train.overrides: {_unknown(name, names)}")
        if "vocab_size" in self.overrides:
            raise ConfigError(
                "train.overrides.vocab_size: it comes from the snapshot's tokenizer; remove it"
            )
        if "seq_len" in self.overrides:
            raise ConfigError("train.overrides.seq_len: set train.seq_len instead")
        for name, least in (
            ("steps", 1), ("batch_tokens", 1), ("warmup_steps", 0), ("eval_every", 1), ("eval_tokens", 1),
            ("final_eval_tokens", 1), ("checkpoint_every", 1), ("keep_checkpoints", 2), ("sample_tokens", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(
                    f"train.{name}: expected at least {least}, got {getattr(self, name)}"
                )
        seq_len = self.model_config(vocab_size=1).seq_len
        batch_size, rest = divmod(self.batch_tokens, seq_len)
        if rest or not batch_size:
            raise ConfigError(
                f"train.batch_tokens: expected a multiple of seq_len = {seq_len}, got {self.batch_tokens}"
            )
        if self.micro_batch_size is not None and (
            self.micro_batch_size < 1 or batch_size % self.micro_batch_size
        ):
            raise ConfigError(
                f"train.micro_batch_size: expected a divisor of batch_tokens / seq_len = {batch_size}, got "
                f"{self.micro_batch_size}"
            )
        if not 0 <= self.min_lr <= self.lr or not self.lr > 0:
            raise ConfigError(
                f"train: expected 0 <= min_lr <= lr and lr > 0, got min_lr {self.min_lr} and lr {self.lr}"
            )
        if self.decay_steps is not None and self.schedule != "wsd":
            raise ConfigError(
                "train.decay_steps: it has no effect under the schedule cosine; remove it"
            )
        if self.warmup_steps + (self.decay_steps or 0) > self.steps:
            raise ConfigError(
                f"train.warmup_steps: expected warm-up and decay to fit into {self.steps} steps, got "
                f"{self.warmup_steps} + {self.decay_steps or 0}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"train.betas: expected numbers in [0, 1), got {self.betas}")
        if self.grad_clip <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"train: expected grad_clip > 0 and weight_decay >= 0, got {self.grad_clip} and {self.weight_decay}"
            )

    def model_config(self, vocab_size: int) -> ModelConfig:
        """The preset with this run's overrides and the tokenizer's vocabulary. Raises ConfigError."""
        preset = PRESETS[self.preset]
        values = {
            "vocab_size": vocab_size,
            "seq_len": self.seq_len or preset.seq_len,
        } | self.overrides
        return replace(preset, **values)


def _unknown(got: str, known: list[str]) -> str:
    close = difflib.get_close_matches(got, known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"expected one of {', '.join(known)}; got '{got}'{hint}"
