"""Who goes: the documents of each cluster are compared exactly, by priority. Numbers of documents are int64 here."""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.shingles import MAX_COUNT, num_slots, shingle, table_size, to_table
from pipeline.kernels.templates import are_alike, guard_of, keep_own
from pipeline.kernels.units import (
    MODES,
    ONE,
    ROWS,
    TABLES,
    TEXT,
    ZERO,
    ascii_tables_of,
    inlined,
    read_units,
    word_powers,
)

_PUBLISHED, _PROBE = np.uint8(0), np.uint8(2)  # roles and rules: see pipeline/similarity.py
_EXACT, _NEAR, _CONTAINED, _CONTAINS = np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(3)


@inlined
def _num_held(hashes, begin, end, slots, shift, multiplier, least):
    """How many of the distinct hashes hashes[begin:end] are in a table; too few, once they can no more be `least`."""
    mask = (ONE << (np.uint64(64) - shift)) - ONE
    count = 0
    while begin < end:
        behind = min(begin + 64, end)
        for i in range(begin, behind):
            value = hashes[i]
            place = value * multiplier >> shift
            held = slots[place]
            while held != value and held != ZERO:
                place = (place + ONE) & mask
                held = slots[place]
            count += held == value and value != ZERO
        begin = behind
        if count + end - begin < least:
            return count
    return count


@inlined
def _num_common(hashes, ends, node, other, num_raw, slots, spare, multiplier, least):
    """Size of the intersection of two sets, or a number below `least` if it is smaller.

    `slots` holds the set of `node`, made of `num_raw` hashes; one of more than MAX_COUNT is sorted instead.
    """
    begin, end = ends[node, 0], ends[node, 1]
    first, last = ends[other, 0], ends[other, 1]
    if num_raw <= MAX_COUNT:
        shift = table_size(num_raw)[1]
        return _num_held(hashes, first, last, slots, shift, multiplier, least)
    if np.uint64(last - first) <= MAX_COUNT:
        size, shift = table_size(np.uint64(last - first))
        spare[:size] = ZERO
        for i in range(first, last):
            place = hashes[i] * multiplier >> shift
            while spare[place] != ZERO:
                place = (place + ONE) & (size - ONE)
            spare[place] = hashes[i]
        return _num_held(hashes, begin, end, spare, shift, multiplier, least)
    count = 0  # both are sorted: a set of so many came of more
    while begin < end and first < last:
        one, another = hashes[begin], hashes[first]
        count += one == another
        begin += one <= another
        first += another <= one
    return count


@inlined
def _number_buckets(keys, begin, end, slots, ids, buckets, multiplier):
    """Number distinct keys from 0: buckets[i] is the number of keys[begin + i]."""
    size, shift = table_size(np.uint64(end - begin))
    slots[:size] = ZERO
    count = 0
    for i in range(end - begin):
        key = max(keys[begin + i], ONE)  # zero marks a free place
        place = key * multiplier >> shift
        while slots[place] != ZERO and slots[place] != key:
            place = (place + ONE) & (size - ONE)
        if slots[place] == ZERO:
            slots[place], ids[place] = key, count
            count += 1
        buckets[i] = ids[place]


@inlined
def _choose(found, count, num_shared, at_most, counts):
    """Bring those to the front that share the most buckets, of equals the first by priority; `counts` is scratch."""
    found[:count].sort()
    counts[:] = 0
    for i in range(count):
        counts[min(num_shared[found[i]], len(counts) - 1)] += 1
    fewest, room = len(counts) - 1, at_most
    while counts[fewest] < room:
        room -= counts[fewest]
        fewest -= 1
    chosen = 0
    for i in range(count):
        shared = min(num_shared[found[i]], len(counts) - 1)
        if shared > fewest or (shared == fewest and room > 0):
            room -= shared == fewest
            found[chosen] = found[i]
            chosen += 1


def signature(templates):
    """Types of what `settle` takes; without templates, what it would do with them is not even compiled."""
    return (
        *(*TEXT, ROWS, MODES, types.UniTuple(types.uint64, 2), TABLES, types.uint64),
        *(types.Array(types.uint64, 2, "C", readonly=True), read_only(types.uint64), ROWS, ROWS),
        *(read_only(types.uint8), types.UniTuple(types.float64, 2), types.UniTuple(types.int64, 3)),
        *(templates, types.UniTuple(types.int64, 2)),
        *(types.int64[:, ::1], types.float64[:, ::1], types.uint8[::1], types.int64[::1]),
    )


@compiled(*signature(types.none))
def settle(
    text,
    begins,
    ends,
    is_code,
    ngrams,
    tables,
    multiplier,
    content,
    keys,
    key_ends,
    clusters,
    roles,
    thresholds,
    limits,
    templates,
    least_own,
    pairs,
    similarities,
    rules,
    best,
):
    """Go through each cluster by priority and decide who goes.

    Gives the numbers of edges, of compared pairs, and of those among them that only their templates make alike.

    Node i has the text text[begins[i] : ends[i]], the content hash content[i] and the bucket keys
    keys[key_ends[i] : key_ends[i + 1]]; cluster c has the nodes clusters[c] to clusters[c + 1], by priority. An edge is
    written as pairs (earlier, later), similarities (Jaccard, containment) and rules; best[i] becomes the edge by which
    node i goes, or -1. `limits` are members of a bucket, candidates and edges of a document. Two documents must
    also be alike beside `templates` (shingles, or None), unless the one that goes has fewer than `least_own` there.
    """
    threshold, containment_threshold = thresholds
    max_members, max_candidates, max_edges = limits
    most_bytes = most_text = most_keys = widest = 0
    for c in range(len(clusters) - 1):
        begin, end = clusters[c], clusters[c + 1]
        num_bytes = end - begin
        for node in range(begin, end):
            most_bytes = max(most_bytes, ends[node] - begins[node])
            num_bytes += ends[node] - begins[node]
        most_text = max(most_text, num_bytes)
        most_keys = max(most_keys, key_ends[end] - key_ends[begin])
        widest = max(widest, end - begin)
    longest = np.uint64(most_bytes)
    ascii_tables, powers = ascii_tables_of(tables), word_powers()
    values = np.empty(longest + ONE, np.uint64)
    # Distinct hashes of the cluster's documents, and where those of each begin and end; touched as far as filled.
    hashes, hash_ends = np.empty(most_text, np.uint64), np.empty((widest, 2), np.int64)
    grams, gram_ends = np.empty(most_text, np.uint64), np.empty((widest, 2), np.int64)
    slots, gram_slots = (
        np.empty(num_slots(longest), np.uint64),
        np.empty(num_slots(longest), np.uint64),
    )
    spare = np.empty(num_slots(longest) if longest > MAX_COUNT else ONE, np.uint64)
    num_buckets = table_size(np.uint64(most_keys))[0]
    bucket_slots, bucket_ids = np.empty(num_buckets, np.uint64), np.empty(num_buckets, np.int64)
    bucket_of = np.empty(most_keys, np.int64)
    # Kept documents of each bucket, as lists: the newest entry; the one before an entry, and its document.
    newest, num_members = np.empty(most_keys, np.int64), np.empty(most_keys, np.int64)
    before, member = np.empty(most_keys, np.int64), np.empty(most_keys, np.int64)
    seen_by, num_shared = np.empty(widest, np.int64), np.empty(widest, np.int64)
    found, counts = np.empty(widest, np.int64), np.empty(256, np.int64)
    guard = guard_of(templates, widest, most_text, multiplier)
    num_edges = num_pairs = num_templated = 0
    for c in range(len(clusters) - 1):
        start, size = clusters[c], clusters[c + 1] - clusters[c]
        first_key = key_ends[start]
        _number_buckets(
            keys, first_key, key_ends[start + size], bucket_slots, bucket_ids, bucket_of, multiplier
        )
        newest[: key_ends[start + size] - first_key] = -1
        num_members[: key_ends[start + size] - first_key] = 0
        seen_by[:size] = -1
        num_entries = num_hashes = num_grams = 0
        for i in range(size):
            node = start + i
            best[node] = -1
            key_begin, key_end = key_ends[node] - first_key, key_ends[node + 1] - first_key
            # Candidates: kept documents that share a bucket, and how many buckets.
            num_found = 0
            if roles[node] != _PUBLISHED:
                for k in range(key_begin, key_end):
                    entry = newest[bucket_of[k]]
                    while entry >= 0:
                        other = member[entry]
                        if seen_by[other] != i:
                            seen_by[other] = i
                            num_shared[other] = 0
                            found[num_found] = other
                            num_found += 1
                        num_shared[other] += 1
                        entry = before[entry]
            if num_found > max_candidates:
                _choose(found, num_found, num_shared, max_candidates, counts)
                num_found = max_candidates
            num_pairs += num_found
            # The sets of this document, and tables of them.
            begin, end = np.uint64(begins[node]), np.uint64(ends[node])
            out, gram_out = hashes[num_hashes:], grams[num_grams:]
            count, by_character = read_units(
                text, begin, end, is_code[node], tables, ascii_tables, powers, values
            )
            raw = shingle(values, count, by_character, ngrams[0], out)
            gram_raw = shingle(values, count, by_character, ngrams[1], gram_out)
            if templates is not None:
                keep_own(
                    *(i, guard, ngrams, by_character, least_own, multiplier),
                    *(out, raw, slots, num_hashes, gram_out, gram_raw, gram_slots, num_grams),
                )
            hash_ends[i, 0], gram_ends[i, 0] = num_hashes, num_grams
            num_hashes += np.int64(to_table(out, raw, slots, multiplier))
            num_grams += np.int64(to_table(gram_out, gram_raw, gram_slots, multiplier))
            hash_ends[i, 1], gram_ends[i, 1] = num_hashes, num_grams
            num_own = hash_ends[i, 1] - hash_ends[i, 0]
            highest, first_edge = -1.0, num_edges
            for j in range(num_found):
                other = found[j]
                rule, jaccard, containment = _EXACT, 1.0, 1.0
                twin = start + other
                if content[node, 0] != content[twin, 0] or content[node, 1] != content[twin, 1]:
                    num_other = hash_ends[other, 1] - hash_ends[other, 0]
                    # J = c / (m + n - c) reaches t from c = t (m + n) / (1 + t) on; one less, for the rounding.
                    least = np.int64(threshold * (num_own + num_other) / (1.0 + threshold)) - 1
                    common = _num_common(
                        hashes, hash_ends, i, other, raw, slots, spare, multiplier, least
                    )
                    jaccard = common / max(num_own + num_other - common, 1)
                    is_shorter = num_own <= num_other  # of equally long ones, the later
                    shorter = i if is_shorter else other
                    num_shorter = gram_ends[shorter, 1] - gram_ends[shorter, 0]
                    least = np.int64(containment_threshold * num_shorter) - 1
                    if jaccard >= threshold:
                        least = 0  # it is written down, whatever it is
                    containment = _num_common(
                        grams, gram_ends, i, other, gram_raw, gram_slots, spare, multiplier, least
                    ) / max(num_shorter, 1)
                    is_near, is_held = jaccard >= threshold, containment >= containment_threshold
                    if templates is not None:
                        was_alike = is_near or is_held
                        is_near, is_held = are_alike(
                            *(i, other, shorter, is_near, is_held, guard, thresholds),
                            *(hashes, hash_ends, grams, gram_ends),
                        )
                        num_templated += was_alike and not (is_near or is_held)
                    if is_near:
                        rule = _NEAR
                    elif is_held:
                        rule = _CONTAINED if is_shorter else _CONTAINS
                        common = _num_common(
                            hashes, hash_ends, i, other, raw, slots, spare, multiplier, 0
                        )
                        jaccard = common / max(num_own + num_other - common, 1)
                    else:
                        continue
                similarity = containment if rule == _CONTAINED else jaccard
                is_best = rule != _CONTAINS and (
                    similarity > highest or (similarity == highest and twin < pairs[best[node], 0])
                )
                if num_edges - first_edge == max_edges:
                    if not is_best:
                        continue
                    num_edges -= 1  # the best is always there
                pairs[num_edges, 0], pairs[num_edges, 1] = twin, node
                similarities[num_edges, 0], similarities[num_edges, 1] = jaccard, containment
                rules[num_edges] = rule
                if is_best:
                    highest = similarity
                    best[node] = num_edges
                num_edges += 1
            if best[node] >= 0 or roles[node] == _PROBE:
                # Nobody will be compared with it.
                num_hashes, num_grams = hash_ends[i, 0], gram_ends[i, 0]
                continue
            for k in range(key_begin, key_end):
                bucket = bucket_of[k]
                if num_members[bucket] < max_members:
                    num_members[bucket] += 1
                    before[num_entries], member[num_entries] = newest[bucket], i
                    newest[bucket] = num_entries
                    num_entries += 1
    return num_edges, num_pairs, num_templated
