"""The quick-start corpus's slice of the web: a WARC of our own making, so that each stage has something to catch.

Pages are made of twelve short essays written for this file (`quickstart_essays.txt`), World Factbook prose, short PLOS
articles and declarations of human rights, in the frames of invented sites under `example.org` and friends. Some stand
on two sites, some are near-copies; others are spam, boilerplate, lorem ipsum, insults, test values of personal data,
mojibake, or records that are broken on purpose. Everything depends on the seed alone, so the bytes are always the same.
"""

import gzip
import html
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.recipes.quickstart_texts import Row

SEED = 20
DATE = "2026-01-05T08:00:00Z"
"""Date of every record; the archive must not depend on when it is built."""

ESSAYS = Path(__file__).with_name("quickstart_essays.txt")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page before it is put into a frame."""

    url: str
    title: str
    paragraphs: tuple[str, ...]
    site: str = "meadow"
    lang: str = "en"
    note: str = ""
    """Small print under the text: where it is from, under which licence."""


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
        *_essays(),
        *_countries(countries),
        *_articles(articles),
        *_declarations(declarations),
    ]
    pages = [*originals, *_copies(originals, rng), *_spam(rng), *_comments(), *_private(), *_thin()]
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


def _essays() -> Iterator[Page]:
    title, paragraphs = "", []
    for block in [*ESSAYS.read_text("utf-8").strip().split("\n\n"), "End"]:
        text = " ".join(block.split())
        if text.endswith("."):
            paragraphs.append(text)
            continue
        if title:
            yield Page(
                url=f"http://meadow.example.org/{_slug(title)}",
                title=title,
                paragraphs=tuple(paragraphs),
            )
        title, paragraphs = text, []


def _countries(rows: list[Row]) -> Iterator[Page]:
    for row in rows:
        facts = [
            row[key] for key in ("background", "Economy - overview", "Disputes - international")
        ]
        facts += [row[key] for key in ("Flag description", "Geography - note")]
        paragraphs = tuple(_sentence(fact) for fact in facts if len(fact) >= 80)
        if sum(map(len, paragraphs)) < 600:
            continue
        url = f"http://atlas.example.com/countries/{_slug(row['title'])}.html"
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


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


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


def _spam(rng: random.Random) -> Iterator[Page]:
    keywords = (
        "cheap",
        "flights",
        "best",
        "price",
        "buy",
        "online",
        "deal",
        "casino",
        "bonus",
        "free",
        "loan",
        "watches",
    )
    for number in range(8):
        stuffed = tuple(" ".join(rng.choices(keywords, k=60)) for _ in range(5))
        yield Page(
            url=f"http://deals.example.com/{number}",
            title="Best price online",
            paragraphs=stuffed,
            site="deals",
        )
    for number in range(5):
        line = (
            f"Click here to win offer number {number} today and tell all of your friends about it."
        )
        url = f"http://deals.example.com/win/{number}"
        yield Page(url=url, title="You are a winner", paragraphs=(line,) * 40, site="deals")
    for number in range(3):
        words = _LOREM.split()
        rng.shuffle(words)
        lorem = tuple(f"Lorem ipsum {' '.join(words[i : i + 12])}." for i in range(0, 48, 12))
        url = f"http://draft.example.com/{number}"
        yield Page(url=url, title="Untitled page", paragraphs=lorem, site="draft")


_LOREM = (
    "dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua "
    "enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat duis aute "
    "irure in reprehenderit voluptate velit esse cillum eu fugiat nulla pariatur excepteur sint occaecat cupidatat "
    "non proident sunt culpa qui officia deserunt mollit anim id est laborum"
)


def _comments() -> Iterator[Page]:
    """Insults of a kind that the toxicity model has to find; no slurs, nobody in particular."""
    insults = (
        "You are a complete idiot and everything you write is stupid garbage. Nobody wants to read this crap, so "
        "shut up, you pathetic moron, and go back to the hole you crawled out of. What a dumb, worthless loser.",
        "Shut the hell up, you ignorant fool. You are too stupid to understand one damn word of this article and you "
        "still open your big mouth. Everybody here is sick of you, you disgusting piece of trash.",
        "What kind of moron wrote this bullshit? The author is a liar and an idiot, and the fools who believe him are "
        "even dumber. Screw you and your stupid little page. I hope you choke on it, you pathetic clown.",
        "This woman is a dumb bitch and her husband is an ass. They are both disgusting, ugly losers, and the whole "
        "damn town would be better off if these idiots just got lost. Go to hell, both of you.",
        "You suck. Your team sucks, your coach is a worthless drunk, and your fans are stupid fat pigs. Losers like "
        "you should be kicked out of the league. Kiss my ass, you miserable crybabies.",
        "Only an idiot would defend those parasites. They are filthy, lazy scum and they should all be thrown out. "
        "If you feel sorry for such vermin you are a traitor and a moron, and you deserve what is coming to you.",
    )
    for number, insult in enumerate(insults):
        # With an answer, for the page has to be long enough to reach the toxicity stage at all.
        answer = insults[(number + 1) % len(insults)]
        url = f"http://forum.example.org/thread/{number + 1}"
        title = f"Comment {number + 1}"
        yield Page(url=url, title=title, paragraphs=(insult, answer), site="forum")


def _private() -> Iterator[Page]:
    """Contact pages with values from the ranges that are set aside for documentation and tests."""
    contact = (
        "Questions go to Ada at {mail}, who answers in the evening. If the water is off, call {phone} and let it ring, "
        "because the shed is at the far end of the garden. The gate computer has the address {address}. The deposit "
        "was paid with the test card {card}, and somebody left this line on the notice board: {secret}"
    )
    values = (
        ("ada@example.com", "202-555-0143", "198.51.100.23", "4111 1111 1111 1111", "aws_key = AKIAIOSFODNN7EXAMPLE"),
        ("plots@example.org", "+44 1632 960983", "203.0.113.77", "5555 5555 5555 4444", "password=hunter2-example"),
        ("ada.b@example.net", "(202) 555-0188", "8.8.8.8", "3782 822463 10005", "token: ghp_" + "0123456789abcdef" * 2),
        ("gate+north@example.com", "+1 202 555 0107", "2001:db8::8a2e:370:7334", "6011-1111-1111-1117",
         "secret = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    )  # fmt: skip
    for number, (value, plot) in enumerate(zip(values, _PLOTS, strict=True)):
        fields = dict(zip(("mail", "phone", "address", "card", "secret"), value, strict=True))
        url = f"http://garden.example.org/contact/{number + 1}"
        title = f"Garden society, plot {number + 7}"
        yield Page(
            url=url, title=title, paragraphs=(*plot, contact.format(**fields)), site="garden"
        )


_PLOTS = (
    (
        "Plot seven is free. It lies beside the railway, gets sun until four, and has two old plum trees that still "
        "bear well in most years. The last owner left a greenhouse with seven good panes and one of cardboard.",
        "The trains are frequent but they are small ones, and after a week nobody hears them. What one does hear are "
        "the blackbirds, who know exactly when the plums are ripe and begin on them an hour before everybody else.",
    ),
    (
        "Plot eight is wet, and nothing but rhubarb and willow has ever been happy there. Whoever takes it may dig a "
        "pond, and the neighbours on both sides have promised to help with spades if there is cake.",
        "A map from the last century shows a spring at this place with a stone basin around it. Three of the stones "
        "have been found under the compost heap, so the fourth cannot be far away, unless the church took it.",
    ),
    (
        "Plot nine was a playground once. The soil is full of marbles, and children come to look for them after rain, "
        "which the new owner should know before planting anything that does not like to be stepped on.",
        "On the other hand the children bring news, carry water for a biscuit, and chase away the pigeons. The best "
        "beans of last summer were grown here by two sisters who had never held a rake in their lives.",
    ),
    (
        "Plot ten has the best soil and the worst view, because the wall of the bus depot stands along its whole "
        "length. Warmth from the bricks ripens figs here, and the drivers like to be given some.",
        "In exchange they have painted the wall white as far up as a ladder reaches, and one of them, who once learned "
        "the trade, prunes the grape vine each February without being asked and without taking money for it.",
    ),
)


def _thin() -> Iterator[Page]:
    """Pages with next to nothing on them but the frame."""
    texts = (
        "Please enable JavaScript to view this page.",
        "Page not found. Go back to the start page.",
        "Loading ...",
        "Sign in to continue reading.",
        "function load() { var items = []; for (var i = 0; i < 10; i++) { items.push(i); } return items; }",
        "Home | Shop | Cart | Terms | Privacy | Cookies | Imprint | Help | Login | Register",
        "No results. Try another word.",
        "This domain may be for sale.",
    )
    for number, text in enumerate(texts):
        yield Page(
            url=f"http://empty.example.com/{number}",
            title="Welcome",
            paragraphs=(text,),
            site="empty",
        )


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
    links = "".join(f'<li><a href="/{_slug(item)}">{item}</a></li>' for item in menu.split(" | "))
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
