"""Quality rules: each fires on what it is for, and the profiles spare their own domain."""

import re
import time
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import flows.recipes
from pipeline.filters import MEASURES, QualityConfig, judge_quality
from pipeline.normalize import NormalizeConfig, normalize
from pipeline.profiles import ALIASES, PROFILES, RULES, Profile, profile_name
from pipeline.raw import ReadLimits
from pipeline.readers import read_input
from pipeline.sources import SourceConfig, find_inputs
from storage.errors import ConfigError

from .python_scan import measure_text

QUICKSTART = Path(flows.recipes.__file__).parent / "quickstart"

PROSE = (
    "The allotment society meets in the hall behind the station on the first Monday of each month.\n"
    "Anyone who likes plants is welcome to come, and most of those who came once have come again.\n"
    "Bring something to share if you can, and a chair if you have one that will bear a gardener.\n"
    "Seeds are exchanged in spring, and tools are repaired in winter by whoever owns a vice.\n"
    "In summer there is a small party with music, to which the neighbours are invited as well.\n"
    "Those who have never grown anything are asked to start with beans, which forgive a lot."
)
"""A web page that breaks no rule."""


def web_with(**changes: float | None) -> Profile:
    """A profile of nothing but the given rules."""
    return Profile(**{rule: changes.get(rule) for rule in RULES})


def judge(text: str, profile: Profile) -> dict[str, Any]:
    """The verdict of one profile on one text."""
    limits = {rule: getattr(profile, rule) for rule in RULES}
    off: dict[str, float | bool] = {r: False if v is None else v for r, v in limits.items()}
    return judge_quality(batch_of(text), QualityConfig(thresholds={"web": off})).to_pylist()[0]


def batch_of(*texts: str, domain: str = "web") -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts), "domain": pa.array([domain] * len(texts))})


BREAKS = {
    "min_words": "Page not found. Go back to the start page.",
    "max_words": PROSE * 1200,
    "max_broken_chars": PROSE + " \ufffd\ufffd\x81" * 9,
    "max_lorem_ipsum": PROSE + "\nLorem ipsum dolor sit amet.",
    "min_mean_word_length": PROSE + " a b c d" * 200,
    "max_mean_word_length": PROSE + " Donaudampfschifffahrtsgesellschaft" * 200,
    "max_hash_symbols": PROSE + " #spring #seed #bean #hall" * 5,
    "max_ellipses": PROSE + " well ... hm \u2026" * 10,
    "min_words_with_letter": PROSE + " 2026 11 22" * 20,
    "min_stop_words": " ".join(
        f"cheap flights deal bonus loan watches {n}th price" for n in range(20)
    ),
    "max_bullet_lines": "- ".join(["", *PROSE.splitlines(keepends=True)]),
    "max_ellipsis_lines": PROSE.replace(".\n", " ...\n"),
    "max_curly_braces": PROSE + " function() { return 1; }",
    "min_sentences": PROSE.replace("\n", " ").replace(".", ","),
    "min_punctuated_lines": PROSE.replace(". ", " ").replace(".\n", "\n").replace(", ", "\n") + "!",
    "max_short_lines": re.sub(r"((?:\S+ ){3}\S+) ", r"\1\n", PROSE),
    "max_newlines_per_word": PROSE.replace(" ", "\n", 70),
    "max_duplicate_lines": "\n".join(f"{line}\nShare this page!" for line in PROSE.split("\n")),
    "max_duplicate_paragraphs": PROSE.replace("\n", "\n\nShare!\n\n"),
    "max_duplicate_line_chars": PROSE + "\n" + PROSE[:94],
    "max_duplicate_paragraph_chars": PROSE + ("\n\n" + PROSE[:94]) * 3,
    "max_top_2gram_chars": PROSE + " casino bonus" * 25,
    "max_top_3gram_chars": PROSE + "".join(f" best casino bonus {n}th" for n in range(12)),
    "max_top_4gram_chars": PROSE + "".join(f" my best casino bonus {n}th" for n in range(12)),
}
"""A page that breaks each rule, in the order of the rules."""


@pytest.mark.parametrize("rule", BREAKS)
def test_each_rule_drops_the_page_it_is_for(rule: str) -> None:
    """With that rule alone at the web threshold the page goes and the good page stays."""
    limit = getattr(PROFILES["web"], rule) if rule != "max_broken_chars" else 0.01
    alone = web_with(**{rule: limit})
    verdict = judge(BREAKS[rule], alone)
    assert verdict["rule"] == rule
    assert verdict["threshold"] == limit
    assert judge(PROSE, alone)["rule"] is None


@pytest.mark.parametrize("n", range(5, 11))
def test_repeated_passages_break_the_ngram_rules(n: int) -> None:
    """A passage of twenty words that comes back inside other lines is seen by every n-gram rule."""
    rule = f"max_duplicate_{n}gram_chars"
    passage = " ".join(PROSE.split()[5:25])
    text = (
        PROSE
        + f"\nOnce more, {passage}\nand then again {passage} as they say, {passage} without an end."
    )
    verdict = judge(text, web_with(**{rule: getattr(PROFILES["web"], rule)}))
    assert verdict["rule"] == rule


def test_good_page_passes_all_web_rules() -> None:
    """Judged by everything at once it stays, alone and among others."""
    verdicts = judge_quality(batch_of(PROSE, "Loading ..."), QualityConfig())
    assert verdicts.field("rule").to_pylist() == [None, "min_words"]


def test_verdict_is_the_first_rule_in_order_that_fails() -> None:
    """Value and threshold belong to that rule and contradict each other."""
    for text in BREAKS.values():
        values = measure_text(text)
        verdict = judge(text, PROFILES["web"])
        assert verdict["rule"] is not None, text
        before = web_with(
            **{r: getattr(PROFILES["web"], r) for r in RULES[: RULES.index(verdict["rule"])]}
        )
        assert judge(text, before)["rule"] is None
        assert verdict["value"] == values[verdict["rule"]]


def test_every_rule_is_measured_and_every_alias_has_a_profile() -> None:
    """The threshold's field, the measure and the order belong together."""
    assert tuple(MEASURES) == RULES
    assert set(ALIASES.values()) <= PROFILES.keys()
    assert profile_name("letters", {}) == "default"
    assert profile_name("letters", {"letters": "books"}) == "books"
    assert profile_name("conversation", {}) == "chat"


# -- profiles on real text ------------------------------------------------------------------------


@cache
def quickstart_texts(domain: str) -> tuple[str, ...]:
    """Documents of a domain of the quick-start corpus as the build reads and normalises them."""
    recipe = tomllib.loads((QUICKSTART / "recipe.toml").read_text("utf-8"))
    texts: list[str] = []
    for table in recipe["sources"]:
        source = SourceConfig(**table)
        if source.domain != domain:
            continue
        for found in find_inputs(source, QUICKSTART):
            for raw in read_input(found, source, ReadLimits()):
                good = raw.filter(raw["error"].is_null())["text"]
                domains = pa.array([domain] * len(good), pa.string())
                texts += normalize(good, domains, NormalizeConfig(), Counter()).to_pylist()
    return tuple(texts)


def pieces(texts: tuple[str, ...], size: int, most: int = 400) -> list[str]:
    """The texts cut at line ends into documents of about `size` characters, every k-th of them; 0 leaves them whole."""
    if not size:
        return list(texts)
    cut: list[str] = []
    for text in texts:
        lines: list[str] = []
        for line in text.split("\n"):
            lines.append(line)
            if sum(map(len, lines)) >= size:
                cut.append("\n".join(lines).strip())
                lines = []
    return cut[:: len(cut) // most + 1]


@pytest.mark.parametrize(
    "domain",
    ["drama", "poetry", "science", "code", "encyclopedic", "conversation", "multilingual"],
)
@pytest.mark.parametrize("size", [250, 1000, 0])
def test_profiles_keep_their_own_domain(domain: str, size: int) -> None:
    """More than 97 % of good text of a domain survives its profile, whole and in small pieces."""
    documents = pieces(quickstart_texts(domain), size)
    verdicts = judge_quality(batch_of(*documents, domain=domain), QualityConfig())
    dropped = Counter(rule for rule in verdicts.field("rule").to_pylist() if rule)
    assert dropped.total() < 0.03 * len(documents), dropped


@pytest.mark.parametrize(
    ("domain", "share"),
    [("poetry", 0.2), ("code", 0.8), ("conversation", 0.5), ("encyclopedic", 0.1)],
)
def test_web_rules_would_delete_verse_and_code(domain: str, share: float) -> None:
    """Why there are profiles: what is right for pages is wrong for poems, source code and lists of facts."""
    documents = pieces(quickstart_texts(domain), 2000)
    verdicts = judge_quality(batch_of(*documents, domain="web"), QualityConfig())
    assert verdicts.field("rule").null_count < (1 - share) * len(documents)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_drops_what_is_no_text(profile: str) -> None:
    """Pasted repetition, broken encodings, symbols and one endless word are caught in every domain."""
    junk = {
        "pasted": "to win an offer today, click here and tell all of your friends now\n" * 60,
        "broken": (PROSE + "\n").replace("e", "\ufffd"),
        "symbols": "|| -- || == || ++ || ** || // || ~~ ||\n" * 30,
    }
    for name, text in junk.items():
        assert judge(text, PROFILES[profile])["rule"] is not None, name


@pytest.mark.parametrize(
    "text",
    [
        "\u4eba\u4eba\u751f\u800c\u81ea\u7531\uff0c\u5728\u5c0a\u4e25\u548c\u6743\u5229\u4e0a\u4e00\u5f8b\u5e73\u7b49"
        "\u3002\u4ed6\u4eec\u8d4b\u6709\u7406\u6027\u548c\u826f\u5fc3\uff0c\u5e76\u5e94\u4ee5\u5144\u5f1f\u5173\u7cfb"
        "\u7684\u7cbe\u795e\u76f8\u5bf9\u5f85\u3002",
        "\u0e21\u0e19\u0e38\u0e29\u0e22\u0e4c\u0e17\u0e31\u0e49\u0e07\u0e2b\u0e25\u0e32\u0e22\u0e40\u0e01\u0e34\u0e14"
        "\u0e21\u0e32\u0e21\u0e35\u0e2d\u0e34\u0e2a\u0e23\u0e30\u0e41\u0e25\u0e30\u0e40\u0e2a\u0e21\u0e2d\u0e20\u0e32"
        "\u0e04\u0e01\u0e31\u0e19\u0e43\u0e19\u0e40\u0e01\u0e35\u0e22\u0e23\u0e15\u0e34\u0e28\u0e31\u0e01\u0e14",
    ],
    ids=["chinese", "thai"],
)
@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "web"])
def test_scripts_without_spaces_are_not_judged_by_their_words(profile: str, text: str) -> None:
    """A sentence that is one long run between spaces is not one long word."""
    assert judge(f"{text}\n{text[::-1]}", PROFILES[profile])["rule"] is None


# -- configuration ----------------------------------------------------------------------------------


def test_short_words_are_no_fault_of_other_scripts() -> None:
    """Korean words have two or three characters, a syllable each; the same lengths in Latin letters are no prose."""
    korean = (
        "\uc624\ub298 \uc544\uce68\uc5d0\ub294 \ube44\uac00 \uc870\uae08 \uc640\uc11c \uae38\uc774 \ub9ce\uc774 \uc816\uc5b4 \uc788\uc5c8\ub2e4. "
        "\uadf8 \uac15\uc740 \uc774\uc81c \ubb3c\uc774 \ub9d1\uace0 \uc0c8\ub3c4 \ub9ce\uc774 \ucc3e\uc544\uc628\ub2e4. "
    )
    profile = web_with(min_mean_word_length=3)
    assert judge(korean, profile)["rule"] is None
    latin = "".join(c if c in " ." else "aeiou"[ord(c) % 5] for c in korean)
    assert judge(latin, profile)["rule"] == "min_mean_word_length"
    for name in PROFILES:
        assert judge(korean * 3, PROFILES[name])["rule"] != "min_mean_word_length"


def test_thresholds_are_changed_and_rules_turned_off() -> None:
    """As a recipe does it: by profile and rule, false for off."""
    adapter = TypeAdapter(QualityConfig)
    config = adapter.validate_python(
        {"thresholds": {"web": {"min_words": 200, "max_curly_braces": False}}}
    )
    assert config.thresholds == {"web": {"min_words": 200.0, "max_curly_braces": False}}
    few, braces = judge_quality(batch_of(PROSE, PROSE * 3 + "{"), config).to_pylist()
    assert (few["rule"], few["threshold"]) == ("min_words", 200)
    assert braces["rule"] != "max_curly_braces"
    assert judge_quality(batch_of("x"), QualityConfig(enabled=False)).to_pylist()[0]["rule"] is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"profiles": {"letters": "boks"}},
            "quality.profiles.letters.*'boks'.*did you mean 'books'",
        ),
        ({"thresholds": {"wbe": {}}}, "'wbe'.*did you mean 'web'"),
        ({"thresholds": {"web": {"min_word": 3}}}, "'min_word'.*did you mean 'min_words'"),
        ({"thresholds": {"web": {"min_words": True}}}, "a number or false, got true"),
    ],
)
def test_wrong_names_are_refused_with_a_suggestion(section: dict, message: str) -> None:
    """A rule that does not exist has no effect, and that is an error."""
    with pytest.raises(ConfigError, match=message):
        QualityConfig(**section)


# -- any text ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(max_size=200), st.sampled_from(sorted(PROFILES))), max_size=8))
@settings(deadline=None)
def test_a_batch_is_judged_as_its_documents_alone(documents: list[tuple[str, str]]) -> None:
    """Whatever the texts and domains beside it, a document's verdict is that of the first rule that it fails."""
    texts, domains = [text for text, _ in documents], [domain for _, domain in documents]
    batch = pa.record_batch(
        {"text": pa.array(texts, pa.string()), "domain": pa.array(domains, pa.string())}
    )
    verdicts = judge_quality(batch, QualityConfig()).to_pylist()
    assert len(verdicts) == len(documents)
    for text, domain, verdict in zip(texts, domains, verdicts, strict=True):
        assert verdict == judge(text, PROFILES[domain])
        values = measure_text(text)
        for rule in RULES[: RULES.index(verdict["rule"])] if verdict["rule"] else RULES:
            assert not fails(rule, values[rule], getattr(PROFILES[domain], rule))
        if verdict["rule"]:
            assert verdict["value"] == values[verdict["rule"]]
            assert fails(verdict["rule"], verdict["value"], verdict["threshold"])


def fails(rule: str, value: float | None, limit: float | None) -> bool:
    """Whether a rule drops a document of which it measures that value."""
    if value is None or limit is None:
        return False
    return value < limit if rule.startswith("min_") else value > limit


@pytest.mark.parametrize(
    "unit", ["a", "a ", "\n", "a\n", ". ", "1 ", "\u4e2d", "{", "... ", " \n\n", "the be to ", '"']
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """Half a megabyte of one thing is judged by each profile within a second."""
    text = unit * (500_000 // len(unit))
    start = time.process_time()
    for profile in PROFILES:
        judge_quality(batch_of(text, domain=profile), QualityConfig())
    assert time.process_time() - start < len(PROFILES)
