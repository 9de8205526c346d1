"""OmegaConf resolvers of the files in conf/."""

from omegaconf import OmegaConf

from unfreeze.results.monitor import mode_of


def register_resolvers() -> None:
    """Register the functions below with OmegaConf; idempotent."""
    for name, function in (("plus_head", plus_head), ("direction", direction), ("run_name", run_name)):
        OmegaConf.register_new_resolver(name, function, replace=True)


def plus_head(blocks: int) -> int:
    """Return the number of groups that the head and some blocks are."""
    return int(blocks) + 1


def direction(monitor: str) -> str:
    """Return which way a search goes."""
    try:
        return "minimize" if mode_of(monitor) == "min" else "maximize"
    except (KeyError, ValueError):
        return "maximize"  # what nothing logs is refused with the rest of the configuration


def run_name(experiment: str | None, model: str, strategy: str) -> str:
    """Return what a run's directory is called after its time."""
    name = experiment if experiment not in (None, "null") else f"{model}-{strategy}"
    return str(name).replace("/", "-")
