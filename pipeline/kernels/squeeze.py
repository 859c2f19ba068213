"""White space of texts made single, on Arrow's own bytes: the bytes that a content hash is made of.

White space is Python's (`str.split`): the 29 characters for which `str.isspace` holds, of one to three bytes in UTF-8.
Characters that show nothing (`characters.IGNORED_RANGES`, two or three bytes) are left out.
"""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.units import inlined

_ZERO, _ONE, _TWO, _THREE = (np.uint64(value) for value in range(4))
_SPACE = np.uint8(0x20)


@inlined
def _is_ignored(first, second, third):
    """Whether a character of three bytes shows nothing."""
    if first == 0xE2:
        return (
            second == 0x80
            and ((third >= 0x8B and third <= 0x8F) or (third >= 0xAA and third <= 0xAE))
        ) or (second == 0x81 and third >= 0xA0 and third <= 0xAF)
    if first == 0xEF:
        return (second == 0xB8 and third <= 0x8F) or (second == 0xBB and third == 0xBF)
    return first == 0xE1 and second == 0xA0 and third >= 0x8B and third <= 0x8F


@compiled(read_only(types.uint8), read_only(types.int64), types.uint8[::1], types.int64[::1])
def squeeze(data, begins, out, ends):
    """Write the words of each text, joined by single spaces, to `out`, text after text; they end at `ends`.

    Text i is data[begins[i]:begins[i + 1]], valid UTF-8. `out` has to be as long as the texts together.
    """
    at_out = _ZERO
    for i in range(len(ends)):
        at, end, begin_out = np.uint64(begins[i]), np.uint64(begins[i + 1]), at_out
        was_space = (
            _ONE  # of white space only the first character is written, at the beginning none
        )
        while at < end:
            byte, width = data[at], _ONE
            # No branch on where a word ends in ASCII, which no processor foresees.
            is_space = np.uint64(
                (byte == 0x20)
                | ((byte >= 0x09) & (byte <= 0x0D))
                | ((byte >= 0x1C) & (byte < 0x20))
            )
            if byte >= 0xC2 and end - at >= _TWO:
                if byte < 0xE0:
                    second = data[at + _ONE]
                    if byte == 0xC2:
                        if second == 0x85 or second == 0xA0:
                            is_space, width = _ONE, _TWO
                        elif second == 0xAD:
                            at += _TWO
                            continue
                    elif (byte == 0xCD and second == 0x8F) or (byte == 0xD8 and second == 0x9C):
                        at += _TWO
                        continue
                elif byte <= 0xEF and byte != 0xE0 and end - at >= _THREE:
                    second, third = data[at + _ONE], data[at + _TWO]
                    if _is_ignored(byte, second, third):
                        at += _THREE
                        continue
                    if byte == 0xE1:
                        is_wide = second == 0x9A and third == 0x80
                    elif byte == 0xE3:
                        is_wide = second == 0x80 and third == 0x80
                    elif byte != 0xE2:
                        is_wide = False
                    elif second == 0x80:
                        is_wide = third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
                    else:
                        is_wide = second == 0x81 and third == 0x9F
                    if is_wide:
                        is_space, width = _ONE, _THREE
            out[at_out] = _SPACE if is_space else byte
            at_out += _ONE - (is_space & was_space)
            was_space = is_space
            at += width
        if was_space and at_out > begin_out:
            at_out -= _ONE
        ends[i] = at_out
