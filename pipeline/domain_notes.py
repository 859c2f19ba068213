"""What to tell of the domains that the data named: which quality profile each got by its name, and what that cost.

A source's `domain` is a choice of the recipe; a value of its `domain_field` is data, and yet it chooses thresholds.
"""

from difflib import get_close_matches

from pipeline.display import number, plural, visible
from pipeline.profiles import ALIASES, PROFILES, profile_name
from storage.snapshot import Manifest

SHOWN = 8
"""Domains of which each note names the largest."""

MANY = 100
"""Values from which a field is probably no domain; the pipeline's own corpora have a dozen domains."""

LARGE_SHARE = 0.2
"""Share of a domain's documents that its profile drops from which it is told; the shipped corpora lose less."""


def domain_notes(manifest: Manifest) -> list[str]:
    """Notes on the domains of a snapshot that came from a field of its records; none if no source has such a field."""
    sources = manifest.recipe.get("sources", [])
    fields = sorted({source["domain_field"] for source in sources if source.get("domain_field")})
    quality = manifest.recipe.get("quality", {})
    overrides = quality.get("profiles", {})
    named = {source.get("domain") for source in sources}
    read = {domain: counts["read"] for domain, counts in manifest.funnel.items()}
    found = sorted(read.keys() - named, key=lambda domain: (-read[domain], domain))
    if not fields or not found or not quality.get("enabled"):
        return []
    field = f"the field {' or '.join(map(repr, fields))}"
    chosen = {domain: profile_name(domain, overrides) for domain in found}
    notes = [
        f"{plural(len(found), 'domain')} from {field}, each judged by the quality profile of its name: "
        + _listed([_choice(domain, chosen[domain], overrides) for domain in found])
    ]
    if len(found) > MANY:
        notes[0] += (
            f"; a field with {number(len(found))} values may be no domain: remove domain_field then"
        )
    dropped = dict.fromkeys(found, 0)
    worst: dict[str, tuple[int, str]] = {}
    for row in manifest.summary.get("rules", []):
        if row["stage"] == "quality" and row["domain"] in dropped:
            dropped[row["domain"]] += row["documents"]
            worst[row["domain"]] = max(
                worst.get(row["domain"], (0, "")), (row["documents"], row["rule"])
            )
    losing = [domain for domain in found if dropped[domain] > LARGE_SHARE * read[domain]]
    if losing:
        said = [
            f"{visible(domain)} {dropped[domain] / read[domain]:.0%} of {number(read[domain])} by {chosen[domain]} "
            f"(most by {worst[domain][1]})"
            for domain in losing
        ]
        notes.append(
            f"profiles chosen by {field} dropped a large share of their documents: {_listed(said)}; if these are texts "
            'of another kind, name a profile for them: [quality] profiles = { science = "default" }'
        )
    return notes


def _choice(domain: str, profile: str, overrides: dict[str, str]) -> str:
    if domain in overrides or domain == profile:
        return f"{visible(domain)} -> {profile}"
    if profile != "default":
        return f"{visible(domain)} -> {profile} (another name of it)"
    close = get_close_matches(domain, [*PROFILES, *ALIASES], n=1)
    hint = f"; is it {close[0]}?" if close else ""
    return f"{visible(domain)} -> default (no profile has this name{hint})"


def _listed(items: list[str]) -> str:
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {number(more)} more" if more > 0 else "")
