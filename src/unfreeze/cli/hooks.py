"""Hydra's hooks around a run and a multirun: early refusals, ownership of directories, summaries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from unfreeze.cache.folder import CacheFolder
from unfreeze.cli.invocation import Invocation, is_typed
from unfreeze.cli.refusals import refuse
from unfreeze.config.compose import refusal_to_compose
from unfreeze.config.overrides import AlreadyCompletedError, check_can_go_on
from unfreeze.config.values import check_values
from unfreeze.errors import UnfreezeError
from unfreeze.results import sweep_directory
from unfreeze.results.lock import DirectoryLock
from unfreeze.results.run_directory import RunDirectory
from unfreeze.results.sweep_directory import Job, best_job, read_jobs
from unfreeze.runs.builders.plan import check_by_catalog
from unfreeze.runs.resume import check_completed_unchanged
from unfreeze.sweeps.summary import format_jobs, write_summary
from unfreeze.system.files import cache_root
from unfreeze.system.ranks import is_first_process, is_launched_externally
from unfreeze.system.signals import STOP

_RESUME = {"verb": "resume", "advice": "start a new run"}


class RunCallback(Callback):
    """Hydra's hooks around a run and around a multirun."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse what can be refused before the run has a directory, and prepare the run."""
        typed = typed_overrides(config.hydra)
        try:
            _prepare_run(config, typed)
        except UnfreezeError as error:
            refuse(error)
        except OmegaConfBaseException as error:
            refuse(refusal_to_compose(error, typed, None))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a multirun that would go wrong as a whole, and own its directory."""
        invocation = Invocation.current()
        try:
            refuse_distributed(config)
            _check_trials(config)
            folder = Path(config.hydra.sweep.dir)
            if is_typed(config, "hydra.sweep.dir"):
                sweep_directory.check_is_free(folder)
            parsed = OverridesParser.create().parse_overrides(typed_overrides(config.hydra))
            swept = {each.key_or_group for each in parsed if each.is_sweep_override()}
            invocation.shared_keys = {each.key_or_group for each in parsed} - swept
            invocation.created = [each for each in (folder, *folder.parents) if not each.exists()]
            invocation.own_new(config, "sweep", sweep_directory.holds_multirun)
        except UnfreezeError as error:
            refuse(error)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Update the summary of a multirun."""
        if config.hydra.mode == RunMode.MULTIRUN:
            write_summary(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Test the winner of a search, report the best run, print all jobs.

        The exit code is 1 if a job failed, but for a search that has a winner.
        """
        folder = Path(config.hydra.sweep.dir)
        _remove_shared_features(config, folder)
        jobs = read_jobs(folder)
        if config.search:
            STOP.release()
            _test_winner(jobs, config.monitor)
            jobs = read_jobs(folder)
        write_summary(folder)
        winner = best_job(jobs, config.monitor)
        if winner is not None and config.report:
            _report_winner(RunDirectory(winner.folder))
        print(format_jobs(jobs, folder))
        has_winner = bool(config.search) and winner is not None
        if not has_winner and any(job.status != "completed" for job in jobs):
            raise SystemExit(1)


def _prepare_run(config: DictConfig, typed: list[str]) -> None:
    raw = _without_hydra(config)
    checked = check_values(raw, typed)
    directory = RunDirectory(Path(config.hydra.run.dir).absolute())
    is_named, is_first = is_typed(config, "hydra.run.dir"), is_first_process()
    if is_launched_externally() and not is_named:
        raise UnfreezeError(
            "hydra.run.dir: missing; under torchrun or Slurm ranks would name directories by their own clocks; "
            "type hydra.run.dir=outputs/<name>"
        )
    if is_first and checked.resume:
        _check_resumed(directory, raw)
    own = directory if is_named and is_first else None
    if own is not None and not checked.resume:
        own.check_is_free()
    check_by_catalog(checked)
    from unfreeze.runs.prepare import prepare  # after the refusals that need no torch

    invocation = Invocation.current()
    invocation.prepared = prepare(checked, raw, typed, own)
    if is_first and checked.resume:
        _own_resumed(invocation, directory)
    elif is_first:
        invocation.own_new(config, "run", lambda folder: RunDirectory(folder).holds_run)


def _check_resumed(directory: RunDirectory, raw: DictConfig) -> None:
    """Refuse to go on with a run that another process is writing, or that has completed with other settings.

    Raises:
        UnfreezeError: If so.
        SystemExit: If the run has completed: there is nothing to do.
    """
    DirectoryLock.check_unowned(directory.path, **_RESUME)
    try:
        check_can_go_on(directory)
    except AlreadyCompletedError as done:
        check_completed_unchanged(directory, raw)
        print(done)
        raise SystemExit(0) from None


def _own_resumed(invocation: Invocation, directory: RunDirectory) -> None:
    """Own the directory of a run that goes on, after all checks.

    Raises:
        UnfreezeError: If another process is writing it by now.
    """
    invocation.own(DirectoryLock.acquire(directory.path, **_RESUME))
    try:
        check_can_go_on(directory)
    except AlreadyCompletedError as done:  # another process completed it a moment ago
        print(done)
        raise SystemExit(0) from None


def _check_trials(config: DictConfig) -> None:
    """Refuse a search of no trials."""
    count = config.hydra.sweeper.get("n_trials", 1)
    if not isinstance(count, int) or count < 1:
        raise UnfreezeError(f"hydra.sweeper.n_trials: got {count!r}, want an integer of 1 or more")


def _remove_shared_features(config: DictConfig, folder: Path) -> None:
    """Remove the features that only the jobs of this multirun share."""
    cache = CacheFolder(cache_root(config.cache.dir), config.cache.gb)
    for item in cache.entries():
        if item.meta.get("sweep") == str(folder.absolute()):
            cache.remove(item)


def _test_winner(jobs: Sequence[Job], monitor: str) -> None:
    winner = best_job(jobs, monitor)
    if winner is not None:
        from unfreeze.runs.evaluator import test_run

        print(f"\n  #{winner.number} won by {monitor} {winner.score:.3f}; it alone is tested, once")
        test_run(RunDirectory(winner.folder))


def _report_winner(directory: RunDirectory) -> None:
    from unfreeze.runs.report import report_failing, report_run

    with report_failing(directory):
        report_run(directory, trust_repo=True)


def refuse_distributed(config: DictConfig) -> None:
    """Refuse DDP in a multirun: each process that Lightning starts would run the whole sweep again.

    Raises:
        UnfreezeError: Naming the devices and the strategy.
    """
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


def typed_overrides(hydra_config: Any) -> list[str]:
    """Return the overrides of a job; interpolations of missing keys stay, for the check of values to refuse."""
    overrides = hydra_config.overrides.task
    try:
        return list(overrides)
    except OmegaConfBaseException:
        return [str(override) for override in OmegaConf.to_container(overrides, resolve=False)]  # type: ignore[union-attr]
