"""Columns of tables by name, by type and by size: what `table_batches.py` cuts, checks and takes texts from."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.fields import NoField, field_path, shown_fields
from pipeline.raw import BATCH_BYTES, BATCH_ROWS


class TableError(Exception):
    """The table as a whole cannot be used, or not from here on."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


def text_column(schema: pa.Schema, name: str) -> tuple[str, ...]:
    """The path to a column of texts. Raises TableError unless there is one."""
    tree = _tree(schema)
    try:
        path = field_path(tree, name)
    except NoField as error:
        raise TableError("missing_text", str(error).replace("the field", "one column")) from error
    if schema.names.count(path[0]) != 1:
        raise TableError(
            "missing_text", f"expected one column {name!r}, got: {shown_fields(tree, name)}"
        )
    type_ = column_type(schema, path)
    if not is_text(type_):
        hint = ""
        if pa.types.is_struct(type_):
            hint = (
                f"; name a field of it, such as {name}.{type_.field(0).name}" if len(type_) else ""
            )
        raise TableError(
            "wrong_type", f"expected strings in the column {name!r}, got {type_}{hint}"
        )
    return path


def column_or_none(schema: pa.Schema, name: str) -> tuple[str, ...] | None:
    """The path to a column that may be missing, or have no name at all."""
    try:
        path = field_path(_tree(schema), name) if name else ()
    except NoField:
        return None
    return path if path and schema.names.count(path[0]) == 1 else None


def is_text(type_: pa.DataType) -> bool:
    """Whether values of a type are texts: strings, or bytes that may be UTF-8; a column of nulls has none."""
    type_ = _storage(type_)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        type_ = _storage(type_.value_type)
    return any(is_type(type_) for is_type in _TEXT_TYPES)


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_null,
)


# --- types -------------------------------------------------------------------------------------


def with_index(index: pa.DataType) -> Callable[[pa.DataType], pa.DataType | None]:
    """For `retyped`: dictionaries with another type of index."""
    return lambda type_: (
        pa.dictionary(index, type_.value_type, type_.ordered)
        if pa.types.is_dictionary(type_)
        else None
    )


def has_dictionary(type_: pa.DataType) -> bool:
    """Whether values of a type are stored in a dictionary, at any depth."""
    return pa.types.is_dictionary(type_) or any(
        has_dictionary(field.type) for field in children(type_)
    )


def check(array: pa.Array) -> None:
    """Raise unless every offset and index of an array lies where it must."""
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    # As bytes, because the full check of strings stops at the first that is not UTF-8.
    array.view(retyped(array.type, _AS_BYTES.get)).validate(full=True)


_AS_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def is_view(type_: pa.DataType) -> bool:
    """Whether values are views into buffers that they share."""
    return pa.types.is_string_view(type_) or pa.types.is_binary_view(type_)


def retyped(type_: pa.DataType, swap: Callable[[pa.DataType], pa.DataType | None]) -> pa.DataType:
    """A type with what `swap` has for it in the place of itself, or of the types within it."""

    def field(old: pa.Field) -> pa.Field:
        return old.with_type(retyped(old.type, swap))

    if (other := swap(type_)) is not None:
        return other
    if pa.types.is_struct(type_):
        return pa.struct([field(child) for child in children(type_)])
    if pa.types.is_map(type_):
        return pa.map_(field(type_.key_field), field(type_.item_field), type_.keys_sorted)
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(field(type_.value_field), type_.list_size)
    for is_list, new_list in _LISTS:
        if is_list(type_):
            return new_list(field(type_.value_field))
    if pa.types.is_dictionary(type_):
        values = retyped(type_.value_type, swap)
        return pa.dictionary(type_.index_type, values, type_.ordered)
    if pa.types.is_run_end_encoded(type_):
        return pa.run_end_encoded(type_.run_end_type, retyped(type_.value_type, swap))
    return type_


_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)


# --- values ------------------------------------------------------------------------------------


def halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices of at most 16 MiB, or one row."""
    if len(batch) < 2 or sum(map(num_bytes_of, batch.columns)) <= BATCH_BYTES:
        yield batch
        return
    half = len(batch) // 2
    yield from halves(batch.slice(0, half))
    yield from halves(batch.slice(half))


def num_bytes_of(array: pa.Array) -> int:
    """Bytes of an array, of a slice its own; Arrow counts with each slice of views all that they may point into."""
    type_ = array.type
    if is_view(type_):
        return 16 * len(array) + int(_view_lengths(array).sum())
    if isinstance(array, pa.ExtensionArray):
        return num_bytes_of(array.storage)
    if pa.types.is_struct(type_):
        return sum(num_bytes_of(array.field(i)) for i in range(len(type_)))
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_map(type_):
        if not len(array):
            return 0
        offsets = array.offsets
        first, last = offsets[0].as_py(), offsets[len(array)].as_py()
        return 8 * len(array) + num_bytes_of(_items(array).slice(first, last - first))
    return array.nbytes


def selected(batch: pa.RecordBatch, paths: Sequence[tuple[str, ...]]) -> pa.RecordBatch:
    """The columns at some paths, in that order."""
    columns = [_column_at(batch, path) for path in paths]
    return pa.RecordBatch.from_arrays(columns, [".".join(path) for path in paths])


def _items(array: pa.Array) -> pa.Array:
    """The values of all lists, as a struct those of maps."""
    if pa.types.is_map(array.type):
        return pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
    return array.values


def _view_lengths(array: pa.Array) -> NDArray[np.int32]:
    """The length of each view; Arrow has no function for it. A null's may be anything: it counts as 0."""
    views = array.buffers()[1]
    lengths = np.frombuffer(views, np.int32)[0::4][array.offset : array.offset + len(array)]
    if array.null_count:
        return np.where(array.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    return lengths


class Texts(NamedTuple):
    """A column of texts of any type: its values, and the index of each row's value where they are stored once."""

    values: pa.Array
    indices: pa.Array | None

    @classmethod
    def of(cls, column: pa.Array) -> "Texts":
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        if pa.types.is_null(column.type):
            return cls(pa.nulls(len(column), pa.large_binary()), None)
        if pa.types.is_run_end_encoded(column.type):
            rows = np.arange(column.offset, column.offset + len(column))
            runs = np.searchsorted(column.run_ends.to_numpy(), rows, side="right")
            values, indices = column.values, pa.array(runs, pa.int64())
        elif pa.types.is_dictionary(column.type):
            values, indices = column.dictionary, column.indices
        else:
            return cls(_bytes(column), None)
        values = _bytes(values)
        if is_view(values.type):  # Arrow takes no rows of views
            values = values.cast(pa.large_binary())
        return cls(values, indices)

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each row's text."""
        if is_view(self.values.type):
            return _view_lengths(self.values).astype(np.int64)
        lengths = pc.binary_length(self.values)
        if self.indices is not None:
            lengths = lengths.take(self.indices)
        return pc.fill_null(lengths, 0).cast(pa.int64()).to_numpy()

    def slice(self, first: int, count: int) -> pa.LargeBinaryArray:
        """Some rows, as bytes that nothing else is stored with."""
        if self.indices is None:
            values = self.values.slice(first, count)
        else:
            values = self.values.take(self.indices.slice(first, count))
        return values.cast(pa.large_binary())


def _bytes(strings: pa.Array) -> pa.Array:
    strings = strings.storage if isinstance(strings, pa.ExtensionArray) else strings
    return strings.view(retyped(strings.type, _AS_BYTES.get))


def cuts(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where to cut rows of such sizes: (first, count), about 16 MiB and at most 8,192 rows each."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        end = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        end = max(first + 1, min(end, first + BATCH_ROWS))
        yield first, end - first
        first = end


def _tree(schema: pa.Schema) -> dict[str, Any]:
    """Columns by name, structs as mappings: what `pipeline/fields.py` finds its way in."""
    return {field.name: _branch(field.type) for field in schema}


def _branch(type_: pa.DataType) -> Any:
    if not pa.types.is_struct(type_):
        return type_
    return {field.name: _branch(field.type) for field in children(type_)}


def children(type_: pa.DataType) -> list[pa.Field]:
    """The fields of a nested type."""
    return [type_.field(i) for i in range(type_.num_fields)]


def column_type(schema: pa.Schema, path: Sequence[str]) -> pa.DataType:
    """The type of the column at a path."""
    type_ = schema.field(path[0]).type
    for name in path[1:]:
        type_ = type_.field(name).type
    return type_


def _column_at(batch: pa.RecordBatch, path: Sequence[str]) -> pa.Array:
    """A column, or a field of its structs: null where the struct is."""
    column = batch[path[0]]
    for name in path[1:]:
        column = pc.struct_field(column, [name])
    return column


def _storage(type_: pa.DataType) -> pa.DataType:
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_
