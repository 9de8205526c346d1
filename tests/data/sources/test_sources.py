"""Properties of every source of labelled images."""

import numpy as np

from unfreeze.data.sources.images import ArrayImages
from unfreeze.data.sources.source import ImageSource, Task


def source_of(labels: list[int], **options: object) -> ImageSource:
    count = len(labels)
    return ImageSource(
        "noise",
        ("a", "b"),
        ArrayImages(np.zeros((count, 2, 2, 3), dtype=np.uint8)),
        np.array(labels),
        np.full(count, "train"),
        **options,  # type: ignore[arg-type]
    )


def test_one_task_is_its_own_strata() -> None:
    source = source_of([0, 1, 1])
    assert [task.name for task in source.tasks] == ["label"]
    assert source.strata is source.labels


def test_several_tasks_are_stratified_jointly() -> None:
    age = Task("age", ("young", "old"), np.array([0, 0, 1, 1, 0, 0]))
    source = source_of([0, 0, 0, 0, 1, 1], task="species", more_tasks=(age,))
    assert [(task.name, task.classes) for task in source.tasks] == [("species", ("a", "b")), ("age", ("young", "old"))]
    assert source.strata.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_combination_that_one_image_has_counts_as_its_class() -> None:
    age = Task("age", ("1", "2", "3"), np.array([0, 0, 1, 2, 0, 0]))
    assert source_of([0, 0, 0, 0, 1, 1], more_tasks=(age,)).strata.tolist() == [0, 0, 2, 2, 1, 1]


def test_images_in_memory_are_read_and_named() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    images = ArrayImages(pixels)
    assert (len(images), images.name(1)) == (2, "#1")
    first, second = images.read(0), images.read(1)
    assert second.image.mode == "RGB"
    assert np.array_equal(np.asarray(second.image), pixels[1])
    assert len(first.digest) == 16
    assert first.digest != second.digest
    assert first.digest == ArrayImages(pixels[:1].copy()).read(0).digest
