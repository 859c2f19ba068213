"""A first look at texts: whether normalisation may change more than white space in them."""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled
from pipeline.kernels.units import ASCII, ONE, TABLES, TEXT, decode


@compiled(*TEXT, TABLES, types.boolean[::1])
def find_unsettled(data, begins, tables, out):
    """Say of each text whether it holds a character of `characters.unsettled_table`."""
    pages, entries = tables
    for i in range(len(out)):
        begin, end = np.uint64(begins[i]), np.uint64(begins[i + 1])
        high = controls = np.uint8(0)
        for at in range(begin, end):  # of bytes alone, so that many are looked at together
            byte = data[at]
            high |= byte
            controls |= np.uint8((byte < 0x20) & (byte != 0x09) & (byte != 0x0A) & (byte != 0x0D))
            controls |= np.uint8(byte == 0x7F)
        found = np.uint32(controls)
        if high >= ASCII:
            at = begin
            while at < end:
                if data[at] < ASCII:
                    at += ONE
                else:
                    point, at = decode(data, at)
                    page = np.uint64(pages[point >> np.uint64(8)])
                    found |= entries[page << np.uint64(8) | point & np.uint64(0xFF)]
        out[i] = found != 0
