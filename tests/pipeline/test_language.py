"""Languages: told apart by a bounded sample, and dropped only when a recipe says which to keep."""

import time

import pyarrow as pa
import pytest

from pipeline.language import (
    SAMPLE_CHARS,
    LanguageConfig,
    identify_language,
    judge_language,
    known_languages,
    language_of,
)
from storage.errors import ConfigError

SENTENCES = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an W\xfcrde und Rechten geboren.",
    "fr": "Tous les \xeatres humains naissent libres et \xe9gaux en dignit\xe9 et en droits.",
    "fi": "Kaikki ihmiset syntyv\xe4t vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "pl": "Wszyscy ludzie rodz\u0105 si\u0119 wolni i r\xf3wni pod wzgl\u0119dem swej godno\u015bci i swych praw.",
    "ru": (
        "\u0412\u0441\u0435 \u043b\u044e\u0434\u0438 \u0440\u043e\u0436\u0434\u0430"
        "\u044e\u0442\u0441\u044f \u0441\u0432\u043e\u0431\u043e\u0434\u043d\u044b\u043c"
        "\u0438 \u0438 \u0440\u0430\u0432\u043d\u044b\u043c\u0438."
    ),
    "el": (
        "\u038c\u03bb\u03bf\u03b9 \u03bf\u03b9 \u03ac\u03bd\u03b8\u03c1\u03c9\u03c0"
        "\u03bf\u03b9 \u03b3\u03b5\u03bd\u03bd\u03b9\u03bf\u03cd\u03bd\u03c4\u03b1\u03b9"
        " \u03b5\u03bb\u03b5\u03cd\u03b8\u03b5\u03c1\u03bf\u03b9."
    ),
    "zh": (
        "\u4eba\u4eba\u751f\u800c\u81ea\u7531\uff0c\u5728\u5c0a\u4e25\u548c\u6743\u5229\u4e0a"
        "\u4e00\u5f8b\u5e73\u7b49\u3002"
    ),
    "ja": (
        "\u3059\u3079\u3066\u306e\u4eba\u9593\u306f\u3001\u751f\u307e\u308c\u306a\u304c\u3089"
        "\u306b\u3057\u3066\u81ea\u7531\u3067\u3042\u308b\u3002"
    ),
    "th": (
        "\u0e21\u0e19\u0e38\u0e29\u0e22\u0e4c\u0e17\u0e31\u0e49\u0e07\u0e2b\u0e25\u0e32\u0e22"
        "\u0e40\u0e01\u0e34\u0e14\u0e21\u0e32\u0e21\u0e35\u0e2d\u0e34\u0e2a\u0e23\u0e30"
    ),
}


def batch_of(*texts: str, domain: str = "web") -> pa.RecordBatch:
    return pa.record_batch(
        {
            "text": pa.array(texts),
            "domain": pa.array([domain] * len(texts)),
            "lang": pa.array([""] * len(texts)),
            "lang_score": pa.array([0.0] * len(texts), pa.float32()),
        }
    )


@pytest.mark.parametrize("language", SENTENCES)
def test_one_sentence_names_its_language(language: str) -> None:
    """With confidence, whatever the script."""
    found, score = language_of(SENTENCES[language])
    assert found == language
    assert 0.65 <= score <= 1


@pytest.mark.parametrize("text", ["", " \n", "12 34 56", "+++ --- ... !!!"])
def test_no_letters_no_language(text: str) -> None:
    """There is nothing to tell, and nothing is claimed."""
    assert language_of(text) == ("", 0.0)


def test_foreign_front_matter_does_not_decide() -> None:
    """A licence in English before a long German text leaves it German."""
    text = SENTENCES["en"] * 3 + "\n" + SENTENCES["de"] * 40
    assert language_of(text)[0] == "de"


def test_a_novel_costs_no_more_than_a_letter() -> None:
    """Only a sample is read: a text a thousand times as long takes about the same time."""
    letter = (SENTENCES["en"] * 20)[:SAMPLE_CHARS]
    language_of(letter)

    def seconds(text: str) -> float:
        start = time.process_time()
        for _ in range(100):
            language_of(text)
        return time.process_time() - start

    assert seconds(letter * 1000) < 5 * seconds(letter) + 0.1


def test_languages_are_filled_in_and_judged() -> None:
    """Kept are the languages named; code is neither determined nor dropped."""
    config = LanguageConfig(keep=("en", "de"))
    batch = identify_language(
        batch_of(SENTENCES["en"], SENTENCES["fr"], SENTENCES["de"], "1 + 1"), config
    )
    assert batch["lang"].to_pylist() == ["en", "fr", "de", ""]
    assert batch.schema == batch_of("").schema
    verdicts = judge_language(batch, config)
    assert verdicts.field("rule").to_pylist() == [None, "language", None, "language_score"]
    assert verdicts[1].as_py()["detail"].startswith("fr (")
    assert judge_language(batch, LanguageConfig()).field("rule").null_count == 4
    code = identify_language(batch_of(SENTENCES["fr"], domain="code"), config)
    assert code["lang"].to_pylist() == [""]
    assert judge_language(code, config).field("rule").to_pylist() == [None]


def test_min_score_decides_on_doubt() -> None:
    """A text in the right language but without confidence goes by the score rule, with the score."""
    batch = identify_language(batch_of(SENTENCES["en"]), LanguageConfig())
    score = batch["lang_score"][0].as_py()
    verdict = judge_language(batch, LanguageConfig(keep=("en",), min_score=1.0))[0].as_py()
    assert score < 1
    assert (verdict["rule"], verdict["value"], verdict["threshold"]) == (
        "language_score",
        score,
        1.0,
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"keep": ("english",)}, "codes such as 'en', got 'english'"),
        ({"keep": ("en",), "detect": False}, "language.detect is false"),
        ({"min_score": 65}, r"in \[0, 1\], got 65"),
    ],
)
def test_a_section_that_cannot_work_is_refused(section: dict, message: str) -> None:
    """Before hours of work, with what to write instead."""
    with pytest.raises(ConfigError, match=message):
        LanguageConfig(**section)
    assert {"en", "de", "zh", "sw"} <= known_languages()
