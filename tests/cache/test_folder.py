"""The cache folder: its size limit, protection of entries in use, and of files that are not entries."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import pytest

from unfreeze.cache.folder import CachedItem, CacheEntry, CacheFolder, Kind, NoRoomError
from unfreeze.system.text import size_text

MB = 10**6


def key_of(name: str) -> str:
    return blake2b(name.encode(), digest_size=16).hexdigest()


def build(cache: CacheFolder, name: str, *, kind: Kind = "features", nbytes: int = MB, age_s: float = 0) -> CacheEntry:
    """Make an entry that was used some seconds ago."""
    entry = cache.entry(kind, key_of(name))
    with entry.locked():
        entry.make_room(nbytes)
        with entry.write("x.npy") as path:
            path.write_bytes(bytes(nbytes))
        entry.describe({"model": name, "images": 1})
    used = time.time() - age_s
    for file in entry.folder.iterdir():
        os.utime(file, (used, used))
    return entry


def names(cache: CacheFolder) -> list[str]:
    return [item.meta["model"] for item in cache.entries()]


@contextmanager
def another_process(code: str, entry: CacheEntry) -> Iterator["subprocess.Popen[str]"]:
    """Run code that has an entry as `entry`, up to the line that it prints."""
    start = (
        "import os, sys, time; from pathlib import Path; from unfreeze.cache.folder import CacheFolder\n"
        f"entry = CacheFolder(Path({str(entry.cache.root)!r}), {entry.cache.gb}).entry({entry.kind!r}, {entry.key!r})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        try:
            yield process
        finally:
            process.kill()


USE = "assert entry.use(); print('ready', flush=True); sys.stdin.readline()"


@pytest.fixture
def cache(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path / "cache", gb=3.5 * MB / 1e9)


def test_entries_of_all_kinds_are_listed(cache: CacheFolder) -> None:
    assert cache.entries() == []
    build(cache, "b", kind="decoded", age_s=10)
    build(cache, "a", nbytes=2 * MB, age_s=20)
    first, second = cache.entries()
    assert (first.kind, first.key, first.in_use) == ("features", key_of("a"), False)
    assert (second.kind, second.key, second.meta["model"]) == ("decoded", key_of("b"), "b")
    assert 2 * MB < first.nbytes < 2.01 * MB
    assert first.last_used == pytest.approx(time.time() - 20, abs=5)


@pytest.mark.parametrize(("kind", "key"), [("logits", "0" * 32), ("decoded", "../x"), ("decoded", "A" * 32)])
def test_only_hashes_of_a_known_kind_name_entries(cache: CacheFolder, kind: Kind, key: str) -> None:
    with pytest.raises(ValueError, match="want a kind of decoded, features and 32 hex digits"):
        cache.entry(kind, key)


def test_make_room_removes_the_least_recently_used_of_all_kinds(cache: CacheFolder) -> None:
    build(cache, "old", kind="decoded", age_s=30)
    build(cache, "older", age_s=40)
    build(cache, "new", age_s=20)
    build(cache, "next", age_s=10)
    assert names(cache) == ["old", "new", "next"]
    cache.entry("decoded", key_of("old")).touch()
    build(cache, "last", nbytes=2 * MB)
    assert set(names(cache)) == {"old", "last"}


def test_make_room_removes_nothing_if_the_content_can_not_fit(
    cache: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(cache, "a", age_s=10)
    with pytest.raises(
        NoRoomError, match=r"^4\.0 MB of pixels are more than cache\.gb=0\.0035 leaves; type a larger cache\.gb$"
    ):
        build(cache, "b", kind="decoded", nbytes=4 * MB)
    usage = shutil.disk_usage(cache.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=(1 << 30) + MB // 2))
    with pytest.raises(
        NoRoomError, match=r"^2\.0 MB of features do not fit on the disk of .*; type another cache\.dir$"
    ):
        build(cache, "b", nbytes=2 * MB)
    assert names(cache) == ["a"]
    assert [path.name for path in cache.root.glob("*/*") if path.is_dir()] == [key_of("a")], "no empty entries are left"
    build(cache, "b")
    assert names(cache) == ["b"]


def test_make_room_keeps_the_entry_that_grows(cache: CacheFolder) -> None:
    entry = build(cache, "a", nbytes=2 * MB, age_s=10)
    with entry.locked(), pytest.raises(NoRoomError, match=r"2\.0 MB of features are more than"):
        entry.make_room(2 * MB)
    with entry.locked():
        entry.make_room(MB)
    assert names(cache) == ["a"]


def test_an_entry_in_use_by_another_process_is_kept(cache: CacheFolder) -> None:
    used = build(cache, "used", age_s=30)
    build(cache, "idle", age_s=20)
    with another_process(USE, used):
        assert [item.in_use for item in cache.entries()] == [True, False]
        assert not cache.remove(cache.entries()[0])
        assert not used.remove()
        build(cache, "next", nbytes=2 * MB)
        assert set(names(cache)) == {"used", "next"}
        with pytest.raises(
            NoRoomError, match=r"3\.0 MB of features are more than .* leaves beside 1\.0 MB in use; type"
        ):
            build(cache, "more", nbytes=3 * MB)
        assert (used.folder / "x.npy").is_file()


@pytest.mark.parametrize("end", ["it ends", "it is killed", "it lets go"])
def test_a_use_ends_with_its_process(cache: CacheFolder, end: str) -> None:
    entry = build(cache, "a")
    code = f"{USE}; entry.release(); print('released', flush=True); sys.stdin.readline()"
    with another_process(code if end == "it lets go" else USE, entry) as process:
        assert entry.is_used()
        assert process.stdin is not None
        assert process.stdout is not None
        match end:
            case "it is killed":
                process.send_signal(signal.SIGKILL)
                process.wait()
            case "it ends":
                process.stdin.close()
                process.wait()
            case _:
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "released\n"
        assert not entry.is_used()
        assert entry.remove()


def test_release_updates_the_last_use(cache: CacheFolder) -> None:
    entry = build(cache, "a", age_s=100)
    assert entry.use()
    assert cache.entries()[0].last_used == pytest.approx(time.time() - 100, abs=30)
    entry.release()
    assert cache.entries()[0].last_used == pytest.approx(time.time(), abs=30)


def test_forked_processes_keep_the_entry_in_use(cache: CacheFolder) -> None:
    entry = build(cache, "a")
    code = (
        "assert entry.use()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.stdin.readline(); os._exit(0)\n"
        "entry.release(); print('ready', flush=True); os.waitpid(child, 0); print('ended', flush=True); time.sleep(60)"
    )
    with another_process(code, entry) as process:
        assert entry.is_used()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ended\n"
        assert not entry.is_used()


def test_a_forked_process_can_not_remove_what_its_parent_uses(cache: CacheFolder) -> None:
    entry = build(cache, "a")
    code = (
        "assert entry.use()\n"
        "if os.fork() == 0:\n"
        "    os._exit(int(entry.remove()))\n"
        "print('ready' if os.wait()[1] == 0 else 'removed', flush=True); sys.stdin.readline()"
    )
    with another_process(code, entry):
        assert entry.is_used()
        assert (entry.folder / "x.npy").is_file()


def test_the_owner_can_remove_an_entry_despite_forked_workers(cache: CacheFolder) -> None:
    entry = cache.entry("features", key_of("scratch"))
    code = (
        "with entry.locked():\n"
        "    assert entry.use()\n"
        "    with entry.write('x.npy') as path: path.write_bytes(b'x')\n"
        "if os.fork() == 0:\n"
        "    sys.stdin.readline(); os._exit(0)\n"
        "print('ready' if entry.remove() and not entry.folder.exists() else 'stays', flush=True); os.wait()"
    )
    with another_process(code, entry) as process:
        assert not entry.use()
        process.communicate("\n")


def test_a_shared_entry_is_kept_until_both_runs_release_it(cache: CacheFolder) -> None:
    mine = build(cache, "scratch")
    theirs = cache.entry("features", key_of("scratch"))
    assert mine.use()
    assert theirs.use()
    assert not mine.remove()
    assert theirs.is_used()
    assert theirs.remove()
    assert theirs.remove(), "what is gone is gone"
    assert cache.entries() == []


def test_building_is_a_use_and_others_wait(cache: CacheFolder, caplog: pytest.LogCaptureFixture) -> None:
    entry = build(cache, "a")
    code = "lock = entry.locked(); lock.__enter__(); print('ready', flush=True); sys.stdin.readline(); time.sleep(0.5)"
    with another_process(code, entry) as process:
        (item,) = cache.entries()
        assert item.in_use
        assert not cache.remove(item)
        assert not entry.remove()
        assert process.stdin is not None
        process.stdin.close()
        with entry.locked():
            assert process.wait() == 0
            assert cache.entries()[0].in_use
            assert not cache.remove(item)
    assert "waiting for another run, which computes these features" in caplog.text


def test_an_entry_removed_while_waiting_for_it_is_missing(cache: CacheFolder) -> None:
    entry = build(cache, "a")
    assert not cache.entry("features", key_of("other")).use()
    assert entry.remove()
    assert not entry.use()
    with entry.locked():
        assert entry.use()
        (entry.folder / "x.npy").touch()
    assert entry.is_used()


def test_files_are_renamed_when_complete(cache: CacheFolder) -> None:
    entry = build(cache, "a")
    before = sorted(entry.folder.iterdir())
    with suppress(KeyboardInterrupt), entry.write("y.npy") as path:
        path.write_bytes(b"half")
        assert path.suffix == ".npy"
        raise KeyboardInterrupt
    assert sorted(entry.folder.iterdir()) == before


def test_clean_removes_files_of_a_killed_builder(cache: CacheFolder) -> None:
    entry = cache.entry("features", key_of("a"))
    code = (
        "lock = entry.locked(); lock.__enter__(); file = entry.write('x.npy'); file.__enter__().write_bytes(b'half')\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with another_process(code, entry) as process:
        process.kill()
        process.wait()
    (item,) = cache.entries()
    assert (item.meta, item.in_use) == ({}, False)
    assert list(entry.folder.glob(".building-*"))
    with entry.locked():
        entry.clean()
        assert [file.name for file in entry.folder.iterdir()] == ["in-use"]


def test_an_interrupted_removal_is_finished_by_the_next(cache: CacheFolder) -> None:
    gone = build(cache, "a").folder
    gone.rename(f"{gone}.removed")
    assert cache.entries() == []
    build(cache, "b", nbytes=3 * MB)
    assert not Path(f"{gone}.removed").exists()


def test_a_description_keeps_its_creation_time(cache: CacheFolder) -> None:
    entry = build(cache, "a")
    noted = json.loads((entry.folder / "entry.json").read_text())
    (entry.folder / "entry.json").write_text(json.dumps({**noted, "created": "2020-02-02"}))
    entry.describe({"model": "b"})
    assert entry.meta == {"model": "b", "created": "2020-02-02"}
    (entry.folder / "entry.json").write_text("[")
    assert entry.meta == {}


def test_other_files_are_not_touched(cache: CacheFolder, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "in-use").touch()
    (photos / "0.png").touch()
    mine = ["decoded/holiday/0.png", f"decoded/{key_of('x')}/0.png", f"features/{key_of('x')}/in-use/0.png", "a/b.png"]
    for name in mine:
        (cache.root / name).parent.mkdir(parents=True, exist_ok=True)
        (cache.root / name).touch()
    link = cache.root / "features" / key_of("link")
    link.symlink_to(photos)
    inner = build(cache, "a", nbytes=3 * MB, age_s=10)
    (inner.folder / "y.npy").symlink_to(photos / "0.png")
    assert names(cache) == ["a"]
    build(cache, "b", nbytes=3 * MB)
    assert names(cache) == ["b"]
    forged = CachedItem("features", key_of("link"), 0, 0.0, False, {})
    assert not cache.remove(forged)
    assert not cache.remove(CachedItem("features", key_of("x"), 0, 0.0, False, {}))
    assert link.is_symlink()
    assert (photos / "0.png").is_file()
    assert all((cache.root / name).is_file() for name in mine)


def test_a_link_in_the_folder_is_refused_and_not_entered(cache: CacheFolder, tmp_path: Path) -> None:
    elsewhere = CacheFolder(tmp_path / "elsewhere", gb=1)
    entry = build(elsewhere, "a")
    cache.root.mkdir()
    (cache.root / "features").symlink_to(elsewhere.root / "features")
    assert cache.entries() == []
    assert not cache.entry("features", entry.key).remove()
    with pytest.raises(OSError, match=r"features is a link; let cache.dir itself lead elsewhere"):
        build(cache, "b")
    assert names(elsewhere) == ["a"]
    (tmp_path / "linked").symlink_to(elsewhere.root)
    assert names(CacheFolder(tmp_path / "linked", gb=1)) == ["a"]


def test_size_text() -> None:
    assert [size_text(size) for size in (0, 1500, 2e6, 3.25e9, 1e12)] == [
        "0.0 kB",
        "1.5 kB",
        "2.0 MB",
        "3.2 GB",
        "1000.0 GB",
    ]
