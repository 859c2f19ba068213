"""Toxicity: vectorised n-grams equal plain ones, scores do not depend on the batch, insults are found, old plays kept."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.recipes import quickstart_pages
from pipeline import toxicity_features
from pipeline.toxicity import (
    CARD,
    DECIMALS,
    POWER,
    WORDS,
    Model,
    ToxicityConfig,
    judge_toxicity,
    load_model,
    score_texts,
    score_toxicity,
    shipped_model,
    shipped_thresholds,
)
from pipeline.toxicity_data import TEST, TRAIN, Comments, neutral_windows, read_clean, take
from pipeline.toxicity_features import cut_windows, grams, hash_words
from pipeline.toxicity_train import main, train
from storage.errors import ConfigError, InputError
from storage.schema import DOCUMENTS

CORPUS = Path(__file__).parents[2] / "flows/recipes/quickstart"

MASK = (1 << 64) - 1

words = st.text(
    st.sampled_from("abz AZ09\n\n '.,*-\u00e9\u00df\u0416\u4e2d\U0001f600\u2019\u2014"), max_size=60
)


def documents(texts: Sequence[str], domain: str = "web", lang: str = "en") -> pa.RecordBatch:
    """A batch with the columns that this stage looks at filled in."""
    columns = {
        "text": texts,
        "domain": [domain] * len(texts),
        "lang": [lang] * len(texts),
        "toxicity": [0.0] * len(texts),
    }
    arrays = [
        pa.array(
            columns.get(field.name, [0 if pa.types.is_integer(field.type) else ""] * len(texts))
            if not pa.types.is_floating(field.type)
            else columns.get(field.name, [0.0] * len(texts)),
            field.type,
        )
        for field in DOCUMENTS
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=DOCUMENTS)


def scored(texts: Sequence[str], domain: str = "web", lang: str = "en") -> pa.RecordBatch:
    """A batch with its scores."""
    batch = documents(texts, domain, lang)
    column = DOCUMENTS.get_field_index("toxicity")
    return batch.set_column(column, DOCUMENTS.field(column), score_toxicity(batch))


def slow_clean(text: str) -> bytes:
    """What the vectorised cleaning does, character by character."""
    out: list[str] = []
    for char in text:
        if char in "'`\u2019":
            continue
        if char == "\n":
            out.append("\n")
        elif char.isascii():
            low = char.lower()
            out.append(
                low if low in "abcdefghijklmnopqrstuvwxyz*" else "0" if low.isdigit() else " "
            )
        else:
            out.append(" " if ord(char) >= 0x10000 or 0x2000 <= ord(char) < 0x2080 else char)
    runs: list[str] = []
    for char in [*out, "\n"]:
        if char in " \n" and runs and runs[-1] in " \n":
            runs[-1] = "\n" if "\n" in (char, runs[-1]) else " "
        else:
            runs.append(char)
    joined = "".join(runs)
    kept = [
        c
        for i, c in enumerate(joined)
        if not (i >= 2 and c.isascii() and c.islower() and joined[i - 2 : i] == c * 2)
    ]
    return "".join(kept).encode()


def slow_mixed(value: int) -> int:
    """The mixing of a 64-bit hash in whole numbers of Python."""
    mix = int(toxicity_features._MIX)
    value = (value ^ (value >> 32)) * mix & MASK
    return (value ^ (value >> 29)) * mix & MASK


def slow_hash(data: bytes) -> int:
    """The sum of byte * BASE**i that the prefix sums give for a stretch of bytes."""
    return (
        sum(byte * pow(int(toxicity_features._BASE), i, 1 << 64) for i, byte in enumerate(data))
        & MASK
    )


def slow_grams(text: bytes) -> list[int]:
    """Words, pairs of words and character n-grams of one window, one by one."""
    padded = b" " + text.replace(b"\n", b" ")
    plain = [slow_mixed(slow_hash(word)) for word in padded.split(b" ") if word]
    pairs = [
        slow_mixed((first * int(toxicity_features._BIGRAM) + second) & MASK)
        for first, second in itertools.pairwise(plain)
    ]
    chars = [
        slow_mixed((slow_hash(padded[at : at + size]) + size) & MASK)
        for size in toxicity_features.CHAR_NGRAMS
        for at in range(len(padded) - size + 1)
        if b" " not in padded[at + 1 : at + size - 1]
    ]
    return sorted(value >> 32 for value in plain + pairs + chars)


@given(st.lists(words | st.text(max_size=30), max_size=6))
@settings(deadline=None)
def test_cleaning_equals_the_slow_one(texts: list[str]) -> None:
    """Bytes are cleaned as characters would be, each text by itself."""
    windows = cut_windows(pa.array(texts, pa.string()))
    first = np.searchsorted(windows.document, np.arange(len(texts) + 1))
    for number, text in enumerate(texts):
        begin, end = windows.starts[first[number]], windows.starts[first[number + 1]]
        assert windows.data[begin:end].tobytes() == slow_clean(text).replace(b"\n", b" ")


@given(st.lists(words | st.text(max_size=30), min_size=1, max_size=5))
@settings(deadline=None)
def test_grams_equal_the_slow_ones(texts: list[str]) -> None:
    """One pass over sums of bytes gives each word, pair and character n-gram of each window."""
    windows = cut_windows(pa.array(texts, pa.string()))
    rows = np.concatenate([block.rows for block in grams(windows)])
    window = np.concatenate([block.window + block.windows.start for block in grams(windows)])
    for number, (begin, end) in enumerate(
        zip(windows.starts[:-1], windows.starts[1:], strict=True)
    ):
        expected = slow_grams(windows.data[begin:end].tobytes())
        assert sorted(rows[window == number].tolist()) == expected


@given(st.text(max_size=2000), st.integers(20, 300))
@settings(max_examples=50, deadline=None)
def test_windows_cover_a_text_once_and_end_between_words(text: str, size: int) -> None:
    """Nothing is scored twice or left out, and no word is cut."""
    windows = cut_windows(pa.array([text * 3], pa.string()), size)
    assert windows.starts[0] == 0 and windows.starts[-1] == len(windows.data)
    assert (np.diff(windows.starts) > 0).all()
    assert (windows.data[windows.starts[1:] - 1] == ord(" ")).all()


@given(st.lists(words | st.sampled_from(["", "You stupid idiot!"]), max_size=8), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_scores_do_not_depend_on_the_batch(texts: list[str], size: int) -> None:
    """A text has one score, alone or among others, sliced or not."""
    together = score_toxicity(documents(texts))
    apart = [
        s
        for at in range(0, len(texts), size)
        for s in score_toxicity(documents(texts).slice(at, size))
    ]
    assert together.to_pylist() == [s.as_py() for s in apart]
    assert all(0 <= score <= 1 for score in together.to_pylist())


def test_no_words_score_nothing() -> None:
    """Empty texts, punctuation and empty batches are no special case for the caller."""
    assert score_toxicity(documents(["", " \n ", "... !?", "\U0001f600"])).to_pylist() == [0.0] * 4
    empty = documents([])
    assert len(score_toxicity(empty)) == 0
    assert len(judge_toxicity(empty, ToxicityConfig())) == 0


def test_score_is_the_power_mean_of_the_windows() -> None:
    """A toxic window counts by its share: a sixth of a page makes 0.8."""
    flag = hash_words(["insult"])[0] >> np.uint64(32)
    weights = np.zeros(1 << 18, np.int8)
    weights[int(flag) >> 14] = 127
    model = Model(weights, scale=10.0, bias=-20.0)
    line = "plain " * 40 + "\n"
    for clean in (0, 1, 5, 50):
        text = "insult " + "plain " * 39 + "\n" + line * clean
        share = 1 / (1 + clean)
        score = float(score_texts(pa.array([text]), model)[0])
        assert score == pytest.approx(share ** (1 / POWER), abs=0.02)
    assert round((1 / 6) ** (1 / POWER), 1) == 0.8


def test_planted_comments_are_found_and_essays_kept() -> None:
    """What the quick-start corpus plants is dropped, also as the last fifth of a page; its other pages are not."""
    comments = ["\n\n".join(page.paragraphs) for page in quickstart_pages.insults()]
    essays = ["\n\n".join(page.paragraphs) for page in quickstart_pages.essays()]
    config = ToxicityConfig()
    found = judge_toxicity(scored(comments), config).field("rule").to_pylist()
    assert found == ["toxic"] * len(comments)
    assert set(judge_toxicity(scored(essays), config).field("rule").to_pylist()) == {None}
    mixed = [essay + "\n\n" + comments[0][:250] for essay in essays]
    assert set(judge_toxicity(scored(mixed), config).field("rule").to_pylist()) == {"toxic"}


@pytest.mark.parametrize(
    ("domain", "path"),
    [
        ("drama", "drama/shakespeare.jsonl.xz"),
        ("poetry", "poetry/poems.csv.gz"),
        ("science", "science/plos.jsonl.zst"),
        ("encyclopedic", "encyclopedic/factbook.parquet"),
        ("code", "code/scikit-learn.jsonl.xz"),
        ("conversation", "conversation/chatterbot.jsonl.gz"),
        ("multilingual", "multilingual/udhr"),
    ],
)
def test_clean_text_of_every_domain_is_kept(domain: str, path: str) -> None:
    """At most 0.5 % of what training held out is above the domain's threshold, in windows as short as a comment."""
    clean = read_clean([f"{domain}={CORPUS / path}"])[domain]
    held_out = take(clean, TEST)
    data = held_out.data.tobytes()
    bounds = zip(held_out.starts[:-1].tolist(), held_out.starts[1:].tolist(), strict=True)
    texts = [data[begin:end].decode() for begin, end in bounds]
    scores = score_texts(pa.array(texts, pa.string()), shipped_model())
    assert len(texts) > 30
    assert (scores >= shipped_thresholds()[domain]).mean() <= 0.005


def test_naming_a_group_of_people_is_no_insult() -> None:
    """Neutral sentences stay below the threshold, whoever they name."""
    named = score_texts(
        pa.array(
            [
                "He is a gay man living in Berlin.",
                "The lesbian couple adopted a dog.",
                "Many Muslim families celebrate together in the park.",
                "She is a black woman and a famous doctor.",
            ]
        ),
        shipped_model(),
    )
    assert (named < shipped_thresholds()["default"]).all()


def test_listed_words_are_the_second_signal() -> None:
    """A text in a language that the model has not seen is dropped by the list of its language, and only by that."""
    swedish = json.loads(WORDS.read_text("utf-8"))["words"]["sv"]
    text = "en helt vanlig mening om ingenting alls " + " ".join(swedish[:6])
    batch = scored([text], lang="sv")
    verdict = judge_toxicity(batch, ToxicityConfig(threshold=1.01)).to_pylist()[0]
    assert verdict["rule"] == "listed_words" and verdict["value"] >= 0.1
    keep = judge_toxicity(batch, ToxicityConfig(threshold=1.01, word_list=False)).to_pylist()[0]
    assert keep["rule"] is None
    assert (
        judge_toxicity(scored([text], lang="pl"), ToxicityConfig(threshold=1.01)).to_pylist()[0][
            "rule"
        ]
        is None
    )


def test_thresholds_are_the_domains_then_the_recipes_then_the_shipped() -> None:
    """The nearest setting wins; the verdict says which figure met which limit."""
    batch = scored(["What a beautiful day."], domain="drama")
    score = batch["toxicity"][0].as_py()
    low = score / 2
    assert judge_toxicity(batch, ToxicityConfig()).to_pylist()[0]["rule"] is None
    verdict = judge_toxicity(batch, ToxicityConfig(threshold=low)).to_pylist()[0]
    assert (verdict["rule"], verdict["value"], verdict["threshold"]) == ("toxic", score, low)
    own = ToxicityConfig(threshold=low, thresholds={"drama": 0.99})
    assert judge_toxicity(batch, own).to_pylist()[0]["rule"] is None


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"threshold": 0.0}, r"toxicity\.threshold: expected a number above 0"),
        ({"thresholds": {"web": 7.0}}, r"toxicity\.thresholds\.web: .* got 7\.0"),
        ({"max_listed_words": 0.0}, r"toxicity\.max_listed_words"),
    ],
)
def test_impossible_settings_are_refused(settings_: dict, message: str) -> None:
    """A limit that would drop or keep everything by accident is an error."""
    with pytest.raises(ConfigError, match=message):
        ToxicityConfig(**settings_)


def test_card_and_weights_belong_together() -> None:
    """The card's figures reach what the stage promises, and the weights are small and plain."""
    card = json.loads(CARD.read_text("utf-8"))
    assert card["held_out"]["comments"]["all"]["auc"] > 0.88
    default = card["thresholds"]["default"]
    assert card["held_out"]["comments"]["all"][f"macro_f1 at {default}"] > 0.80
    for domain, figures in card["held_out"]["clean"].items():
        threshold = card["thresholds"][domain]
        assert figures[f"windows at {threshold} and above"] <= 0.005
    assert shipped_model().weights.dtype == np.int8
    assert shipped_model().shift == 14
    assert {"davidson", "civil"} <= set(card["licences"])


def toy_comments(count: int) -> Comments:
    """Comments that anybody can tell apart."""
    toxic = np.arange(count) % 2 == 0
    texts = [
        f"{'you idiot' if t else 'dear friend'} number {'abcdefghij'[i % 10] * 3} {i % 7}"
        for i, t in enumerate(toxic)
    ]
    return Comments(texts, toxic, np.full(count, "toy"))


def test_training_learns_and_repeats_itself() -> None:
    """The same input gives the same bytes, and what was taught is found."""
    clean = {"plain": cut_windows(pa.array(["the idiot son of a king was a dear friend\n" * 400]))}
    first, second = (train(toy_comments(200), clean) for _ in range(2))
    assert (first.weights == second.weights).all() and first.bias == second.bias
    scores = score_texts(pa.array(["you idiot", "dear friend"]), first)
    assert scores[0] > 0.6 > scores[1]


def test_command_line_trains_and_evaluates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files in, weights and a card out; a wrong argument is named."""
    toy = toy_comments(300)
    rows = [
        {"text": text, "label": int(label), "source": "toy"}
        for text, label in zip(toy.texts, toy.toxic.tolist(), strict=True)
    ]
    comments, text = tmp_path / "comments.jsonl", tmp_path / "plain.txt"
    comments.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    text.write_text("a quiet line about the weather and the sea\n" * 300, "utf-8")
    arguments = ["--comments", str(comments), "--clean", f"plain={text}"]
    main(["train", *arguments, "--out", str(tmp_path), "--note", "toy=made by us"])
    card = json.loads((tmp_path / CARD.name).read_text("utf-8"))
    assert card["licences"] == {"toy": "made by us"} and card["trained_on"] == ["toy"]
    assert card["held_out"]["comments"]["all"]["auc"] > 0.9
    model = load_model(tmp_path / "toxicity_weights.npz")
    assert (model.weights != 0).any()
    capsys.readouterr()
    main(["evaluate", *arguments, "--weights", str(tmp_path / "toxicity_weights.npz")])
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {"comments", "clean"}
    with pytest.raises(ConfigError, match="expected DOMAIN=PATH"):
        main(["evaluate", "--comments", str(comments), "--clean", str(text)])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="expected rows"):
        main(["evaluate", "--comments", str(tmp_path / "empty.jsonl"), "--clean", f"plain={text}"])


def test_held_out_parts_do_not_overlap() -> None:
    """No window that sets a figure was trained on."""
    lines = "".join(
        f"line {'abcdefghijklmnopqrstuvwxyz'[i % 26] * 2} {i}\n" * 10 for i in range(20_000)
    )
    windows = cut_windows(pa.array([lines]))
    assert len(windows.document) > 8 * 512
    total = sum(len(take(windows, part).document) for part in (TRAIN, (3,), TEST))
    assert total == len(windows.document)
    assert len(take(windows, TEST).document) < len(take(windows, TRAIN).document)
    assert len(neutral_windows().document) > 1000


def test_scores_are_rounded() -> None:
    """No score carries bits that another processor would compute otherwise."""
    scores = np.array(score_toxicity(documents(["You are a fool.", "Good morning to you all."])))
    assert (scores == np.round(scores.astype(np.float64), DECIMALS).astype(np.float32)).all()
