"""How much of each domain a training run draws: weights, temperature, and a bound on repetition.

Nothing is copied or thrown away: shards hold every kept document once, and the mix says how often training goes through
a domain. It is computed from the tokens of the whole corpus and stored in the manifest.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Domain mixture for training."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    weights: Mapping[str, float] = field(default_factory=dict)
    """Factor on each domain's share; 1 where a domain is not named, 0 leaves it out of training."""
    temperature: float = 1.0
    """Shares go with tokens^(1 / temperature): 1 as the corpus is, larger lifts small domains (arXiv:1907.05019)."""
    max_epochs: float = 4.0
    """Times that training goes through a domain at most; up to 4 cost almost nothing (arXiv:2305.16264)."""

    def __post_init__(self) -> None:
        for domain, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(
                    f"mix.weights.{domain}: expected a number of 0 or more, got {weight}"
                )
        # Below 0.1 the power of a large corpus leaves the range of floats.
        if not (math.isfinite(self.temperature) and self.temperature >= 0.1):
            raise ConfigError(
                f"mix.temperature: expected a number of 0.1 or more, got {self.temperature}"
            )
        if not (math.isfinite(self.max_epochs) and self.max_epochs > 0):
            raise ConfigError(f"mix.max_epochs: expected a number above 0, got {self.max_epochs}")


def mix(tokens_by_domain: Mapping[str, int], config: MixConfig) -> dict[str, dict[str, float]]:
    """Give each domain's `tokens`, `weight`, `share` of training and `epochs` (passes over it), sorted by domain.

    One pass over the mix is as long as the tokens of the domains that take part. Domains that would be repeated more
    than `max_epochs` times stay at that, and the others take what is left in proportion; shares sum to 1. A weight of a
    domain that the corpus does not hold appears with 0 tokens, so that a misspelt name is seen.
    """
    domains = sorted({*tokens_by_domain, *config.weights})
    tokens = {domain: tokens_by_domain.get(domain, 0) for domain in domains}
    weights = {domain: float(config.weights.get(domain, 1.0)) for domain in domains}
    wanted = {
        domain: weights[domain] * tokens[domain] ** (1 / config.temperature)
        for domain in domains
        if tokens[domain] and weights[domain]
    }
    limits = {domain: config.max_epochs * tokens[domain] for domain in wanted}
    drawn = _fill(wanted, limits, sum(tokens[domain] for domain in wanted))
    total = math.fsum(drawn.values())
    return {
        domain: {
            "tokens": tokens[domain],
            "weight": weights[domain],
            "share": drawn.get(domain, 0.0) / total if total else 0.0,
            "epochs": drawn[domain] / tokens[domain] if domain in drawn else 0.0,
        }
        for domain in domains
    }


def _fill(wanted: dict[str, float], limits: dict[str, float], total: float) -> dict[str, float]:
    """Share `total` out in proportion to `wanted`, none above its limit (water filling); less if all are at theirs."""
    # Whoever reaches its limit first relative to its wish is filled first.
    order = sorted(wanted, key=lambda domain: (limits[domain] / wanted[domain], domain))
    drawn: dict[str, float] = {}
    for index, domain in enumerate(order):
        left = max(total - math.fsum(drawn.values()), 0.0)
        level = left / math.fsum(wanted[other] for other in order[index:])
        if level * wanted[domain] < limits[domain]:
            # From here on nobody reaches a limit. Each share comes from the level, never from what is left after
            # larger ones: a domain of one token beside 90 million would round to nothing.
            return drawn | {other: level * wanted[other] for other in order[index:]}
        drawn[domain] = limits[domain]
    return drawn
