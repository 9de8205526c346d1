"""Files of features with labels and paths, .npz or .safetensors, written batch by batch."""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unfreeze.errors import UnfreezeError
from unfreeze.system.files import replacing

_MAX_HEADER_BYTES = 100_000_000
"""Limit of readers of safetensors (safetensors/src/tensor.rs)."""

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FeatureMetadata:
    """Labels, paths and splits of the rows of features.

    Args:
        labels: int64, shape (N,), or (N, T) of several tasks or labels.
        paths: Paths of the images, as in their source, length N.
        splits: Splits of the images, length N.
        classes: Names of the classes.
    """

    labels: NDArray[np.int64]
    paths: Sequence[str]
    splits: Sequence[str]
    classes: Sequence[str]


def write_features(path: Path, rows: Iterable[Rows], metadata: FeatureMetadata) -> tuple[int, ...]:
    """Write features batch by batch, so that they need not fit in memory, and return their shape.

    Args:
        path: A name that ends in .npz or .safetensors; the file appears when it is complete.
        rows: Batches, float32, each of shape (n, ...), at least one.
        metadata: Labels, paths and splits of the rows, in the same order.
    """
    upcoming = iter(rows)
    first = next(upcoming)
    shape = (len(metadata.labels), *first.shape[1:])
    with replacing(path) as building:
        _WRITERS[path.suffix.lower()](building, shape, chain([first], upcoming), metadata)
    return shape


def check_file(path: Path) -> None:
    """Check the name and the folder of a file before it is written.

    Raises:
        UnfreezeError: If the suffix is unknown or the folder is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UnfreezeError(f"--out: got {str(path)!r}, want a name that ends in {' or '.join(_WRITERS)}")
    if not path.absolute().parent.is_dir():
        raise UnfreezeError(f"--out: there is no folder {str(path.parent)!r}; make it, or type another file")


def _write_npz(path: Path, shape: tuple[int, ...], rows: Iterator[Rows], metadata: FeatureMetadata) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for batch in rows:
                member.write(_bytes(batch))
        arrays = {
            "labels": metadata.labels,
            "paths": metadata.paths,
            "splits": metadata.splits,
            "classes": metadata.classes,
        }
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def _write_safetensors(path: Path, shape: tuple[int, ...], rows: Iterator[Rows], metadata: FeatureMetadata) -> None:
    """Write the header's length in eight bytes, the JSON header, and the values (huggingface.co/docs/safetensors)."""
    labels = metadata.labels.astype("<i8")
    stop = 4 * int(np.prod(shape))
    text_metadata = {"paths": list(metadata.paths), "splits": list(metadata.splits), "classes": list(metadata.classes)}
    header = {
        "__metadata__": {name: json.dumps(values) for name, values in text_metadata.items()},
        "features": {"dtype": "F32", "shape": shape, "data_offsets": [0, stop]},
        "labels": {"dtype": "I64", "shape": labels.shape, "data_offsets": [stop, stop + labels.nbytes]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER_BYTES:
        raise UnfreezeError(f"--out: {shape[0]:,} paths are more than a .safetensors file can name; type a .npz file")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for batch in rows:
            file.write(_bytes(batch))
        file.write(_bytes(labels))


def _bytes(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).data


_WRITERS: dict[str, Callable[[Path, tuple[int, ...], Iterator[Rows], FeatureMetadata], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}
