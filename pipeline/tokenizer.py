"""SentencePiece BPE: trained once a corpus on a stratified sample of what was kept, then frozen.

Lossless: identity normalisation, no dummy prefix, all white space kept, bytes as a fallback; decoding gives back any
text without NUL. Text that looks like a control token ("<s>") is never read as one.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sentencepiece as spm
from numpy.typing import NDArray

from storage.errors import ConfigError, CorruptError, GristmillError, InputError

UNK, BOS, EOS = 0, 1, 2
"""Ids of the control tokens; there is no padding. UNK is never produced: bytes cover what pieces do not."""
NUM_RESERVED = 3 + 256
"""Control tokens and byte pieces of every vocabulary."""

Tokens = NDArray[np.uint16 | np.uint32]

_SPACE_SYMBOL = "\u2581"  # what SentencePiece writes for a space; a text may hold it too
_MAX_LINE = (
    1000  # characters: at most 4,000 bytes, below SentencePiece's limit of 4,192 that drops a line
)
# Characters that the trainer refuses or reserves, and line ends, over which no piece may reach.
_LINE_BREAKS = re.compile("[\n\t\r\0\u2581\u2585]+")
# A word with the spaces before it. No piece holds a space behind something else, nor a newline, so no merge reaches
# over these cuts and the parts encode as the whole does.
_CHUNK = re.compile(f" *[^ \n{_SPACE_SYMBOL}]+|\n|{_SPACE_SYMBOL}| +")
_MAX_CACHED = 64  # characters; longer chunks (lines of scripts without spaces) hardly come twice


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Vocabulary of a corpus (SentencePiece BPE; arXiv:1808.06226)."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    vocab_size: int = 4096
    """Tokens, with 3 control tokens and 256 bytes; up to 65,536 fit 16 bits. Reduced if the text does not support it."""
    sample_bytes: int = 16 << 20
    """UTF-8 bytes of text to train on, shared out over the domains by the square root of their size."""
    character_coverage: float = 0.9995
    """Share of the sample's characters that get a token of their own; the rest is spelt in bytes."""

    def __post_init__(self) -> None:
        if not NUM_RESERVED + 64 <= self.vocab_size <= 1 << 20:
            raise ConfigError(
                f"tokenizer.vocab_size: expected {NUM_RESERVED + 64} to {1 << 20} "
                f"({NUM_RESERVED} are control tokens and bytes), got {self.vocab_size}"
            )
        if self.sample_bytes < 1:
            raise ConfigError(
                f"tokenizer.sample_bytes: expected 1 or more, got {self.sample_bytes}"
            )
        if not 0 < self.character_coverage <= 1:
            raise ConfigError(
                f"tokenizer.character_coverage: expected a number in (0, 1], got {self.character_coverage}"
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerResult:
    """A trained tokenizer."""

    model: bytes
    """SentencePiece model file."""
    vocab_size: int
    """Tokens that it has."""
    requested_vocab_size: int
    """Tokens that were asked for."""
    note: str
    """What had to give, in words; empty if nothing."""


def train_tokenizer(documents: Sequence[pa.Table], config: TokenizerConfig) -> TokenizerResult:
    """Train on tables with (id, domain, text); the same documents give the same bytes in whatever order they come.

    Raises InputError if there is no text at all. About 0.2 s a MB of sample, on one core.
    """
    lines = list(_lines(_sample(documents, config.sample_bytes)))
    if not lines:
        raise InputError(
            "tokenizer: expected text to train on, got none; "
            "nothing was kept for training: look at what dropped it with 'gristmill inspect'"
        )
    lines, note = _without_rare(lines, config)
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            shuffle_input_sentence=False,
            num_threads=1,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=-1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise GristmillError(
            f"tokenizer: SentencePiece could not train {config.vocab_size} tokens on "
            f"{len(lines)} lines ({error}); change tokenizer.vocab_size"
        ) from error
    vocab_size = _processor(model.getvalue()).vocab_size()
    if vocab_size < config.vocab_size:
        note = (
            f"the text supports {vocab_size} tokens, not the {config.vocab_size} asked for; " + note
        ).strip("; ")
    return TokenizerResult(
        model=model.getvalue(),
        vocab_size=vocab_size,
        requested_vocab_size=config.vocab_size,
        note=note,
    )


def encode(model: bytes, texts: Iterable[str]) -> tuple[Tokens, NDArray[np.int64]]:
    """Encode texts, each beginning with BOS, into one flat array; text i is flat[offsets[i] : offsets[i + 1]].

    uint16 up to a vocabulary of 65,536, else uint32. The tokens are SentencePiece's own for the whole text; only a
    literal U+2581, which SentencePiece would turn into a space, is spelt in bytes instead. Every distinct word is
    encoded once a call.
    """
    processor = _processor(model)
    dtype = np.dtype(np.uint16 if processor.vocab_size() <= 1 << 16 else np.uint32)
    space_symbol = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE_SYMBOL.encode()]
    cache: dict[str, list[int]] = {_SPACE_SYMBOL: space_symbol}
    rows: list[Tokens] = []
    for text in texts:
        chunks = _CHUNK.findall(text)
        unknown = list(set(chunks).difference(cache))
        found = dict(zip(unknown, processor.encode(unknown, num_threads=1), strict=True))
        cache.update(found)
        ids = chain.from_iterable(map(cache.__getitem__, chunks))
        rows.append(np.fromiter(chain((BOS,), ids), dtype))
        for chunk in found:
            if len(chunk) > _MAX_CACHED:
                del cache[chunk]
    flat = np.concatenate([np.empty(0, dtype), *rows])
    return flat, np.cumsum([0, *map(len, rows)], dtype=np.int64)


def _sample(documents: Sequence[pa.Table], sample_bytes: int) -> Iterator[str]:
    """Texts of every domain up to its part of `sample_bytes`, in the order of their ids, which are hashes."""
    index: dict[str, list[tuple[str, int, int]]] = {}
    sizes: Counter[str] = Counter()
    for number, table in enumerate(documents):
        ids, domains = table["id"].to_pylist(), table["domain"].to_pylist()
        lengths = pc.binary_length(table["text"]).to_pylist()
        for row, (identity, domain, length) in enumerate(zip(ids, domains, lengths, strict=True)):
            index.setdefault(domain, []).append((identity, number, row))
            sizes[domain] += length
    quotas = _quotas(sizes, sample_bytes)
    for domain, rows in sorted(index.items()):
        left = quotas[domain]
        for _, number, row in sorted(rows):
            if left <= 0:
                break
            data = documents[number]["text"][row].as_py().encode()
            yield data[:left].decode("utf8", "ignore")  # a cut character is left out
            left -= len(data)


def _quotas(sizes: Counter[str], total: int) -> dict[str, int]:
    """Share `total` bytes out by the square root of the sizes; what a small domain cannot fill goes to the others."""
    quotas: dict[str, int] = {}
    # By size the smallest fill up first: limit over wish is sqrt(size).
    for domain, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        left = total - sum(quotas.values())
        wishes = sum(other_size**0.5 for other, other_size in sizes.items() if other not in quotas)
        quotas[domain] = min(size, int(left * size**0.5 / wishes)) if size else 0
    return quotas


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Cut texts into lines that the trainer takes."""
    for text in texts:
        for line in _LINE_BREAKS.split(text):
            for begin in range(0, len(line), _MAX_LINE):
                yield line[begin : begin + _MAX_LINE]


def _without_rare(lines: Sequence[str], config: TokenizerConfig) -> tuple[list[str], str]:
    """Cut the lines at characters that get no token of their own, and say so if there are more of them than asked for.

    The commonest characters have one, until the coverage is reached or half of the pieces are taken, because merges need
    the rest. SentencePiece's own `character_coverage` refuses less than 0.98 and fails where the vocabulary is small.
    """
    points = np.frombuffer("\n".join(lines).encode("utf-32-le"), np.dtype("<u4")).copy()
    counts = np.bincount(points, minlength=ord("\n") + 1)
    counts[ord("\n")] = 0
    by_count = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    covered = np.cumsum(counts[by_count]) / counts.sum()
    num_wanted = int(np.searchsorted(covered, config.character_coverage)) + 1
    num_kept = min(num_wanted, (config.vocab_size - NUM_RESERVED) // 2)
    is_kept = np.zeros(len(counts), np.bool_)
    is_kept[by_count[:num_kept]] = True
    points[~is_kept[points]] = ord("\n")
    note = ""
    if num_kept < num_wanted:
        note = (
            f"{num_kept} of {num_wanted} characters have a token of their own, the others are spelt "
            f"in bytes ({covered[num_kept - 1]:.2%} of the text is covered)"
        )
    return [line for line in points.tobytes().decode("utf-32-le").split("\n") if line], note


@lru_cache(maxsize=2)
def _processor(model: bytes) -> spm.SentencePieceProcessor:
    """Load a model, once a process, and check what `encode` relies on."""
    try:
        processor = spm.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise CorruptError(
            f"tokenizer: expected a SentencePiece model, got {len(model)} bytes that are none "
            f"({error}); build the corpus anew"
        ) from error
    pieces = map(processor.id_to_piece, range(processor.vocab_size()))
    if (processor.unk_id(), processor.bos_id(), processor.eos_id()) != (UNK, BOS, EOS) or any(
        _SPACE_SYMBOL in piece.lstrip(_SPACE_SYMBOL) for piece in pieces
    ):
        raise GristmillError(
            "tokenizer: expected unk, bos, eos = 0, 1, 2 and spaces only at the beginning of a "
            "piece; this model was not made by gristmill"
        )
    return processor
