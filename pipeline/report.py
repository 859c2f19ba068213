"""The report of a snapshot and of the run trained on it: one self-contained HTML page.

`gristmill run` and `inspect --report` write it. The page needs no network, runs no script, and reads what it shows
from the manifest, from a few sampled texts, and from the run's metrics. Everything printed passes through
`display.visible` and Jinja's autoescape; its content security policy forbids what slipped through all the same.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline import charts, display
from pipeline.charts import FATES
from pipeline.display import binary_size, fixed, number, percent, plural, short, size, words
from pipeline.run_view import MAX_PANELS, SAMPLE_CHARACTERS, Row, run_view

SAMPLES_A_RULE = 3
"""Dropped texts shown under each rule."""
MAX_ROWS = 200
"""Inputs and shards listed one by one."""


def render_report(
    *,
    manifest: Row,
    rejects: Sequence[Row],
    samples: Sequence[Row],
    duplicates: Sequence[Row],
    run: Row | None,
) -> str:
    """Return the page as HTML, a pure function of its arguments.

    `manifest` is a snapshot's manifest as a dict; `rejects` rows of its rejects shards; `samples` kept documents
    (domain, uri, text); `duplicates` pairs (uri_a, text_a, uri_b, text_b, similarity, rule), b being the kept one;
    `run` what training left (name, config, metrics, evaluations, samples, snapshot), None before any. Figures that
    are missing leave out their section. O(length of what is shown): long lists and texts are cut, and say so.
    """
    summary = manifest.get("summary") or {}
    domains = _domains(manifest, summary)
    view = {
        "manifest": manifest,
        "summary": summary,
        "ref": f"{manifest.get('name', '?')}@{manifest.get('version', '?')}",
        "totals": _totals(manifest),
        "domains": domains,
        "funnel": charts.funnel([(row["name"], row["fates"]) for row in _read(domains)]),
        "flow": _flow(summary, domains),
        "rules": _rules(summary, rejects),
        "duplicates": [
            _duplicate(pair) for pair in sorted(duplicates, key=_by_similarity)[:MAX_PANELS]
        ],
        "similarity": _histogram(
            (summary.get("near_duplicates") or {}).get("histogram"), "Similarity of near-duplicates"
        ),
        "lengths": _panels(summary.get("lengths"), domains, binary_size, "Bytes a document"),
        "toxicity": _panels(summary.get("toxicity"), domains, number, "Toxicity score"),
        "languages": _languages(domains),
        "samples": _kept_samples(samples, domains),
        "training": run_view(run, [domain["name"] for domain in domains]) if run else None,
        "recipe": display.toml_text(manifest.get("recipe") or {}),
        "licences": _licences(manifest),
        "inputs": (manifest.get("inputs") or [])[:MAX_ROWS],
        "shards": _shards(manifest),
    }
    view["figures"] = _figures(view)
    view["lede"] = _lede(view)
    view["most_removed"] = max((rule["documents"] for rule in view["rules"]), default=0)
    return _template().render(view)


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (
        display.moment,
        display.duration,
        fixed,
        number,
        percent,
        plural,
        short,
        size,
        words,
    )
    environment.filters.update({function.__name__: function for function in shown})
    environment.globals.update(bar=charts.bar, fates=FATES, rows_at_most=MAX_ROWS)
    return environment.get_template("report.html.jinja")


def _shown(value: Any) -> Any:
    """Jinja calls this on every value that a template prints, before it escapes it."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else display.visible(str(value))


def _totals(manifest: Row) -> Counter[str]:
    totals: Counter[str] = Counter(dict.fromkeys(("read", *FATES), 0))
    for counts in (manifest.get("funnel") or {}).values():
        totals.update(counts)
    return totals


def _domains(manifest: Row, summary: Row) -> list[Row]:
    """One row a domain, the largest first: its fates in this snapshot, its size in the whole corpus, tokens, mix."""
    funnel, corpus = manifest.get("funnel") or {}, summary.get("domains") or {}
    tokenizer, mix = summary.get("tokenizer") or {}, summary.get("mix") or {}
    tokens = (summary.get("tokens") or {}).get("by_domain") or {}
    rows = [
        {
            "name": name,
            "fates": {fate: funnel.get(name, {}).get(fate, 0) for fate in ("read", *FATES)},
            "documents": corpus.get(name, {}).get("documents", 0),
            "num_bytes": corpus.get(name, {}).get("num_bytes", 0),
            "validation": corpus.get(name, {}).get("validation_documents", 0),
            "languages": corpus.get(name, {}).get("languages") or {},
            "tokens": corpus.get(name, {}).get("tokens", tokens.get(name, 0)),
            "bytes_per_token": (tokenizer.get("bytes_per_token") or {}).get(name),
            "mix": mix.get(name),
        }
        for name in {*funnel, *corpus}
    ]
    return sorted(rows, key=lambda row: (-row["num_bytes"], -row["fates"]["read"], row["name"]))


def _read(domains: Sequence[Row]) -> list[Row]:
    """Domains that this snapshot read, those that kept the most first: in a picture their ribbons cross the least."""
    read = [row for row in domains if row["fates"]["read"]]
    return sorted(read, key=lambda row: -row["fates"]["kept"] / row["fates"]["read"])


def _flow(summary: Row, domains: Sequence[Row]) -> Markup | None:
    """The picture of domains and the stages that took their documents; small domains count as one."""
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    for row in summary.get("rules") or []:
        taken[row["domain"]][row["stage"]] += row["documents"]
    stages = [stage["name"] for stage in summary.get("stages") or []]
    stages += sorted({stage for counts in taken.values() for stage in counts} - set(stages))
    ends = [("kept", "kept")] + [(words(stage), _fate_of_stage(stage)) for stage in stages]
    rows: dict[str, Counter[str]] = {}
    for i, domain in enumerate(_read(domains)):
        name = domain["name"] if i < MAX_PANELS else "other domains"
        counts = Counter({words(stage): count for stage, count in taken[domain["name"]].items()})
        counts["kept"] += domain["fates"]["kept"]
        # A manifest without rules: the fate is all that is known.
        if counts.total() != domain["fates"]["read"]:
            counts = Counter({fate: domain["fates"][fate] for fate in FATES})
        rows.setdefault(name, Counter()).update(counts)
    ends += [(fate, fate) for fate in FATES[1:]]
    used = [(end, fate) for end, fate in ends if any(counts[end] for counts in rows.values())]
    return charts.flow(rows, used) if rows else None


def _fate_of_stage(stage: str) -> str:
    if stage == "read":
        return "quarantined"
    return "duplicate" if stage in ("exact", "near") or "dup" in stage else "dropped"


def _rules(summary: Row, rejects: Sequence[Row]) -> list[Row]:
    """Rules in the order of the stages, each with its documents by domain and a few of the texts it took out."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in summary.get("rules") or []:
        found[row["stage"], row["rule"]][row["domain"]] += row["documents"]
    texts: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for reject in rejects:
        texts[reject["stage"], reject["rule"]].append(reject)
    order = [stage["name"] for stage in summary.get("stages") or []] + [stage for stage, _ in found]
    rules = [
        {
            "order": order.index(stage),
            "stage": stage,
            "rule": rule,
            "documents": domains.total(),
            "domains": sorted(domains.items(), key=lambda item: (-item[1], item[0])),
            "fate": texts[stage, rule][0]["fate"] if texts[stage, rule] else _fate_of_stage(stage),
            "samples": [_sample(reject) for reject in _spread(texts[stage, rule], SAMPLES_A_RULE)],
        }
        for (stage, rule), domains in found.items()
    ]
    return sorted(rules, key=lambda row: (row["order"], -row["documents"], row["rule"]))


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows, of as many domains as possible, in their order."""
    rank: Counter[str] = Counter()
    ranked = []
    for i, row in enumerate(rows):
        ranked.append((rank[row["domain"]], i, row))
        rank[row["domain"]] += 1
    return [row for _, _, row in sorted(ranked, key=lambda item: item[:2])[:most]]


def _sample(row: Row) -> Row:
    return {**row, "text": display.clip(row.get("text") or "", SAMPLE_CHARACTERS)}


def _by_similarity(pair: Row) -> tuple[float, str, str]:
    return (-(pair.get("similarity") or 0.0), str(pair.get("uri_a")), str(pair.get("uri_b")))


def _duplicate(pair: Row) -> Row:
    return {**pair, "pieces": display.word_diff(pair.get("text_b") or "", pair.get("text_a") or "")}


def _histogram(histogram: Row | None, title: str) -> Markup | None:
    if not histogram or not any(histogram["counts"]):
        return None
    return charts.histogram(histogram["edges"], histogram["counts"], number, title=title)


def _panels(
    histograms: Mapping[str, Row] | None, domains: Sequence[Row], label: Any, title: str
) -> list[Row]:
    panels = []
    for domain in domains:
        histogram = (histograms or {}).get(domain["name"])
        if histogram and any(histogram["counts"]) and len(panels) < MAX_PANELS:
            picture = charts.histogram(
                histogram["edges"], histogram["counts"], label, title=f"{title}, {domain['name']}"
            )
            panels.append(
                {"name": domain["name"], "documents": sum(histogram["counts"]), "picture": picture}
            )
    return panels


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


def _licences(manifest: Row) -> list[Row]:
    """One row a source of the recipe, with the inputs that all snapshots so far took from it."""
    inputs: dict[str, list[Row]] = defaultdict(list)
    for row in manifest.get("inputs") or []:
        inputs[row.get("source", "")].append(row)
    return [
        {
            "source": source.get("name") or source.get("path", ""),
            "domain": source.get("domain", ""),
            "license": source.get("license", "unknown"),
            "inputs": len(inputs[source.get("name", "")]),
            "num_bytes": sum(row["num_bytes"] for row in inputs[source.get("name", "")]),
        }
        for source in (manifest.get("recipe") or {}).get("sources") or []
    ]


def _shards(manifest: Row) -> list[Row]:
    """Shards by kind: how many, rows, bytes."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for shard in manifest.get("shards") or []:
        kind = "-".join(part for part in (shard["kind"], shard.get("split")) if part)
        kinds[kind].update({"shards": 1, "rows": shard["rows"], "num_bytes": shard["num_bytes"]})
    return [{"kind": kind, **counts} for kind, counts in sorted(kinds.items())]


def _lede(view: Row) -> str:
    """The page in three sentences."""
    totals, training = view["totals"], view["training"]
    if not totals["read"]:
        return "This snapshot read no documents."
    said = {
        "duplicate": "repeated another one",
        "dropped": "fell to a rule",
        "quarantined": "could not be used",
        "forgotten": "were forgotten on request",
    }
    kept = f"{number(totals['kept'])} of them ({percent(totals['kept'], totals['read'])})"
    text = f"This snapshot read {plural(totals['read'], 'document')} and kept {kept}."
    lost = [f"{number(totals[fate])} {verb}" for fate, verb in said.items() if totals[fate]]
    if lost:
        text += (
            " Of the others, "
            + " and ".join(part for part in (", ".join(lost[:-1]), lost[-1]) if part)
            + "."
        )
    if training and training["bits_per_byte"] is not None and training["unigram"]:
        text += (
            f" The model trained on it predicts held-out text at {fixed(training['bits_per_byte'])} bits per byte;"
            f" token frequencies alone give {fixed(training['unigram'])}."
        )
    return text


def _figures(view: Row) -> list[tuple[str, str, str]]:
    """The headline: (figure, what it is, what to compare it with)."""
    totals, summary, training = view["totals"], view["summary"], view["training"]
    corpus_kept = (summary.get("documents") or {}).get("kept", totals["kept"])
    tokens = summary.get("tokens") or {}
    num_tokens = (tokens.get("train") or 0) + (tokens.get("validation") or 0)
    num_bytes = summary.get("text_bytes") or sum(row["num_bytes"] for row in view["domains"])
    figures = [
        (
            short(corpus_kept),
            "documents in the corpus",
            f"{percent(totals['kept'], totals['read'])} of what was read",
        ),
        (size(num_bytes), "of text", f"in {plural(len(view['domains']), 'domain')}"),
    ]
    if num_tokens:
        per_token = f"{num_bytes / num_tokens:.2f} bytes a token" if num_bytes else ""
        figures.append((short(num_tokens), "tokens", per_token))
    removed = totals["read"] - totals["kept"]
    figures.append(
        (
            short(removed),
            "documents taken out",
            f"each under one of {plural(len(view['rules']), 'rule')}",
        )
    )
    if training and training["bits_per_byte"] is not None:
        against = (
            f"token frequencies alone: {fixed(training['unigram'])}" if training["unigram"] else ""
        )
        figures.append((fixed(training["bits_per_byte"]), "bits per byte, held out", against))
    return figures
