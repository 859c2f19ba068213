"""The loops behind `dedup.py`, compiled by numba: documents that share keys are joined, and each cluster is settled.

`link` and `roots` join documents whose band keys are equal into components; `settle` goes through a component in order
of priority and compares each document, exactly, with the kept ones that share a band with it.
"""

import numpy as np
from numba import types

from pipeline.kernels import compiled, inlined

# Roles and rules, see similarity.py.
_PUBLISHED, _PROBE = np.uint8(0), np.uint8(2)
_EXACT, _NEAR, _CONTAINED, _CONTAINS = np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(3)

_MAX_TABLE = np.int64(1 << 17)  # hashes of the largest table, 4 MiB; larger sets come sorted

_KEYS = types.Array(types.uint64, 1, "C", readonly=True)
_PLACES = types.Array(types.int64, 1, "C", readonly=True)
_ROLES = types.Array(types.uint8, 1, "C", readonly=True)


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


@compiled(_KEYS, _PLACES, types.int64[::1])
def link_equal(keys, order, parents):
    """Join nodes whose keys are equal; `order` sorts the keys, and holds the nodes that have one."""
    for i in range(1, len(order)):
        if keys[order[i]] == keys[order[i - 1]]:
            _join(parents, order[i], order[i - 1])


@compiled(_PLACES, _PLACES, types.int64[::1])
def link_pairs(ones, others, parents):
    """Join nodes by pairs."""
    for i in range(len(ones)):
        _join(parents, ones[i], others[i])


@compiled(types.int64[::1])
def find_roots(parents):
    """Replace each node's parent by the smallest node of its component."""
    for node in range(len(parents)):
        parents[node] = parents[parents[node]]  # parents are smaller, and done


@compiled(
    types.Array(types.uint8, 1, "C", readonly=True), _PLACES, _PLACES, _PLACES, types.uint8[::1]
)
def copy_texts(data, begins, sizes, places, out):
    """Copy stretches of bytes to their places."""
    for i in range(len(begins)):
        begin, place = begins[i], places[i]
        out[place : place + sizes[i]] = data[begin : begin + sizes[i]]


@inlined
def _num_slots(count):
    size = 64
    while size < 4 * count:
        size *= 2
    return size


@inlined
def _fill(hashes, begin, end, slots, multiplier):
    """Make a table of distinct hashes, at a load of 1/8 to 1/4; give its shift. Zero marks a free place and is left out."""
    size = _num_slots(end - begin)
    shift = np.uint64(64)
    while np.uint64(1) << (np.uint64(64) - shift) < np.uint64(size):
        shift -= np.uint64(1)
    slots[:size] = 0
    for i in range(begin, end):
        value = hashes[i]
        place = value * multiplier >> shift
        while slots[place] != 0:
            place = (place + np.uint64(1)) & np.uint64(size - 1)
        slots[place] = value
    return shift


@inlined
def _num_held(hashes, begin, end, slots, shift, multiplier):
    """How many of the distinct hashes are in the table."""
    mask = (np.uint64(1) << (np.uint64(64) - shift)) - np.uint64(1)
    count = 0
    for i in range(begin, end):
        value = hashes[i]
        place = value * multiplier >> shift
        held = slots[place]
        while held != value and held != 0:
            place = (place + np.uint64(1)) & mask
            held = slots[place]
        count += held == value and value != 0
    return count


@inlined
def _num_common_sorted(hashes, begin, end, first, last):
    """Size of the intersection of two sorted sets."""
    count = 0
    while begin < end and first < last:
        one, other = hashes[begin], hashes[first]
        count += one == other
        begin += one <= other
        first += other <= one
    return count


@inlined
def _num_common(hashes, ends, one, other, slots, shift, scratch, multiplier):
    """Size of the intersection of the sets of two nodes; the table of `one` is filled unless its set is very large."""
    begin, end, first, last = ends[one], ends[one + 1], ends[other], ends[other + 1]
    if end - begin <= _MAX_TABLE:
        return _num_held(hashes, first, last, slots, shift, multiplier)
    if last - first <= _MAX_TABLE:
        other_shift = _fill(hashes, first, last, scratch, multiplier)
        return _num_held(hashes, begin, end, scratch, other_shift, multiplier)
    return _num_common_sorted(hashes, begin, end, first, last)


@compiled(
    _KEYS,
    _PLACES,
    _KEYS,
    _PLACES,
    types.Array(types.uint64, 2, "C", readonly=True),
    _KEYS,
    _PLACES,
    _PLACES,
    _ROLES,
    types.UniTuple(types.float64, 2),
    types.UniTuple(types.int64, 2),
    types.uint64,
    types.int64[:, ::1],
    types.float64[:, ::1],
    types.uint8[::1],
    types.int64[::1],
)
def settle(
    hashes,
    hash_ends,
    grams,
    gram_ends,
    content,
    keys,
    key_ends,
    components,
    roles,
    thresholds,
    limits,
    multiplier,
    pairs,
    similarities,
    rules,
    best,
):
    """Go through each component by priority and decide who goes; give the numbers of edges and of compared pairs.

    Node i has the distinct shingles hashes[hash_ends[i] : hash_ends[i + 1]], as many `grams` for the containment, the
    content hash content[i] and the bucket keys keys[key_ends[i] : key_ends[i + 1]]; component c has the nodes
    components[c] to components[c + 1], by priority. Sets of more than `_MAX_TABLE` are sorted. An edge is written as
    pairs (earlier, later), similarities (Jaccard, containment) and rules; best[i] becomes the edge by which i goes, or -1.
    """
    threshold, containment_threshold = thresholds
    max_members, max_candidates = limits
    longest = most_keys = widest = 0
    for node in range(len(roles)):
        longest = max(longest, hash_ends[node + 1] - hash_ends[node])
        longest = max(longest, gram_ends[node + 1] - gram_ends[node])
    for c in range(len(components) - 1):
        most_keys = max(most_keys, key_ends[components[c + 1]] - key_ends[components[c]])
        widest = max(widest, components[c + 1] - components[c])
    num_slots = _num_slots(min(longest, _MAX_TABLE))
    slots, gram_slots = np.empty(num_slots, np.uint64), np.empty(num_slots, np.uint64)
    scratch = np.empty(num_slots if longest > _MAX_TABLE else 1, np.uint64)
    bucket_slots = np.empty(_num_slots(most_keys), np.uint64)
    bucket_ids = np.empty(_num_slots(most_keys), np.int64)
    bucket_of = np.empty(most_keys, np.int64)
    # Kept nodes of each bucket, as lists: the newest entry, the entry before it, the entry's node.
    newest, num_members = np.empty(most_keys, np.int64), np.empty(most_keys, np.int64)
    before, member = np.empty(most_keys, np.int64), np.empty(most_keys, np.int64)
    seen_by, num_shared = np.empty(widest, np.int64), np.empty(widest, np.int64)
    found = np.empty(widest, np.int64)
    num_edges = num_pairs = 0
    for c in range(len(components) - 1):
        begin, end = components[c], components[c + 1]
        first_key = key_ends[begin]
        num_keys = key_ends[end] - first_key
        # Number the buckets.
        size = _num_slots(num_keys)
        shift = np.uint64(64)
        while np.uint64(1) << (np.uint64(64) - shift) < np.uint64(size):
            shift -= np.uint64(1)
        bucket_slots[:size] = 0
        num_buckets = 0
        for k in range(num_keys):
            key = max(keys[first_key + k], np.uint64(1))  # zero marks a free place
            place = key * multiplier >> shift
            while bucket_slots[place] != 0 and bucket_slots[place] != key:
                place = (place + np.uint64(1)) & np.uint64(size - 1)
            if bucket_slots[place] == 0:
                bucket_slots[place] = key
                bucket_ids[place] = num_buckets
                newest[num_buckets] = -1
                num_members[num_buckets] = 0
                num_buckets += 1
            bucket_of[k] = bucket_ids[place]
        for i in range(end - begin):
            seen_by[i] = -1
        num_entries = 0
        for node in range(begin, end):
            best[node] = -1
            # Candidates: kept nodes that share a bucket, and in how many.
            num_found = 0
            if roles[node] != _PUBLISHED:
                for k in range(key_ends[node] - first_key, key_ends[node + 1] - first_key):
                    entry = newest[bucket_of[k]]
                    while entry >= 0:
                        other = member[entry] - begin
                        if seen_by[other] != node:
                            seen_by[other] = node
                            num_shared[other] = 0
                            found[num_found] = other
                            num_found += 1
                        num_shared[other] += 1
                        entry = before[entry]
            # Of too many, those that share the most buckets, the earlier first.
            num_compared = min(num_found, max_candidates)
            num_pairs += num_compared
            if num_found > max_candidates:
                for i in range(num_compared):
                    top = i
                    for j in range(i + 1, num_found):
                        one, other = found[j], found[top]
                        if num_shared[one] > num_shared[other] or (
                            num_shared[one] == num_shared[other] and one < other
                        ):
                            top = j
                    found[i], found[top] = found[top], found[i]
            is_filled = False
            hash_shift = gram_shift = np.uint64(0)
            highest = -1.0
            for i in range(num_compared):
                other = begin + found[i]
                rule = _EXACT
                jaccard = containment = 1.0
                if content[node, 0] != content[other, 0] or content[node, 1] != content[other, 1]:
                    if not is_filled:
                        is_filled = True
                        if hash_ends[node + 1] - hash_ends[node] <= _MAX_TABLE:
                            hash_shift = _fill(
                                hashes, hash_ends[node], hash_ends[node + 1], slots, multiplier
                            )
                        if gram_ends[node + 1] - gram_ends[node] <= _MAX_TABLE:
                            gram_shift = _fill(
                                grams, gram_ends[node], gram_ends[node + 1], gram_slots, multiplier
                            )
                    num_node = hash_ends[node + 1] - hash_ends[node]
                    num_other = hash_ends[other + 1] - hash_ends[other]
                    common = _num_common(
                        hashes, hash_ends, node, other, slots, hash_shift, scratch, multiplier
                    )
                    jaccard = common / max(num_node + num_other - common, 1)
                    is_shorter = num_node <= num_other  # of equally long ones, the later
                    shorter = node if is_shorter else other
                    num_grams = gram_ends[shorter + 1] - gram_ends[shorter]
                    common = _num_common(
                        grams, gram_ends, node, other, gram_slots, gram_shift, scratch, multiplier
                    )
                    containment = common / max(num_grams, 1)
                    if jaccard >= threshold:
                        rule = _NEAR
                    elif containment >= containment_threshold:
                        rule = _CONTAINED if is_shorter else _CONTAINS
                    else:
                        continue
                pairs[num_edges, 0], pairs[num_edges, 1] = other, node
                similarities[num_edges, 0], similarities[num_edges, 1] = jaccard, containment
                rules[num_edges] = rule
                similarity = containment if rule == _CONTAINED else jaccard
                if rule != _CONTAINS and (
                    similarity > highest or (similarity == highest and other < pairs[best[node], 0])
                ):
                    highest = similarity
                    best[node] = num_edges
                num_edges += 1
            if best[node] >= 0 or roles[node] == _PROBE:
                continue
            for k in range(key_ends[node] - first_key, key_ends[node + 1] - first_key):
                bucket = bucket_of[k]
                if num_members[bucket] < max_members:
                    num_members[bucket] += 1
                    before[num_entries], member[num_entries] = newest[bucket], node
                    newest[bucket] = num_entries
                    num_entries += 1
    return num_edges, num_pairs
