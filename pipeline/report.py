"""The report of a snapshot and of the run trained on it: one self-contained HTML page.

`gristmill run` and `inspect --report` write it. The page needs no network, runs no script, and reads what it shows
from the manifest, from a few sampled texts, and from the run's metrics. Everything printed passes through
`display.visible` and Jinja's autoescape; its content security policy forbids what slipped through all the same.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline import charts, display
from pipeline.charts import FATES, Curve, Step
from pipeline.display import number, percent, plural, short, size, words

Row = dict[str, Any]

SAMPLES_A_RULE = 3
"""Dropped texts shown under each rule."""
MAX_PANELS = 12
"""Domains that get a picture of their own; tables list them all."""
MAX_ROWS = 200
"""Inputs and shards listed one by one."""
SAMPLE_CHARACTERS = 700
"""Length of a text shown as a sample."""


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
        "funnel": charts.funnel(
            [(row["name"], row["fates"]) for row in domains if row["fates"]["read"]]
        ),
        "mill": _mill(summary, _totals(manifest)),
        "rules": _rules(summary, rejects),
        "duplicates": [
            _duplicate(pair) for pair in sorted(duplicates, key=_by_similarity)[:MAX_PANELS]
        ],
        "similarity": _histogram(
            (summary.get("near_duplicates") or {}).get("histogram"), "Similarity of near-duplicates"
        ),
        "lengths": _panels(summary.get("lengths"), domains, size, "Bytes a document"),
        "toxicity": _panels(summary.get("toxicity"), domains, number, "Toxicity score"),
        "languages": _languages(domains),
        "samples": _kept_samples(samples, domains),
        "training": _training(run, domains) if run else None,
        "recipe": display.toml_text(manifest.get("recipe") or {}),
        "licences": _licences(manifest),
        "inputs": (manifest.get("inputs") or [])[:MAX_ROWS],
        "shards": _shards(manifest),
    }
    view["figures"] = _figures(view)
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
        display.clip,
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


def _mill(summary: Row, totals: Mapping[str, int]) -> Markup | None:
    steps = [
        Step(
            name=words(stage["name"]),
            documents_in=stage["documents_in"],
            documents_out=stage["documents_out"],
            fate=_fate_of_stage(stage["name"]),
        )
        for stage in summary.get("stages") or []
    ]
    return charts.mill(steps) if steps and totals["read"] else None


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


def _training(run: Row, domains: Sequence[Row]) -> Row:
    """Curves, the last evaluation domain by domain, and texts by step."""
    metrics, evaluations = run.get("metrics") or [], run.get("evaluations") or []
    loss = [(row["step"], row["loss"]) for row in metrics if row.get("loss") is not None]
    loss_curves = [
        Curve(name="loss of each step", points=loss, look="raw"),
        Curve(name="smoothed", points=charts.smooth(loss), look="kept"),
    ]
    last = (evaluations[-1].get("domains") or {}) if evaluations else {}
    order = [domain["name"] for domain in domains if domain["name"] in last]
    order += sorted(set(last) - set(order))
    tops = [
        figures.get(key)
        for figures in last.values()
        for key in ("bits_per_byte", "unigram_bits_per_byte")
    ]
    top = max((value for value in tops if value is not None and math.isfinite(value)), default=None)
    rates = sorted(row["tokens_per_s"] for row in metrics if row.get("tokens_per_s"))
    texts: dict[int, list[Row]] = defaultdict(list)
    for text in run.get("samples") or []:
        texts[text["step"]].append(_continuation(text))
    return {
        "name": run.get("name", ""),
        "snapshot": run.get("snapshot", ""),
        "steps": metrics[-1]["step"] if metrics else 0,
        "tokens": metrics[-1].get("tokens") if metrics else None,
        "tokens_per_s": rates[len(rates) // 2] if rates else None,
        "last_loss": loss[-1][1] if loss else None,
        "loss": charts.lines(loss_curves, title="Training loss, nats per token", height=200)
        if loss
        else None,
        "panels": [_bits_panel(name, evaluations, top) for name in order[:MAX_PANELS]],
        "final": [_final(name, last[name]) for name in order],
        "bits_per_byte": evaluations[-1].get("bits_per_byte") if evaluations else None,
        "unigram": _weighted(last, "unigram_bits_per_byte"),
        "texts": [{"step": step, "texts": texts[step]} for step in sorted(texts, reverse=True)][
            :MAX_PANELS
        ],
        "config": display.toml_text(run.get("config") or {}),
    }


def _continuation(text: Row) -> Row:
    """Split a generated text into its prompt and what the model added."""
    prompt, whole = (
        text.get("prompt") or "",
        display.clip(text.get("text") or "", SAMPLE_CHARACTERS),
    )
    return {"prompt": prompt, "rest": whole.removeprefix(prompt)}


def _bits_panel(name: str, evaluations: Sequence[Row], top: float | None) -> Row:
    def curve(key: str, label: str, look: str) -> Curve:
        points = [
            (row["step"], row["domains"][name][key])
            for row in evaluations
            if (row.get("domains") or {}).get(name, {}).get(key) is not None
        ]
        return Curve(name=label, points=points, look=look)

    curves = [
        curve("unigram_bits_per_byte", "unigram", "baseline"),
        curve("bits_per_byte", "validation", "kept"),
    ]
    picture = charts.lines(
        curves, title=f"Bits per byte on held-out text, {name}", height=96, from_zero=True, top=top
    )
    return {"picture": picture, **_final(name, evaluations[-1]["domains"][name])}


def _final(name: str, figures: Row) -> Row:
    bits, unigram = figures.get("bits_per_byte"), figures.get("unigram_bits_per_byte")
    row = {
        "name": name,
        "loss": None,
        "tokens": None,
        "bits_per_byte": None,
        "unigram_bits_per_byte": None,
        **figures,
    }
    return {**row, "ratio": bits / unigram if bits is not None and unigram else None}


def _weighted(domains: Mapping[str, Row], key: str) -> float | None:
    """Mean of a figure over domains, by their bytes."""
    rows = [(row[key], row.get("bytes", 0)) for row in domains.values() if row.get(key) is not None]
    total = sum(weight for _, weight in rows)
    return sum(value * weight for value, weight in rows) / total if total else None


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
            f"a unigram model needs {number(training['unigram'])}" if training["unigram"] else ""
        )
        figures.append((number(training["bits_per_byte"]), "bits per byte, held out", against))
    return figures
