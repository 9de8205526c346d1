"""The callbacks of a run."""

from dataclasses import dataclass
from pathlib import Path

from lightning import Callback

from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.builders.cache import prefix_cache_options
from unfreeze.runs.experiment import Experiment
from unfreeze.runs.resume import identity_of
from unfreeze.training.callbacks.compiling import CompiledStages
from unfreeze.training.callbacks.recorder import RunRecorder
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.callbacks.teacher import TeacherTargets
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.prefix_cache import FrozenPrefixCache
from unfreeze.training.features.stored_features import StoredFeatureTest


@dataclass(frozen=True, eq=False)
class RunCallbacks:
    """The callbacks of a run that the run itself works with, and all of them in their order.

    Args:
        stages: Carries out the plan.
        recorder: Records epochs and stages.
        targets: Gives the soft targets of a distillation; None without a teacher.
        ordered: All callbacks.
    """

    stages: StagedUnfreezing
    recorder: RunRecorder
    targets: TeacherTargets | None
    ordered: list[Callback]


def build_callbacks(experiment: Experiment, directory: RunDirectory, *, sweep: Path | None) -> RunCallbacks:
    """Return the callbacks of a run.

    Args:
        experiment: The run.
        directory: Where the recorder writes.
        sweep: The folder of the sweep that the run belongs to.
    """
    config = experiment.config
    stages = StagedUnfreezing(experiment.plan, monitor=config.monitor, mode=config.monitor_mode)
    recorder = RunRecorder(directory, stages, identity=identity_of(experiment), in_sweep=sweep is not None)
    ordered: list[Callback] = [stages, recorder]
    options = prefix_cache_options(config.cache, sweep=sweep) if config.cache.enabled else None
    cache = None
    if options is not None:
        cache = FrozenPrefixCache(stages, options=options, on_ready=recorder.note_cache)
        ordered += [cache, StoredFeatureTest(options, experiment.data)]
    targets = _build_targets(experiment, stages, cache, options) if experiment.teacher is not None else None
    ordered += [] if targets is None else [targets]
    if any(stage.solver for stage in experiment.plan.stages):
        from unfreeze.training.callbacks.head_solver import HeadSolver  # scikit-learn takes a second to import

        assert cache is not None, "the plan refuses a solver without a cache"
        ordered.append(HeadSolver(stages, cache, on_solved=recorder.note_solution))
    if config.trainer.get("compile"):
        ordered.append(CompiledStages(stages))
    return RunCallbacks(stages, recorder, targets, ordered)


def _build_targets(
    experiment: Experiment,
    stages: StagedUnfreezing,
    cache: FrozenPrefixCache | None,
    options: PrefixCacheOptions | None,
) -> TeacherTargets:
    assert experiment.teacher is not None
    return TeacherTargets(
        *experiment.teacher,
        stages,
        cache=cache,
        on_features=experiment.config.objective.match == "features",
        outputs=experiment.classifier.outputs,
        options=options,
    )
