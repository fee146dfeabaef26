"""The table of all faces as Parquet, which pandas, polars, DuckDB and Spark read with its types."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

_GROUP = 5_000  # rows that are in memory at a time


def require_pyarrow() -> None:
    """Raises ImportError where pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Parquet is written with pyarrow, which is not installed. Run pip install 'facelm[parquet]', or choose "
            "--format csv"
        ) from error


def write_parquet(path: Path, header: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    r"""Writes `rows` of `files.table_header`'s columns: a string, two whole numbers, then numbers.

    What is missing is null: the frame of a photograph, a point without a number. Bytes of a name that are no text are
    written as `\xff`.
    """
    import pyarrow
    import pyarrow.parquet

    kinds = [pyarrow.string(), pyarrow.int64(), pyarrow.int64()] + [pyarrow.float64()] * (len(header) - 3)
    schema = pyarrow.schema(list(zip(header, kinds, strict=True)))
    with pyarrow.parquet.ParquetWriter(str(path), schema) as writer:
        while part := list(islice(rows, _GROUP)):
            name, frame, face, *numbers = zip(*part, strict=True)
            names = [os.fsencode(one).decode(errors="backslashreplace") for one in name]
            columns = [names, [None if one == "" else one for one in frame], face, *numbers]
            arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
