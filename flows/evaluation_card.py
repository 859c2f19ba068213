"""The evaluation card: a model beside the release before it, domain by domain, and the verdict. Pure."""

from collections.abc import Mapping
from typing import Any

from flows.markdown import PICTURE_WIDTH, folded, image, page, paragraph, plain, signed, table
from flows.training_card import MAX_ROWS, saved
from pipeline import charts
from pipeline.charts import Change
from pipeline.display import DASH, clip, fixed, number
from pipeline.svg import Panel, sheet

MAX_DOMAINS = 16
"""Domains in the picture; the table has `MAX_ROWS`."""

Row = Mapping[str, Any]


def evaluation_card(verdict: Row) -> str:
    """Markdown that shows the verdict of evaluate-release on a run, from the document that it wrote."""
    new, former = verdict["evaluation"], verdict["former"]
    old: Row = former["evaluation"] if former else {}
    title = f"{plain(verdict['run'])}: {plain(verdict['verdict'])}"
    if verdict["release"] is not None and verdict["verdict"] == "promoted":
        title += f" as release {number(verdict['release'])}"
    return page(
        [
            f"# {title}",
            paragraph(clip(verdict["why"][:1].upper() + verdict["why"][1:], 800)),
            _figures(verdict, new, old),
            "## Bits per byte on held-out text" if new else "",
            _picture(new, old),
            _domains(new, old),
            folded("What was compared", _facts(verdict)),
        ]
    )


def change(new: float | None, old: float | None) -> str:
    """How much more or less the new figure is, with its sign."""
    if new is None or not old:
        return DASH
    return f"{signed(100 * (new - old) / old, 1)} %"


def _figures(verdict: Row, new: Row, old: Row) -> str:
    figures = {"bits per byte": f"**{fixed(new.get('bits_per_byte'), 3)}**"}
    if verdict["former"]:
        figures[f"release {number(verdict['former']['release'])}"] = fixed(
            old.get("bits_per_byte"), 3
        )
        figures["change"] = change(new.get("bits_per_byte"), old.get("bits_per_byte"))
    figures |= {
        "unigram": fixed(new.get("unigram_bits_per_byte"), 3),
        "saved": saved(new),
        "loss": fixed(new.get("loss"), 3),
        "step": number(verdict["step"]),
        "tokens scored": number(new.get("tokens")),
    }
    return table(list(figures), [list(figures.values())], "r" * len(figures))


def _ranked(new: Row) -> list[str]:
    domains = new.get("domains", {})
    return sorted(domains, key=lambda name: (-(domains[name].get("bytes") or 0), name))


def _of(evaluation: Row, domain: str) -> float | None:
    return evaluation.get("domains", {}).get(domain, {}).get("bits_per_byte")


def _picture(new: Row, old: Row) -> str:
    rows = [
        Change(
            label=name,
            new=new["domains"][name]["bits_per_byte"],
            old=_of(old, name),
            baseline=new["domains"][name].get("unigram_bits_per_byte", float("nan")),
            figures=fixed(new["domains"][name]["bits_per_byte"], 3),
        )
        for name in _ranked(new)[:MAX_DOMAINS]
    ]
    words = "bits per byte of each domain: this model, the release before it, a unigram model; less is better"
    legend = [("dot kept", "this model")]
    if old:
        legend = [("dot kept", "better"), ("dot dropped", "worse"), ("ring", "former release")]
    panel = Panel(picture=charts.changes(rows, "Bits per byte"), left=120, right=56)
    drawn = sheet(
        [panel],
        title="Bits per byte",
        description=words,
        width=PICTURE_WIDTH,
        legend=[*legend, ("mark", "unigram model")],
    )
    return image(drawn, words)


def _domains(new: Row, old: Row) -> str:
    names = _ranked(new)
    heads = ["domain", "bits per byte", "unigram", "saved", "tokens scored"]
    if old:
        heads[2:2] = ["former", "change"]
    lines = []
    for name in names[:MAX_ROWS]:
        row = new["domains"][name]
        bits = row["bits_per_byte"]
        line = [plain(clip(name, 40)), fixed(bits, 3)]
        if old:
            line += [fixed(_of(old, name), 3), change(bits, _of(old, name))]
        line += [fixed(row.get("unigram_bits_per_byte"), 3), saved(row), number(row.get("tokens"))]
        lines.append(line)
    more = f"\n\nand {len(names) - MAX_ROWS} more domains" if len(names) > MAX_ROWS else ""
    return table(heads, lines, "l" + "r" * (len(heads) - 1)) + more


def _facts(verdict: Row) -> str:
    former = verdict["former"]
    facts = {
        "run": f"{plain(verdict['run'])}, hash `{plain(verdict['run_hash'])}`",
        "validation documents of": f"{plain(verdict['snapshot'])}, hash `{plain(verdict['snapshot_hash'])}`",
        "former release": f"{number(former['release'])}, run {plain(former['run'])}"
        if former
        else "none",
        "gristmill": plain(verdict["code_version"]),
    }
    return table(["", ""], [[key, value] for key, value in facts.items()])
