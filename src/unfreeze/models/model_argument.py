"""Checks of a model argument, a run, checkpoint or published network, before anything is loaded."""

from pathlib import Path

from unfreeze.errors import UnfreezeError
from unfreeze.models.catalog import network_names
from unfreeze.models.outline import find_in_catalog
from unfreeze.models.spec import ModelSpec
from unfreeze.results.run_directory import RunDirectory, check_checkpoint

_TIMM = "timm/"


def is_run(given: str) -> bool:
    """Return whether an argument is a run or a checkpoint, existing or not, instead of the name of a network."""
    path = Path(given).expanduser()
    return path.exists() or path.suffix == ".ckpt" or ("/" in given and not given.startswith(_TIMM))


def published_spec(name: str) -> ModelSpec:
    """Return the specification of a published network of torchvision, or else of timm; `timm/name` is always timm's."""
    if name.startswith(_TIMM):
        return ModelSpec(name.removeprefix(_TIMM), source="timm")
    if name == "tiny" or name in network_names("torchvision"):
        return ModelSpec(name)
    return ModelSpec(name, source="timm") if name.partition(".")[0] in network_names("timm") else ModelSpec(name)


def check_model(given: str, weights: Path | None = None) -> None:
    """Refuse an argument that is neither a run, nor a checkpoint, nor a network by name, without loading anything.

    Args:
        given: Model argument.
        weights: File of weights for a network by name; None for the published ones.

    Raises:
        UnfreezeError: If there is no such model, or it can't be used with the file.
    """
    check_weights_file(given, weights)
    if is_run(given):
        path = Path(given).expanduser()
        check_checkpoint(RunDirectory(path).best if path.is_dir() else path)
        return
    try:
        find_in_catalog(published_spec(given))
    except UnfreezeError as error:
        raise unknown_model(given, error) from None


def unknown_model(given: str, error: UnfreezeError) -> UnfreezeError:
    """Return the error for an argument that is neither a run nor a checkpoint nor a network."""
    return UnfreezeError(f"{given!r}: no run, no checkpoint, and as a model: {error}")


def check_weights_file(given: str, weights: Path | None) -> None:
    """Refuse a file of weights that is missing, or that is given together with a run.

    Raises:
        UnfreezeError: If one of these is the case.
    """
    if weights is None:
        return
    if is_run(given):
        raise UnfreezeError(f"--weights: only for the name of a network; {given} has its own weights")
    if not weights.expanduser().is_file():
        raise UnfreezeError(f"--weights: no file {str(weights)!r}; want a .pth or .safetensors file")
