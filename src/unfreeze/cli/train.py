"""Between Hydra and a run: refuse early, run jobs apart from each other, sum up a multirun."""

import io
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from unfreeze.config.compose import refusal_to_compose
from unfreeze.config.composition_messages import COMPOSITION_ERRORS
from unfreeze.config.overrides import (
    AlreadyCompletedError,
    check_can_go_on,
    check_flags,
    expand_arguments,
    flag_value,
    override_key,
    quote,
    split_arguments,
)
from unfreeze.config.resolvers import register_resolvers
from unfreeze.errors import Stopped, UnfreezeError
from unfreeze.results.lock import DirectoryInUseError, DirectoryLock, owned
from unfreeze.runs.experiment import holds_run
from unfreeze.runs.resume import check_completed_unchanged
from unfreeze.sweeps import summary as sweep
from unfreeze.system.cores import share_cores
from unfreeze.system.disk import telling_full_disk
from unfreeze.system.ranks import is_first_process, is_launched_externally
from unfreeze.system.signals import STOP
from unfreeze.system.terminal import open_output

if TYPE_CHECKING:
    from unfreeze.runs.experiment import Experiment

log = logging.getLogger("unfreeze.cli.train")

_WIDEST = 118
"""Characters of a line of help."""

_prepared: "list[Experiment]" = []
"""What the refusal check of a single run has loaded, for its job to take."""

_ownership = ExitStack()
"""Holds the directory that this process writes, until Hydra's function ends."""

_RESUMED = {"verb": "resume", "advice": "start a new run"}

_shared_keys: set[str] = set()
"""Keys whose value all jobs of a multirun have in common."""

_made_by_hydra: list[Path] = []
"""Folders that Hydra makes for a multirun before it composes the first job, the innermost first."""


def start(train: Callable[[], object]) -> None:
    """Run `hydra.main`'s function, with arguments that Hydra understands; what it refuses ends in one line."""
    register_resolvers()
    open_output(outlives_reader=True)
    logging.raiseExceptions = False  # a log that can't be written is no reason for tracebacks
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes its errors on, and does not print them
    if {"-h", "--help"} & set(sys.argv):
        sys.stdout = _Wrapped(sys.stdout)
    try:
        sys.argv[1:] = expand_arguments(sys.argv[1:])
        flags, overrides = split_arguments(sys.argv[1:])
        check_flags(flags)
        with _ownership:
            train()
    except AlreadyCompletedError as done:
        print(done)
        raise SystemExit(0) from None
    except UnfreezeError as error:
        refuse(error)
    except COMPOSITION_ERRORS as error:
        if any(frame.name == run_hydra_job.__name__ for frame in traceback.extract_tb(error.__traceback__)):
            raise
        _ownership.close()
        _remove_empty_multirun()
        folder = flag_value(flags, "-cd", "--config-dir")
        refuse(refusal_to_compose(error, overrides, Path(folder) if folder else None))


class _Wrapped(io.TextIOBase):
    """Breaks the lines of Hydra's help, which has all choices of a group in one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Write text, its long lines in several."""
        lines = (
            textwrap.fill(line, _WIDEST, subsequent_indent="  ") if len(line) > _WIDEST else line
            for line in text.split("\n")
        )
        self._out.write("\n".join(lines))
        return len(text)

    def flush(self) -> None:
        """Write what has been held back."""
        self._out.flush()


def refuse(error: UnfreezeError) -> None:
    """Say what is wrong in one line, and end."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(error.exit_code) from None


def run_hydra_job(raw: DictConfig) -> float | None:
    """Run what Hydra composed; a job of a multirun that fails is recorded and does not stop the others.

    Returns:
        The best monitored value; None for a failed job of a multirun.
    """
    from unfreeze.runs.fit import run_job

    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    typed = _typed(hydra_config)
    is_multirun = hydra_config.mode == RunMode.MULTIRUN
    logging.captureWarnings(True)
    if is_multirun:
        own = [sweep.shortened(override) for override in typed if override_key(override) not in _shared_keys]
        log.info(f"\n#{hydra_config.job.num} {' '.join(own)}")
    try:
        STOP.release()
        if is_multirun:
            _refuse_distributed(raw)
            share_cores(hydra_config.launcher.get("n_jobs", 1))  # joblib's; other launchers give each job its own
        prepared = _prepared.pop() if _prepared else None
        job = owned(run_dir, verb="hydra.sweep.dir", advice="name another one") if is_multirun else nullcontext()
        with job, telling_full_disk(run_dir / "train.log"):
            return run_job(raw, typed, run_dir, prepared, sweep=run_dir.parent if is_multirun else None)
    except Stopped:
        if is_multirun:
            sweep.write_summary(run_dir.parent)
        raise
    except UnfreezeError as error:
        if not is_multirun:
            refuse(error)
        log.error(f"  failed: {error}")
        if not isinstance(error, DirectoryInUseError):  # the result there is its owner's
            sweep.record_failure(run_dir, str(error), typed)
    except Exception as error:
        sweep.record_failure(run_dir, f"{type(error).__name__}: {error}", typed)
        if not is_multirun:
            raise
        log.error(f"  failed: {type(error).__name__}: {error}; the traceback is in {run_dir / 'train.log'}")
        logging.getLogger("traceback").error(traceback.format_exc())
    return None


class RunCallback(Callback):
    """Hydra's hooks around a run and around a multirun."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse what can be refused while there is no run directory yet."""
        from unfreeze.runs.fit import check_values, prepare

        typed = _typed(config.hydra)
        raw = _without_hydra(config)
        try:
            checked = check_values(raw, typed)
            run_dir = Path(config.hydra.run.dir).absolute()
            is_named, is_first = _is_typed(config, "hydra.run.dir"), is_first_process()
            if is_launched_externally() and not is_named:
                raise UnfreezeError(
                    "hydra.run.dir: missing; under torchrun or Slurm ranks would name directories by their own clocks; "
                    "type hydra.run.dir=outputs/<name>"
                )
            if is_first and checked.resume:
                _check_resumed(run_dir, raw)
            _prepared[:] = [prepare(checked, raw, typed, run_dir if is_named and is_first else None)]
            if is_first and checked.resume:
                _own_resumed(run_dir)
            elif is_first:
                _own_new(config, "run", holds_run)
        except UnfreezeError as error:
            refuse(error)
        except OmegaConfBaseException as error:
            refuse(refusal_to_compose(error, typed, None))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a multirun that would go wrong as a whole."""
        try:
            _refuse_distributed(config)
            _check_trials(config)
            folder = Path(config.hydra.sweep.dir)
            if _is_typed(config, "hydra.sweep.dir"):
                sweep.check_is_free(folder)
            parsed = OverridesParser.create().parse_overrides(_typed(config.hydra))
            _shared_keys.update(each.key_or_group for each in parsed if not each.is_sweep_override())
            _shared_keys.difference_update(each.key_or_group for each in parsed if each.is_sweep_override())
            _made_by_hydra[:] = [each for each in (folder, *folder.parents) if not each.exists()]
            _own_new(config, "sweep", sweep.holds_multirun)
        except UnfreezeError as error:
            refuse(error)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep the summary of a multirun up to date."""
        if config.hydra.mode == RunMode.MULTIRUN:
            sweep.write_summary(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Test the winner of a search, draw the best run, show all, and say by the exit code whether any failed.

        A search has what it was for where it has a winner, whatever became of some of its trials.
        """
        folder = Path(config.hydra.sweep.dir)
        _drop_shared_features(config, folder)
        jobs = sweep.read_jobs(folder)
        if config.search:
            STOP.release()
            _test_winner(jobs, config.monitor)
            jobs = sweep.read_jobs(folder)
        sweep.write_summary(folder)
        winner = sweep.best_job(jobs, config.monitor)
        if winner is not None and config.report:
            from unfreeze.runs.reopen import report_run
            from unfreeze.runs.test import report_failing

            with report_failing(winner.folder):
                report_run(winner.folder, trust_repo=True)
        print(sweep.format_jobs(jobs, folder))
        has_what_it_was_for = bool(config.search) and winner is not None
        if not has_what_it_was_for and any(job.status != "completed" for job in jobs):
            raise SystemExit(1)


def _check_trials(config: DictConfig) -> None:
    """Refuse a search of no trials."""
    count = config.hydra.sweeper.get("n_trials", 1)
    if not isinstance(count, int) or count < 1:
        raise UnfreezeError(f"hydra.sweeper.n_trials: got {count!r}, want an integer of 1 or more")


def _is_typed(config: DictConfig, key: str) -> bool:
    return any(override_key(override) == key for override in config.hydra.overrides.hydra)


def _own_new(config: DictConfig, kind: Literal["run", "sweep"], is_taken: Callable[[Path], bool]) -> None:
    """Own the directory of a new run or sweep; a default name that is taken gets a number.

    Raises:
        UnfreezeError: If the directory was typed and is taken, or can't be written to.
    """
    key, first = f"hydra.{kind}.dir", Path(config.hydra[kind].dir)
    is_named = _is_typed(config, key)
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
            _ownership.callback(lock.release)
            break
        lock.release()
        if is_named:
            raise UnfreezeError(f"{key}: {str(folder)!r} holds a {kind}, written a moment ago; name another directory")
    if folder != first:
        with read_write(config), open_dict(config):
            config.hydra[kind].dir = str(folder)
            config.hydra.overrides.hydra.append(f"{key}={quote(str(folder))}")  # jobs of a sweep are composed anew


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    for number in range(2, 10_000):
        yield folder.with_name(f"{folder.name}-{number}")


def _check_resumed(run_dir: Path, raw: DictConfig) -> None:
    """Refuse to go on with a run that another process is writing, or that has completed with other settings.

    Raises:
        UnfreezeError: If so.
        SystemExit: If the run has completed: there is nothing to do.
    """
    DirectoryLock.check_unowned(run_dir, **_RESUMED)
    try:
        check_can_go_on(run_dir)
    except AlreadyCompletedError as done:
        check_completed_unchanged(run_dir, raw)
        print(done)
        raise SystemExit(0) from None


def _own_resumed(run_dir: Path) -> None:
    """Own the directory of a run that goes on, once nothing speaks against it.

    Raises:
        UnfreezeError: If another process is writing it by now.
    """
    _ownership.callback(DirectoryLock.acquire(run_dir, **_RESUMED).release)
    try:
        check_can_go_on(run_dir)
    except AlreadyCompletedError as done:  # by another process, a moment ago
        print(done)
        raise SystemExit(0) from None


def _remove_empty_multirun() -> None:
    """Remove what Hydra has made for a multirun whose jobs do not compose."""
    for folder in _made_by_hydra:
        (folder / "multirun.yaml").unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError:
            return  # not empty


def _drop_shared_features(config: DictConfig, folder: Path) -> None:
    """Remove the maps that the jobs of a multirun have shared; nobody will look for them again."""
    from unfreeze.cache.folder import CacheFolder, cache_root

    cache = CacheFolder(cache_root(config.cache.dir), config.cache.gb)
    for item in cache.entries():
        if item.meta.get("sweep") == str(folder.absolute()):
            cache.remove(item)


def _test_winner(jobs: "Sequence[sweep.Job]", monitor: str) -> None:
    from unfreeze.runs.reopen import test_run

    winner = sweep.best_job(jobs, monitor)
    if winner is not None:
        print(f"\n  #{winner.number} won by {monitor} {winner.score:.3f}; it alone is tested, once")
        test_run(winner.folder)


def _refuse_distributed(config: DictConfig) -> None:
    """Refuse DDP in a multirun: each process that Lightning starts would run the whole sweep again."""
    trainer = config.trainer
    several = trainer.get("devices") not in (1, "1", None, "auto") or trainer.get("num_nodes", 1) != 1
    if several or "ddp" in str(trainer.get("strategy")):
        raise UnfreezeError(
            f"trainer: a multirun runs each job on one device, not strategy={trainer.get('strategy')} "
            f"devices={trainer.get('devices')}; type trainer=default, or start single runs without -m"
        )


def _without_hydra(config: DictConfig) -> DictConfig:
    raw = config.copy()
    with read_write(raw), open_dict(raw):
        del raw["hydra"]
    OmegaConf.set_readonly(raw, None)
    return raw


def _typed(hydra_config: Any) -> list[str]:
    """Return the overrides of a job; those that insert what is not there stay as they are, for the check of values."""
    overrides = hydra_config.overrides.task
    try:
        return list(overrides)
    except OmegaConfBaseException:
        return [str(override) for override in OmegaConf.to_container(overrides, resolve=False)]  # type: ignore[union-attr]
