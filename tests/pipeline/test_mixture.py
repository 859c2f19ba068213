"""The mix: proportional, bounded, and explained."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.mixture import MixConfig, mix
from storage.errors import ConfigError

DOMAINS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10**12), max_size=6)
WEIGHTS = st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from([0, 0.1, 1, 3, 1000]))


def test_without_settings_training_goes_once_through_the_corpus() -> None:
    """The default mix is the corpus as it is."""
    found = mix({"web": 300, "code": 100}, MixConfig())
    assert list(found) == ["code", "web"]
    assert found["web"] == {"tokens": 300, "weight": 1.0, "share": 0.75, "epochs": 1.0}
    assert found["code"] == {"tokens": 100, "weight": 1.0, "share": 0.25, "epochs": 1.0}


def test_weights_multiply_shares() -> None:
    """Twice the weight is twice the share of an equal domain, within the bound."""
    found = mix({"a": 100, "b": 100}, MixConfig(weights={"b": 2}))
    assert found["b"]["share"] == pytest.approx(2 / 3)
    assert found["b"]["epochs"] == pytest.approx(4 / 3)


def test_a_domain_at_its_bound_leaves_the_rest_to_the_others() -> None:
    """Water filling: b stays at 4 epochs, a and c share what is left in proportion to their weights."""
    found = mix({"a": 600, "b": 10, "c": 300}, MixConfig(weights={"b": 1000, "c": 4}))
    assert found["b"]["epochs"] == pytest.approx(4)
    assert found["c"]["share"] == pytest.approx(2 * found["a"]["share"])


def test_temperature_lifts_small_domains() -> None:
    """At temperature 2 shares go with the square root."""
    found = mix({"a": 10_000, "b": 2_500}, MixConfig(temperature=2))
    assert found["a"]["share"] == pytest.approx(2 / 3)


def test_a_weight_without_documents_is_shown() -> None:
    """A misspelt domain appears with no tokens."""
    assert mix({"poetry": 10}, MixConfig(weights={"poety": 2}))["poety"]["tokens"] == 0


@given(DOMAINS, WEIGHTS, st.sampled_from([0.5, 1, 5]), st.sampled_from([0.5, 1, 4]))
@example({"a": 1, "b": 89_701_721}, {}, 0.5, 4)  # the small one once got nothing, by rounding
def test_shares_sum_to_one_and_nothing_passes_its_bound(
    tokens: dict[str, int], weights: dict[str, float], temperature: float, max_epochs: float
) -> None:
    """For any corpus: exact bookkeeping, the bound holds, and one pass is as long as the corpus if it can be."""
    config = MixConfig(weights=weights, temperature=temperature, max_epochs=max_epochs)
    found = mix(tokens, config)
    taking_part = [domain for domain, row in found.items() if row["share"]]
    assert taking_part == [d for d in sorted(tokens) if tokens[d] and weights.get(d, 1)]
    drawn = {domain: row["epochs"] * row["tokens"] for domain, row in found.items()}
    for domain in taking_part:
        assert found[domain]["epochs"] <= max_epochs * (1 + 1e-9)
        assert found[domain]["share"] == pytest.approx(drawn[domain] / math.fsum(drawn.values()))
    if taking_part:
        total = sum(tokens[domain] for domain in taking_part)
        assert math.fsum(row["share"] for row in found.values()) == pytest.approx(1)
        assert math.fsum(drawn.values()) == pytest.approx(min(max_epochs, 1) * total)
    assert mix(dict(reversed(tokens.items())), config) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"web": -1}}, "mix.weights.web: expected a number of 0 or more, got -1"),
        ({"weights": {"web": math.nan}}, "mix.weights.web"),
        ({"temperature": 0.01}, "mix.temperature: expected a number of 0.1 or more, got 0.01"),
        ({"max_epochs": math.inf}, "mix.max_epochs"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    """Each error names its key, what is expected and what came."""
    with pytest.raises(ConfigError, match=message):
        MixConfig(**options)
