"""The precision of a run and its memory layout, as a plain value."""

from dataclasses import asdict, dataclass
from typing import Any

AUTO = "auto"
FLOAT32 = "32-true"
BFLOAT16 = "bf16-mixed"
PRECISIONS = (FLOAT32, "16-mixed", BFLOAT16)


@dataclass(frozen=True)
class Precision:
    """The number format of a run.

    Args:
        precision: Lightning's name for it, such as "bf16-mixed".
        channels_last: Memory layout of images and convolutions; false only in runs of earlier versions.
        note: The reason for the choice; None where it was typed.
    """

    precision: str = FLOAT32
    channels_last: bool = True
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `from_dict` makes an equal value."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Precision":
        """Return the precision that `to_dict` described; further keys, of earlier versions, are ignored.

        Raises:
            ValueError: If the values are something else.
        """
        if not isinstance(values, dict) or values.get("precision") not in PRECISIONS:
            raise ValueError("not a precision")
        note = values.get("note")
        if not isinstance(values.get("channels_last"), bool) or not (note is None or isinstance(note, str)):
            raise ValueError("not a precision: a value of another type")
        return cls(values["precision"], values["channels_last"], note)

    def __str__(self) -> str:
        """Return the precision as the line of the device shows it."""
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{self.precision} · {layout}{f' ({self.note})' if self.note else ''}"
