"""Features and what they are of in one file, .npz or .safetensors, written row by row."""

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

_MOST_HEADER_BYTES = 100_000_000
"""What readers of safetensors take (safetensors/src/tensor.rs)."""

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Described:
    """What rows of features are of.

    Args:
        labels: int64, shape (N,), or (N, T) of several tasks or labels.
        paths: Of the images, as their source names them, length N.
        splits: Of the images, length N.
        classes: Names of the classes.
    """

    labels: NDArray[np.int64]
    paths: Sequence[str]
    splits: Sequence[str]
    classes: Sequence[str]


def write_features(path: Path, rows: Iterable[Rows], about: Described) -> tuple[int, ...]:
    """Write features in the order of what they are of, and return their shape; a batch is in memory, not all of them.

    Args:
        path: Ends in .npz or .safetensors; is there when all is in it.
        rows: Batches, float32, each of shape (n, ...).
        about: What the rows are of, at least one.
    """
    upcoming = iter(rows)
    first = next(upcoming)
    shape = (len(about.labels), *first.shape[1:])
    with replacing(path) as building:
        _WRITERS[path.suffix.lower()](building, shape, chain([first], upcoming), about)
    return shape


def check_file(path: Path) -> None:
    """Refuse a file that can't be written, by its name.

    Raises:
        UnfreezeError: If it is of no known kind, or in no folder.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UnfreezeError(f"--out: got {str(path)!r}, want a name that ends in {' or '.join(_WRITERS)}")
    if not path.absolute().parent.is_dir():
        raise UnfreezeError(f"--out: there is no folder {str(path.parent)!r}; make it, or type another file")


def _write_npz(path: Path, shape: tuple[int, ...], rows: Iterator[Rows], about: Described) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for batch in rows:
                member.write(_bytes(batch))
        beside = {"labels": about.labels, "paths": about.paths, "splits": about.splits, "classes": about.classes}
        for name, values in beside.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def _write_safetensors(path: Path, shape: tuple[int, ...], rows: Iterator[Rows], about: Described) -> None:
    """Write the format's eight bytes of length, JSON, and values (huggingface.co/docs/safetensors)."""
    labels = about.labels.astype("<i8")
    stop = 4 * int(np.prod(shape))
    told = {"paths": list(about.paths), "splits": list(about.splits), "classes": list(about.classes)}
    header = {
        "__metadata__": {name: json.dumps(values) for name, values in told.items()},
        "features": {"dtype": "F32", "shape": shape, "data_offsets": [0, stop]},
        "labels": {"dtype": "I64", "shape": labels.shape, "data_offsets": [stop, stop + labels.nbytes]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MOST_HEADER_BYTES:
        raise UnfreezeError(f"--out: {shape[0]:,} paths are more than a .safetensors file can name; type a .npz file")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for batch in rows:
            file.write(_bytes(batch))
        file.write(_bytes(labels))


def _bytes(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).data


_WRITERS: dict[str, Callable[[Path, tuple[int, ...], Iterator[Rows], Described], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}
