"""State dicts that were filtered, renamed or read from a file, with the versions of their modules.

PyTorch stores in `_metadata` of a state dict the version of the module that wrote each entry. A copy into a plain dict
loses it, and modules then read their entries by older rules, or refuse them (MNASNet).
"""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load a state dict; if it has no versions, those of the module are assumed.

    Args:
        module: Module, changed in place.
        state: Entries of the module, or some of them.
        strict: Whether to raise if entries are missing or unexpected.
    """
    versioned = OrderedDict(state)
    versioned._metadata = getattr(state, "_metadata", None) or module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(versioned, strict=strict)


def entries_under(state: Mapping[str, Tensor], prefix: str) -> "OrderedDict[str, Tensor]":
    """Return the entries whose names start with a prefix, without the prefix, and with their versions.

    Args:
        state: State dict.
        prefix: Prefix with its final dot.
    """
    found = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items() if key.startswith(prefix))
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        found._metadata = OrderedDict(  # type: ignore[attr-defined]
            (name[len(prefix) :], version) for name, version in versions.items() if f"{name}.".startswith(prefix)
        )
    return found
