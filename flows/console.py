"""Rich's console for whatever stands in texts, names and answers: it shows them, a terminal never obeys them.

Every table and line that a command prints goes through it. Imported late: rich takes 40 ms.
"""

from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from pipeline.display import INVISIBLE, shown_mark, visible


class PlainConsole(Console):
    """A console that takes text as it is: no markup in it, no emoji codes, and `visible` instead of control characters.

    Done where text is laid out, so that what is shown has its place in a column.
    """

    def __init__(self, file: IO[str] | None = None, **options: Any) -> None:
        super().__init__(file=file, markup=False, highlight=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Rich's own, of what can be seen."""
        if isinstance(renderable, str):
            renderable = visible(renderable)
        elif isinstance(renderable, Text):
            renderable = _visible_text(renderable)
        return super().render(renderable, options)


def _visible_text(text: Text) -> Text:
    """`visible` of a text that keeps its styles."""
    plain, at = text.plain, 0
    if not INVISIBLE.search(plain):
        return text
    shown = text.blank_copy()
    for mark in INVISIBLE.finditer(plain):
        shown.append_text(text[at : mark.start()]).append(shown_mark(mark))
        at = mark.end()
    return shown.append_text(text[at:])
