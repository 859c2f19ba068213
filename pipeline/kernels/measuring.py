"""What the quality rules count in texts: one pass over the bytes, and all counts of a text in a row of a matrix."""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.notes import (
    BLOCK,
    BOILERPLATE,
    DOTS,
    DOTS_END,
    HASH,
    PLACE,
    STOPS,
    WHAT,
    hash_of,
    read_block,
    read_characters,
)
from pipeline.kernels.repetition import RUN_BASE, count_repeats, count_runs, num_places
from pipeline.kernels.units import (
    FOUR,
    ONE,
    TEXT,
    THREE,
    TWO,
    ZERO,
    borrowing,
    longest_of,
    word_powers,
)
from pipeline.scan import (
    COLUMN,
    SPACELESS_SHARE,
    SPACELESS_WORD_CHARS,
    WANT_C4,
    WANT_LINES,
    WANT_PARAGRAPHS,
    WANT_RUNS,
    WANT_STOP_WORDS,
)
from pipeline.scan_tables import (
    ALNUM,
    BLANK,
    BREAK,
    BULLET,
    DASH,
    ELLIPSIS,
    END,
    LETTER,
    LINE_END,
    SPACE,
    STOP,
    STOP_WORD_SHIFT,
)

_SHORT_LINE_CHARS, _LONG_WORD_CHARS = np.uint64(30), np.uint64(1000)
_LINE_WORDS, _LINE_CHARS = THREE, np.uint64(10)
_SPACELESS_WORD_CHARS, _WANT_RUNS_OF_TEN = np.uint64(SPACELESS_WORD_CHARS), WANT_RUNS[10]

# What is known of a line: where its first word begins and its last one ends, as notes; of its words; of its first.
_FIRST_HASH, _FIRST_PLACE, _LAST_HASH, _LAST_PLACE, _LAST_WHAT = range(5)
_WORDS, _LONGEST, _ENDS, _HAS_BULLET, _HAS_DASH = range(5, 10)

_CHARACTERS = types.Tuple((read_only(types.uint16), read_only(types.uint64)))
_TABLE = types.Array(types.uint64, 2, "C", readonly=True)


@borrowing
def _number_of(word, stop_words):
    """Number of a stop word; 0 for any other."""
    place = word >> STOP_WORD_SHIFT
    while stop_words[place, 0] != ZERO and stop_words[place, 0] != word:
        place = (place + ONE) & np.uint64(len(stop_words) - 1)
    return stop_words[place, 1]


@borrowing
def _take_words(notes, count, powers, words, num_words, stop_words, is_present, line, row):
    """Add the words that `notes` hold whole to the text's and to the line's; give how many the text has now."""
    total, chars = words[num_words, 0], words[num_words, 1]
    longest, num_ends, num_alnum, num_letter = line[_LONGEST], ZERO, ZERO, ZERO
    for i in range(ZERO, count, TWO):
        size = notes[i + ONE, PLACE] - notes[i, PLACE]
        what = notes[i + ONE, WHAT]
        num_alnum += np.uint64((what & ALNUM) != ZERO)
        num_letter += np.uint64((what & LETTER) != ZERO)
        num_ends += np.uint64((what & END) != ZERO)
        longest = max(longest, size)
        word = hash_of(notes[i, HASH], notes[i + ONE, HASH], size, powers)
        if len(is_present):
            is_present[_number_of(word, stop_words)] = True
        num_words += ONE
        total = total * RUN_BASE + word
        chars += size
        words[num_words, 0], words[num_words, 1] = total, chars
    row[COLUMN.words_with_alnum] += num_alnum
    row[COLUMN.words_with_letter] += num_letter
    if line[_WORDS] == ZERO:
        line[_FIRST_HASH], line[_FIRST_PLACE] = notes[0, HASH], notes[0, PLACE]
        line[_HAS_BULLET] = notes[0, WHAT] & BULLET
        is_alone = notes[1, PLACE] - notes[0, PLACE] == ONE and notes[1, WHAT] & BLANK
        line[_HAS_DASH] = notes[0, WHAT] & DASH if is_alone else ZERO
    line[_LAST_HASH], line[_LAST_PLACE] = notes[count - ONE, HASH], notes[count - ONE, PLACE]
    line[_LAST_WHAT] = notes[count - ONE, WHAT]
    line[_WORDS] += count >> ONE
    line[_LONGEST] = longest
    line[_ENDS] += num_ends
    return num_words


@borrowing
def _end_line(line, notable, row):
    """Count a line that has words; give the number of its characters."""
    what, size = line[_LAST_WHAT], line[_LAST_PLACE] - line[_FIRST_PLACE]
    has_dots = notable[DOTS] >= THREE and notable[DOTS_END] == line[_LAST_PLACE]
    row[COLUMN.lines] += ONE
    row[COLUMN.line_chars] += size
    row[COLUMN.short_lines] += np.uint64(size <= _SHORT_LINE_CHARS)
    has_bullet = line[_HAS_BULLET] != ZERO or (line[_HAS_DASH] != ZERO and line[_WORDS] > ONE)
    row[COLUMN.bullet_lines] += np.uint64(has_bullet)
    row[COLUMN.ellipsis_lines] += np.uint64(has_dots or (what & ELLIPSIS) != ZERO)
    row[COLUMN.punctuated_lines] += np.uint64((what & LINE_END) != ZERO)
    if not notable[BOILERPLATE] and line[_LONGEST] <= _LONG_WORD_CHARS:
        # The end of the line is the end of a sentence, whatever stands there.
        num_sentences = line[_ENDS] + notable[STOPS] + ONE
        num_sentences -= np.uint64((what & (END | STOP)) != ZERO)
        if line[_WORDS] >= _LINE_WORDS:
            row[COLUMN.sentences] += num_sentences
        if size >= _LINE_CHARS:
            row[COLUMN.spaceless_sentences] += num_sentences
    return size


@borrowing
def _write(first, last, size, powers, parts, number):
    """Write hash and size of the characters between two notes."""
    parts[number, 0], parts[number, 1] = hash_of(first, last, size, powers), size


@borrowing
def _most_stop_words(languages, is_present):
    """Of all languages, the most stop words that are present."""
    is_present[0] = False  # all other words
    most = ZERO
    for language in range(len(languages)):
        count = ZERO
        for i in range(languages.shape[1]):
            count += np.uint64(is_present[languages[language, i]])
        most = max(most, count)
    return most


@compiled(
    *(*TEXT, read_only(types.uint64), _TABLE, read_only(types.uint64), _CHARACTERS),
    *(_TABLE, _TABLE, _TABLE, types.uint64, types.uint64[:, ::1]),
)
def measure_texts(
    text,
    offsets,
    wanted,
    ascii_tables,
    ascii_tallies,
    characters,
    phrases,
    stop_words,
    languages,
    multiplier,
    counts,
):
    """Write what is counted in each text, and of what costs more only what `wanted` asks for."""
    longest = np.uint64(longest_of(offsets))
    powers = word_powers()
    pages, entries = characters
    notes = np.empty((BLOCK + FOUR, 3), np.uint64)
    # Sums of word hashes and of sizes; hashes and sizes of lines and of paragraphs; touched as far as filled.
    words = np.empty((longest + TWO, 2), np.uint64)
    lines = np.empty((longest // TWO + TWO, 2), np.uint64)
    paragraphs = np.empty((longest // TWO + TWO, 2), np.uint64)
    keys, slots = np.empty(longest + ONE, np.uint64), np.empty(num_places(longest), np.uint32)
    firsts, starts = np.empty(longest + ONE, np.uint32), np.empty(longest + ONE, np.uint32)
    times = np.empty(longest + ONE, np.uint32)
    notable, line = np.empty(4, np.uint64), np.empty(10, np.uint64)
    present = np.empty(languages.size + 1, np.bool_)
    words[0, 0] = words[0, 1] = ZERO
    for document in range(len(wanted)):
        begin, end = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        wants, row = wanted[document], counts[document]
        ascii_entries = ascii_tables[1 if wants & WANT_C4 else 0]
        is_present = present if wants & WANT_STOP_WORDS else present[:0]
        notable[:] = ZERO
        line[:] = ZERO
        is_present[:] = False
        num_words = num_lines = num_paragraphs = num_open = ZERO
        line_place = first_hash = first_place = last_hash = last_place = ZERO
        in_paragraph = False
        # Hash and number of the characters so far, and what the last of them are.
        at, state = begin, (ZERO, ZERO, SPACE)
        while at < end:
            at, count, state = read_block(
                text,
                begin,
                end,
                at,
                state,
                ascii_entries,
                ascii_tallies,
                pages,
                entries,
                phrases,
                notes,
                num_open,
                notable,
                row,
            )
            num_open = count & ONE
            count -= num_open
            if count > ZERO:
                num_words = _take_words(
                    notes, count, powers, words, num_words, stop_words, is_present, line, row
                )
            for k in range(3):
                notes[0, k] = notes[count, k]  # of the word that goes on
            # A line ends here, or goes on in the next block.
            is_break = (state[2] & BREAK) != ZERO
            if not is_break and at < end:
                continue
            place = state[1] - np.uint64(is_break)
            row[COLUMN.newlines] += np.uint64(is_break)
            row[COLUMN.longest_line] = max(row[COLUMN.longest_line], place - line_place)
            line_place = state[1]
            if line[_WORDS]:
                size = _end_line(line, notable, row)
                if wants & WANT_LINES:
                    _write(line[_FIRST_HASH], line[_LAST_HASH], size, powers, lines, num_lines)
                    num_lines += ONE
                if not in_paragraph:
                    first_hash, first_place = line[_FIRST_HASH], line[_FIRST_PLACE]
                    in_paragraph = True
                last_hash, last_place = line[_LAST_HASH], line[_LAST_PLACE]
            if in_paragraph and (line[_WORDS] == ZERO or at >= end):
                in_paragraph = False
                size = last_place - first_place
                if wants & WANT_PARAGRAPHS:
                    _write(first_hash, last_hash, size, powers, paragraphs, num_paragraphs)
                    num_paragraphs += ONE
                    row[COLUMN.paragraphs] += ONE
                    row[COLUMN.paragraph_chars] += size
            for k in range(10):
                line[k] = ZERO
            notable[STOPS] = notable[BOILERPLATE] = ZERO
        # All is read; what remains is made of the numbers and hashes that were written.
        row[COLUMN.words], row[COLUMN.word_chars] = num_words, words[num_words, 1]
        spaceless = row[COLUMN.spaceless]
        letters = row[COLUMN.latin] + row[COLUMN.letters] + spaceless + row[COLUMN.marks]
        least = SPACELESS_SHARE * np.float64(letters)
        is_spaceless = spaceless > ZERO and np.float64(spaceless) >= least
        row[COLUMN.is_spaceless] = np.uint64(is_spaceless)
        if wants & WANT_STOP_WORDS:
            row[COLUMN.stop_words] = _most_stop_words(languages, is_present)
        row[COLUMN.duplicate_lines], row[COLUMN.duplicate_line_chars] = count_repeats(
            lines, num_lines, keys, slots, firsts, multiplier
        )
        row[COLUMN.duplicate_paragraphs], row[COLUMN.duplicate_paragraph_chars] = count_repeats(
            paragraphs, num_paragraphs, keys, slots, firsts, multiplier
        )
        per_word = ONE
        if is_spaceless:
            wants &= _WANT_RUNS_OF_TEN
            per_word = _SPACELESS_WORD_CHARS
            if wants:
                num_words = read_characters(text, begin, end, ascii_entries, pages, entries, words)
        count_runs(
            words, num_words, wants, per_word, keys, slots, firsts, starts, times, multiplier, row
        )
