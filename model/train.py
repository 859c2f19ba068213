"""The training loop: one step is one batch of the loader, and a run that stops anywhere goes on as if it had not.

A step's numbers depend on snapshot, settings and step alone, so the state of a run is its checkpoint: weights,
optimizer, step. On a CPU, 2N steps equal N steps, a crash, and N more, bit for bit.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

import sentencepiece as spm
import torch
from torch import nn

from model.checkpoint import load_latest, prune_checkpoints, run_hash, save_checkpoint
from model.compiling import compile_blocks, wants_compiled
from model.config import ModelConfig, TrainConfig
from model.device import (
    autocast,
    keep_freed_memory,
    pick_device,
    pick_dtype,
    pick_micro_batch_size,
)
from model.evaluate import Evaluator
from model.gpt import GPT
from model.loader import Batch, Loader
from model.loss import IGNORE, summed_loss
from model.optim import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from model.records import JsonLines, claim_run, default_run_name, read_object
from model.sample import SampleConfig, load_tokenizer, sample_text
from storage.errors import CorruptError, GristmillError, Interrupted
from storage.lake import Lake
from storage.snapshot import Snapshot, check_name

Row = dict[str, Any]
OnRow = Callable[[Row], None]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run came to."""

    run: str
    snapshot: str
    """Reference of the snapshot that was trained on."""
    hash: str
    """Hash of final weights, optimizer state and all losses."""
    steps: int
    tokens: int
    """Tokens trained on."""
    num_params: int
    train_loss: float
    """Mean training loss of the last tenth of the steps, nats per token."""
    loss: float | None
    """Validation loss at the end, nats per token; None without a validation split, like the next two."""
    bits_per_byte: float | None
    unigram_bits_per_byte: float | None
    """Of a unigram model of the training tokens, on the same validation tokens."""
    evaluations: list[Row]
    """All evaluations, with `step`, `share` and `domains`: those on the way and one at the end over the same sample (of
    one share), then the last over the whole split, as far as it is in proportion to the run."""
    samples: list[Row]
    """Texts written at the end: step, prompt, text."""
    seconds: float
    """Time in this process; 0 if the run was finished before."""
    resumed_from: int | None = None
    """Step of the checkpoint that this process went on from."""
    was_finished: bool = False
    """The run was finished before, and nothing was trained."""


def train(
    snapshot: Snapshot,
    lake: Lake,
    config: TrainConfig,
    *,
    run: str | None = None,
    on_step: OnRow | None = None,
    on_event: OnRow | None = None,
) -> RunResult:
    """Train on a snapshot, or go on with the run of that name; without a name, the same call goes on with its run.

    `on_step` gets each step's row of metrics.jsonl: step, loss (nats per token), lr, grad_norm, tokens, epoch,
    tokens_per_s, seconds. `on_event` gets rows with `event` (start, uncompiled, resumed, damaged, evaluation, sample, checkpoint,
    finished), `message` in words, and what else belongs to it. Raises Interrupted, after a checkpoint, on SIGTERM and
    Ctrl-C; BusyError if the run is being trained elsewhere; GristmillError if the loss is no number.
    """
    run = check_name(run) if run else default_run_name(snapshot, config)
    tell = on_event or (lambda row: None)
    with lake.lock(f"run-{run}", doing=f"training run '{run}'"), _stop_signal() as stopped:
        tokenizer = load_tokenizer(snapshot)
        shape = config.model_config(tokenizer.vocab_size())
        claim_run(lake, run, snapshot, config, shape)
        if (finished := _finished(lake, run)) is not None:
            message = f"run '{run}' is finished ({finished.steps} steps); nothing to do"
            tell({"event": "finished", "message": message, "run": run})
            return finished
        return _Training(snapshot, lake, config, run, shape, tokenizer, tell).go(
            on_step or (lambda row: None), stopped
        )


class _Training:
    """A run in this process: model, optimizer, loader, and the files that it writes."""

    def __init__(
        self,
        snapshot: Snapshot,
        lake: Lake,
        config: TrainConfig,
        run: str,
        shape: ModelConfig,
        tokenizer: spm.SentencePieceProcessor,
        tell: OnRow,
    ) -> None:
        self.began = time.monotonic()
        self.snapshot, self.lake, self.config, self.run = snapshot, lake, config, run
        self.tokenizer, self.tell = tokenizer, tell
        keep_freed_memory()
        self.device = pick_device(config)
        self.dtype = pick_dtype(config, self.device)
        batch_size = config.batch_tokens // shape.seq_len
        self.micro_batch_size = pick_micro_batch_size(
            batch_size, shape.seq_len, config, self.device
        )
        self.loader = Loader(
            snapshot, batch_size=batch_size, seq_len=shape.seq_len, seed=config.seed
        )
        self.evaluator = Evaluator(snapshot, tokenizer, shape.seq_len)
        self.model = GPT(shape, config.seed).to(self.device)
        self.optimizer = make_optimizer(self.model, config)
        self._compile()
        self.resumed_from = self._resume()
        self.metrics, self.ledger, self.samples = (
            JsonLines(lake, f"runs/{run}/{name}.jsonl", self.resumed_from or 0)
            for name in ("metrics", "ledger", "samples")
        )

    def _compile(self) -> None:
        if wants_compiled(self.config, self.model.config.num_params, self.device):
            problem = compile_blocks(self.model, self.micro_batch_size, self.dtype)
            if problem:
                message = f"blocks run uncompiled, which is slower: {problem}"
                self.tell({"event": "uncompiled", "message": message})

    def _resume(self) -> int | None:
        """Load the newest sound checkpoint; gives its step, None if there is none."""
        checkpoint = load_latest(
            self.lake,
            self.run,
            lambda message: self.tell({"event": "damaged", "message": message}),
        )
        if checkpoint is None:
            message = (
                f"run '{self.run}': {self.model.config.num_params:,} parameters, {self.config.steps} steps of "
                f"{self.config.batch_tokens} tokens, epochs of {self.loader.samples_per_epoch} samples, "
                f"{str(self.dtype).removeprefix('torch.')} on {self.device.type}"
            )
            self.tell({"event": "start", "message": message, "run": self.run})
            return None
        self.model.load_state_dict(checkpoint.model)
        load_optimizer_tensors(self.model, self.optimizer, checkpoint.optimizer)
        message = f"run '{self.run}': resumed from step {checkpoint.step}"
        self.tell({"event": "resumed", "message": message, "step": checkpoint.step})
        return checkpoint.step

    def go(self, on_step: OnRow, stopped: threading.Event) -> RunResult:
        """Train to the end."""
        config = self.config
        for step in range((self.resumed_from or 0) + 1, config.steps + 1):
            row = self._step(step)
            self.metrics.append(row)
            on_step(row)
            is_last = step == config.steps
            if step % config.eval_every == 0 and not is_last:
                self._sample_texts(step)
                self._evaluate(step, self.config.eval_tokens)
            if step % config.checkpoint_every == 0 or is_last or stopped.is_set():
                self._save(step)
            if stopped.is_set():
                raise Interrupted(
                    f"run '{self.run}' stopped at step {step} of {config.steps} with a checkpoint; "
                    "the same command goes on from there"
                )
        return self._finish()

    def _step(self, step: int) -> Row:
        """One optimizer step on batch `step - 1`; returns its row of metrics."""
        began, k = time.monotonic(), step - 1
        batch = self.loader.batch(k)
        self.ledger.append({"step": step, "batch": k, "samples": self.loader.samples(k).tolist()})
        num_targets = int((batch.targets_BT != IGNORE).sum())
        loss = 0.0
        for part in _split(batch, self.micro_batch_size, self.device):
            with autocast(self.device, self.dtype):
                hidden_BTC = self.model(part.tokens_BT, part.documents_BT)
                nats = summed_loss(
                    hidden_BTC.flatten(0, 1), self.model.output_VC, part.targets_BT.flatten()
                )
            (nats / num_targets).backward()
            loss += nats.item() / num_targets
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip).item()
        if not math.isfinite(loss + grad_norm):
            raise GristmillError(
                f"run '{self.run}': expected a finite loss, got loss {loss} and gradient norm {grad_norm} at step {step} "
                f"(batch {k}); weights are untouched since the checkpoint before: try a lower train.lr or more "
                "train.warmup_steps under another --run"
            )
        lr = learning_rate(step, self.config)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        seconds = time.monotonic() - began
        return {
            "step": step,
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "tokens": step * self.config.batch_tokens,
            "epoch": step * self.loader.batch_size / self.loader.samples_per_epoch,
            "tokens_per_s": self.config.batch_tokens / seconds,
            "seconds": seconds,
        }

    @property
    def _last_tokens(self) -> int:
        """Validation tokens of the last evaluation: one costs a third of one trained on, so it takes a twelfth of the run."""
        trained = self.config.steps * self.config.batch_tokens
        return min(self.config.final_eval_tokens, max(self.config.eval_tokens, trained // 4))

    def _sample_texts(self, step: int) -> None:
        """Let the model write."""
        for number, prompt in enumerate(self.config.sample_prompts):
            sampling = SampleConfig(
                max_tokens=self.config.sample_tokens, seed=self.config.seed + number
            )
            text = sample_text(self.model, self.tokenizer, prompt, sampling)
            row = {"step": step, "prompt": prompt, "text": text}
            self.samples.append(row)
            self.tell({"event": "sample", "message": text} | row)

    def _evaluate(self, step: int, max_tokens: int) -> Row | None:
        """Score the validation split, or the sample of it that has so many tokens; None if there is none."""
        found = self.evaluator.evaluate(
            self.model, max_tokens=max_tokens, autocast=autocast(self.device, self.dtype)
        )
        if not found:
            return None
        row = {"step": step} | found
        self.metrics.append(row)
        part = "all" if row["share"] == 1 else "a sample of"
        message = (
            f"step {step}: {row['bits_per_byte']:.3f} bits per byte on {part} {row['tokens']:,} validation tokens "
            f"(unigram {row['unigram_bits_per_byte']:.3f}), loss {row['loss']:.3f}"
        )
        self.tell({"event": "evaluation", "message": message} | row)
        return row

    def _save(self, step: int) -> None:
        """Write the records, then the checkpoint that relies on them."""
        self._write_records()
        save_checkpoint(
            self.lake,
            self.run,
            step,
            self.model.state_dict(),
            optimizer_tensors(self.model, self.optimizer),
            {"next_batch": step, "run": self.run, "snapshot_hash": self.snapshot.hash},
            self.config.keep_checkpoints,
        )
        self.tell({"event": "checkpoint", "message": f"checkpoint at step {step}", "step": step})

    def _write_records(self) -> None:
        for lines in (self.ledger, self.samples, self.metrics):
            lines.write()

    def _finish(self) -> RunResult:
        """Evaluate at length and write the result, which is what makes the run finished."""
        steps = self.config.steps
        prune_checkpoints(self.lake, self.run, self.config.keep_checkpoints)
        # A process that was killed right here has left what follows already.
        self.metrics.keep(lambda row: row["step"] < steps or "domains" not in row)
        self.samples.keep(lambda row: row["step"] < steps)
        self._sample_texts(steps)
        shares = [
            self.evaluator.share(tokens) for tokens in (self.config.eval_tokens, self._last_tokens)
        ]
        if steps > self.config.eval_every and shares[0] < shares[1]:
            self._evaluate(steps, self.config.eval_tokens)
        evaluation = self._evaluate(steps, self._last_tokens) or {}
        self._write_records()
        rows = self.metrics.rows()
        losses = [row["loss"] for row in rows if "domains" not in row][-max(1, steps // 10) :]
        result = RunResult(
            run=self.run,
            snapshot=self.snapshot.ref,
            hash=run_hash(self.lake, self.run),
            steps=steps,
            tokens=steps * self.config.batch_tokens,
            num_params=self.model.config.num_params,
            train_loss=sum(losses) / len(losses),
            loss=evaluation.get("loss"),
            bits_per_byte=evaluation.get("bits_per_byte"),
            unigram_bits_per_byte=evaluation.get("unigram_bits_per_byte"),
            evaluations=[row for row in rows if "domains" in row],
            samples=[row for row in self.samples.rows() if row["step"] == steps],
            seconds=time.monotonic() - self.began,
            resumed_from=self.resumed_from,
        )
        data = json.dumps(asdict(result), indent=1, sort_keys=True).encode()
        self.lake.publish_bytes(_result_path(self.run), data)
        return result


def _split(batch: Batch, size: int, device: torch.device) -> Iterator[Batch]:
    """The batch in parts of `size` samples, on the device."""
    tensors = (batch.tokens_BT, batch.targets_BT, batch.documents_BT)
    for parts in zip(*(tensor.split(size) for tensor in tensors), strict=True):
        yield Batch(*(part.to(device) for part in parts))


_REMAKE = "remove the file to have it made again"


def _result_path(run: str) -> str:
    return f"runs/{run}/result.json"


def _finished(lake: Lake, run: str) -> RunResult | None:
    """The result of a run that was finished before, None if it is not."""
    path = _result_path(run)
    if not lake.exists(path):
        return None
    try:
        result = RunResult(**read_object(lake, path, _REMAKE))
    except TypeError as error:
        raise CorruptError(
            f"{lake.where(path)}: expected the result of a run, got: {error}; {_REMAKE}"
        ) from error
    return replace(result, seconds=0.0, resumed_from=None, was_finished=True)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets during the block; a second one acts as it did before.

    Outside the main thread signals cannot be caught, so there the event stays unset.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
