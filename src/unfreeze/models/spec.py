"""Which network a person means, in plain values."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Source = Literal["torchvision", "timm", "hub"]
HeadName = Literal["linear", "mlp", "cosine"]


@dataclass(frozen=True)
class ModelSpec:
    """A network by name.

    Args:
        name: "tiny", or what its source calls it.
        source: Where it comes from.
        repo: Of a hub: a folder with a hubconf.py, or "owner/name[:ref]" on GitHub.
        trust_repo: Whether code of a repository on GitHub may run.
        in_chans: Channels that it sees, >= 1.
        options: Further arguments of what builds it, as pairs of a name and a plain value.
    """

    name: str
    source: Source = "torchvision"
    repo: str | None = None
    trust_repo: bool = field(default=False, compare=False)
    in_chans: int = 3
    options: tuple[tuple[str, Any], ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return plain values for a checkpoint; whom to trust is not in it."""
        record = asdict(self)
        del record["trust_repo"]
        return {**record, "options": dict(self.options)}

    @classmethod
    def from_record(cls, record: dict[str, Any], *, trust_repo: bool = False) -> "ModelSpec":
        """Return what `to_record` described."""
        return cls(**{**record, "options": tuple(record["options"].items())}, trust_repo=trust_repo)


@dataclass(frozen=True)
class HeadSpec:
    """A head before it has weights.

    Args:
        name: "linear", "mlp" (a hidden layer), or "cosine" (for few images per class).
        dropout: Probability before its last layer, in [0, 1); None leaves what the architecture has.
        hidden: Width of the hidden layer of an MLP; None for that of the features.
        tasks: The number of classes of each task, for a head of that kind each; empty for one head.
    """

    name: HeadName = "linear"
    dropout: float | None = None
    hidden: int | None = None
    tasks: tuple[int, ...] = ()
