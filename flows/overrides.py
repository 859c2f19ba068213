"""What gives way to a `--set`: values of the recipe, or defaults, that the new value of another key contradicts.

Somebody who says `--set train.steps=12` for a quick look wants 12 steps, not to be told of the warm-up. What two options
say against each other, and what a file says against itself, stays an error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from flows.config import OnSnapshotConfig
from model.config import PRESETS, TrainConfig
from pipeline.decontaminate import DecontaminateConfig
from pipeline.dedup import DedupConfig
from pipeline.language import LanguageConfig

_SECTIONS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "dedup": DedupConfig,
    "decontaminate": DecontaminateConfig,
    "language": LanguageConfig,
    "on_snapshot": OnSnapshotConfig,
}


def give_way(
    before: Mapping[str, Any], after: dict[str, Any], overridden: Mapping[str, str]
) -> list[str]:
    """Change in `after`, a recipe's data with its overrides, what they leave no room for; returns it in words.

    `before` is the data of the file alone, `overridden` names the option of each key that was overridden. Values of a
    wrong type are left to the check that names them.
    """
    told: list[str] = []
    for section, kind in _SECTIONS.items():
        chosen = {key.partition(".")[2] for key in overridden if key.partition(".")[0] == section}
        was, now = before.get(section, {}), after.get(section)
        if not chosen or not isinstance(was, dict) or not isinstance(now, dict):
            continue
        defaults = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
        try:
            changes = dict(_changes(section, chosen, defaults | was, defaults | now))
        except (TypeError, KeyError, AttributeError, ZeroDivisionError):
            continue  # something has a type or a name that it must not have
        options = " ".join(overridden[f"{section}.{key}"] for key in sorted(chosen))
        for key, value in changes.items():
            old = now.get(key, defaults[key])
            told.append(f"{options}: {section}.{key} = {old} gives way, it is {value} in this run")
            now[key] = value
    return told


def _changes(
    section: str, chosen: set[str], was: dict[str, Any], now: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The keys that have to change, and their values."""
    if section == "train":
        yield from _of_training(chosen, was, now)
    elif section == "dedup" and "enabled" in chosen and not now["enabled"]:
        yield from _unless(chosen, now, policy="append", template_share=None)
    elif section == "language" and "detect" in chosen and not now["detect"]:
        yield from _unless(chosen, now, keep=[])
    elif section == "on_snapshot" and "train" in chosen and not now["train"]:
        yield from _unless(chosen, now, approval="none")
    elif section == "decontaminate" and "ngram" in chosen and now["min_item_words"] > now["ngram"]:
        yield from _unless(chosen, now, min_item_words=now["ngram"])


def _unless(chosen: set[str], now: Mapping[str, Any], **values: Any) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key not in chosen and (now[key] or None) != (value or None):
            yield key, value


def _of_training(
    chosen: set[str], was: dict[str, Any], now: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    steps, warmup, decay = now["steps"], now["warmup_steps"], now["decay_steps"] or 0
    if "steps" in chosen and warmup + decay > steps:
        share = steps / was["steps"]  # they keep their part of the run, as far as they are free to
        if "decay_steps" not in chosen and decay and "warmup_steps" not in chosen:
            decay = int(decay * share)
            yield "decay_steps", decay
        if "warmup_steps" not in chosen:
            yield "warmup_steps", min(max(int(warmup * share), 1), steps - decay)
    if "schedule" in chosen and now["schedule"] != "wsd":
        yield from _unless(chosen, now, decay_steps=None)
    if "lr" in chosen and "min_lr" not in chosen and now["min_lr"] > now["lr"]:
        yield "min_lr", now["lr"] * was["min_lr"] / was["lr"]
    seq_len = now["seq_len"] or PRESETS[now["preset"]].seq_len
    batch_tokens = now["batch_tokens"]
    if chosen & {"seq_len", "preset"} and "batch_tokens" not in chosen and batch_tokens % seq_len:
        batch_tokens = max(batch_tokens // seq_len, 1) * seq_len
        yield "batch_tokens", batch_tokens
    size = now["micro_batch_size"]
    if chosen & {"seq_len", "preset", "batch_tokens"} and size and batch_tokens // seq_len % size:
        yield from _unless(chosen, now, micro_batch_size=None)
