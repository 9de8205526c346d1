"""The run, the checkpoint or the published network that a name means, before anything is loaded."""

from pathlib import Path

from unfreeze.errors import UnfreezeError
from unfreeze.models.catalog import network_names
from unfreeze.models.outline import find_in_catalog
from unfreeze.models.spec import ModelSpec
from unfreeze.results.run_directory import best_of, check_checkpoint

_TIMM = "timm/"


def is_run(given: str) -> bool:
    """Return whether a run or a checkpoint is meant, not the name of a network; it may not be there."""
    path = Path(given).expanduser()
    return path.exists() or path.suffix == ".ckpt" or ("/" in given and not given.startswith(_TIMM))


def published_spec(name: str) -> ModelSpec:
    """Return the network that a name stands for: torchvision's, else timm's; `timm/` before it says timm's."""
    if name.startswith(_TIMM):
        return ModelSpec(name.removeprefix(_TIMM), source="timm")
    if name == "tiny" or name in network_names("torchvision"):
        return ModelSpec(name)
    return ModelSpec(name, source="timm") if name.partition(".")[0] in network_names("timm") else ModelSpec(name)


def check_model(given: str, weights: Path | None = None) -> None:
    """Refuse what is neither a run, nor a checkpoint, nor a network by name; nothing is loaded for it.

    Args:
        given: What a person typed.
        weights: A file of weights for a network by name; None for the published ones.

    Raises:
        UnfreezeError: If there is none such, or it does not go with the file.
    """
    check_weights_file(given, weights)
    if is_run(given):
        path = Path(given).expanduser()
        check_checkpoint(best_of(path) if path.is_dir() else path)
        return
    try:
        find_in_catalog(published_spec(given))
    except UnfreezeError as error:
        raise as_no_model(given, error) from None


def as_no_model(given: str, error: UnfreezeError) -> UnfreezeError:
    """Return the refusal of a name that is no network either."""
    return UnfreezeError(f"{given!r}: no run, no checkpoint, and as a model: {error}")


def check_weights_file(given: str, weights: Path | None) -> None:
    """Refuse a file of weights that is not there, or beside a run, which has its own.

    Raises:
        UnfreezeError: Saying which.
    """
    if weights is None:
        return
    if is_run(given):
        raise UnfreezeError(f"--weights: goes with the name of a network; {given} has weights of its own")
    if not weights.expanduser().is_file():
        raise UnfreezeError(f"--weights: no file {str(weights)!r}; want a .pth or .safetensors file")
