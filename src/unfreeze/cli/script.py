"""train.py and `unfreeze train`: the command line, Hydra, and one job after the other.

For a single run, Hydra first calls `hooks.RunCallback.on_run_start` (conf/hydra/default.yaml), which prepares the run
and leaves it in the current `Invocation`; `train` then runs it. The jobs of a multirun are prepared one by one.
"""

import io
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from unfreeze.cli.hooks import refuse_distributed, typed_overrides
from unfreeze.cli.invocation import Invocation
from unfreeze.cli.refusals import refuse
from unfreeze.config.compose import conf_folder, refusal_to_compose
from unfreeze.config.composition_messages import COMPOSITION_ERRORS
from unfreeze.config.overrides import (
    AlreadyCompletedError,
    check_flags,
    expand_arguments,
    flag_value,
    override_key,
    split_arguments,
)
from unfreeze.config.resolvers import register_resolvers
from unfreeze.errors import Stopped, UnfreezeError
from unfreeze.results.lock import DirectoryInUseError, owned
from unfreeze.results.run_directory import RunDirectory
from unfreeze.sweeps.summary import shortened, write_summary
from unfreeze.system.cores import share_cores
from unfreeze.system.disk import full_disk_errors
from unfreeze.system.signals import STOP
from unfreeze.system.terminal import open_output

log = logging.getLogger("unfreeze.cli.script")

_WIDEST = 118
"""Characters of a line of help."""


def main(conf: Path | None = None) -> None:
    """Run the command line of train.py; a refusal ends in one line.

    Args:
        conf: The folder of configs; None for the installed one.
    """
    folder = str((conf or conf_folder()).absolute())
    start(hydra.main(version_base="1.3", config_path=folder, config_name="config")(train))


def train(config: DictConfig) -> float | None:
    """Run one job that Hydra has composed, and return its best monitored value, which searches optimise."""
    return run_hydra_job(config)


def start(task: Callable[[], object]) -> None:
    """Run `hydra.main`'s function with the arguments of the process."""
    register_resolvers()
    open_output(ignore_broken_pipe=True)
    logging.raiseExceptions = False  # a log that can't be written is no reason for tracebacks
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes its errors on, and does not print them
    if {"-h", "--help"} & set(sys.argv):
        sys.stdout = _Wrapped(sys.stdout)
    try:
        sys.argv[1:] = expand_arguments(sys.argv[1:])
        flags, overrides = split_arguments(sys.argv[1:])
        check_flags(flags)
        with Invocation.begin() as invocation:
            _run(task, invocation, flags, overrides)
    except AlreadyCompletedError as done:
        print(done)
        raise SystemExit(0) from None
    except UnfreezeError as error:
        refuse(error)


def _run(task: Callable[[], object], invocation: Invocation, flags: Sequence[str], overrides: Sequence[str]) -> None:
    try:
        task()
    except COMPOSITION_ERRORS as error:
        if any(frame.name == run_hydra_job.__name__ for frame in traceback.extract_tb(error.__traceback__)):
            raise
        invocation.release_directories()
        _remove_empty_multirun(invocation.created)
        folder = flag_value(flags, "-cd", "--config-dir")
        refuse(refusal_to_compose(error, overrides, Path(folder) if folder else None))


def run_hydra_job(raw: DictConfig) -> float | None:
    """Run what Hydra composed; a job of a multirun that fails is recorded and does not stop the others.

    Returns:
        The best monitored value; None for a failed job of a multirun.
    """
    hydra_config = HydraConfig.get()
    directory = RunDirectory(Path(hydra_config.runtime.output_dir))
    typed = typed_overrides(hydra_config)
    is_multirun = hydra_config.mode == RunMode.MULTIRUN
    logging.captureWarnings(True)
    if not is_multirun:
        return _run_single(raw, typed, directory)
    own = [shortened(each) for each in typed if override_key(each) not in Invocation.current().shared_keys]
    log.info(f"\n#{hydra_config.job.num} {' '.join(own)}")
    return _run_of_multirun(raw, typed, directory, jobs_at_once=hydra_config.launcher.get("n_jobs", 1))


def _run_single(raw: DictConfig, typed: list[str], directory: RunDirectory) -> float | None:
    try:
        STOP.release()
        return _run_job(raw, typed, directory, sweep=None)
    except UnfreezeError as error:
        refuse(error)
    except Stopped:
        raise
    except Exception as error:
        directory.record_failure(f"{type(error).__name__}: {error}", typed)
        raise


def _run_of_multirun(raw: DictConfig, typed: list[str], directory: RunDirectory, *, jobs_at_once: int) -> float | None:
    folder = directory.path
    try:
        STOP.release()
        refuse_distributed(raw)
        share_cores(jobs_at_once)  # joblib's; other launchers give each job its own cores
        with owned(folder, verb="hydra.sweep.dir", advice="name another one"):
            return _run_job(raw, typed, directory, sweep=folder.parent)
    except Stopped:
        write_summary(folder.parent)
        raise
    except UnfreezeError as error:
        log.error(f"  failed: {error}")
        if not isinstance(error, DirectoryInUseError):  # the result there is its owner's
            directory.record_failure(str(error), typed)
    except Exception as error:
        directory.record_failure(f"{type(error).__name__}: {error}", typed)
        log.error(f"  failed: {type(error).__name__}: {error}; the traceback is in {directory.log_file}")
        logging.getLogger("traceback").error(traceback.format_exc())
    return None


def _run_job(raw: DictConfig, typed: list[str], directory: RunDirectory, *, sweep: Path | None) -> float | None:
    from unfreeze.runs.fit import run_job  # after the refusals that need no torch

    with full_disk_errors(directory.log_file):
        return run_job(raw, typed, directory, Invocation.current().take_prepared(), sweep=sweep)


class _Wrapped(io.TextIOBase):
    """Breaks the lines of Hydra's help, which has all choices of a group in one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Write text, with long lines wrapped."""
        lines = (
            textwrap.fill(line, _WIDEST, subsequent_indent="  ") if len(line) > _WIDEST else line
            for line in text.split("\n")
        )
        self._out.write("\n".join(lines))
        return len(text)

    def flush(self) -> None:
        """Flush the wrapped stream."""
        self._out.flush()


def _remove_empty_multirun(created: Sequence[Path]) -> None:
    """Remove what Hydra has created for a multirun whose jobs do not compose."""
    for folder in created:
        (folder / "multirun.yaml").unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError:
            return  # not empty


if __name__ == "__main__":
    main()
