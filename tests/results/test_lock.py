"""Directory locks: one owner, whose lock ends with its process."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from socket import gethostname

import pytest

from unfreeze.errors import UnfreezeError
from unfreeze.results.lock import LOCK, DirectoryInUseError, DirectoryLock, owned

OWN = """
import os, sys, time
from pathlib import Path
from unfreeze.results.lock import DirectoryLock
lock = DirectoryLock.acquire(Path(sys.argv[1]), verb="resume", advice="start a new run")
if os.fork() == 0:  # as a worker of a loader, which may outlive its parent for a moment
    time.sleep(60)
    os._exit(0)
print("owned", flush=True)
time.sleep(60)
"""


def acquire(folder: Path) -> DirectoryLock:
    return DirectoryLock.acquire(folder, verb="resume", advice="start a new run")


def test_a_second_process_is_refused_until_the_owner_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "owned\n"
            with pytest.raises(DirectoryInUseError) as refused:
                acquire(folder)
            assert str(refused.value) == (
                f"resume: '{folder}' is in use by process {owner.pid} on this host ({gethostname()}); "
                "wait for its end, or start a new run"
            )
            owner.kill()
            owner.wait()
            acquire(folder).release()  # though a process that the owner has forked is still there
        finally:
            os.killpg(owner.pid, signal.SIGKILL)
    assert not (folder / LOCK).exists()


def test_an_empty_directory_is_removed_with_its_lock(tmp_path: Path) -> None:
    acquire(tmp_path / "new").release()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with owned(tmp_path / "old", verb="report", advice="wait"):
        (tmp_path / "old" / "report.html").touch()
    assert [file.name for file in (tmp_path / "old").iterdir()] == ["report.html"]


def test_a_read_only_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnfreezeError, match=r"^resume: can't write in .*file' \((Not a directory|File exists)\); want"):
        acquire(tmp_path / "file")
    with pytest.raises(
        UnfreezeError, match=r"^resume: can't write in '/proc/nothing/run' \(No such file or directory\)"
    ):
        acquire(Path("/proc/nothing/run"))


def test_without_flock_a_marker_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system without flock: the mark of a dead process is taken over, that of a live one holds."""

    def missing(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    lock = acquire(tmp_path / "run")
    assert (tmp_path / "run" / LOCK).read_text().splitlines()[:2] == [str(os.getpid()), gethostname()]
    with pytest.raises(DirectoryInUseError, match=f"process {os.getpid()} on this host"):
        acquire(tmp_path / "run")
    lock.release()
    assert not (tmp_path / "run").exists()
    dead = multiprocessing.get_context("fork").Process(target=os.getpid)
    dead.start()
    dead.join()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text(f"{dead.pid}\n{gethostname()}\n")
    os.utime(tmp_path / "run" / LOCK, (time.time() - 60,) * 2)
    acquire(tmp_path / "run").release()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / LOCK).write_text("17\nanother-host\n")
    with pytest.raises(DirectoryInUseError, match="process 17 on host another-host"):
        acquire(tmp_path / "run")
