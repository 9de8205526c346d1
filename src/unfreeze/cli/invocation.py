"""The state of one invocation of train.py, shared by Hydra's hooks and its job."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig, open_dict, read_write

from unfreeze.config.overrides import override_key, quote
from unfreeze.errors import UnfreezeError
from unfreeze.results.lock import DirectoryInUseError, DirectoryLock

if TYPE_CHECKING:
    from unfreeze.runs.experiment import Experiment

_CURRENT: ContextVar["Invocation"] = ContextVar("invocation")

_MOST_NUMBERED = 10_000


@dataclass
class Invocation:
    """The experiment, the locks and the keys that hooks hand to the job.

    Args:
        prepared: The experiment of a single run, which its job takes.
        shared_keys: Keys whose value all jobs of a multirun have in common.
        created: Folders that Hydra creates for a multirun before it composes the first job, the innermost first.
    """

    prepared: "Experiment | None" = None
    shared_keys: set[str] = field(default_factory=set)
    created: list[Path] = field(default_factory=list)
    _locks: ExitStack = field(default_factory=ExitStack)

    @classmethod
    @contextmanager
    def begin(cls) -> "Iterator[Invocation]":
        """Yield a new invocation as the current one; its directories are released at the end."""
        invocation = cls()
        token = _CURRENT.set(invocation)
        try:
            with invocation._locks:
                yield invocation
        finally:
            _CURRENT.reset(token)

    @staticmethod
    def current() -> "Invocation":
        """Return the invocation that is running; an empty one in the processes that a launcher starts."""
        return _CURRENT.get(None) or Invocation()

    def take_prepared(self) -> "Experiment | None":
        """Return the prepared experiment once, so that only the job holds it."""
        prepared, self.prepared = self.prepared, None
        return prepared

    def release_directories(self) -> None:
        """Release the directories before the end, as before a multirun that does not compose is removed."""
        self._locks.close()

    def own(self, lock: DirectoryLock) -> None:
        """Hold the lock of a directory until the invocation ends."""
        self._locks.callback(lock.release)

    def own_new(self, config: DictConfig, kind: Literal["run", "sweep"], is_taken: Callable[[Path], bool]) -> None:
        """Own the directory of a new run or sweep; a default name that is taken gets a number.

        Args:
            config: Hydra's; the directory in it becomes the one that is owned.
            kind: Which directory.
            is_taken: Whether a folder holds a run or a sweep already.

        Raises:
            UnfreezeError: If the directory was typed and is taken, or can't be written to.
        """
        key, first = f"hydra.{kind}.dir", Path(config.hydra[kind].dir)
        is_named = is_typed(config, key)
        for folder in [first] if is_named else _numbered(first):
            if not is_named and is_taken(folder):
                continue
            try:
                lock = DirectoryLock.acquire(folder.absolute(), verb=key, advice="name another directory")
            except DirectoryInUseError:
                if is_named:
                    raise
                continue
            if not is_taken(folder):
                self.own(lock)
                break
            lock.release()
            if is_named:
                raise UnfreezeError(
                    f"{key}: {str(folder)!r} holds a {kind}, written a moment ago; name another directory"
                )
        if folder != first:
            with read_write(config), open_dict(config):
                config.hydra[kind].dir = str(folder)
                # The jobs of a sweep are composed again from the overrides.
                config.hydra.overrides.hydra.append(f"{key}={quote(str(folder))}")


def is_typed(config: DictConfig, key: str) -> bool:
    """Return whether one of Hydra's own keys was typed."""
    return any(override_key(override) == key for override in config.hydra.overrides.hydra)


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    for number in range(2, _MOST_NUMBERED):
        yield folder.with_name(f"{folder.name}-{number}")
