"""State dicts keep the versions of their modules, or get those of the loaded module."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mnasnet0_5

from unfreeze.models.state_dicts import entries_under, load_state


class Halved(nn.Module):
    """Stores its weight at half its value since version 2."""

    _version = 2

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"] / 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def whole(network: nn.Module) -> dict[str, Tensor]:
    return nn.ModuleDict({"network": network, "loss": nn.Linear(2, 2)}).state_dict()


def test_entries_under_a_prefix_have_its_versions() -> None:
    state = entries_under(whole(nn.Sequential(Halved(3.0))), "network.")
    assert list(state) == ["0.weight"]
    assert state._metadata[""] == {"version": 1}
    assert state._metadata["0"] == {"version": 2}
    assert not any("loss" in name for name in state._metadata)


@pytest.mark.parametrize("make", [dict, lambda state: state], ids=["plain dict", "with versions"])
def test_a_copy_loads_as_what_it_was_copied_from(make) -> None:
    loaded = nn.Sequential(Halved(0.0))
    load_state(loaded, make(nn.Sequential(Halved(3.0)).state_dict()))
    assert loaded[0].weight.item() == 3.0


def test_versions_of_the_file_come_before_those_of_the_module() -> None:
    state = nn.Sequential(Halved(3.0)).state_dict()
    state._metadata["0"] = {"version": 1}  # type: ignore[attr-defined]
    loaded = nn.Sequential(Halved(0.0))
    load_state(loaded, state)
    assert loaded[0].weight.item() == 1.5


def test_some_entries_of_mnasnet_are_loaded() -> None:
    network = mnasnet0_5(weights=None)
    bias = torch.arange(1000.0)
    load_state(network, {"classifier.1.bias": bias}, strict=False)
    assert torch.equal(network.classifier[1].bias, bias)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_state(network, {"classifier.1.bias": bias})
