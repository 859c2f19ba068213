"""HTML to plain text: the main content of a page, by resiliparse.

Parsing takes about 1 ms for an ordinary page, but a hostile one can ask for minutes, for all the memory (45 kB of
unclosed <b> become 1 GB of nodes) or crash the parser. So every page goes through a child process that has limits.
"""

import codecs
import contextlib
import html
import re
import unicodedata
from dataclasses import dataclass

import orjson
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import ElementNode, HTMLParserException, HTMLTree, traverse_dom

from pipeline.sandbox import Sandbox, SandboxError
from storage.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """How text is taken out of HTML pages, and what a page may cost."""

    main_content: bool = True
    """Leave out navigation, headers, footers and the like, by resiliparse's rules; false takes all visible text."""
    max_bytes: int = 5 << 20
    """Bytes of one page, decompressed; Common Crawl cuts pages at 5 MiB too."""
    max_depth: int = 512
    """Elements inside one another; browsers stop at 512 too."""
    max_seconds: float = 5.0
    """Processor time for one page. A sound page of 5 MiB takes 0.3 s."""
    max_memory_bytes: int = 1 << 30
    """Memory for one page. A sound page takes some 25 times its size."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_depth", "max_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"read.html.{name}: expected a positive number, got {getattr(self, name)}"
                )
        if self.max_memory_bytes < 256 << 20:
            raise ConfigError(
                f"read.html.max_memory_bytes: expected at least {256 << 20} (256 MiB: the parser's own process takes "
                f"half of that), got {self.max_memory_bytes}"
            )


class ExtractError(Exception):
    """A page whose text cannot be had; `rule` is one snake_case word."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


def html_to_text(
    data: bytes, charset: str | None = None, config: ExtractConfig | None = None
) -> tuple[str, str]:
    """Give (text, title) of a page; `charset` is what the HTTP header says, and an unknown one counts as none.

    Raises ExtractError for a page beyond the limits of `config`.
    """
    config = config or ExtractConfig()
    _check_size(data, config)
    options = {
        "charset": charset and charset.encode("ascii", "ignore").decode(),
        "main_content": config.main_content,
        "max_depth": config.max_depth,
    }
    sandbox = Sandbox.of("pipeline.extract:answer", config.max_seconds, config.max_memory_bytes)
    try:
        answer = sandbox.ask(orjson.dumps(options) + b"\n" + data)
    except SandboxError as error:
        raise ExtractError(
            "too_costly",
            f"expected a page that parses within {config.max_seconds:g} s and {config.max_memory_bytes >> 20} MiB, "
            f"got one that did not: {error}",
        ) from error
    rule, text, title = orjson.loads(answer)
    if rule:
        raise ExtractError(rule, text)
    return text, title


def answer(question: bytes) -> bytes:
    """In the child process: ["", text, title] of one page, or [rule, detail, ""] if there is none, as JSON."""
    options, _, data = question.partition(b"\n")
    fields = orjson.loads(options)
    try:
        text, title = _extract(data, fields.pop("charset"), ExtractConfig(**fields))
    except ExtractError as error:
        return orjson.dumps([error.rule, str(error), ""])
    return orjson.dumps(["", text, title])


def decode_page(
    data: bytes, charset: str | None = None, config: ExtractConfig | None = None
) -> str:
    """Decode a page by its byte order mark, the header's charset, its meta tag, or else a guess.

    Raises ExtractError only if it is too long.
    """
    _check_size(data, config or ExtractConfig())
    return _decode(data, charset)


def _decode(data: bytes, charset: str | None) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    named = map_encoding_to_html5(charset.strip("\"' \t")) if charset else None
    encoding = named or detect_encoding(data, from_html_meta=True) or "utf-8"
    # Of an encoding that gives every byte a meaning, what is sound UTF-8 is hardly ever text.
    if encoding.startswith(("utf-8", *_SINGLE_BYTE)) and not data.isascii():
        with contextlib.suppress(UnicodeDecodeError):
            # As a stream, so that a character that is cut at the end is no error.
            return codecs.getincrementaldecoder("utf-8")().decode(data)
    # A page whose own tags can be read as ASCII is not UTF-16, whatever they say.
    if encoding.startswith("utf-16") and data[:1024].count(0) < len(data[:1024]) // 8:
        encoding = "utf-8"
    return bytes_to_str(
        data, encoding, errors="replace", fallback_encodings=("utf-8", "windows-1252")
    )


_SINGLE_BYTE = ("cp125", "cp866", "iso8859", "koi8", "mac")
"""Names of the encodings of one byte a character, as Python has them."""


def _check_size(data: bytes, config: ExtractConfig) -> None:
    if len(data) > config.max_bytes:
        raise ExtractError(
            "too_long",
            f"expected a page of at most {config.max_bytes} bytes, got more; raise read.html.max_bytes to take it",
        )


_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def _extract(data: bytes, charset: str | None, config: ExtractConfig) -> tuple[str, str]:
    try:
        markup = _LONE.sub(_mark_lone, _decode(data, charset))
        tree = HTMLTree.parse(markup)
        root = tree.document.document_element if tree.document is not None else None
        # Fewer tags cannot be so deep; the walk takes a third of the time that the rest does.
        if root is not None and markup.count("<") > config.max_depth - _IMPLIED:
            traverse_dom(root, lambda c: _check_depth(c.depth, config), elements_only=True)
        if root is not None and _ALTERED.search(markup):
            _alter(tree, root, is_main=config.main_content)
        text = extract_plain_text(
            tree, main_content=config.main_content, alt_texts=False, preserve_formatting=True
        )
        return _sound(text.strip()), _sound(" ".join((tree.title or "").split()))
    except HTMLParserException as error:
        raise ExtractError(
            "bad_html", f"expected HTML, got what cannot be parsed: {error}"
        ) from error


_MARK = "\ufdd0"
"""A code point that is no character, so that it stands in no text."""
_LONE = re.compile(">(\\s*)([\u0800-\uffff]|&#?\\w{1,8};)(?=\\s*<)")


def _mark_lone(match: re.Match[str]) -> str:
    """Keep a character that an element holds alone: resiliparse takes one of three bytes for a separator of links."""
    found = html.unescape(match[2])
    # Icons are of private use, and no text.
    is_text = len(found) == 1 and unicodedata.category(found)[0] not in "CZ"
    return match[0] + _MARK * is_text


_ALTERED = re.compile("<(?:ul|menu|ruby|summary|legend|figure|figcaption)[\\s/>]", re.IGNORECASE)


def _alter(tree: HTMLTree, root: ElementNode, *, is_main: bool) -> None:
    """Put elements that resiliparse loses, or runs into their neighbours, into a form that it keeps.

    Of annotated characters the readings go, which would stand in the middle of a word; captions and the like become
    blocks, as browsers show them; lists near the top of a page are moved away from it unless they are menus.
    """
    for element in list(root.query_selector_all("ruby rt, ruby rtc, ruby rp")):
        element.remove()
    for name, new in _RENAMED.items():
        for element in list(root.query_selector_all(name)):
            renamed = _new(tree, new)
            renamed.append(*list(element.child_nodes))
            element.replace_with(renamed)
    if not is_main:
        return
    for element in list(root.query_selector_all("ul")):
        parent = element.parent_element
        if parent is None or parent.closest(_NO_LISTS) or _is_menu(element):
            continue
        for _ in range(_LOST_DEPTH):
            block = _new(tree, "div")
            element.replace_with(block)
            block.append(element)


def _new(tree: HTMLTree, name: str) -> ElementNode:
    element = tree.create_element(name)
    assert isinstance(element, ElementNode)
    return element


def _is_menu(element: ElementNode) -> bool:
    """Whether most of a list's text is links, outside of what the page calls its content."""
    if element.closest("main, article"):
        return False
    links = sum(len(_squeezed(link)) for link in element.query_selector_all("a"))
    return 2 * links > len(_squeezed(element))


def _squeezed(element: ElementNode) -> str:
    return "".join((element.text_content or "").split())


_LOST_DEPTH = 3
"""Elements below the body from which resiliparse no longer takes a list for the navigation of the site."""


_RENAMED = {
    "ruby": "span",
    "menu": "ul",
    "summary": "div",
    "legend": "div",
    "figure": "div",
    "figcaption": "div",
}
_NO_LISTS = "nav, header, footer, aside, li"
"""Elements whose lists are left to resiliparse: surroundings of the content, and items, whose list was moved already."""


_IMPLIED = 8
"""More elements than the parser puts around one that has none of its own: html, body, table, tbody, tr."""


def _check_depth(depth: int, config: ExtractConfig) -> None:
    if depth > config.max_depth:
        raise ExtractError(
            "nested_too_deep",
            f"expected at most {config.max_depth} elements inside one another, got more; raise read.html.max_depth to "
            "take the page",
        )


def _sound(text: str) -> str:
    return text.replace(_MARK, "").encode("utf-8", "replace").decode()
