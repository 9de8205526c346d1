"""State dicts that were filtered, renamed or read from a file: they keep, or get back, the versions of their modules.

PyTorch stores in `_metadata` of a state dict in which version each module wrote its entries. A copy into a plain dict
loses it, and then modules read their entries by older rules, or refuse them (MNASNet).
"""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load a state dict; where it has no versions of modules, those of the module itself are assumed.

    Args:
        module: Changed in place.
        state: Its entries, or some of them.
        strict: Raise if an entry is missing, or has no place.
    """
    versioned = OrderedDict(state)
    versioned._metadata = getattr(state, "_metadata", None) or module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(versioned, strict=strict)


def entries_under(state: Mapping[str, Tensor], prefix: str) -> "OrderedDict[str, Tensor]":
    """Return the entries whose names begin with a prefix, without it, and with their versions.

    Args:
        state: A state dict.
        prefix: With its dot at the end.
    """
    found = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items() if key.startswith(prefix))
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        found._metadata = OrderedDict(  # type: ignore[attr-defined]
            (name[len(prefix) :], version) for name, version in versions.items() if f"{name}.".startswith(prefix)
        )
    return found
