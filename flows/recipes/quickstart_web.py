"""The quick-start corpus's slice of the web: a WARC of our own making, so that each stage has something to catch.

Pages are made of twelve short essays written for this file (`quickstart_essays.txt`), World Factbook prose, short PLOS
articles and declarations of human rights, in the frames of invented sites under `example.org` and friends. Some stand
on two sites, some are near-copies; others are spam, boilerplate, lorem ipsum, insults, test values of personal data,
mojibake, or records that are broken on purpose. Everything depends on the seed alone, so the bytes are always the same.
"""

import gzip
import html
import random
from collections.abc import Iterator
from dataclasses import dataclass

from flows.recipes.quickstart_pages import (
    Page,
    essays,
    insults,
    private_pages,
    slug,
    spam,
    thin_pages,
)
from flows.recipes.quickstart_texts import Row

SEED = 20
DATE = "2026-01-05T08:00:00Z"
"""Date of every record; the archive must not depend on when it is built."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One WARC record; `payload` is the HTTP message of a response."""

    kind: str
    url: str
    payload: bytes
    content_type: str = "application/http; msgtype=response"
    length: int | None = None
    """Content-Length to claim; None tells the truth."""


def web_archive(countries: list[Row], articles: list[Row], declarations: list[Row]) -> bytes:
    """The bytes of `web.warc.gz`: one gzip member a record, the broken ones at the end."""
    rng = random.Random(SEED)
    originals = [
        *essays(),
        *_countries(countries),
        *_articles(articles),
        *_declarations(declarations),
    ]
    pages = [
        *originals,
        *_copies(originals, rng),
        *spam(rng),
        *insults(),
        *private_pages(),
        *thin_pages(),
    ]
    rng.shuffle(pages)
    records = [_response(page.url, _frame(page)) for page in pages]
    records += [*_mojibake(originals), *_other_records()]
    info = b"software: gristmill quick-start corpus\r\nformat: WARC File Format 1.1\r\n"
    first = Record(kind="warcinfo", url="", payload=info, content_type="application/warc-fields")
    members = [
        _member(record, number)
        for number, record in enumerate([first, *records, *_broken(originals)])
    ]
    # The last member ends in the middle, as a download does that was cut off.
    return b"".join(members[:-1]) + members[-1][: len(members[-1]) // 2]


def _countries(rows: list[Row]) -> Iterator[Page]:
    for row in rows:
        facts = [
            row[key] for key in ("background", "Economy - overview", "Disputes - international")
        ]
        facts += [row[key] for key in ("Flag description", "Geography - note")]
        paragraphs = tuple(_sentence(fact) for fact in facts if len(fact) >= 80)
        if sum(map(len, paragraphs)) < 600:
            continue
        url = f"http://atlas.example.com/countries/{slug(row['title'])}.html"
        note = "Text: The World Factbook, public domain."
        yield Page(url=url, title=row["title"], paragraphs=paragraphs, site="atlas", note=note)


def _articles(rows: list[Row]) -> Iterator[Page]:
    for row in rows:
        paragraphs = tuple(part for part in row["text"].strip().split("\n\n")[1:])
        note = f"{row['authors'] or 'PLOS'} ({row['year']}), doi:{row['id']}, {row['license']}. Layout changed."
        url = f"http://journal.example.net/articles/{row['id'].rsplit('/', 1)[1]}"
        yield Page(url=url, title=row["title"], paragraphs=paragraphs, site="journal", note=note)


def _declarations(rows: list[Row]) -> Iterator[Page]:
    for row in rows:
        title, *paragraphs = row["text"].strip().split("\n")
        url = f"http://rights.example.org/{row['id']}/"
        yield Page(
            url=url, title=title, paragraphs=tuple(paragraphs), site="rights", lang=row["id"]
        )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _copies(originals: list[Page], rng: random.Random) -> Iterator[Page]:
    """Mirrors (same text, other frame), near-copies (a few words changed) and excerpts (the first half)."""
    english = [page for page in originals if page.lang == "en"]
    for page in rng.sample(english, 18):
        yield _move(page, "mirror", page.paragraphs)
    for page in rng.sample(english, 18):
        yield _move(page, "digest", tuple(_edit(paragraph, rng) for paragraph in page.paragraphs))
    for page in rng.sample([page for page in english if len(page.paragraphs) >= 4], 6):
        yield _move(page, "reader", page.paragraphs[: len(page.paragraphs) // 2])


def _move(page: Page, site: str, paragraphs: tuple[str, ...]) -> Page:
    url = f"http://{site}.example.net/{page.url.split('/', 3)[3] or 'index'}?from={page.site}"
    return Page(
        url=url, title=page.title, paragraphs=paragraphs, site=site, lang=page.lang, note=page.note
    )


def _edit(paragraph: str, rng: random.Random) -> str:
    """Change about one word in a hundred; on one paragraph in five, add a sentence."""
    words = paragraph.split(" ")
    for place in range(rng.randrange(100), len(words), 100):
        words[place] = rng.choice(("indeed", "perhaps", "often", "today", "there"))
    if rng.random() < 0.2:
        words.append("This page was revised and shortened by our editors last week.")
    return " ".join(words)


_FRAMES = {
    "mirror": ("Mirror of good pages", "Start | Newest | Random page | About this mirror"),
    "digest": (
        "The Daily Digest",
        "Politics | Sport | Weather | Puzzles | Subscribe for one coin a week",
    ),
    "reader": ("Reader", "Sign up to read the rest of this page"),
}


def _frame(page: Page) -> str:
    """The page as its site would serve it: navigation, text, small print, cookie notice."""
    name, menu = _FRAMES.get(page.site, (page.site.title(), "Home | News | Archive | Contact"))
    links = "".join(f'<li><a href="/{slug(item)}">{item}</a></li>' for item in menu.split(" | "))
    body = "\n".join(
        f"<p>{html.escape(paragraph, quote=False)}</p>" for paragraph in page.paragraphs
    )
    note = (
        f'<p class="source"><small>{html.escape(page.note, quote=False)}</small></p>\n'
        if page.note
        else ""
    )
    title = html.escape(page.title, quote=False)
    return (
        f'<!DOCTYPE html>\n<html lang="{page.lang}">\n<head><meta charset="utf-8"><title>{title} - {name}</title>\n'
        f"<style>body {{ font-family: serif; margin: 2em }}</style></head>\n<body>\n"
        f'<header><nav><ul class="menu">{links}</ul></nav></header>\n'
        f"<main><article>\n<h1>{title}</h1>\n{body}\n{note}</article></main>\n"
        f'<footer><p>Copyright {name}. All rights reserved.</p></footer>\n<div class="cookie-banner">We use cookies. '
        f"<button>Accept all</button></div>\n<script>console.log('{page.site}');</script>\n</body>\n</html>\n"
    )


def _response(
    url: str,
    body: str | bytes,
    content_type: str = "text/html; charset=utf-8",
    status: str = "200 OK",
) -> Record:
    data = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return Record(kind="response", url=url, payload=head.encode() + data)


def _mojibake(originals: list[Page]) -> Iterator[Record]:
    """The essay with accents: as UTF-8 that was read as Windows-1252, and in Latin-1 as it should be declared."""
    essay = next(page for page in originals if "caf\u00e9" in page.title)
    wrong = _frame(essay).encode().decode("cp1252", errors="replace")
    yield _response("http://oldsite.example.com/cafe", wrong)
    latin = _frame(essay).replace("\u0159", "r").replace('charset="utf-8"', 'charset="iso-8859-1"')
    yield _response(
        "http://oldsite.example.com/cafe-latin",
        latin.encode("latin-1"),
        "text/html; charset=iso-8859-1",
    )


def _other_records() -> Iterator[Record]:
    """What a crawl holds besides pages."""
    request = b"GET /robots.txt HTTP/1.1\r\nHost: meadow.example.org\r\n\r\n"
    kind = "application/http; msgtype=request"
    yield Record(
        kind="request",
        url="http://meadow.example.org/robots.txt",
        payload=request,
        content_type=kind,
    )
    yield _response(
        "http://meadow.example.org/robots.txt", "User-agent: *\nDisallow: /private/\n", "text/plain"
    )
    yield _response(
        "http://meadow.example.org/pixel.png", b"\x89PNG\r\n\x1a\n" + bytes(64), "image/png"
    )
    yield _response("http://meadow.example.org/feed.json", '{"items": []}', "application/json")
    yield _response("http://meadow.example.org/moved", "", status="301 Moved Permanently")
    yield _response(
        "http://meadow.example.org/gone",
        "<html><body><h1>Gone</h1></body></html>",
        status="404 Not Found",
    )
    yield Record(kind="metadata", url="http://meadow.example.org/", payload=b"fetchTimeMs: 20\r\n",
                 content_type="application/warc-fields")  # fmt: skip
    yield _response("http://meadow.example.org/empty", "")


def _broken(originals: list[Page]) -> Iterator[Record]:
    """Records that lie about their length or hold no HTTP; the very last one is cut off by the caller."""
    first, second, third, *_ = (page for page in originals if page.site == "meadow")
    whole = _response("http://broken.example.org/too-short", _frame(first)).payload
    yield Record(
        kind="response", url="http://broken.example.org/too-short", payload=whole, length=300
    )
    yield Record(
        kind="response",
        url="http://broken.example.org/no-http",
        payload=b"\x00\x01 this is no HTTP message",
    )
    whole = _response("http://broken.example.org/too-long", _frame(second)).payload
    yield Record(
        kind="response",
        url="http://broken.example.org/too-long",
        payload=whole,
        length=len(whole) + 700,
    )
    yield _response("http://broken.example.org/swallowed", _frame(third))
    yield _response("http://broken.example.org/cut", _frame(third) * 3)


def _member(record: Record, number: int) -> bytes:
    length = len(record.payload) if record.length is None else record.length
    head = ["WARC/1.1", f"WARC-Type: {record.kind}", f"WARC-Date: {DATE}"]
    head.append(f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012x}>")
    if record.url:
        head.append(f"WARC-Target-URI: {record.url}")
    head += [f"Content-Type: {record.content_type}", f"Content-Length: {length}", "", ""]
    return gzip.compress(
        "\r\n".join(head).encode() + record.payload + b"\r\n\r\n", compresslevel=9, mtime=0
    )
