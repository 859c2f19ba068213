"""The report of a snapshot and of the run trained on it: one self-contained HTML page.

`gristmill run` and `inspect --report` write it. The page needs no network, runs no script, and reads what it shows
from the manifest, from a few sampled texts, and from the run's metrics. Everything printed passes through
`display.visible` and Jinja's autoescape; its content security policy forbids what slipped through all the same.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from pipeline import charts, display, skipped
from pipeline.charts import FATES
from pipeline.display import binary_size, fixed, number, percent, plural, short, size, words
from pipeline.ledger import REJECT_CHARACTERS
from pipeline.recall_view import guard_in_words, in_words, recall_picture
from pipeline.run_view import MAX_PANELS, SAMPLE_CHARACTERS, Row, run_view
from storage.times import moment

SAMPLES_A_RULE = 3
"""Dropped texts shown under each rule."""
MAX_ROWS = 200
"""Inputs and licences listed one by one."""

_STAGES = (
    "read",
    "exact_duplicates",
    "quality",
    "language",
    "toxicity",
    "decontaminate",
    "near_duplicates",
)
"""Stages that take documents out, in their order; others come last."""


def render_report(
    *,
    manifest: Row,
    rejects: Sequence[Row],
    samples: Sequence[Row],
    duplicates: Sequence[Row],
    run: Row | None,
) -> str:
    """Return the page as HTML, a pure function of its arguments.

    `manifest` is `Manifest.to_dict()`; `rejects` rows of its rejects shards; `samples` kept documents (domain, uri,
    text); `duplicates` pairs (uri_a, text_a, uri_b, text_b, similarity, rule), b being the kept one; `run` what
    training left (name, config, metrics, evaluations, samples, snapshot), None before any. A section without figures
    is left out. Long lists and texts are cut, and say so, so the page's size is bounded by its rules and domains.
    """
    sections = ("tokenizer", "mix", "pii", "normalize", "near_duplicates")
    summary = {**{key: {} for key in sections}, **manifest["summary"]}
    domains = _domains(manifest)
    skips = skipped.in_summary(summary)
    view = {
        "manifest": manifest,
        "summary": summary,
        "ref": f"{manifest['name']}@{manifest['version']}",
        "totals": _totals(manifest),
        "domains": domains,
        "funnel": charts.funnel([(row["name"], row["fates"]) for row in _read(domains)]),
        "flow": _flow(summary, domains),
        "skipped": sorted(skips, key=lambda part: -part.records)[:MAX_ROWS],
        "skipped_words": skipped.in_words(skips),
        "flow_shown": _named_of(domains),
        "rules": _rules(summary, rejects),
        "duplicates": _pairs(duplicates),
        "pairs_shown": _pairs_shown(summary, min(len(duplicates), MAX_PANELS)),
        "similarity": _similarity(summary),
        "recall": _recall(summary),
        "guard": guard_in_words(summary["near_duplicates"]),
        "lengths": (lengths := _lengths(domains))[:MAX_PANELS],
        "lengths_shown": _domains_shown(lengths),
        "toxicity": (toxicity := _toxicity(domains))[:MAX_PANELS],
        "toxicity_shown": _domains_shown(toxicity),
        "languages": _languages(domains),
        "samples": _kept_samples(samples, domains),
        "samples_shown": _samples_shown(samples, domains),
        "training": run_view(run, [domain["name"] for domain in domains]) if run else None,
        "recipe": display.toml_text(manifest["recipe"]),
        "sources": _sources(manifest),
        "licences": _licences(domains),
        "shards": _shards(manifest),
    }
    view["figures"] = _figures(view)
    view["lede"] = _lede(view)
    view["most_removed"] = max((rule["documents"] for rule in view["rules"]), default=0)
    return _template().render(view)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = [display.duration, moment, fixed, number, percent, plural, short, size, words]
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals.update(bar=charts.bar, fates=FATES, rows_at_most=MAX_ROWS)
    return environment.get_template("report.html.jinja")


def _shown(value: Any) -> Any:
    """Jinja calls this on every value that a template prints, before it escapes it."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else display.visible(str(value))


def _totals(manifest: Row) -> Counter[str]:
    totals: Counter[str] = Counter(dict.fromkeys(("read", *FATES), 0))
    for counts in manifest["funnel"].values():
        totals.update(counts)
    return totals


def _domains(manifest: Row) -> list[Row]:
    """One row a domain, the largest first: its fates in this snapshot, its figures in the whole corpus, its mix."""
    funnel, summary = manifest["funnel"], manifest["summary"]
    corpus, mix = summary.get("domains", {}), summary.get("mix", {})
    per_token = summary.get("tokenizer", {}).get("bytes_per_token", {})
    counts = dict.fromkeys(("documents", "num_bytes", "tokens", "validation_documents"), 0)
    tables = {"languages": {}, "licenses": {}, "length_log2": [], "toxicity_tenths": []}
    rows = [
        {
            **counts,
            **tables,
            **corpus.get(name, {}),
            "name": name,
            "fates": {fate: funnel.get(name, {}).get(fate, 0) for fate in ("read", *FATES)},
            "bytes_per_token": per_token.get(name),
            "mix": mix.get(name, {"weight": None, "share": 0.0, "epochs": None}),
        }
        for name in {*funnel, *corpus}
    ]
    return sorted(rows, key=lambda row: (-row["num_bytes"], -row["fates"]["read"], row["name"]))


def _read(domains: Sequence[Row]) -> list[Row]:
    """Domains of which this snapshot read any, those that kept the most first: so ribbons of a picture cross least."""
    read = [row for row in domains if row["fates"]["read"]]
    return sorted(read, key=lambda row: -row["fates"]["kept"] / row["fates"]["read"])


def _flow(summary: Row, domains: Sequence[Row]) -> Markup | None:
    """The picture of domains and of the stages that took their documents; domains beyond some count as one."""
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    for row in summary.get("rules", []):
        taken[row["domain"]][row["stage"]] += row["documents"]
    rows: dict[str, Counter[str]] = {}
    read = _read(domains)
    named = most_telling(read, MAX_PANELS)
    others = f"{number(len(read) - len(named))} others"
    for domain in read:
        counts = Counter({_title(stage): count for stage, count in taken[domain["name"]].items()})
        counts["kept"] += domain["fates"]["kept"]
        if counts.total() != domain["fates"]["read"]:
            # Forgotten documents have no rule; then the fate is all that is known.
            counts = Counter({fate: domain["fates"][fate] for fate in FATES})
        name = domain["name"] if domain["name"] in named else others
        rows.setdefault(name, Counter()).update(counts)
    if others in rows:
        rows[others] = rows.pop(others)  # last, wherever the first of them came
    stages = _in_order({stage for counts in taken.values() for stage in counts})
    ends = {"kept": "kept"} | {_title(stage): _fate_of(stage) for stage in stages}
    ends |= {fate: fate for fate in FATES[1:]}
    used = [
        (end, fate) for end, fate in ends.items() if any(counts[end] for counts in rows.values())
    ]
    return charts.flow(rows, used) if rows else None


def _named_of(domains: Sequence[Row]) -> str:
    read = _read(domains)
    said = display.shown(len(most_telling(read, MAX_PANELS)), len(read), "domain")
    return f"{said} by name: the largest, and those that lost most" if said else ""


def most_telling(domains: Sequence[Row], most: int) -> set[str]:
    """Names of the domains that a picture of at most `most` rows shows, one of which is left for the others.

    In turn the one with the most bytes, the one that most documents were read of, and the one that lost most.
    """
    if len(domains) <= most:
        return {domain["name"] for domain in domains}
    measures: tuple[Callable[[Row], int], ...] = (
        lambda row: row["num_bytes"],
        lambda row: row["fates"]["read"],
        lambda row: row["fates"]["read"] - row["fates"]["kept"],
    )
    ranked = [sorted(domains, key=lambda row: (-of(row), row["name"])) for of in measures]
    in_turn = dict.fromkeys(row["name"] for rank in zip(*ranked, strict=True) for row in rank)
    return set(list(in_turn)[: most - 1])


def _in_order(stages: Iterable[str]) -> list[str]:
    known = {stage: i for i, stage in enumerate(_STAGES)}
    return sorted(stages, key=lambda stage: (known.get(stage, len(known)), stage))


def _title(stage: str) -> str:
    return "unusable" if stage == "read" else words(stage)


def _fate_of(stage: str) -> str:
    if stage == "read":
        return "quarantined"
    return "duplicate" if stage.endswith("_duplicates") else "dropped"


def _rules(summary: Row, rejects: Sequence[Row]) -> list[Row]:
    """Rules in the order of the stages, each with its documents by domain and a few of the texts it took out."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in summary.get("rules", []):
        found[row["stage"], row["rule"]][row["domain"]] += row["documents"]
    texts: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for reject in rejects:
        texts[reject["stage"], reject["rule"]].append(reject)
    order = _in_order({stage for stage, _ in found})
    rules = [
        {
            "order": order.index(stage),
            "stage": _title(stage),
            "rule": rule,
            "fate": _fate_of(stage),
            "documents": domains.total(),
            "shown": display.shown(
                min(len(texts[stage, rule]), SAMPLES_A_RULE), domains.total(), "document"
            ),
            "domains": sorted(domains.items(), key=lambda item: (-item[1], item[0])),
            "samples": [_sample(reject) for reject in _spread(texts[stage, rule], SAMPLES_A_RULE)],
        }
        for (stage, rule), domains in found.items()
    ]
    return sorted(rules, key=lambda row: (row["order"], -row["documents"], row["rule"]))


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows, of as many domains as possible, in their order."""
    seen: Counter[str] = Counter()
    ranked = []
    for row in rows:
        ranked.append((seen[row["domain"]], row))
        seen[row["domain"]] += 1
    return [row for _, row in sorted(ranked, key=lambda item: item[0])[:most]]


def _sample(row: Row) -> Row:
    return {**row, "text": display.clip(row["text"] or "", SAMPLE_CHARACTERS)}


def _pairs(duplicates: Sequence[Row]) -> list[Row]:
    """The most similar pairs first (containment is another measure, so it comes last), each with its difference."""
    ordered = sorted(
        duplicates,
        key=lambda row: (row["rule"] == "contained", -(row["similarity"] or 0), row["uri_a"]),
    )
    pairs = []
    for row in ordered[:MAX_PANELS]:
        removed, kept = row["text_a"] or "", row["text_b"] or ""
        # A sampled reject is the beginning of its text: that the kept one goes on is no difference.
        pieces = display.word_diff(kept, removed, cut=len(removed) >= REJECT_CHARACTERS)
        pairs.append({**row, "pieces": pieces})
    return pairs


def _pairs_shown(summary: Row, count: int) -> str:
    removed = [row for row in summary.get("rules", []) if row["stage"] == "near_duplicates"]
    return display.shown(count, sum(row["documents"] for row in removed), "removed near-duplicate")


def _similarity(summary: Row) -> Markup | None:
    """Histogram of verified pairs; position k of the counts stands for a Jaccard similarity of k/20 to (k+1)/20."""
    counts = summary.get("near_duplicates", {}).get("jaccard_twentieths", [])
    first = next((k for k, count in enumerate(counts) if count), None)
    if first is None:
        return None
    first = min(first, len(counts) // 2)
    edges = [k / 20 for k in range(first, len(counts) + 1)]
    return charts.histogram(edges, counts[first:], number, title="Similarity of near-duplicates")


def _recall(summary: Row) -> Row | None:
    """What became of the planted duplicates: in words, as a picture, and by similarity."""
    recall = summary.get("recall", {})
    said = in_words(recall)
    return {**recall, "words": said, "picture": recall_picture(recall)} if said else None


def _lengths(domains: Sequence[Row]) -> list[Row]:
    """Histograms of bytes a document over one range; position k of the counts stands for 2^k to 2^(k+1) - 1."""
    used = [k for domain in domains for k, count in enumerate(domain["length_log2"]) if count]
    if not used:
        return []
    low, high = min(used), max(used) + 1
    edges = [2**k for k in range(low, high + 1)]
    counts = {row["name"]: [*row["length_log2"], *[0] * high][low:high] for row in domains}
    return _panels(counts, edges, binary_size, "Bytes a document")


def _toxicity(domains: Sequence[Row]) -> list[Row]:
    """Histograms of the scores of kept documents in tenths."""
    counts = {row["name"]: row["toxicity_tenths"] for row in domains}
    return _panels(counts, [k / 10 for k in range(11)], number, "Toxicity scores")


def _panels(
    counts_by_domain: dict[str, list[int]],
    edges: Sequence[float],
    label: Callable[[float], str],
    title: str,
) -> list[Row]:
    return [
        {
            "name": name,
            "documents": sum(counts),
            "picture": charts.histogram(edges, counts, label, title=f"{title}, {name}"),
        }
        for name, counts in counts_by_domain.items()
        if any(counts)
    ]


def _domains_shown(panels: Sequence[Row]) -> str:
    said = display.shown(min(len(panels), MAX_PANELS), len(panels), "domain")
    return f"{said}, the largest" if said else ""


def _languages(domains: Sequence[Row]) -> list[tuple[str, int]]:
    totals: Counter[str] = Counter()
    for domain in domains:
        totals.update(domain["languages"])
    return sorted(totals.items(), key=lambda item: (-item[1], item[0]))


def _kept_samples(samples: Sequence[Row], domains: Sequence[Row]) -> list[Row]:
    order = {domain["name"]: i for i, domain in enumerate(domains)}
    chosen = _spread(samples, 2 * MAX_PANELS)
    kept = [{"order": order.get(row["domain"], len(order)), **_sample(row)} for row in chosen]
    return sorted(kept, key=lambda row: row["order"])


def _samples_shown(samples: Sequence[Row], domains: Sequence[Row]) -> str:
    of = {row["domain"] for row in _spread(samples, 2 * MAX_PANELS)}
    return display.shown(len(of), len([row for row in domains if row["documents"]]), "domain")


def _sources(manifest: Row) -> list[Row]:
    """One row a source of the recipe, with the inputs that all snapshots so far took from it."""
    inputs: dict[str, list[Row]] = defaultdict(list)
    for row in manifest["inputs"]:
        inputs[row["source"]].append(row)
    return [
        {
            "name": source["name"],
            "domain": source["domain"],
            "license": source["license"],
            "inputs": len(inputs[source["name"]]),
            "num_bytes": sum(row["num_bytes"] for row in inputs[source["name"]]),
        }
        for source in manifest["recipe"].get("sources", [])
    ]


def _licences(domains: Sequence[Row]) -> list[Row]:
    """Licences of the corpus's documents, the commonest first, each with its domains."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for domain in domains:
        for licence, documents in domain["licenses"].items():
            found[licence][domain["name"]] += documents
    rows = [
        {"licence": licence, "documents": counts.total(), "domains": sorted(counts)}
        for licence, counts in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["documents"], row["licence"]))


def _shards(manifest: Row) -> list[Row]:
    """Shards by kind: how many, rows, bytes."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for shard in manifest["shards"]:
        kind = " ".join(part for part in (shard["kind"], shard["split"]) if part)
        kinds[kind].update({"shards": 1, "rows": shard["rows"], "num_bytes": shard["num_bytes"]})
    return [{"kind": kind, **counts} for kind, counts in sorted(kinds.items())]


def _lede(view: Row) -> str:
    """The page in two or three sentences."""
    totals, training = view["totals"], view["training"]
    if not totals["read"]:
        return "This snapshot read no documents."
    said = {
        "duplicate": "repeated another one",
        "dropped": "fell to a rule",
        "quarantined": "could not be used",
        "forgotten": "were forgotten on request",
    }
    lost = [f"{number(totals[fate])} {verb}" for fate, verb in said.items() if totals[fate]]
    kept = f"{number(totals['kept'])} of them ({percent(totals['kept'], totals['read'])})"
    text = f"This snapshot read {plural(totals['read'], 'document')} and kept {kept}."
    if lost:
        listed = f"{', '.join(lost[:-1])} and {lost[-1]}" if len(lost) > 1 else lost[0]
        text += f" Of the others, {listed}."
    if training and training["bits_per_byte"] is not None and training["unigram"]:
        text += (
            f" The model trained on it predicts held-out text at {fixed(training['bits_per_byte'])}"
            f" bits per byte; token frequencies alone give {fixed(training['unigram'])}."
        )
    return text


def _figures(view: Row) -> list[tuple[str, str, str]]:
    """The headline: (figure, what it is, what to compare it with)."""
    totals, summary, training = view["totals"], view["summary"], view["training"]
    tokens, num_bytes = summary.get("tokens", {}), summary.get("text_bytes", 0)
    num_tokens = tokens.get("train", 0) + tokens.get("validation", 0)
    documents = summary.get("documents", totals["kept"])
    share = percent(totals["kept"], totals["read"])
    of_read = f"{share} of what was read" if totals["read"] else ""
    figures = [
        (short(documents), "documents in the corpus", of_read),
        (size(num_bytes), "of text", f"in {plural(len(view['domains']), 'domain')}"),
    ]
    if num_tokens:
        figures.append((short(num_tokens), "tokens", f"{fixed(num_bytes / num_tokens)} bytes each"))
    removed = totals["read"] - totals["kept"]
    by_rule = f"each under one of {plural(len(view['rules']), 'rule')}"
    figures.append((short(removed), "documents taken out", by_rule if removed else ""))
    if training and training["bits_per_byte"] is not None:
        unigram = training["unigram"]
        against = f"token frequencies alone: {fixed(unigram)}" if unigram else ""
        figures.append((fixed(training["bits_per_byte"]), "bits per byte, held out", against))
    return figures
