"""Decoding of unusual and broken image files."""

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from tests.data.sources.odd_files import READABLE, UNREADABLE, Write, two_halves
from unfreeze.data.sources.decoding import UnreadableImageError, decode_file, quiet_decoders
from unfreeze.data.sources.imagefolder import folder_source
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import ImageStore, StoreOptions, build_store
from unfreeze.errors import UnfreezeError


@pytest.mark.parametrize(("name", "write", "seen"), READABLE, ids=[name for name, _, _ in READABLE])
def test_shown_as_a_person_sees_it(tmp_path: Path, name: str, write: Write, seen: tuple[tuple[int, ...], ...]) -> None:
    write(tmp_path / name)
    with quiet_decoders():
        decoded = decode_file(tmp_path / name)
    assert decoded.image.mode == "RGB"
    assert decoded.image.size == (32, 16)
    pixels = np.asarray(decoded.image).astype(int)
    assert pixels[4:12, 4:12].mean(axis=(0, 1)) == pytest.approx(seen[0], abs=6)
    assert pixels[4:12, 20:28].mean(axis=(0, 1)) == pytest.approx(seen[1], abs=6)


@pytest.mark.parametrize(("name", "write", "reason"), UNREADABLE, ids=[ascii(name) for name, _, _ in UNREADABLE])
def test_refused_with_a_reason(tmp_path: Path, name: str, write: Write, reason: str) -> None:
    write(tmp_path / name)
    with quiet_decoders(), pytest.raises(UnreadableImageError) as refusal:
        decode_file(tmp_path / name)
    message = str(refusal.value)
    assert reason in message.lower()
    assert message
    assert "\n" not in message
    assert str(tmp_path) not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_refused(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "mine.png")
    (tmp_path / "mine.png").chmod(0)
    with pytest.raises(UnreadableImageError, match="permission denied"):
        decode_file(tmp_path / "mine.png")


def shown(name: str) -> str:
    return name.replace("\t", "\\x09").replace("\n", "\\x0a")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a folder of two classes with every odd and every bad file, and one whose name is no UTF-8."""
    for folder in ("good", "mixed"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    for number, (name, write, _) in enumerate(READABLE):
        write(tmp_path / "photos" / ("good" if number % 2 else "mixed") / name)
    for name, write, _ in UNREADABLE:
        write(tmp_path / "photos" / "mixed" / name)
    two_halves().save(os.fsencode(tmp_path / "photos" / "good") + b"/caf\xe9.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("place", ["ram", "disk", "off"])
def test_all_bad_files_are_told_at_once_and_nothing_is_left_behind(corpus: Path, tmp_path: Path, place: str) -> None:
    options = StoreOptions(place=place, folder=tmp_path / "stores")  # type: ignore[arg-type]
    with pytest.raises(UnfreezeError) as refusal:
        build_store(folder_source(corpus), Resize(16), options=options)
    message = str(refusal.value)
    assert "\n" not in message
    count = len(READABLE) + len(UNREADABLE) + 1
    assert message.startswith(f"data: {len(UNREADABLE)} of {count} images can't be read; fix or remove them, or type ")
    for name, _, reason in UNREADABLE:
        assert f" mixed/{shown(name)} (" in message
        assert reason in message.lower()
    left = [path for path in (tmp_path / "stores").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize("place", ["ram", "disk", "off"])
def test_bad_files_can_be_left_out(corpus: Path, tmp_path: Path, place: str) -> None:
    source = folder_source(corpus)

    def build() -> ImageStore:
        options = StoreOptions(place=place, folder=tmp_path / "stores", workers=1)  # type: ignore[arg-type]
        return build_store(source, Resize(16), options=options, on_error="skip")

    first, second = build(), build()
    bad = {f"mixed/{shown(name)}" for name, _, _ in UNREADABLE}
    for store in (first, second):
        assert {source.images.name(index) for index in store.facts.unreadable} == bad
        assert len(store.facts.readable) == len(READABLE) + 1
        odd = next(i for i in range(len(source.images)) if source.images.name(i) == "good/caf\\xe9.png")
        assert store.read(np.array([odd]))[0, :, 8, 4].tolist() == [255, 0, 0]
    assert first.fingerprint == second.fingerprint


def test_postscript_is_no_picture_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "trap.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UnreadableImageError, match=r"^not an image$"):
        decode_file(tmp_path / "trap.jpg")


def test_what_the_machine_lacks_is_not_laid_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_halves().save(tmp_path / "whole.png")

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        decode_file(tmp_path / "whole.png")


def test_no_file_stays_open(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("folder.jpg", "empty.jpg", "text.jpg", "whole.png")]
    paths[0].mkdir()
    paths[1].touch()
    paths[2].write_text("text")
    two_halves().save(paths[3])
    gc.collect()  # what others have left open
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        for path in paths[:3]:
            with pytest.raises(UnreadableImageError):
                decode_file(path)
        decode_file(paths[3])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
