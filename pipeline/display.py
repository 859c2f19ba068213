"""How figures and foreign text are shown to people: in the report, in pictures and in data cards.

Texts, ids and uris come from anywhere. They are escaped where they are printed; what escaping does not cover (control
characters, text direction overrides, invisible characters) `visible` turns into something one can see.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

DASH = "\u2013"
"""Stands for a figure that is not there."""

MAX_DIFF_WORDS = 400
"""Words of each text that a diff compares: difflib is quadratic at worst, 400 x 400 stays under 50 ms."""

MAX_DIFF_CHARACTERS = 40_000
"""Characters of each text that a diff looks at."""

INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Characters that a terminal or a page obeys, or that show nothing."""

# A word, one character of a script without spaces, or one sign, each with the white space after it.
_WORDS = re.compile(
    "(?:[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\\w{1,80}|[^\\w\\s])\\s*|\\s+"
)


def visible(text: str) -> str:
    """Return `text` with control, bidirectional and invisible characters shown: NUL as its symbol, others as [U+202E].

    Tabs, newlines (of either kind) and joiners, which Indic scripts and emoji need, stay what they are.
    """
    return INVISIBLE.sub(shown_mark, text.replace("\r\n", "\n"))


def shown_mark(match: re.Match[str]) -> str:
    """What stands for a match of INVISIBLE."""
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else f"[U+{code:04X}]"


def clip(text: str, characters: int) -> str:
    """Return at most `characters` of `text`, cut between words where possible, with an ellipsis where it was cut."""
    if len(text) <= characters:
        return text
    head = text[:characters]
    words, space, last = head.rpartition(" ")
    return (words if space and len(last) < 40 else head).rstrip() + " \u2026"


def number(value: Any) -> str:
    """Write a count or a measurement: 1,204 or 0.083; a dash for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return DASH if value is None or isinstance(value, float) else str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 10):
        return f"{int(value):,}".replace("-", "\u2212")
    return f"{value:.3g}".replace("-", "\u2212")


def fixed(value: float | None, decimals: int = 2) -> str:
    """Write a measurement with as many decimals as its neighbours in a column; a dash for what is no finite number."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{decimals}f}".replace("-", "\u2212")


def short(value: float | None) -> str:
    """Write a count in at most four digits: 1,204, 12.3k, 4.56M."""
    if value is None or not math.isfinite(value):
        return DASH
    return number(int(value)) if abs(value) < 10_000 else _scaled(value, ("", "k", "M", "G", "T"))


def size(num_bytes: float | None) -> str:
    """Write a number of bytes in powers of 1,000: 512 B, 12.3 kB."""
    if num_bytes is None or not math.isfinite(num_bytes):
        return DASH
    return _scaled(num_bytes, (" B", " kB", " MB", " GB", " TB", " PB"))


def binary_size(num_bytes: float) -> str:
    """Write a number of bytes in powers of 1,024, as edges of histograms are: 512 B, 4 KiB."""
    power = 0
    while num_bytes >= 1024 and power < 4:
        num_bytes, power = num_bytes / 1024, power + 1
    return f"{num_bytes:g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    # 999.5 of a unit would be written as 1000 of it.
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    decimals = 0 if power == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    figure = f"{value:.{decimals}f}"
    return figure + units[power]


def percent(part: float, whole: float) -> str:
    """Write a share: 12.3 %; never 0 % or 100 % of what is not exactly that; a dash if there is no whole."""
    if not whole or not math.isfinite(part) or not math.isfinite(whole):
        return DASH
    share = 100 * part / whole
    size, sign = abs(share), "\u2212" if share < 0 else ""
    if 0 < size < 0.1:
        return f"{'>' if sign else '<'}{sign}0.1\u00a0%"
    if 99.9 < size < 100:
        return f"{'<' if sign else '>'}{sign}99.9\u00a0%"
    return f"{sign}{size:.{0 if size in (0, 100) else 1}f}\u00a0%"


def shown(count: int, whole: int, what: str) -> str:
    """Say how much of a list is shown, "12 of 49 domains shown"; empty if it is all there."""
    return f"{number(count)} of {plural(whole, what)} shown" if count < whole else ""


def words(name: Any) -> str:
    """Turn a snake_case name into words: `near_duplicate` is "near duplicate"."""
    return str(name).replace("_", " ").strip() or DASH


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun: 1 document, 2 documents."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Write the counters of a stage in a line: 48 documents, 1 quarantined."""
    return ", ".join(f"{number(count)} {name.replace('_', ' ')}" for name, count in counts.items())


def duration(seconds: float | None) -> str:
    """Write a span of time: 8.3 s, 4 min 12 s, 3 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    )


def word_diff(old: str, new: str, *, context: int = 12, cut: bool = False) -> list[tuple[str, str]]:
    """Compare two texts word by word: pieces ("same" | "old" | "new" | "skip", text), in reading order.

    White space does not count. "skip" stands for words left out (its text says how many and why): a long run of equal
    words, of which `context` stay at each end; where one text holds the other, what comes before; and what lies beyond
    the words compared, `MAX_DIFF_WORDS` of each text from shortly before the first difference. With `cut`, the texts
    were cut before, so their ends say nothing.
    """
    a, b = (_WORDS.findall(text[:MAX_DIFF_CHARACTERS]) for text in (old, new))
    keys_a, keys_b = ([word.strip() for word in run] for run in (a, b))
    pieces: list[tuple[str, str]] = []
    shift = _shift(keys_a, keys_b)
    if abs(shift) > 3 * context:
        a, b = a[max(shift, 0) :], b[max(-shift, 0) :]
        pieces.append(("skip", f"{plural(abs(shift), 'word')} before, in one text only"))
        keys_a, keys_b = ([word.strip() for word in run] for run in (a, b))
    pairs = zip(keys_a, keys_b, strict=False)
    first = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
    start = first - context if first > 3 * context else 0
    if start:
        pieces.append(("skip", plural(start, "equal word")))
    end = start + MAX_DIFF_WORDS
    is_cut = cut or max(len(a), len(b)) > end or max(len(old), len(new)) > MAX_DIFF_CHARACTERS
    matcher = SequenceMatcher(None, keys_a[start:end], keys_b[start:end], autojunk=False)
    steps = matcher.get_opcodes()
    if is_cut and steps and steps[-1][0] != "equal":
        steps.pop()  # where the cuts differ, not the texts
    for tag, a0, a1, b0, b1 in steps:
        run_a, run_b = a[start + a0 : start + a1], b[start + b0 : start + b1]
        if tag != "equal":
            pieces += [
                (kind, "".join(run)) for kind, run in (("old", run_a), ("new", run_b)) if run
            ]
        elif len(run_a) <= 3 * context:
            pieces.append(("same", "".join(run_a)))
        else:
            pieces.append(("same", "".join(run_a[:context])))
            pieces.append(("skip", plural(len(run_a) - 2 * context, "equal word")))
            pieces.append(("same", "".join(run_a[-context:])))
    return [*pieces, ("skip", "the comparison ends here")] if is_cut else pieces


def _shift(a: list[str], b: list[str]) -> int:
    """How many words later (earlier if negative) most of the three-word runs of `b` stand in `a`."""
    places = {run: i for i, run in reversed(list(enumerate(zip(a, a[1:], a[2:], strict=False))))}
    runs = enumerate(zip(b, b[1:], b[2:], strict=False))
    shifts = Counter(places[run] - i for i, run in runs if run in places)
    return max(shifts, key=lambda shift: (shifts[shift], -abs(shift))) if shifts else 0


def toml_text(table: dict[str, Any]) -> str:
    """Write a recipe as TOML, for reading: empty values are left out, tables come last."""
    lines = [
        f"{key} = {_toml(value)}"
        for key, value in table.items()
        if not _is_table(value) and _is_set(value)
    ]
    for key, value in table.items():
        for item in [value] if isinstance(value, dict) else value if _is_table(value) else []:
            if rows := [f"{k} = {_toml(v)}" for k, v in item.items() if _is_set(v)]:
                lines += ["", f"[{key}]" if item is value else f"[[{key}]]", *rows]
    return "\n".join(lines).strip()


def _is_set(value: Any) -> bool:
    return value is not None and value not in ("", [], (), {})


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value)
    )


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case dict():
            return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
