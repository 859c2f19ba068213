"""Documents that share keys, joined into clusters: a forest of parents, each smaller than its children."""

from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.units import ROWS, inlined


@inlined
def _root(parents, node):
    while parents[node] != node:
        parents[node] = parents[parents[node]]  # halves the path: later walks are short
        node = parents[node]
    return node


@inlined
def _join(parents, one, other):
    """The smaller root stays the root, so that a component is named by its smallest member."""
    one, other = _root(parents, one), _root(parents, other)
    if one < other:
        parents[other] = one
    else:
        parents[one] = other


@compiled(read_only(types.uint64), ROWS, types.int64[::1])
def link_equal(keys, order, parents):
    """Join nodes whose keys are equal; `order` sorts the keys, and holds the nodes that have one."""
    for i in range(1, len(order)):
        if keys[order[i]] == keys[order[i - 1]]:
            _join(parents, order[i], order[i - 1])


@compiled(ROWS, ROWS, types.int64[::1])
def link_pairs(ones, others, parents):
    """Join nodes by pairs."""
    for i in range(len(ones)):
        _join(parents, ones[i], others[i])


@compiled(types.int64[::1])
def find_roots(parents):
    """Replace each node's parent by the smallest node of its component."""
    for node in range(len(parents)):
        parents[node] = parents[parents[node]]  # parents are smaller, and done


@compiled(read_only(types.uint8), ROWS, ROWS, ROWS, types.uint8[::1])
def copy_texts(data, begins, sizes, places, out):
    """Copy stretches of bytes to their places."""
    for i in range(len(begins)):
        begin, place = begins[i], places[i]
        out[place : place + sizes[i]] = data[begin : begin + sizes[i]]
