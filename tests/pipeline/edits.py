"""Texts that are mostly edits, parts and extensions of each other, as lists of words."""

import random
from collections.abc import Sequence


class Editor:
    """Draws words, and edits texts with them."""

    def __init__(self, words: Sequence[str], generator: random.Random) -> None:
        self.words, self.generator = words, generator

    def some(self, low: int, high: int) -> list[str]:
        """So many words."""
        return self.generator.choices(self.words, k=self.generator.randint(low, high))

    def edited(self, text: Sequence[str], edit: str) -> list[str]:
        """A text after one of the edits replace, cut, extend, passage, case, or a new one; any other word: the same."""
        text, generator = list(text), self.generator
        if edit == "replace" and text:
            for _ in range(generator.randint(1, 4)):
                text[generator.randrange(len(text))] = generator.choice(self.words)
        elif edit == "cut":
            text = text[: generator.randint(0, len(text))]
        elif edit == "extend":
            text = self.some(0, 5) + text + self.some(0, 80)
        elif edit == "passage":
            begin = generator.randint(0, len(text))
            text[begin:begin] = self.some(10, 60)
        elif edit == "case":
            text = [word.upper() for word in text]
        elif edit == "new":
            text = self.some(0, 80)
        return text
