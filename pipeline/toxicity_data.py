"""What the toxicity model learns from: labelled comments, and clean text of every domain, with a part of each held out.

Comments alone teach a model that old words are insults; windows of plays, novels, articles, code and dialogues as
negatives cure that, short pieces of them included, since most comments are shorter than a window. Sentences that name
groups of people and say nothing bad stand beside them, because comments name such groups mostly to insult them
(Dixon et al. 2018, Measuring and Mitigating Unintended Bias in Text Classification).
"""

import gzip
import html
import json
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.readers import ReadLimits, SourceConfig, find_inputs, read_input
from pipeline.toxicity_features import Windows, cut_windows
from storage.errors import ConfigError, InputError

HELD_OUT = 0.15
"""Share of comments that training does not see."""
STRETCH = 512
"""Windows of clean text in a stretch, about 120 kB; whole stretches are held out, not single windows of a scene."""
TRAIN, CALIBRATE, TEST = (0, 1, 2, 4, 5, 6), (3,), (7,)
"""What the stretches are for, by their number modulo 8."""
SHORT_BYTES = 50
"""Length of short pieces of clean text, that of the shorter comments."""


@dataclass(frozen=True)
class Comments:
    """Labelled comments."""

    texts: list[str]
    toxic: NDArray[np.bool_]
    source: NDArray[np.str_]

    def select(self, chosen: NDArray[np.bool_]) -> "Comments":
        """The comments where `chosen` holds."""
        texts = [text for text, keep in zip(self.texts, chosen, strict=True) if keep]
        return Comments(texts, self.toxic[chosen], self.source[chosen])

    def held_out(self) -> NDArray[np.bool_]:
        """Which comments training does not see: by a hash of their text, so that copies go together."""
        digests = (blake2b(text.encode(), digest_size=4).digest() for text in self.texts)
        return np.array([int.from_bytes(d, "big") < HELD_OUT * 2**32 for d in digests], bool)


def read_comments(paths: Sequence[Path]) -> Comments:
    """Comments of JSON lines (`text`, `label`, `source`; .xz and .gz too), without links, mentions and entities."""
    texts, toxic, source = [], [], []
    for path in paths:
        opened = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
        with opened(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                texts.append(_bare(row["text"]))
                toxic.append(row["label"] == 1)
                source.append(row["source"])
    if not texts:
        raise InputError(f"--comments: expected rows in {', '.join(map(str, paths))}, got none")
    return Comments(texts, np.array(toxic), np.array(source))


def _bare(text: str) -> str:
    text = html.unescape(html.unescape(text))
    return re.sub(r"https?://\S+|\bRT\b|@\w+", " ", text)


def read_clean(named: Sequence[str]) -> dict[str, Windows]:
    """Domain -> windows of its clean text, from `DOMAIN=PATH` arguments in any format that a recipe reads."""
    texts: dict[str, list[str]] = {}
    for argument in named:
        domain, equals, path = argument.partition("=")
        if not equals:
            raise ConfigError(f"--clean: expected DOMAIN=PATH, got {argument!r}")
        source = SourceConfig(path=path, domain=domain)
        for found in find_inputs(source, Path()):
            for batch in read_input(found, source, ReadLimits()):
                good = batch.filter(pc.is_null(batch["error"]))
                texts.setdefault(domain, []).extend(good["text"].to_pylist())
    return {
        domain: cut_windows(pa.array(rows, pa.large_string())) for domain, rows in texts.items()
    }


def take(windows: Windows, part: tuple[int, ...], *, short: bool = False) -> Windows:
    """The windows of one part (TRAIN, CALIBRATE or TEST), all of them where the text is too short to be divided.

    With `short` they are cut again, into pieces of about SHORT_BYTES.
    """
    chosen = np.flatnonzero(np.isin(np.arange(len(windows.document)) // STRETCH % 8, part))
    if not len(chosen):
        chosen = np.arange(len(windows.document))
    data = windows.data.tobytes()
    texts = [data[windows.starts[i] : windows.starts[i + 1]].decode() for i in chosen.tolist()]
    return cut_windows(pa.array(texts, pa.large_string()), SHORT_BYTES if short else None)


GROUPS = (
    "gay lesbian bisexual transgender queer straight black white asian african european american arab chinese indian "
    "mexican irish german french russian turkish jewish muslim christian hindu buddhist catholic protestant atheist "
    "religious old young fat thin blind deaf disabled poor rich homeless female male"
)
PEOPLE = "man woman person neighbour friend teacher student family doctor couple"
NEUTRAL = (
    "My {person} is {group}.",
    "She is a {group} {person} and she lives in our street.",
    "He is a {group} {person} living in Berlin.",
    "I am {group} and I like to cook for my friends.",
    "The book is about a {group} {person} who moves to another town.",
    "{group} people and their history",
    "We met a {group} {person} on the train, and we talked all afternoon.",
    "Many {group} people work here.",
    "The {group} community invited everybody to the festival.",
    "Is your {person} {group} too?",
    "A {group} {person} won the election last year.",
    "{group} and proud",
    "The rights of {group} people are protected by law.",
    "Her parents are {group}, and so are mine.",
    "Welcome to the {group} {person} who joined us today.",
)


def neutral_windows() -> Windows:
    """About 3,600 sentences that name a group of people and say nothing bad of it."""
    sentences = [
        sentence.format(group=group, person=person)
        for sentence in NEUTRAL
        for group in GROUPS.split()
        for person in (PEOPLE.split() if "{person}" in sentence else [""])
    ]
    return cut_windows(pa.array(sentences, pa.large_string()))
