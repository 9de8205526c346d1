"""What paths a person means, and in which order."""

from io import BytesIO
from pathlib import Path

import pytest

from tests.photos import save_photo
from unfreeze.data.sources.walking import IMAGE_SUFFIXES
from unfreeze.inference.paths import Unmatched, find_paths


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photos in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.JPG", "b/deep/0.png", "a/1.png", "[x]/1.png", "a/.hidden.png", ".trash/9.png"):
        save_photo(tmp_path / "photos" / name)
    (tmp_path / "photos" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    return tmp_path


def found(*given: str, listed: bytes = b"", is_null: bool = False) -> list[str | Unmatched]:
    return list(find_paths(given, suffixes=IMAGE_SUFFIXES, listed=BytesIO(listed), is_null=is_null))


def test_a_folder_is_its_images_sorted_and_without_what_systems_leave() -> None:
    assert found("photos") == [
        f"photos/{name}" for name in ("[x]/1.png", "a/1.png", "b/1.JPG", "b/2.png", "b/deep/0.png")
    ]
    assert found("photos/b/") == ["photos/b/1.JPG", "photos/b/2.png", "photos/b/deep/0.png"]
    assert found(".") == [f"./{name}" for name in found("photos")]


def test_named_files_keep_their_order() -> None:
    assert found("photos/b/2.png", "photos/a/notes.txt", "photos/a", "photos/b/2.png") == [
        "photos/b/2.png",
        "photos/a/notes.txt",
        "photos/a/1.png",
        "photos/b/2.png",
    ]


def test_patterns_are_expanded_as_in_a_shell() -> None:
    assert found("photos/b/*") == ["photos/b/1.JPG", "photos/b/2.png", "photos/b/deep/0.png"]
    assert found("photos/?/1.*") == ["photos/a/1.png", "photos/b/1.JPG"]
    assert found("photos/**/*.png") == [
        f"photos/{name}" for name in ("[x]/1.png", "a/1.png", "b/2.png", "b/deep/0.png")
    ]
    assert len(found("photos/b/**")) == 3, "each image once, even if its folder matches too"
    assert found("photos/[x]") == ["photos/[x]/1.png"], "what is there is no pattern"


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert found("~/photos/a") == [f"{place}/photos/a/1.png"]
    assert found("~/photos/a/*.png") == [f"{place}/photos/a/1.png"]


def test_unmatched_paths_keep_their_position() -> None:
    assert found("no.png", "photos/a", "*.gif") == [
        Unmatched("no.png", "no such file"),
        "photos/a/1.png",
        Unmatched("*.gif", "matches no file"),
    ]
    (unmatched,) = found("empty")
    assert isinstance(unmatched, Unmatched)
    assert unmatched.reason.startswith("no images in this folder; their names end in .apng")


def test_a_list_has_a_path_in_each_line_and_no_patterns() -> None:
    listed = b"photos/b/2.png\r\n\nphotos/a\nphotos/[x]/1.png\nphotos/*"
    expected = ["photos/b/2.png", "photos/a/1.png", "photos/[x]/1.png", Unmatched("photos/*", "no such file")]
    assert found("-", listed=listed) == expected
    assert found("-") == []


def test_a_list_may_end_paths_with_zero_bytes(place: Path) -> None:
    names = ["photos/a/new\nline.png", "photos/a/caf\udce9.png", "photos/a/end\r"]
    for name in names:
        save_photo(place / "photos/b/2.png").rename(place / name)
        save_photo(place / "photos/b/2.png")
    listed = b"photos/a/new\nline.png\0photos/a/caf\xe9.png\0photos/a/end\r"
    assert found("-", listed=listed, is_null=True) == names
    assert found("-", listed=b"photos/b/1.JPG\0" * 20_000, is_null=True) == ["photos/b/1.JPG"] * 20_000
