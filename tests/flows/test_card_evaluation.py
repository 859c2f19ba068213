"""The evaluation card shows a verdict as its document tells it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.evaluation_card import evaluation_card

from .rendered import seen

FOREIGN = st.text(min_size=1, max_size=60).filter(lambda text: text.strip())


def evaluation(**bits: float) -> dict[str, Any]:
    domains = {
        name: {"bits_per_byte": value, "unigram_bits_per_byte": 4.0, "tokens": 50, "bytes": 100}
        for name, value in bits.items()
    }
    mean = sum(bits.values()) / len(bits)
    whole = {"loss": 3.0, "bits_per_byte": mean, "unigram_bits_per_byte": 4.0, "tokens": 100}
    return whole | {"domains": domains}


def verdict(**changes: Any) -> dict[str, Any]:
    former = {"release": 3, "run": "tiny-1-old", "evaluation": evaluation(books=2.0, web=3.0)}
    return {
        "corpus": "tiny", "run": "tiny-2-new", "run_hash": "ab" * 32, "snapshot": "tiny@2", "snapshot_hash": "cd" * 32,
        "step": 100, "evaluation": evaluation(books=1.8, web=3.15), "former": former, "verdict": "promoted",
        "release": 4, "why": "better by 1 %", "code_version": "1.0",
    } | changes  # fmt: skip


def test_each_domain_stands_beside_the_former_release() -> None:
    _, text = seen(evaluation_card(verdict()))
    assert "tiny-2-new: promoted as release 4" in text
    assert "Better by 1 %" in text
    assert "books 1.800 2.000 \u221210.0 % 4.000 55.0 % 50" in text
    assert "web 3.150 3.000 +5.0 %" in text
    assert "tiny@2, hash " + "cd" * 32 in text


def test_a_first_release_has_nothing_beside_it() -> None:
    _, text = seen(evaluation_card(verdict(former=None, release=1)))
    assert "former" not in text.split("What was compared")[0]
    assert "books 1.800 4.000 55.0 %" in text


def test_models_without_validation_documents_have_a_card() -> None:
    """Neither the new one nor the former one was scored."""
    former = {"release": 3, "run": "gone", "evaluation": {}}
    for changes in ({}, {"former": former}, {"former": None}):
        card = evaluation_card(verdict(evaluation={}, verdict="kept back", release=None) | changes)
        assert card.startswith("# tiny-2-new: kept back\n")
    assert "1.800" in evaluation_card(verdict(former=former))


def test_a_domain_that_the_former_release_never_saw_is_no_change() -> None:
    _, text = seen(evaluation_card(verdict(evaluation=evaluation(books=1.8, poems=2.5))))
    assert "poems 2.500 \u2013 \u2013 4.000" in text


@given(FOREIGN, FOREIGN)
def test_foreign_text_stays_text(why: str, domain: str) -> None:
    def card(why: str, domain: str) -> str:
        return evaluation_card(verdict(why=why, evaluation=evaluation(**{domain: 2.0})))

    assert seen(card(why, domain))[0] == seen(card("x", "y"))[0]


def test_size_is_bounded() -> None:
    many = evaluation(**{f"{i}<|`" * 30: 2.0 for i in range(3000)})
    former = {"release": 3, "run": "tiny-1-old", "evaluation": many}
    card = evaluation_card(verdict(evaluation=many, former=former, why="`" * 5000))
    assert len(card.encode()) < 200_000
    assert "and 2940 more domains" in card
