"""In which precision and memory layout a run trains: the verdict of a probe, as a pure value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

AUTO = "auto"
FLOAT32 = "32-true"
BFLOAT16 = "bf16-mixed"
PRECISIONS = (FLOAT32, "16-mixed", BFLOAT16)

CLEARLY_FASTER = 1.1
"""How many times as fast something must be to be preferred to float32 with channels last."""


class Candidate(NamedTuple):
    """One way to compute a training step."""

    precision: str
    channels_last: bool

    @property
    def name(self) -> str:
        """What a verdict calls it, such as "bf16 contiguous"."""
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{'bf16' if self.precision == BFLOAT16 else 'fp32'} {layout}"


BASELINE = Candidate(FLOAT32, channels_last=True)
CANDIDATES = (
    BASELINE,
    Candidate(BFLOAT16, channels_last=True),
    Candidate(FLOAT32, channels_last=False),
    Candidate(BFLOAT16, channels_last=False),
)
"""In the order in which they are worth knowing."""


@dataclass(frozen=True)
class Verdict:
    """How a run computes, and why.

    Args:
        precision: What Lightning calls it, such as "bf16-mixed".
        channels_last: Whether images and convolutions lie in memory with their channels last.
        speed: Times as fast as float32 with channels last, by the names of candidates; empty without a measurement.
        note: Why nothing was measured; None where something was, or where a person has typed the precision.
        batch_size: Images of the steps that were measured; 0 where none were.
        machine: The CPU or GPU.
        threads: Of PyTorch, on the CPU.
        torch: PyTorch's version.
    """

    precision: str = FLOAT32
    channels_last: bool = True
    speed: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None
    batch_size: int = 0
    machine: str = ""
    threads: int = 0
    torch: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `from_dict` makes an equal verdict."""
        return {**asdict(self), "speed": dict(self.speed)}

    @classmethod
    def from_dict(cls, values: Any) -> "Verdict":
        """Return the verdict that `to_dict` described.

        Raises:
            ValueError: If the values are something else.
        """
        kinds: dict[str, Any] = {
            "precision": str,
            "channels_last": bool,
            "speed": dict,
            "note": str | None,
            "batch_size": int,
        }
        kinds |= {"machine": str, "threads": int, "torch": str}
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise ValueError("no verdict")
        if not all(isinstance(values[key], kind) for key, kind in kinds.items()):
            raise ValueError("no verdict: a value of another type")
        if values["precision"] not in PRECISIONS:
            raise ValueError("no verdict: a precision that there is not")
        if not all(isinstance(ratio, float | int) for ratio in values["speed"].values()):
            raise ValueError("no verdict: a speed that is no number")
        return cls(**values)

    def __str__(self) -> str:
        """Return the verdict as the line of the device shows it."""
        layout = "channels_last" if self.channels_last else "contiguous"
        why = f" ({self._why()})" if self._why() else ""
        return f"{self.precision} · {layout}{why}"

    def _why(self) -> str:
        if self.note is not None:
            return self.note
        fp32, bf16 = _best(self.speed, FLOAT32), _best(self.speed, BFLOAT16)
        told = []
        if bf16 is not None and fp32 is not None:
            told.append(f"bf16 {self.speed[bf16.name] / self.speed[fp32.name]:.2f}x of fp32")
        if not self.channels_last:
            with_last = self.speed.get(Candidate(self.precision, channels_last=True).name, 1.0)
            faster = self.speed[Candidate(self.precision, channels_last=False).name] / with_last
            told.append(f"contiguous {faster:.2f}x of channels_last")
        return f"probe: {', '.join(told)}" if told else ""


def choose(speed: Mapping[str, float]) -> Candidate:
    """Return the candidate to train with: another than the baseline only where it is clearly faster.

    Args:
        speed: Times as fast as the baseline, by the names of candidates; those that were not measured are left out.
            Without the baseline, which may not fit into the memory, beside the first of those that do.
    """
    fp32, bf16 = _best(speed, FLOAT32), _best(speed, BFLOAT16)
    if fp32 is None:
        return bf16 or BASELINE
    if bf16 is not None and speed[bf16.name] >= CLEARLY_FASTER * speed[fp32.name]:
        return bf16
    return fp32


def _best(speed: Mapping[str, float], precision: str) -> Candidate | None:
    """Return the layout for a precision: channels last, unless contiguous is clearly faster or alone."""
    last, contiguous = (Candidate(precision, channels_last) for channels_last in (True, False))
    if last.name not in speed:
        return contiguous if contiguous.name in speed else None
    faster = speed.get(contiguous.name, 0.0) >= CLEARLY_FASTER * speed[last.name]
    return contiguous if faster else last
