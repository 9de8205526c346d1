"""Table of the data sources."""

from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from unfreeze.config.compose import compose_config
from unfreeze.config.schema import Config
from unfreeze.config.values import check_values
from unfreeze.data.sources.images import ArrayImages
from unfreeze.data.sources.registry import SOURCES, DataSource, SourceOptions
from unfreeze.data.sources.source import ImageSource
from unfreeze.errors import UnfreezeError
from unfreeze.runs.builders.source import build_source, count_images

CONF = Path(__file__).parents[3] / "conf" / "data"


def load_noise(options: SourceOptions) -> ImageSource:
    """Return ten noise images, named after the root."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(10) % 2
    return ImageSource(Path(str(options.root)).name, ("a", "b"), ArrayImages(pixels), labels, np.full(10, "train"))


def config_of(*typed: str) -> Config:
    arguments = ["model=tiny", *typed]
    return check_values(compose_config(arguments, None), arguments)


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a source that is added to the table."""
    row = DataSource(loader=f"{__name__}:load_noise", required=("root",), is_rgb=True)
    monkeypatch.setitem(SOURCES, "noise", row)
    return "noise"


def test_a_row_is_all_that_a_configuration_needs(noise: str) -> None:
    config = config_of("data=digits", f"data.name={noise}", "data.root=walls", "data.test_fraction=0.2")
    source = build_source(config)
    assert (source.name, source.classes, len(source.images)) == ("walls", ("a", "b"), 10)
    outputs, images = count_images(config)
    assert (outputs.names, images) == (("a", "b"), 7)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "data.root: missing; type data.root=..."),
        (["data.root=walls", "data.csv=table.csv"], "data.csv: data=noise reads no table; type data=manifest"),
        (["data.root=walls", "model.in_chans=5"], "the images of data=noise are red, green and blue; want 1 or 3"),
    ],
)
def test_the_row_decides_which_settings_are_allowed(noise: str, typed: list[str], message: str) -> None:
    with pytest.raises(UnfreezeError) as refusal:
        config_of("data=digits", f"data.name={noise}", *typed)
    assert message in str(refusal.value)


def test_an_unknown_name_is_refused_with_the_names_of_the_table(noise: str) -> None:
    with pytest.raises(UnfreezeError) as refusal:
        config_of("data=digits", "data.name=mnist")
    assert str(refusal.value) == (
        "data.name: got 'mnist', want 'cifar10', 'imagefolder', 'manifest', 'digits' or 'noise'"
    )


@pytest.mark.parametrize("name", SOURCES)
def test_each_row_has_a_loader_and_a_configuration(name: str) -> None:
    assert callable(resolve_name(SOURCES[name].loader))
    assert f"name: {name}\n" in (CONF / f"{name}.yaml").read_text()


def test_the_counts_of_built_in_data_are_those_of_its_images() -> None:
    source = SOURCES["digits"].load(SourceOptions(bands=3))
    assert tuple(np.bincount(source.labels).tolist()) == SOURCES["digits"].train_counts
