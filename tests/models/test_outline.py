"""The catalogue of torchvision's classifiers agrees with the networks, and needs no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.families import FAMILIES
from unfreeze.assets import ARCHITECTURES
from unfreeze.errors import UnfreezeError
from unfreeze.models import outline
from unfreeze.models.analysis import DryOutline
from unfreeze.models.outline import CatalogOutline, Growth, find_in_catalog, find_outline
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.torchvision_models import classifier_names

QUICK = {"tiny": (64, 75), "squeezenet1_1": (75,)}
"""Classifiers with a linear and a convolutional head, and the image sizes at which they are compared."""


def known(name: str, in_chans: int = 3) -> CatalogOutline:
    found = find_in_catalog(ModelSpec(name, in_chans=in_chans))
    assert found is not None
    return found


def check(name: str, sizes: tuple[int, ...]) -> None:
    """Compare what the catalogue says with what the network on the meta device does."""
    head = HeadSpec()
    ours, theirs = known(name), DryOutline(ModelSpec(name))
    groups = ours.group_sizes(7, head)
    assert groups == theirs.group_sizes(7, head)
    names = [group for group, _ in groups]
    for weights in (None, "DEFAULT", *ours._record["weights"]):
        assert ours.crop_px(weights) == theirs.crop_px(weights)
        ours.check_weights(weights)
        theirs.check_weights(weights)
    for only in (("norms",), ("biases",), (f"{names[1]}.*weight",), ("norms", "biases")):
        count = ours.count_trainable(7, names[:2], only, head)
        assert count == theirs.count_trainable(7, names[:2], only, head)
    for size in sizes:
        for depth in range(1, len(names) + 1):
            live = tuple(names[:depth])
            found, wanted = (each.find_edge(7, size_px=size, live=live) for each in (ours, theirs))
            assert (found is None) == (wanted is None)
            if found is not None and wanted is not None:
                assert (found.name, found.row_bytes, found.keeps_statistics) == (
                    wanted.name,
                    wanted.row_bytes,
                    wanted.keeps_statistics,
                )
                if size == ours.crop_px(None):
                    assert found.share == pytest.approx(wanted.share, abs=1e-3)


@pytest.mark.parametrize("name", QUICK)
def test_the_catalogue_says_what_the_network_does(name: str) -> None:
    check(name, QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", classifier_names())
def test_the_catalogue_says_what_every_network_does(name: str) -> None:
    low, step = known(name)._record["sizes"]
    check(name, (max(low, -(-90 // step) * step), -(-130 // step) * step))


def test_the_catalogue_has_every_classifier_once() -> None:
    lines = [json.loads(line) for line in ARCHITECTURES.read_text(encoding="utf-8").splitlines()]
    assert [line["name"] for line in lines[1:]] == ["tiny", *classifier_names()]
    assert set(lines[0]) == {"torchvision", "timm"}


@pytest.mark.parametrize("in_chans", [1, 4])
def test_other_channels_count_in_the_stem_alone(in_chans: int) -> None:
    theirs = DryOutline(ModelSpec("tiny", in_chans=in_chans))
    assert known("tiny", in_chans).group_sizes(7, HeadSpec()) == theirs.group_sizes(7, HeadSpec())


@pytest.mark.parametrize(
    "head",
    [
        HeadSpec("linear", dropout=0.3),
        HeadSpec("mlp"),
        HeadSpec("mlp", hidden=32),
        HeadSpec("cosine"),
        HeadSpec("linear", tasks=(3, 4)),
        HeadSpec("mlp", hidden=8, tasks=(3, 4)),
        HeadSpec("cosine", tasks=(3, 4)),
    ],
    ids=str,
)
def test_heads_of_every_kind_have_their_size(head: HeadSpec) -> None:
    assert known("resnet18").group_sizes(7, head) == DryOutline(ModelSpec("resnet18")).group_sizes(7, head)


def test_a_head_that_does_not_go_with_a_convolution_is_refused() -> None:
    with pytest.raises(UnfreezeError, match="head=mlp: the head of this architecture is a convolution"):
        known("squeezenet1_1").group_sizes(7, HeadSpec("mlp"))
    dropout = HeadSpec(dropout=0.1)
    assert known("squeezenet1_1").group_sizes(7, dropout) == DryOutline(ModelSpec("squeezenet1_1")).group_sizes(
        7, dropout
    )


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 100), ("alexnet", 32), ("densenet121", 16)])
def test_sizes_that_do_not_work_are_refused_as_by_the_network(name: str, size: int) -> None:
    with pytest.raises(UnfreezeError, match=f"data.image_size: {name} can't take images of {size} px"):
        known(name).check_image_size(size)


def test_networks_with_options_or_of_another_version_are_looked_at_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    with_options = ModelSpec("resnet18", options=(("zero_init_residual", True),))
    assert isinstance(find_outline(with_options), DryOutline)
    monkeypatch.setattr(outline, "version", lambda library: "99.0")
    assert isinstance(find_outline(ModelSpec("resnet18")), DryOutline)
    assert find_in_catalog(ModelSpec("resnet19")) is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec("resnet1"), "model.name: no classifier 'resnet1' in torchvision; near: resnet18"),
        (ModelSpec("vit_tiny_patch17_224", source="timm"), "model.name: no network 'vit_tiny_patch17_224' in timm"),
        (ModelSpec("resnet19.a1_in1k", source="timm"), "model.name: no network 'resnet19.a1_in1k' in timm"),
    ],
)
def test_names_that_the_catalogue_lacks_are_refused(spec: ModelSpec, message: str) -> None:
    with pytest.raises(UnfreezeError, match=message):
        find_in_catalog(spec)


def test_growth_counts_positions_as_strided_layers_do() -> None:
    assert [Growth(512, 32, 31, 0).at(size) for size in (32, 33, 64, 65)] == [512, 2048, 2048, 4608]
    assert Growth(0, 1, 0, 1280).at(17) == Growth(0, 1, 0, 1280).at(500) == 1280


def test_every_family_has_edges() -> None:
    for name in sorted(FAMILIES.values()):
        assert any(known(name)._record["edges"].values()), name


PLANS = [
    pytest.param(["model=vit_b_16", "data.image_size=64", "head=mlp"], id="vit"),
    pytest.param(["data=digits", "model=resnet18"], id="digits", marks=pytest.mark.slow),
    pytest.param(["model=tiny", "strategy.stages=[{name: a, train: all, epochs: 2, only: norms}]"], id="norms"),
]


def modules_after(typed: list[str], folder: Path) -> tuple[int, set[str]]:
    """Return the exit code of a command in a process of its own, and the modules that it has imported."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write('\\n' + ' '.join(sys.modules)))\n"
        f"sys.argv = {typed!r}\n"
        "if sys.argv[0] == 'unfreeze':\n    from unfreeze.cli.app import main; main()\n"
        "else:\n    import runpy; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, set(done.stderr.splitlines()[-1].split())


HEAVY = {"torch", "torchvision", "lightning", "sklearn", "scipy", "timm", "pandas", "matplotlib"}


@pytest.mark.parametrize("typed", PLANS)
def test_a_plan_of_a_classifier_of_torchvision_needs_no_torch(typed: list[str], tmp_path: Path) -> None:
    code, modules = modules_after(["unfreeze", "plan", *typed], tmp_path)
    assert code == 0
    assert not modules & HEAVY


TRAIN = str(Path(__file__).parents[2] / "train.py")
BAD_STAGE = "strategy.stages=[{name: a, train: [nose], epochs: 1}]"


REFUSED = [
    [TRAIN, "data=digits", "model=resnet18", "model.weights=V9"],
    [TRAIN, "data=digits", "model=resnet18", BAD_STAGE],
    ["unfreeze", "predict", "gone/run", "photo.jpg"],
    ["unfreeze", "evaluate", "gone"],
    ["unfreeze", "soup", "gone"],
]
ALSO_REFUSED = [
    [TRAIN, "data=digits", "model=torchvision", "model.name=resnet1"],
    [TRAIN, "data=digits", "model=timm", "model.name=resnet1"],
    ["unfreeze", "plan", "model=resnet18", BAD_STAGE],
    ["unfreeze", "audit", "data=digits", "model=torchvision", "model.name=resnet1"],
    ["unfreeze", "predict", "resnet1", "photo.jpg"],
    ["unfreeze", "features", "gone/run", "--out", "a.npz"],
    ["unfreeze", "export", "gone", "--to", "onnx"],
    ["unfreeze", "report", "gone"],
    ["unfreeze", "compare-runs", "gone", "gone"],
]


@pytest.mark.parametrize(
    "typed",
    [*REFUSED, *(pytest.param(typed, marks=pytest.mark.slow) for typed in ALSO_REFUSED)],
    ids=lambda typed: " ".join(typed[-3:]),
)
def test_a_refusal_by_name_needs_no_torch(typed: list[str], tmp_path: Path) -> None:
    code, modules = modules_after(typed, tmp_path)
    assert code == 2
    assert not modules & HEAVY
