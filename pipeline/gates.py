"""Gates between snapshots: figures of a new snapshot against limits and against its parent.

A snapshot that fails one is published as `quarantined`: it can be inspected, and nothing trains on it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.errors import ConfigError

_ENOUGH = 20  # documents from which a share says something

_KEYS = {
    "documents": "min_documents",
    "quarantined share": "max_quarantined",
    "removed share": "max_removed",
    "change of the removed share": "max_removed_change",
    "domain drift": "max_domain_drift",
    "loss of bytes per token": "max_bytes_per_token_loss",
    "planted duplicates found": "min_planted_found",
}
"""Which setting is a gate's limit."""

_SHARES = (
    "max_quarantined",
    "max_removed",
    "max_removed_change",
    "max_domain_drift",
    "min_planted_found",
)


@dataclass(frozen=True, kw_only=True)
class GatesConfig:
    """Limits that a snapshot has to keep to be promoted."""

    enabled: bool = True
    """Check at all; without gates every snapshot is promoted."""
    min_documents: int = 1
    """Documents that the corpus must hold, published ones included: a night without anything worth keeping is no fault."""
    max_quarantined: float = 0.2
    """Share of unreadable records allowed in a domain (of those with 20 records or more)."""
    max_removed: float = 0.95
    """Share of a domain that dropping and duplicates together may remove (of those with 20 documents or more). Exact
    copies of published documents count neither here nor in the change: a file that has grown is read again whole."""
    max_removed_change: float = 0.3
    """How far a domain's removed share may lie from that in the parent snapshot, absolute."""
    max_domain_drift: float = 0.2
    """Jensen-Shannon divergence in bits between the domain shares (by bytes) of the corpus and of its parent; 0.31 where
    a corpus of one domain takes in as much of another."""
    max_bytes_per_token_loss: float = 0.2
    """Relative loss of bytes per token in a domain (of 20 new documents or more) against the parent, from which the
    tokenizer no longer fits."""
    min_planted_found: float = 0.9
    """Share of the near-duplicates that a build plants to be found again (of those, 20 or more, that its bands find with
    probability 0.9999: chance misses a tenth of them once in 10^8 builds)."""

    def __post_init__(self) -> None:
        if self.min_documents < 0:
            raise ConfigError(f"gates.min_documents: expected 0 or more, got {self.min_documents}")
        if not self.max_bytes_per_token_loss >= 0:
            raise ConfigError(
                f"gates.max_bytes_per_token_loss: expected 0 or more, got {self.max_bytes_per_token_loss}"
            )
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"gates.{name}: expected a number in [0, 1], got {getattr(self, name)}"
                )


def check_gates(
    documents: int,
    funnel: dict[str, dict[str, int]],
    bytes_by_domain: dict[str, int],
    bytes_per_token: dict[str, float],
    parent_funnel: dict[str, dict[str, int]],
    parent_bytes_by_domain: dict[str, int],
    parent_bytes_per_token: dict[str, float],
    config: GatesConfig,
    *,
    known: Mapping[str, dict[str, int]] | None = None,
    recall: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Figures, limits and verdicts: `{name, value, limit, passed, detail}` each. Parent figures are empty at first.

    `documents` and `bytes_by_domain` are those of the whole corpus, `funnel` and `bytes_per_token` of what is new.
    `known` are the exact copies of documents published before by domain, among the `new` documents and the `parent`'s;
    `recall` is what `recall.measure` found, {} if near-duplicates were not looked for.
    """
    if not config.enabled:
        return []
    unknown = _without(funnel, (known or {}).get("new", {}))
    parent_unknown = _without(parent_funnel, (known or {}).get("parent", {}))
    enough = documents >= config.min_documents
    gates = [_gate("documents", documents, config.min_documents, enough, "at least this many")]

    quarantined = _shares(funnel, ("quarantined",), ("read",))
    gates.append(_worst("quarantined share", quarantined, config.max_quarantined))

    removed = _shares(unknown, ("dropped", "duplicate"), ("kept", "dropped", "duplicate"))
    gates.append(_worst("removed share", removed, config.max_removed))

    before = _shares(parent_unknown, ("dropped", "duplicate"), ("kept", "dropped", "duplicate"))
    changes = {
        domain: abs(removed[domain] - before[domain]) for domain in removed if domain in before
    }
    if changes:
        gates.append(_worst("change of the removed share", changes, config.max_removed_change))

    if parent_bytes_by_domain and bytes_by_domain:
        drift = jensen_shannon(bytes_by_domain, parent_bytes_by_domain)
        passed = drift <= config.max_domain_drift
        gates.append(
            _gate(
                "domain drift",
                drift,
                config.max_domain_drift,
                passed,
                "bits, corpus against parent",
            )
        )
    losses = {
        domain: 1 - bytes_per_token[domain] / parent_bytes_per_token[domain]
        for domain in bytes_per_token
        if parent_bytes_per_token.get(domain) and funnel[domain]["kept"] >= _ENOUGH
    }
    if losses:
        gates.append(_worst("loss of bytes per token", losses, config.max_bytes_per_token_loss))
    sure = (recall or {}).get("sure", {"planted": 0})
    if sure["planted"] >= _ENOUGH:
        found = sure["found"] / sure["planted"]
        passed = found >= config.min_planted_found
        detail = f"{sure['found']} of {sure['planted']} that no bands miss by chance"
        gates.append(
            _gate("planted duplicates found", found, config.min_planted_found, passed, detail)
        )
    return gates


def override(gate: Mapping[str, Any]) -> str:
    """The setting that lets the same snapshot pass a gate it failed, such as "gates.max_removed=0.97"."""
    key, value = _KEYS[gate["name"]], gate["value"]
    if key == "min_documents":
        return f"gates.{key}={int(value)}"
    if key == "min_planted_found":
        return f"gates.{key}={max(0.0, math.ceil(value * 100 - 1) / 100):g}"
    # In whole percents, and above the value, which is rounded.
    return f"gates.{key}={min(1.0, math.floor(value * 100 + 1) / 100):g}"


def jensen_shannon(p: dict[str, int], q: dict[str, int]) -> float:
    """Jensen-Shannon divergence in bits of two count vectors (Lin 1991): 0 for equal shares, 1 for disjoint ones."""
    total_p, total_q = sum(p.values()) or 1, sum(q.values()) or 1
    divergence = 0.0
    for key in sorted(p.keys() | q.keys()):
        share_p, share_q = p.get(key, 0) / total_p, q.get(key, 0) / total_q
        middle = (share_p + share_q) / 2
        divergence += sum(x * math.log2(x / middle) / 2 for x in (share_p, share_q) if x > 0)
    return min(max(divergence, 0.0), 1.0)  # rounding; a limit of 1 always holds


def _without(
    funnel: dict[str, dict[str, int]], copies: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """The funnel as if these duplicates had not been read."""
    return {
        domain: counts | {key: counts[key] - copies.get(domain, 0) for key in ("read", "duplicate")}
        for domain, counts in funnel.items()
    }


def _shares(
    funnel: dict[str, dict[str, int]], part: tuple[str, ...], whole: tuple[str, ...]
) -> dict[str, float]:
    shares = {}
    for domain, counts in funnel.items():
        total = sum(counts[name] for name in whole)
        if total >= _ENOUGH:
            shares[domain] = sum(counts[name] for name in part) / total
    return shares


def _worst(name: str, values: dict[str, float], limit: float) -> dict[str, Any]:
    domain, value = max(
        sorted(values.items()), key=lambda item: item[1], default=("no domain", 0.0)
    )
    return _gate(name, value, limit, value <= limit, f"highest in {domain}")


def _gate(name: str, value: float, limit: float, passed: bool, detail: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 6),
        "limit": limit,
        "passed": bool(passed),
        "detail": detail,
    }
