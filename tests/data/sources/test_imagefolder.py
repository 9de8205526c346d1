"""Image folders: supported layouts, and errors about others."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.photos import save_photo
from unfreeze.data.sources.imagefolder import folder_source
from unfreeze.data.sources.images import FileImages, printable
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.sources.walking import IMAGE_SUFFIXES
from unfreeze.errors import UnfreezeError

MakeFolder = Callable[..., Path]


def counts(source: ImageSource) -> dict[str, dict[str, int]]:
    """Return the number of images per split and class name."""
    table: dict[str, dict[str, int]] = {}
    for split, label in zip(source.splits.tolist(), source.labels.tolist(), strict=True):
        row = table.setdefault(split, {})
        row[source.classes[label]] = row.get(source.classes[label], 0) + 1
    return table


def names(source: ImageSource) -> list[str]:
    return [source.images.name(index) for index in range(len(source.images))]


def test_all_three_splits(photo_folder: MakeFolder) -> None:
    layout = {"train/dog": 3, "train/cat": 2, "val/cat": 1, "val/dog": 1, "test/cat": 2, "test/dog": 1}
    source = folder_source(photo_folder(layout))
    assert source.classes == ("cat", "dog")
    assert source.name == "photos"
    assert counts(source) == {
        "train": {"cat": 2, "dog": 3},
        "val": {"cat": 1, "dog": 1},
        "test": {"cat": 2, "dog": 1},
    }


@pytest.mark.parametrize(
    ("layout", "splits"),
    [
        ({"train/a": 1, "train/b": 1, "test/a": 1}, {"train": 2, "test": 1}),
        ({"train/a": 1, "train/b": 1, "val/b": 2}, {"train": 2, "val": 2}),
        ({"train/a": 1, "train/b": 1, "valid/b": 2}, {"train": 2, "val": 2}),
        ({"train/a": 1, "train/b": 1, "validation/b": 2}, {"train": 2, "val": 2}),
        ({"train/a": 1, "train/b": 1}, {"train": 2}),
        ({"a": 1, "b": 3}, {"train": 4}),
    ],
)
def test_some_or_no_splits(photo_folder: MakeFolder, layout: Mapping[str, int], splits: Mapping[str, int]) -> None:
    source = folder_source(photo_folder(layout))
    assert source.classes == ("a", "b")
    assert {name: int((source.splits == name).sum()) for name in splits} == splits
    assert len(source.images) == len(source.labels) == sum(splits.values())


def test_a_class_that_is_called_train_is_a_class(photo_folder: MakeFolder) -> None:
    source = folder_source(photo_folder({"train": 2, "bus": 1}))
    assert counts(source) == {"train": {"bus": 1, "train": 2}}


def test_labels_follow_the_images(photo_folder: MakeFolder) -> None:
    source = folder_source(photo_folder({"zebra": 1, "ant": 2, "Bee": 1}))
    assert source.classes == ("Bee", "ant", "zebra")
    assert [
        (name.split("/")[0], source.classes[label]) for name, label in zip(names(source), source.labels, strict=True)
    ] == [(folder, folder) for folder in ("Bee", "ant", "ant", "zebra")]


def test_nested_folders_and_extensions_in_any_case(photo_folder: MakeFolder) -> None:
    root = photo_folder({"a": 1, "b": 0})
    save_photo(root / "b" / "2024" / "may" / "one.JPG")
    save_photo(root / "b" / "2023" / "two.JpEg")
    save_photo(root / "b" / "three.PNG")
    save_photo(root / "b" / "four.webp")
    assert names(folder_source(root)) == [
        "a/0.png",
        "b/2023/two.JpEg",
        "b/2024/may/one.JPG",
        "b/four.webp",
        "b/three.PNG",
    ]


def test_hidden_and_other_files_are_left_out(photo_folder: MakeFolder) -> None:
    root = photo_folder({"a": 1, "b": 1, ".git": 2, "b/.thumbnails": 2})
    save_photo(root / "b" / "._0.png")
    save_photo(root / "stray.png")
    (root / "b" / "notes.txt").write_text("no image")
    (root / "b" / "Thumbs.db").write_bytes(b"no image")
    save_photo(root / "b" / "@eaDir" / "thumbnail.png")
    source = folder_source(root)
    assert names(source) == ["a/0.png", "b/0.png"]
    assert source.ignored == (
        ".git/",
        "b/._0.png",
        "b/.thumbnails/",
        "b/@eaDir/",
        "b/Thumbs.db",
        "b/notes.txt",
        "stray.png",
    )


def test_what_stands_beside_the_splits_is_ignored(photo_folder: MakeFolder) -> None:
    root = photo_folder({"train/a": 1, "train/b": 1, "valid/a": 1, "val/b": 1, "raw/x": 2})
    save_photo(root / "train" / "loose.png")
    source = folder_source(root)
    assert counts(source) == {"train": {"a": 1, "b": 1}, "val": {"b": 1}}
    assert source.ignored == ("raw/", "train/loose.png", "valid/")


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_counts_in_any_case(photo_folder: MakeFolder, suffix: str) -> None:
    root = photo_folder({"a": 1, "b": 0})
    (root / "b" / f"photo{suffix.upper()}").touch()
    assert names(folder_source(root)) == ["a/0.png", f"b/photo{suffix.upper()}"]


def test_files_that_can_not_be_read_are_left_for_the_decoder(photo_folder: MakeFolder) -> None:
    root = photo_folder({"a": 1, "b": 1})
    (root / "b" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "b" / "itself.jpg").symlink_to(root / "b" / "itself.jpg")
    (root / "b" / "gone.txt").symlink_to(root / "nowhere.txt")
    os.mkfifo(root / "b" / "pipe.jpg")
    source = folder_source(root)
    assert names(source) == ["a/0.png", "b/0.png", "b/gone.jpg", "b/itself.jpg", "b/pipe.jpg"]
    assert source.ignored == ("b/gone.txt",)


def test_names_of_any_bytes(photo_folder: MakeFolder) -> None:
    root = photo_folder({"b": 1})
    folder = os.fsencode(root) + b"/caf\xe9"
    try:
        Path(os.fsdecode(folder)).mkdir()
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    save_photo(root / "x.png").rename(os.fsdecode(folder + b"/\xff.png"))
    source = folder_source(root)
    assert source.classes == ("b", r"caf\xe9")
    assert names(source) == ["b/0.png", r"caf\xe9/\xff.png"]
    assert source.images.read(1).image.size == (12, 10)


def test_a_folder_that_may_not_be_looked_into_is_named(
    photo_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photo_folder({"a": 1, "b/deep": 1})
    scandir = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UnfreezeError, match=r"data.root: can't list '.*b/deep' \(permission denied\); make it"):
        folder_source(root)


def test_class_names_with_spaces_and_beyond_ascii(photo_folder: MakeFolder) -> None:
    classes = ("Łódź 100%", "a=b [c]", "grey cat", "猫")
    source = folder_source(photo_folder(dict.fromkeys(classes, 1), name="my photos (1)"))
    assert set(source.classes) == set(classes)
    assert source.name == "my photos (1)"
    assert source.images.read(0).image.size == (12, 10)


def test_a_path_may_begin_with_a_tilde(photo_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photo_folder({"a": 1, "b": 1})
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(folder_source("~/photos").images) == 2


def test_links_that_go_round_in_a_circle_end(photo_folder: MakeFolder) -> None:
    root = photo_folder({"a": 1, "b": 1})
    (root / "b" / "again").symlink_to(root / "b", target_is_directory=True)
    assert names(folder_source(root)) == ["a/0.png", "b/0.png"]


def test_linked_class_folders_are_followed(photo_folder: MakeFolder, tmp_path: Path) -> None:
    elsewhere = photo_folder({"dogs": 2}, name="elsewhere")
    root = photo_folder({"cat": 1})
    (root / "dog").symlink_to(elsewhere / "dogs", target_is_directory=True)
    assert counts(folder_source(root)) == {"train": {"cat": 1, "dog": 2}}


SKIPPED_LINKS = "links skipped, as they lead back, or to images of other classes or splits: "


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../cat", "../cat/old", "../../val/dog"])
def test_a_link_to_what_another_class_or_split_has_is_left_out_and_named(photo_folder: MakeFolder, target: str) -> None:
    layout = {"train/cat": 2, "train/cat/old": 2, "train/dog": 1, "val/cat": 1, "val/dog": 1}
    root = photo_folder(layout)
    (root / "train" / "dog" / "up").symlink_to(target, target_is_directory=True)
    source = folder_source(root)
    assert counts(source) == {"train": {"cat": 4, "dog": 1}, "val": {"cat": 1, "dog": 1}}
    assert source.notes == (f"{SKIPPED_LINKS}train/dog/up/",)


def test_a_class_folder_that_is_a_link_to_another_or_upwards_is_left_out_and_named(photo_folder: MakeFolder) -> None:
    root = photo_folder({"cat": 2, "dog": 1})
    (root / "hound").symlink_to("dog", target_is_directory=True)
    (root / "up").symlink_to("..", target_is_directory=True)
    source = folder_source(root)
    assert source.classes == ("cat", "dog")
    assert source.notes == (f"{SKIPPED_LINKS}hound/, up/",)


def test_links_below_a_class_to_other_places_are_followed(photo_folder: MakeFolder, tmp_path: Path) -> None:
    elsewhere = photo_folder({"dogs": 2}, name="elsewhere")
    root = photo_folder({"cat": 1, "dog": 1})
    (root / "dog" / "more").symlink_to(elsewhere / "dogs", target_is_directory=True)
    source = folder_source(root)
    assert counts(source) == {"train": {"cat": 1, "dog": 3}}
    assert source.notes == ()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Cat", "cat", "dog"), (("Cat", "cat"),)),
        (("caf\u00e9", "cafe\u0301", "tea"), (("cafe\u0301", "caf\u00e9"),)),
        (("cat", "cats"), ()),
    ],
)
def test_classes_whose_names_look_alike_are_found(
    photo_folder: MakeFolder, names: tuple[str, ...], expected: tuple[tuple[str, ...], ...]
) -> None:
    source = folder_source(photo_folder(dict.fromkeys(names, 1)))
    if len(source.classes) < len(names):
        pytest.skip("this file system takes such names for one")
    assert source.similar_class_names == expected


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        ({}, ["no images in", "Want a folder of class folders", ".jpg"]),
        ({"a": 0, "b": 0}, ["class 'a' has no images"]),
        ({"a": 2, "b": 0}, ["class 'b' has no images", "add some or remove it"]),
        ({"train/a": 1, "train/b": 0}, ["class 'b' has no images"]),
        (
            {"train/a": 1, "train/b": 1, "val/c": 1},
            ["val/ has a class 'c' that train/ lacks", "classes of train: a, b"],
        ),
        ({"train/a": 1, "train/b": 1, "test/B": 1}, ["test/ has a class 'B' that train/ lacks"]),
    ],
)
def test_what_can_not_be_learned_from_is_refused(
    photo_folder: MakeFolder, layout: Mapping[str, int], parts: list[str]
) -> None:
    with pytest.raises(UnfreezeError) as refusal:
        folder_source(photo_folder(layout))
    assert str(refusal.value).startswith("data.root: ")
    assert [part for part in parts if part not in str(refusal.value)] == []
    assert "\n" not in str(refusal.value)


def test_names_are_one_line_whatever_their_bytes() -> None:
    assert printable("caf\u00e9\n\x1b\udcff") == "café\\x0a\\x1b\\xff"
    assert FileImages("", ["a\nb.png"]).name(0) == "a\\x0ab.png"


def test_an_unknown_class_without_images_is_no_harm(photo_folder: MakeFolder) -> None:
    source = folder_source(photo_folder({"train/a": 1, "train/b": 1, "val/a": 1, "val/notes": 0}))
    assert source.classes == ("a", "b")


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photos.zip"
    if kind == "file":
        path.touch()
    with pytest.raises(UnfreezeError, match=r"data.root: no folder '.*photos.zip'. Want a folder of class folders"):
        folder_source(path)


def test_many_classes_are_not_all_told(photo_folder: MakeFolder) -> None:
    layout = {f"train/{number:03}": 1 for number in range(30)} | {"val/x": 1}
    with pytest.raises(UnfreezeError, match=r"008, 009 \.\.\.$"):
        folder_source(photo_folder(layout))


@pytest.mark.parametrize(
    ("layout", "splits"),
    [
        ({"Train/a": 1, "Train/b": 1, "Test/a": 1}, {"train": 2, "test": 1}),
        ({"Training/a": 1, "Training/b": 1, "Testing/b": 2}, {"train": 2, "test": 2}),
        ({"TRAIN/a": 1, "TRAIN/b": 1, "dev/b": 2}, {"train": 2, "val": 2}),
    ],
)
def test_splits_go_by_several_names(photo_folder: MakeFolder, layout: dict[str, int], splits: dict[str, int]) -> None:
    source = folder_source(photo_folder(layout))
    assert source.classes == ("a", "b")
    assert {name: int((source.splits == name).sum()) for name in splits} == splits


def test_splits_without_class_folders_are_no_classes(photo_folder: MakeFolder) -> None:
    with pytest.raises(UnfreezeError, match=r"has train/ and test/ without class folders; want a folder per class"):
        folder_source(photo_folder({"train": 3, "test": 2}))
