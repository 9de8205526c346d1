"""Networks of torch.hub repositories, in a folder or on GitHub."""

import inspect
import re
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.models.architecture import Architecture
from unfreeze.models.channels import adapt_state, replace_first_convolution
from unfreeze.models.meta import move_to_meta
from unfreeze.models.output_layer import NoOutputLayerError, find_output_layer
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import ModelSpec
from unfreeze.models.weight_names import find_weights
from unfreeze.models.weights import WeightsReport, load_backbone, read_file

IMAGENET = Preprocessing(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Input transform of networks without one of their own."""

_SIZES = (32, 28, 64, 96, 128, 160, 192, 256, 299, 384)
"""Image sizes in pixels to try for networks that do not support ImageNet's."""

_GITHUB = re.compile(r"[\w.-]+/[\w.-]+(:.+)?")


class HubModel(Architecture):
    """A network of an entry point of a repository.

    Args:
        spec: Specification with a repository.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, ["DEFAULT"])
        self._heads: tuple[str, ...] = ()

    def preprocessing(self, weights: str | None = None) -> Preprocessing:
        """Return the input transform of ImageNet, as repositories do not define one."""
        return IMAGENET.for_channels(self.spec.in_chans)

    def build(self, image_size: int | None = None, *, dropout: float | None = None) -> nn.Module:
        """Return the network of the entry point without pretrained weights."""
        return self._call(image_size, pretrained=False)[0]

    def pretrained(
        self, weights: str, image_size: int | None = None, *, dropout: float | None = None
    ) -> tuple[nn.Module, WeightsReport]:
        """Return the network of the entry point with its own weights, or with those of a file."""
        found = find_weights(weights, names=self.weight_names, title=self.name)
        if isinstance(found, Path):
            network, replaced = self._call(image_size, pretrained=False)
            state = adapt_state(read_file(found, wanted=network.state_dict()), replaced, self.spec.in_chans)
            return network, load_backbone(network, state, heads=self.find_heads(network), source=weights)
        network, _ = self._call(image_size, pretrained=True)
        return network, WeightsReport(matched=len(network.state_dict()), old_head=(), unexpected=())

    def skeleton(self, image_size: int | None = None) -> nn.Module:
        """Return the network on the meta device; it is built on the CPU first, as its code may not support others."""
        return move_to_meta(self.build(image_size))

    def find_heads(self, network: nn.Module) -> tuple[str, ...]:
        """Return the name of the output layer that was found when the network was built."""
        return self._heads

    def _call(self, image_size: int | None, *, pretrained: bool) -> tuple[nn.Module, str | None]:
        """Return the network, and the name of its first convolution if that was replaced for other channels."""
        spec, repo = self.spec, str(self.spec.repo)
        is_local = _is_local(repo)
        options = dict(spec.options)
        try:
            if is_local and not _takes_pretrained(_entry_points(repo)[spec.name]):
                if pretrained:
                    raise UnfreezeError(
                        f"model.weights: {spec.name} of {repo} takes no argument `pretrained`; type "
                        "model.weights=path/to/file, or model.weights=null"
                    )
            else:
                options = {"pretrained": pretrained, **options}
            network = torch.hub.load(  # type: ignore[no-untyped-call]
                repo, spec.name, source="local" if is_local else "github", trust_repo=True, verbose=False, **options
            )
        except UnfreezeError:
            raise
        except Exception as error:  # the repository's own code, which may raise anything
            raise UnfreezeError(f"model: {spec.name} of {repo} can't be built ({first_line(error)})") from None
        if not isinstance(network, nn.Module):
            raise UnfreezeError(f"model.name: {spec.name} of {repo} is a {type(network).__name__}, not a network")
        replaced = replace_first_convolution(network, spec.in_chans)
        self._heads = (self._output_layer(network, image_size),)
        return network, replaced

    def _output_layer(self, network: nn.Module, image_size: int | None) -> str:
        """Return the layer that the new head will replace, found at a given size or at the first one that works."""
        first = image_size or self.preprocessing().crop_px
        problem = ""
        for size_px in dict.fromkeys([first, *(_SIZES if image_size is None else ())]):
            try:
                return find_output_layer(network, channels=self.spec.in_chans, size_px=size_px)
            except NoOutputLayerError as error:
                problem = problem or str(error)
        raise UnfreezeError(
            f"model.name: {self.spec.name} of {self.spec.repo} outputs no logits for images of {first} px ({problem}); "
            "want a network that ends in a linear layer and returns only its output, like "
            "nn.Sequential(network, nn.Linear(features, 10)); type data.image_size=... if the size is wrong"
        )


def find_hub_model(spec: ModelSpec) -> HubModel:
    """Return the network of an entry point; code of a repository on GitHub runs only if it is trusted.

    Raises:
        UnfreezeError: If there is no such repository or entry point, or it is not trusted.
    """
    if spec.repo is None:
        raise UnfreezeError("model.repo: missing; type model.repo=path/to/folder, or model.repo=owner/name")
    if not _is_local(spec.repo) and not _GITHUB.fullmatch(spec.repo):
        raise UnfreezeError(
            f"model.repo: no folder {spec.repo!r} with a hubconf.py; want such a folder, or owner/name[:ref] on GitHub"
        )
    if not spec.trust_repo and not _is_local(spec.repo):
        raise UnfreezeError(
            f"model.repo: {spec.repo} would be downloaded from GitHub, and its code run on this machine; if you trust "
            "it, type model.trust_repo=true (a folder with a hubconf.py does not need it)"
        )
    if _is_local(spec.repo):
        names = _entry_points(spec.repo)
        if spec.name not in names:
            raise UnfreezeError(f"model.name: {spec.repo}/hubconf.py has no {spec.name!r}; want {', '.join(names)}")
    return HubModel(spec)


def _is_local(repo: str) -> bool:
    return (Path(repo).expanduser() / "hubconf.py").is_file()


def _entry_points(repo: str) -> dict[str, Callable[..., Any]]:
    """Return the entry points of a folder's hubconf.py: its callables without a leading underscore."""
    folder = Path(repo).expanduser().absolute()
    spec = spec_from_file_location("hubconf", folder / "hubconf.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.path.insert(0, str(folder))  # as torch.hub does: a repository imports from itself
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the repository's own code, which may raise anything
        raise UnfreezeError(f"model.repo: {repo}/hubconf.py can't be imported ({first_line(error)})") from None
    finally:
        sys.path.remove(str(folder))
    return {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}


def _takes_pretrained(entry: Callable[..., Any]) -> bool:
    parameters = inspect.signature(entry).parameters
    return "pretrained" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())
