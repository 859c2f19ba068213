"""The tokenizer loses nothing, reads no control tokens out of texts, and is the same whoever trains it."""

import random
import subprocess
import sys
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tokenizer import BOS, TokenizerConfig, encode, train_tokenizer
from storage.errors import ConfigError, CorruptError, GristmillError, InputError

CONFIG = TokenizerConfig(vocab_size=600)
PROSE = "The mill grinds the grain; the grain becomes flour, and flour bread.\n"
CODE = "def mill(grain):\n    for grist in grain:\n        yield  grist + 1\t# 12345\n"
HAN = "\u78e8\u574a\u628a\u8c37\u7269\u78e8\u6210\u9762\u7c89\u3002\u98a8\u8eca\u5728\u8f49\u52d5\u3002"
ANY = st.text(
    st.one_of(
        st.sampled_from("the mill grain 12\n\t \u2581\u2585\ufffd\ufeff\u2047\u200b\x00\r"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=200,
)


def table_of(texts: list[tuple[str, str]]) -> pa.Table:
    """The columns that training reads; ids are hashes, as in the lake."""
    rows = [
        {"id": sha256(text.encode()).hexdigest()[:32], "domain": domain, "text": text}
        for domain, text in texts
    ]
    schema = pa.schema([(name, pa.string()) for name in ("id", "domain", "text")])
    return pa.Table.from_pylist(rows, schema)


def corpus() -> list[tuple[str, str]]:
    """A few texts of three domains, no two equal."""
    generator = random.Random(0)
    words = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in ("n", "r", "st", "")]
    prose = [("books", f"{' '.join(generator.choices(words, k=200))}. {PROSE}") for _ in range(40)]
    code = [("code", CODE.replace("mill", generator.choice(words)) * 3) for _ in range(30)]
    return prose + code + [("chinese", HAN * i) for i in range(1, 8)]


@pytest.fixture(scope="module")
def model() -> bytes:
    """A tokenizer of 600 tokens."""
    return train_tokenizer([table_of(corpus())], CONFIG).model


@given(st.lists(ANY, max_size=4))
@settings(max_examples=200, deadline=None)
def test_decoding_gives_back_any_text(model: bytes, texts: list[str]) -> None:
    """Any text survives, with every space, line end, control character and U+2581; each begins with BOS."""
    processor = spm.SentencePieceProcessor(model_proto=model)
    flat, offsets = encode(model, texts)
    assert flat.dtype == np.uint16
    rows = [flat[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]
    assert [processor.decode(row[1:]) for row in rows] == texts
    assert all(row[0] == BOS and min(row[1:], default=3) > 2 for row in rows)


@given(st.lists(ANY, max_size=4))
@settings(max_examples=200, deadline=None)
def test_tokens_are_sentencepiece_s_own(model: bytes, texts: list[str]) -> None:
    """Encoding word by word gives what SentencePiece gives for the whole text."""
    texts = [text.replace("\u2581", "") for text in texts]
    flat, _ = encode(model, texts)
    expected = spm.SentencePieceProcessor(model_proto=model).encode(texts, add_bos=True)
    assert flat.tolist() == [token for row in expected for token in row]


@pytest.mark.parametrize("text", ["<s>", "</s>", "<unk>", "<0x0A>", "a<s>b </s> <s>", "\u2047"])
def test_text_like_a_control_token_is_text(model: bytes, text: str) -> None:
    """What looks like a control token or a byte piece is spelt out."""
    flat, _ = encode(model, [text])
    assert flat[0] == BOS
    assert (flat[1:] > 2).all()
    assert spm.SentencePieceProcessor(model_proto=model).decode(flat[1:].tolist()) == text


def test_digits_stand_alone_and_words_take_their_space(model: bytes) -> None:
    """Each digit is a token; a common word is one token with its space; indentation is few."""
    processor = spm.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(i) for i in encode(model, ["\n        grain 1234"])[0].tolist()]
    assert pieces[:3] == ["<s>", "<0x0A>", "\u2581" * 4]
    assert pieces[-4:] == ["1", "2", "3", "4"]


def test_order_and_sharding_do_not_matter() -> None:
    """The same documents in other tables in another order train the same bytes."""
    texts = corpus()
    one = train_tokenizer([table_of(texts)], CONFIG)
    random.Random(1).shuffle(texts)
    assert train_tokenizer([table_of(texts[:20]), table_of(texts[20:])], CONFIG) == one


def test_another_process_trains_the_same_bytes(model: bytes) -> None:
    """Neither the hash seed nor the locale nor the number of threads matters."""
    script = (
        "import hashlib, importlib.util as u; from pathlib import Path;"
        f"spec = u.spec_from_file_location('t', {__file__!r}); t = u.module_from_spec(spec);"
        "spec.loader.exec_module(t);"
        "print(hashlib.sha256(t.train_tokenizer([t.table_of(t.corpus())], t.CONFIG).model).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "2"}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == sha256(model).hexdigest()


def test_a_vocabulary_that_the_text_does_not_support_is_reduced() -> None:
    """It is said how far, and the result is usable."""
    result = train_tokenizer([table_of([("web", PROSE)])], TokenizerConfig(vocab_size=4096))
    assert result.requested_vocab_size == 4096
    assert 259 < result.vocab_size < 4096
    assert result.note == f"the text supports {result.vocab_size} tokens, not the 4096 asked for"
    processor = spm.SentencePieceProcessor(model_proto=result.model)
    assert processor.vocab_size() == result.vocab_size


def test_many_characters_do_not_crowd_out_the_pieces() -> None:
    """Of thousands of characters the commonest get a token, and merges still find room."""
    rare = "".join(map(chr, range(0x4E00, 0x5E00)))
    texts = [("web", PROSE * 50), ("chinese", rare + "\u4e00" * 500)]
    result = train_tokenizer([table_of(texts)], CONFIG)
    assert result.vocab_size == 600
    assert "170 of 41" in result.note
    processor = spm.SentencePieceProcessor(model_proto=result.model)
    assert processor.piece_to_id("\u4e00") > 2
    assert processor.piece_to_id("\u2581grain") > 2
    assert processor.decode(encode(result.model, [rare])[0].tolist()[1:]) == rare


def test_the_sample_is_bounded_and_holds_every_domain() -> None:
    """A huge domain does not fill the sample; a document is cut where the sample ends."""
    texts = [("books", PROSE * 3000), ("poetry", "zyx " * 300), ("code", CODE * 300)]
    config = TokenizerConfig(vocab_size=330, sample_bytes=4000)
    processor = spm.SentencePieceProcessor(
        model_proto=train_tokenizer([table_of(texts)], config).model
    )
    assert processor.piece_to_id("\u2581zyx") > 2


def test_lines_of_any_length_train() -> None:
    """A megabyte without a space or line end, and texts of nothing but separators."""
    texts = [("web", "abcdefgh" * 130_000), ("web", "\n\t\u2581 \r\n" * 100), ("web", PROSE)]
    assert train_tokenizer([table_of(texts)], TokenizerConfig(vocab_size=330)).vocab_size > 259


@pytest.mark.parametrize("texts", [[], [("web", "")], [("web", "\n\n\t")]])
def test_nothing_to_train_on_is_an_error(texts: list[tuple[str, str]]) -> None:
    """It says what to look at."""
    with pytest.raises(InputError, match="expected text to train on, got none"):
        train_tokenizer([table_of(texts)], CONFIG)


def test_no_document_encodes_to_nothing(model: bytes) -> None:
    """No text, and a text of nothing."""
    flat, offsets = encode(model, [])
    assert (flat.tolist(), offsets.tolist()) == ([], [0])
    flat, offsets = encode(model, [""])
    assert (flat.tolist(), offsets.tolist()) == ([BOS], [0, 1])


def test_a_damaged_or_foreign_model_is_refused(model: bytes, tmp_path) -> None:
    """Neither half a file nor a tokenizer with other control tokens is used."""
    with pytest.raises(CorruptError, match="expected a SentencePiece model"):
        encode(b"no model", ["text"])
    prefix = tmp_path / "foreign"
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([PROSE]), model_prefix=str(prefix), vocab_size=40, minloglevel=2,
        hard_vocab_limit=False, pad_id=0, unk_id=3,
    )  # fmt: skip
    with pytest.raises(GristmillError, match="this model was not made by gristmill"):
        encode(prefix.with_suffix(".model").read_bytes(), ["text"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 256}, "tokenizer.vocab_size: expected 323 to 1048576"),
        ({"sample_bytes": 0}, "tokenizer.sample_bytes"),
        ({"character_coverage": 1.1}, "tokenizer.character_coverage"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    """Each error names its key, what is expected and what came."""
    with pytest.raises(ConfigError, match=message):
        TokenizerConfig(**options)
