"""Specifications of networks and heads in plain values."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Source = Literal["torchvision", "timm", "hub"]
HeadName = Literal["linear", "mlp", "cosine"]


@dataclass(frozen=True)
class ModelSpec:
    """Specification of a network.

    Args:
        name: "tiny", or the name of the network in its library.
        source: Library of the network.
        repo: Repository of torch.hub: a folder with a hubconf.py, or "owner/name[:ref]" on GitHub.
        trust_repo: Whether code of a repository on GitHub may run.
        in_chans: Number of input channels, >= 1.
        options: Further arguments of the network's constructor, as pairs of a name and a plain value.
    """

    name: str
    source: Source = "torchvision"
    repo: str | None = None
    trust_repo: bool = field(default=False, compare=False)
    in_chans: int = 3
    options: tuple[tuple[str, Any], ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return plain values for a checkpoint, without `trust_repo`."""
        record = asdict(self)
        del record["trust_repo"]
        return {**record, "options": dict(self.options)}

    @classmethod
    def from_record(cls, record: dict[str, Any], *, trust_repo: bool = False) -> "ModelSpec":
        """Return the specification of a record by `to_record`."""
        return cls(**{**record, "options": tuple(record["options"].items())}, trust_repo=trust_repo)


@dataclass(frozen=True)
class HeadSpec:
    """Specification of a head.

    Args:
        name: "linear", "mlp" (with a hidden layer), or "cosine" (for few images per class).
        dropout: Dropout probability before the last layer, in [0, 1); None for that of the architecture.
        hidden: Width of the hidden layer of an MLP; None for that of the features.
        tasks: Number of classes of each task, for one head per task; empty for a single head.
    """

    name: HeadName = "linear"
    dropout: float | None = None
    hidden: int | None = None
    tasks: tuple[int, ...] = ()
