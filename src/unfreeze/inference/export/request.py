"""Options of an export, checked before anything is loaded."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unfreeze.errors import UnfreezeError

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
"""File suffix of each format."""

_REQUIRED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Request:
    """The options of an export.

    Args:
        to: The format, a key of `SUFFIXES`.
        file: Path of the file.
        inside: True for a file with preprocessing inside: uint8 images to probabilities.
        license_name: Licence of the model; None if not stated.
    """

    to: str
    file: Path
    inside: bool = False
    license_name: str | None = None


def check_request(to: str, *, preprocessing: str, file: Path | None) -> None:
    """Check the options of an export.

    Args:
        to: The format.
        preprocessing: "inside" or "outside".
        file: Path of the file; None for the default name.

    Raises:
        UnfreezeError: If the format is unknown, not installed, or incompatible with the other options.
    """
    if to not in SUFFIXES:
        raise UnfreezeError(f"--to: got {to!r}; want {', '.join(SUFFIXES)}")
    if preprocessing not in ("inside", "outside"):
        raise UnfreezeError(f"--preprocessing: got {preprocessing!r}; want inside or outside")
    if preprocessing == "inside" and to == "safetensors":
        raise UnfreezeError(
            "--preprocessing: inside goes with a graph, and a file of safetensors holds weights alone; type --to onnx "
            "or --to torch"
        )
    if to == "onnx":
        _check_installed()
    if file is not None:
        _check_place(file, SUFFIXES[to])


def _check_installed() -> None:
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UnfreezeError(
            f"--to onnx: {', '.join(missing)} {verb} not installed; type pip install 'unfreeze[export]'"
        )


def _check_place(file: Path, suffix: str) -> None:
    if file.suffix != suffix or file.is_dir():
        raise UnfreezeError(f"--out: got {str(file)!r}; want a file whose name ends in {suffix}")
    if not file.absolute().parent.is_dir():
        raise UnfreezeError(f"--out: there is no folder {str(file.absolute().parent)!r}; make it first")
