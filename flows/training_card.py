"""The training card: one markdown page that shows a training run while it goes on, and when it is over. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.markdown import code, join, plain, table
from pipeline.display import duration, fixed, number, percent, short, toml_text

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingStatus:
    """A training run at one moment."""

    run: str
    snapshot: str
    """Reference of what it trains on."""
    state: Literal["training", "finished", "stopped", "failed"]
    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    seconds_left: float | None = None
    tokens_per_s: float | None = None
    metrics: Sequence[Row] = ()
    """Rows of metrics.jsonl, one a step."""
    evaluations: Sequence[Row] = ()
    """Rows of metrics.jsonl that have `domains`."""
    samples: Sequence[Row] = ()
    """Rows of samples.jsonl: step, prompt, text."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The [train] section that the run was begun with."""
    note: str = ""
    """One sentence that belongs at the top: why it stopped, say."""


def training_card(status: TrainingStatus) -> str:
    """Markdown with progress, loss and bits-per-byte curves, the last evaluation, texts the model wrote, settings."""
    last = status.metrics[-1] if status.metrics else {}
    final = status.evaluations[-1] if status.evaluations else {}
    texts = [row for row in status.samples if row["step"] == status.samples[-1]["step"]]
    return join(
        [
            f"# {plain(status.run)}: {status.state}",
            plain(status.note),
            f"Step **{number(status.step)}** of {number(status.steps)} ({percent(status.step, status.steps)}) on "
            f"{plain(status.snapshot)}, {short(status.tokens_per_s)} tokens/s, {duration(status.seconds_left)} left; "
            f"loss {fixed(last.get('loss'))}.",
            table(
                ["domain", "bits per byte", "unigram"],
                [
                    [
                        plain(name),
                        fixed(row["bits_per_byte"], 3),
                        fixed(row["unigram_bits_per_byte"], 3),
                    ]
                    for name, row in sorted(final.get("domains", {}).items())
                ],
                "lrr",
            ),
            *[f"> {code(row['text'], 700)}" for row in texts[:6]],
            "```toml\n" + toml_text(dict(status.config)) + "\n```",
        ]
    )
