"""Text from a trained model: token by token, with a KV cache, so that each costs one small forward pass."""

from collections.abc import Callable
from dataclasses import dataclass

import sentencepiece as spm
import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint import load_latest
from model.config import ModelConfig
from model.gpt import GPT
from model.records import read_object
from storage.catalog import resolve_tokenizer
from storage.errors import ConfigError, CorruptError, NotFoundError
from storage.lake import Lake
from storage.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How to choose the next token."""

    max_tokens: int = 200
    """Most new tokens; the end of the document may come earlier."""
    temperature: float = 0.8
    """Logits are divided by it; 0 always takes the likeliest token."""
    top_k: int = 50
    """Only this many likeliest tokens can be drawn; 0 is all."""
    seed: int = 0
    """Decides the draws."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0 or self.top_k < 0:
            raise ConfigError(
                "sample: expected max_tokens >= 1, temperature >= 0 and top_k >= 0, got "
                f"{self.max_tokens}, {self.temperature} and {self.top_k}"
            )


@dataclass(frozen=True)
class LoadedRun:
    """A run's model as of its newest sound checkpoint, and the tokenizer of its snapshot."""

    run: str
    step: int
    model: GPT
    tokenizer: spm.SentencePieceProcessor


def load_tokenizer(snapshot: Snapshot) -> spm.SentencePieceProcessor:
    """The snapshot's tokenizer, its checksum verified."""
    data = snapshot.tokenizer_bytes()
    try:
        return spm.SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise CorruptError(
            f"{snapshot.ref}: expected a SentencePiece model, got {len(data)} bytes: {error}"
        ) from error


def load_run(lake: Lake, run: str, on_damage: Callable[[str], None] | None = None) -> LoadedRun:
    """Load a run for sampling, on the CPU; `on_damage` is told of each damaged checkpoint that is passed over.

    Raises NotFoundError if there is no such run, or no checkpoint of it yet.
    """
    path = f"runs/{run}/run.json"
    if not lake.exists(path):
        known = ", ".join(lake.list_folders("runs")) or "none"
        raise NotFoundError(f"{run}: expected a training run in {lake.url}; there are: {known}")
    about = read_object(lake, path)
    checkpoint = load_latest(lake, run, on_damage)
    if checkpoint is None:
        raise NotFoundError(
            f"{run}: expected a checkpoint, the run has none yet; it comes after train.checkpoint_every steps"
        )
    model = GPT(ModelConfig(**about["model"]))
    model.load_state_dict(checkpoint.model)
    tokenizer = load_tokenizer(resolve_tokenizer(lake, about["snapshot"]))
    return LoadedRun(run, checkpoint.step, model, tokenizer)


def sample_text(
    model: GPT, tokenizer: spm.SentencePieceProcessor, prompt: str, config: SampleConfig
) -> str:
    """The prompt as the model goes on from it; an empty one begins a document."""
    tokens = [tokenizer.bos_id(), *tokenizer.encode(prompt)]
    new = generate(model, tokens, config, stop=tokenizer.bos_id())
    return prompt + tokenizer.decode(new)


@torch.no_grad()
def generate(model: GPT, prompt: list[int], config: SampleConfig, *, stop: int) -> list[int]:
    """New tokens after the prompt, without the `stop` token that ends them.

    Where seq_len is reached, the later half of what the model sees is kept and read again.
    """
    if not prompt:
        raise ConfigError("sample: expected a prompt of at least one token, BOS")
    seq_len, device = model.config.seq_len, model.output_VC.device
    generator = torch.Generator(device).manual_seed(config.seed)
    seen, new = prompt[-(seq_len - 1) :], []
    caches = model.new_caches(1)
    pending = seen
    while True:
        logits_1V = model.extend(torch.tensor([pending], device=device), caches)
        token = int(_choose(logits_1V, config, generator))
        if token == stop:
            return new
        new.append(token)
        if len(new) == config.max_tokens:
            return new
        seen, pending = [*seen, token], [token]
        if len(seen) > seq_len:
            seen = pending = seen[-(seq_len // 2) :]
            caches = model.new_caches(1)


def _choose(logits_1V: Tensor, config: SampleConfig, generator: torch.Generator) -> Tensor:
    if config.temperature == 0:
        return logits_1V.argmax(-1)
    logits_1V = logits_1V.float() / config.temperature
    if 0 < config.top_k < logits_1V.size(-1):
        least_11 = logits_1V.topk(config.top_k).values[:, -1:]
        logits_1V = logits_1V.masked_fill(logits_1V < least_11, -torch.inf)
    return torch.multinomial(F.softmax(logits_1V, -1), 1, generator=generator)
