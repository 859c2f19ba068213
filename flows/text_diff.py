"""Compares two texts word by word, whole books too, and folds what is equal. For `gristmill why`; pure.

Long texts are cut where runs of words occur once in both ("patience diff", Bram Cohen), and what lies between two such
places is small enough for difflib, which is quadratic. White space does not count, as it does not for content hashes.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher

from pipeline.display import plural

MAX_WORDS = 100_000
"""Words of each text that are compared: a thick book, in about a second."""

Piece = tuple[str, str]
"""What it is ("same", "old", "new", or "skip" for words left out), and its text."""

_GAP_CELLS = 160_000
"""Pairs of words up to which a gap between anchors is left to difflib: 400 x 400 take 50 ms at worst."""

_ALL_CELLS = 5_000_000
"""The same for all gaps together, which hostile text can make many: some 2 s. Later gaps count as replaced."""

# A word, one character of a script without spaces, or one sign, each with the white space after it.
_WORDS = re.compile(
    "(?:[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\\w{1,80}|[^\\w\\s])\\s*|\\s+"
)

_Range = tuple[int, int, int, int]
"""Words start to end of the old text, start to end of the new one."""


def compare_texts(old: str, new: str) -> list[Piece]:
    """What two texts share and what each has alone: ("same" | "old" | "new", text), in reading order.

    The pieces "same" and "new" together are `new`, character by character; "same" and "old" are the words of `old`.
    Of texts longer than MAX_WORDS the rest is not compared, which a last piece "skip" says.
    """
    a, b = _words(old), _words(new)
    is_cut = max(len(a), len(b)) > MAX_WORDS
    a, b = a[:MAX_WORDS], b[:MAX_WORDS]
    keys_a, keys_b = ([word.strip() for word in run] for run in (a, b))
    pieces: list[Piece] = []
    i = j = 0
    for at_a, at_b, length in _without_islands([*_common_runs(keys_a, keys_b)], len(a), len(b)):
        pieces += _changed(a[i:at_a], b[j:at_b])
        if length:
            pieces.append(("same", "".join(b[at_b : at_b + length])))
        i, j = at_a + length, at_b + length
    if is_cut:
        pieces.append(("skip", f"only the first {plural(MAX_WORDS, 'word')} of each were compared"))
    return pieces


def fold(pieces: Iterable[Piece], *, context: int = 12, changed: int = 40) -> list[Piece]:
    """Shorten long pieces: of what is the same `context` words stay beside each change, of a change `changed` words."""
    pieces = list(pieces)
    folded: list[Piece] = []
    for number, (kind, text) in enumerate(pieces):
        if kind == "skip":
            folded.append((kind, text))
            continue
        words = _words(text)
        if kind == "same":
            head = context if number > 0 else 0
            tail = context if number < len(pieces) - 1 else 0
        else:
            head = tail = changed // 2
        hidden = len(words) - head - tail
        if hidden <= max(context, 3):
            folded.append((kind, text))
            continue
        if head:
            folded.append((kind, "".join(words[:head])))
        count = _count(words[head : len(words) - tail])
        folded.append(("skip", _left_out(kind, count)))
        if tail:
            folded.append((kind, "".join(words[-tail:])))
    return folded


def _left_out(kind: str, count: int) -> str:
    if kind == "same":
        return plural(count, "equal word")
    return f"{plural(count, 'word')} in {'the kept' if kind == 'old' else 'this'} one alone"


def count_changes(pieces: Iterable[Piece]) -> dict[str, int]:
    """Words by kind of piece: same, old, new. Signs do not count."""
    counts: dict[str, int] = {"same": 0, "old": 0, "new": 0}
    for kind, text in pieces:
        if kind in counts:
            counts[kind] += _count(_words(text))
    return counts


def _count(words: Sequence[str]) -> int:
    """Words with a letter or digit; signs are compared, but are none."""
    return sum(map(bool, map(re.compile(r"\w").match, words)))


def _words(text: str) -> list[str]:
    return _WORDS.findall(text)


def _changed(old: Sequence[str], new: Sequence[str]) -> Iterator[Piece]:
    # White space before the first word of a text is a word of its own, and says nothing.
    if any(not word.isspace() for word in old):
        yield "old", "".join(old)
    if any(not word.isspace() for word in new):
        yield "new", "".join(new)
    elif new:
        yield "same", "".join(new)


def _common_runs(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """(start in a, start in b, words) of the runs that both have, in order and without overlap."""
    cells = _ALL_CELLS
    todo: list[_Range | tuple[int, int, int]] = [(0, len(a), 0, len(b))]
    while todo:
        item = todo.pop()
        if len(item) == 3:
            yield item
            continue
        a0, a1, b0, b1 = item
        while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
            a0, b0 = a0 + 1, b0 + 1
        if a0 > item[0]:
            yield item[0], item[2], a0 - item[0]
        end = a1
        while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
            a1, b1 = a1 - 1, b1 - 1
        if a1 < end:
            todo.append((a1, b1, end - a1))
        size = (a1 - a0) * (b1 - b0)
        if not size:
            continue
        if size <= _GAP_CELLS:
            if (cells := cells - size) >= 0:
                matcher = SequenceMatcher(None, a[a0:a1], b[b0:b1], autojunk=False)
                for match in matcher.get_matching_blocks():
                    if match.size:
                        yield a0 + match.a, b0 + match.b, match.size
            continue
        anchors = _anchors(a[a0:a1], b[b0:b1])
        if not anchors:
            continue
        stops = [(a0 + x, b0 + y) for x, y in anchors]
        starts = [(a0, b0), *((x + 1, y + 1) for x, y in stops)]
        # Each anchor is one equal word; the runs around it are found as equal ends of the gaps.
        for number in range(len(stops), -1, -1):
            x1, y1 = stops[number] if number < len(stops) else (a1, b1)
            if number < len(stops):
                todo.append((x1, y1, 1))
            todo.append((starts[number][0], x1, starts[number][1], y1))


def _anchors(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Places of words that begin a run occurring once in both, in rising order in both; of the longest runs that do."""
    for length in (8, 4, 2, 1):
        only_a, only_b = _unique(a, length), _unique(b, length)
        pairs = sorted((only_a[run], only_b[run]) for run in only_a.keys() & only_b.keys())
        if pairs:
            return _longest_rising(pairs)
    return []


def _unique(words: Sequence[str], length: int) -> dict[tuple[str, ...], int]:
    runs = list(zip(*(words[offset:] for offset in range(length)), strict=False))
    counts = Counter(runs)
    return {run: at for at, run in enumerate(runs) if counts[run] == 1}


def _longest_rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence of pairs, sorted by the first, whose second rises too (patience sorting)."""
    tops: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (_, y) in enumerate(pairs):
        pile = bisect_left(tops, y)
        before.append(last[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(y)
            last.append(number)
        else:
            tops[pile], last[pile] = y, number
    chosen = []
    at = last[-1] if last else -1
    while at >= 0:
        chosen.append(pairs[at])
        at = before[at]
    return chosen[::-1]


def _without_islands(
    runs: Sequence[tuple[int, int, int]], len_a: int, len_b: int
) -> Iterator[tuple[int, int, int]]:
    """The runs, joined where they touch, but for one or two equal words amid much that changed: they only confuse."""
    joined: list[tuple[int, int, int]] = []
    for x, y, length in runs:
        if joined and joined[-1][0] + joined[-1][2] == x and joined[-1][1] + joined[-1][2] == y:
            joined[-1] = (*joined[-1][:2], joined[-1][2] + length)
        else:
            joined.append((x, y, length))
    end_a = end_b = 0
    for number, (x, y, length) in enumerate(joined):
        next_a, next_b, _ = joined[number + 1] if number + 1 < len(joined) else (len_a, len_b, 0)
        before = x - end_a + y - end_b
        after = next_a - x - length + next_b - y - length
        if length <= 2 and min(before, after) >= 4:
            continue
        yield x, y, length
        end_a, end_b = x + length, y + length
    yield len_a, len_b, 0
