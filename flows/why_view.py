"""What `gristmill why` prints: the fate of a document, the diff of two texts, the cluster. Pure: facts in, lines out.

Ids, uris and texts come from anywhere, so every character that a terminal would obey is shown instead.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from flows.text_diff import Piece, fold
from pipeline.display import clip, number, percent, plural, size, visible, words

if TYPE_CHECKING:
    from rich.console import Console

DIFF_LINES = 40
"""Lines of a diff that are shown without --full."""

TEXT_LINES = 12
"""The same of a text alone."""

CLUSTER_ROWS = 20
"""Documents of a cluster that are shown; --json has all of them."""

MATCH_ROWS = 40
"""The same of a list of documents."""

ID_DIGITS = 12
"""Digits of an id in a table: enough to be given to `why` again."""

_STYLES = {
    "kept": "green",
    "dropped": "yellow",
    "duplicate": "cyan",
    "quarantined": "red",
    "forgotten": "magenta",
}

Facts = Mapping[str, Any]


def one_line(text: str) -> str:
    """A uri, an id or what a user typed as one line of visible characters."""
    return visible(text).replace("\n", "\u240a").replace("\t", "\u2409")


def show_document(console: "Console", facts: Facts, *, full: bool) -> None:
    """Everything about one document."""
    console.print(_headline(facts), soft_wrap=True)
    console.print(_about(facts))
    _show_texts(console, facts, full=full)
    if facts["cluster"]["documents"] > 1:
        console.print()
        _show_cluster(console, facts, full=full)
    notes = [*facts["notes"]]
    if facts["elsewhere"]:
        found = ", ".join(facts["elsewhere"])
        notes.append(f"also in {found}; look there with --snapshot")
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True)


def show_matches(console: "Console", rows: Sequence[Facts], *, full: bool) -> None:
    """Many documents, a line each."""
    shown = rows if full else rows[:MATCH_ROWS]
    table = Table(box=None, pad_edge=False)
    for name in ("fate", "by", "id", "uri", "snapshot"):
        table.add_column(name, overflow="fold", no_wrap=name in ("fate", "id", "snapshot"))
    for row in shown:
        uri = one_line(row["uri"])
        rule = words(row["rule"]) if row["rule"] else ""
        id_ = row["id"][:ID_DIGITS]
        table.add_row(_fate(row["fate"]), Text(rule), Text(id_), Text(uri), row["decided_in"])
    console.print(table)
    if len(rows) > len(shown):
        console.print(f"... and {plural(len(rows) - len(shown), 'document')} more (--full, --json)")


def _fate(fate: str) -> Text:
    return Text(fate, style=_STYLES.get(fate, ""))


def _headline(facts: Facts) -> Text:
    line = Text.assemble(
        (one_line(facts["uri"]), "bold"), "  ", (facts["fate"], f"bold {_STYLES[facts['fate']]}")
    )
    representative = facts["representative"]
    if facts["fate"] == "duplicate" and representative:
        line.append(f" of {one_line(representative['uri'])}")
    elif facts["rule"] and facts["fate"] != "forgotten":
        line.append(f" by {facts['rule']}")
    return line


def _about(facts: Facts) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")

    def row(name: str, *lines: str | None) -> None:
        if said := [line for line in lines if line]:
            grid.add_row(name, Text(visible("\n".join(said))))

    row("id", facts["id"])
    row("source", f"{one_line(facts['source'])}, domain {one_line(facts['domain'])}")
    decided = f"{facts['fate']} in {facts['decided_in']}"
    if facts["rule"]:
        decided += f" by stage {facts['stage']}, rule {facts['rule']}"
    detail = facts["detail"] and one_line(facts["detail"])
    row("fate", decided, facts["meaning"], detail)
    before = [f"{old['fate']} in {old['decided_in']}" for old in facts["history"][:-1]]
    row("before that", ", ".join(before))
    if kept := facts["kept"]:
        _add_kept(row, facts, kept)
    if where := facts["quarantine"]:
        at = f", {where['unit']} {one_line(where['at'])}" if where["unit"] else ""
        row("file", one_line(where["file"]) + at)
    if representative := facts["representative"]:
        _add_representative(row, facts, representative)
    return grid


def _add_kept(row: Any, facts: Facts, kept: Facts) -> None:
    language = f"language {kept['lang']} ({kept['lang_score']:.2f})" if kept["lang"] else ""
    amount = [size(kept["num_bytes"])]
    if kept["num_tokens"] is not None:
        amount.append(plural(kept["num_tokens"], "token"))
    row("text", ", ".join(amount), f"content hash {kept['content_hash']}")
    toxicity = f"toxicity {kept['toxicity']:.3f}"
    row("scores", ", ".join(filter(None, (toxicity, language))))
    row("licence", one_line(kept["license"]))
    row("split", kept["split"])
    since, until = kept["since"], facts["searched"]
    row("snapshots", since if since == until else f"{since} to {until}")
    row("shard", f"{kept['shard']}, row {number(kept['row'])}")
    row("trained in", ", ".join(map(one_line, kept["trained_on_by"])))
    row("judged", ", ".join(map(one_line, kept["validated_on_by"])))
    if stands_for := facts["stands_for"]:
        kinds = sorted({words(other["rule"]) for other in stands_for})
        row("stands for", f"{plural(len(stands_for), 'duplicate')} ({', '.join(kinds)})")


def _add_representative(row: Any, facts: Facts, representative: Facts) -> None:
    chain = representative["chain"]
    for name, link in zip(["duplicate of", *["and that of"] * len(chain)], chain, strict=False):
        fate = link["fate"] if link["fate"] == "kept" else f"{link['fate']} later"
        row(name, one_line(link["uri"]), f"{link['id']}, source {one_line(link['source'])}, {fate}")
    if representative["jaccard"] is not None:
        row(
            "the pair",
            f"Jaccard {representative['jaccard']:.3f}, containment {representative['containment']:.3f}",
        )


# --- texts -------------------------------------------------------------------------------------


def _show_texts(console: "Console", facts: Facts, *, full: bool) -> None:
    text, diff = facts["text"], facts["diff"]
    if text is None:
        return
    if diff is not None:
        console.print()
        console.print(_diff_title(diff))
        pieces = [(piece["op"], piece["text"]) for piece in diff["pieces"]]
        if any(op in ("old", "new") for op, _ in pieces):
            _show_lines(console, _marked(pieces if full else fold(pieces)), DIFF_LINES, full=full)
    elif text["text"]:
        console.print()
        origin = f" ({text['origin']})" if facts["fate"] != "kept" else ""
        console.print(Text(f"Text{visible(origin)}", style="italic"))
        shown = text["text"] if full else clip(text["text"], 4000)
        _show_lines(console, Text(visible(shown.rstrip())), TEXT_LINES, full=full)
    if text["note"]:
        console.print(f"note: {text['note']}", soft_wrap=True)


def _diff_title(diff: Facts) -> Text:
    counts = diff["words"]
    if diff["is_equal"]:
        return Text("The two texts are equal.", style="italic")
    if not any(piece["op"] in ("old", "new") for piece in diff["pieces"]):
        return Text("The two texts have the same words; white space differs.", style="italic")
    if not counts["old"] and not counts["new"]:
        return Text("The two texts have the same words; signs differ.", style="italic")
    share = percent(counts["same"], sum(counts.values()))
    title = Text(f"{share} of the words are the same; ", style="italic")
    for kind, where in (("old", "in the kept one alone"), ("new", "in this one alone")):
        if counts[kind]:
            opening, closing, style = _CHANGES[kind]
            title.append(f"{opening}{number(counts[kind])} {where}{closing}", style)
            title.append(", ")
    title.right_crop(2)
    return title


_CHANGES = {"old": ("[-", "-]", "red"), "new": ("{+", "+}", "green")}
"""Marks around a change, which also a pipe shows, and its colour."""


def _marked(pieces: Iterable[Piece]) -> Text:
    text = Text()
    for kind, piece in pieces:
        if kind == "skip":
            if text.plain and not text.plain.endswith((" ", "\n")):
                text.append(" ")
            text.append(f"... {piece} ...", "dim")
            text.append(" ")
            continue
        shown = visible(piece)
        if kind == "same":
            text.append(shown)
            continue
        opening, closing, style = _CHANGES[kind]
        body = shown.rstrip()
        text.append(f"{opening}{body}{closing}", style)
        text.append(shown[len(body) :])
    text.rstrip()
    return text


def _show_lines(console: "Console", text: Text, most: int, *, full: bool) -> None:
    """A text, indented, of at most so many lines unless all are asked for."""
    lines = list(text.wrap(console, max(20, console.width - 2), tab_size=4))
    shown = lines if full or len(lines) <= most + 1 else lines[:most]
    for line in shown:
        line.rstrip()
        console.print(Text.assemble("  ", line), soft_wrap=True)
    if len(lines) > len(shown):
        left = plural(len(lines) - len(shown), "more line")
        console.print(Text(f"  ... {left}; --full shows all", style="dim"))


# --- cluster -----------------------------------------------------------------------------------


def _show_cluster(console: "Console", facts: Facts, *, full: bool) -> None:
    cluster = facts["cluster"]
    members = cluster["members"]
    at_least = "at least " if cluster["cut_at"] else ""
    title = f"Cluster of {at_least}{plural(cluster['documents'], 'document')}"
    counts = Counter(member["fate"] for member in members)
    console.print(f"{title}: {', '.join(f'{counts[f]:,} {f}' for f in _STYLES if counts[f])}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    table.add_column("fate", no_wrap=True)
    table.add_column("similarity", no_wrap=True, justify="right")
    table.add_column("rule", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("uri", overflow="fold")
    for member in _chosen(members, facts["id"], full=full):
        is_it = member["id"] == facts["id"]
        fate = _fate(member["fate"])
        fate.pad_left(2 * min(member["depth"], 4))
        similarity = "" if member["similarity"] is None else f"{member['similarity']:.3f}"
        table.add_row(
            Text(">" if is_it else ""),
            fate,
            similarity,
            Text(words(member["rule"]) if member["rule"] else ""),
            Text(member["id"][:ID_DIGITS]),
            Text(one_line(member["uri"]), style="bold" if is_it else ""),
        )
    console.print(table)
    left = len(members) - table.row_count
    if left > 0:
        console.print(f"... and {plural(left, 'document')} more (--full, --json)")


def _chosen(members: Sequence[Facts], id_: str, *, full: bool) -> list[Facts]:
    """The first rows, and that of the document asked for."""
    if full or len(members) <= CLUSTER_ROWS:
        return list(members)
    first = list(members[:CLUSTER_ROWS])
    if not any(member["id"] == id_ for member in first):
        first[-1] = next(member for member in members if member["id"] == id_)
    return first
