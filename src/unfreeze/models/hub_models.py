"""Networks of torch.hub repositories, on this machine or on GitHub: code that somebody else has written."""

import inspect
import re
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.models.architecture import Architecture
from unfreeze.models.channels import adapt_state, replace_first_convolution
from unfreeze.models.meta import move_to_meta, on_meta
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import ModelSpec
from unfreeze.models.weights import WeightsReport, find_weights, load_backbone, read_file

IMAGENET = Preprocessing(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What a network sees of which nothing else is known."""

_GITHUB = re.compile(r"[\w.-]+/[\w.-]+(:.+)?")


class HubModel(Architecture):
    """An entry point of a repository.

    Args:
        spec: Its source is hub, and it has a repository.
    """

    is_known = False

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, ["DEFAULT"])

    def preprocessing(self, weights: str | None = None) -> Preprocessing:
        """Return ImageNet's: a repository says nothing of its own."""
        return IMAGENET.for_channels(self.spec.in_chans)

    def build(self, image_size: int | None = None, *, dropout: float | None = None) -> nn.Module:
        """Return what the entry point makes without weights."""
        return self._call(pretrained=False)[0]

    def pretrained(
        self, weights: str, image_size: int | None = None, *, dropout: float | None = None
    ) -> tuple[nn.Module, WeightsReport]:
        """Return what the entry point makes with its own weights, or with those of a file."""
        found = find_weights(weights, names=self.weight_names, title=self.name)
        if isinstance(found, Path):
            network, replaced = self._call(pretrained=False)
            state = adapt_state(read_file(found, wanted=network.state_dict()), replaced, self.spec.in_chans)
            return network, load_backbone(network, state, heads=self.find_heads(network), source=weights)
        network, _ = self._call(pretrained=True)
        return network, WeightsReport(matched=len(network.state_dict()), old_head=(), unexpected=())

    def skeleton(self, image_size: int | None = None) -> nn.Module:
        """Return the network on the meta device; it is built elsewhere first, as its code may not know of that one."""
        return move_to_meta(self.build(image_size))

    def find_heads(self, network: nn.Module) -> tuple[str, ...]:
        """Return the name of the layer that gives the logits, which need not be the one that was defined last."""
        size = self.preprocessing().crop_px
        called: list[tuple[str, nn.Linear | nn.Conv2d, Tensor]] = []
        try:
            seen = on_meta(network).eval()
            for name, module in seen.named_modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.register_forward_hook(lambda module, _, out, name=name: called.append((name, module, out)))
            with torch.no_grad():
                answer = seen(torch.empty(2, self.spec.in_chans, size, size, device="meta"))
        except Exception:  # wants another size, or can't be copied, or does what the meta device can't
            return super().find_heads(network)
        if not isinstance(answer, Tensor):
            return super().find_heads(network)
        for name, module, out in reversed(called):
            width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            if out is answer or (answer.ndim == 2 and width == answer.shape[1]):
                return (name,)
        return super().find_heads(network)

    def _call(self, *, pretrained: bool) -> tuple[nn.Module, str | None]:
        """Return the network, and the name of its first convolution where that was made to fit other channels."""
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
            raise UnfreezeError(f"model.name: {spec.name} of {repo} gives a {type(network).__name__}, not a network")
        return network, replace_first_convolution(network, spec.in_chans)


def find_hub_model(spec: ModelSpec) -> HubModel:
    """Return an entry point of a repository; code of one on GitHub runs only where that was said.

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
            "it, type model.trust_repo=true (a folder with a hubconf.py needs no such word)"
        )
    if _is_local(spec.repo):
        names = _entry_points(spec.repo)
        if spec.name not in names:
            raise UnfreezeError(f"model.name: {spec.repo}/hubconf.py has no {spec.name!r}; want {', '.join(names)}")
    return HubModel(spec)


def _is_local(repo: str) -> bool:
    return (Path(repo).expanduser() / "hubconf.py").is_file()


def _entry_points(repo: str) -> dict[str, Callable[..., Any]]:
    """Return what the hubconf.py of a folder offers, as torch.hub takes it: the callables without an underscore."""
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
