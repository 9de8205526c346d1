"""From a configuration to objects."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze.runs.build.outputs import answers_of
from unfreeze.cache.folder import cache_root
from unfreeze.config.schema import CacheConfig, Config, DataConfig
from unfreeze.system.cores import allowed_cores
from unfreeze.errors import UnfreezeError, first_line
from unfreeze.system.terminal import counting_bar
from unfreeze.training.precision.precision import AUTO, FLOAT32

if TYPE_CHECKING:
    import numpy as np
    from lightning import Trainer
    from numpy.typing import NDArray

    from unfreeze.data.audit.audit import AuditReport
    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.data.sources.source import ImageSource
    from unfreeze.data.splits.splits import Splits
    from unfreeze.data.store.store import StoreOptions
    from unfreeze.models.classifier import Classifier
    from unfreeze.models.outline import Outline
    from unfreeze.models.outputs import Outputs
    from unfreeze.models.preprocessing import Preprocessing
    from unfreeze.models.spec import HeadSpec
    from unfreeze.training.features.demand import PrefixCacheOptions
    from unfreeze.training.module import ImageClassifier
    from unfreeze.training.objectives import Objective
    from unfreeze.training.plan.plan import Plan
    from unfreeze.training.callbacks.teacher import Teacher

_ANY_CLASSES = 2
"""Of a plan that is only looked at, before the images are."""

_MANY_IMAGES = 50
"""Per class: fewer may be too few for the splits, which only cutting them tells."""


def build_source(config: Config) -> "ImageSource":
    """Return the labelled images that a configuration names, in the bands that its network sees.

    Raises:
        UnfreezeError: If there are none, or what reads such bands is not installed.
    """
    from unfreeze.data.sources.bands import bands_for
    from unfreeze.data.sources.builtin import cifar10_source, digits_source
    from unfreeze.data.sources.imagefolder import folder_source

    data, bands = config.data, bands_for(config.model.in_chans)
    match data.name:
        case "imagefolder":
            assert data.root is not None
            return folder_source(data.root, bands=bands)
        case "manifest":
            from unfreeze.data.sources.manifest import Columns, manifest_source

            assert data.csv is not None
            columns = Columns(**data.columns.model_dump()) if data.columns is not None else None
            return manifest_source(data.csv, root=data.root, columns=columns, bands=bands)
        case "cifar10":
            return cifar10_source(data.root or "data", download=data.download)
        case "digits":
            return digits_source()


def _hint_at_folder(data: DataConfig, only: str) -> str:
    """Return what to type where class folders lie deeper than where they were looked for."""
    from unfreeze.data.sources.source import SPLIT_NAMES

    if data.name != "imagefolder" or data.root is None:
        return ""
    inner = Path(data.root).expanduser() / only
    folders = [each.name for each in sorted(inner.iterdir()) if each.is_dir()] if inner.is_dir() else []
    if len(folders) > 1 or set(folders) & set(SPLIT_NAMES):
        return f"; {inner} has {', '.join(folders[:5])}: type data.root={inner}"
    return ". Want a folder per class, with its images in it"


def count_images(config: Config) -> "tuple[Outputs, int]":
    """Return the model's outputs and the number of training images, without downloading or decoding anything for it.

    Splits of many images are counted, not cut: it takes longer to import what cuts them than to make a plan.
    """
    import numpy as np

    from unfreeze.data.sources.builtin import counts_of_builtin
    from unfreeze.data.sources.source import Task

    data = config.data
    known = counts_of_builtin(data.name)
    if known is not None:
        task = Task("label", tuple(f"class {number}" for number in range(len(known))), np.arange(len(known)))
        return answers_of(config, [task])[0], _count_train(data, np.array(known), has_test=data.name == "cifar10")
    source = build_source(config)
    outputs = answers_of(config, source.tasks)[0]
    counts = np.bincount(source.labels[source.splits == "train"])
    can_be_counted = source.groups is None and not source.more_tasks and data.folds is None
    if can_be_counted and len(counts) > 1 and counts.min() >= _MANY_IMAGES:
        given = set(source.splits.tolist())
        return outputs, _count_train(data, counts, has_test="test" in given, has_val="val" in given)
    return outputs, len(build_splits(data, source).train)


def _count_train(data: DataConfig, counts: "NDArray[np.int64]", *, has_test: bool, has_val: bool = False) -> int:
    """Return how many images would train, from those of each class before the splits that are missing are cut."""
    import numpy as np

    total = int(counts.sum())
    if data.folds is not None:
        held_out = (0 if has_test else round(total * data.test_fraction)) / total
        left = 1 - held_out - (1 - held_out) / data.folds
    else:
        shares = [share for share, has in ((data.test_fraction, has_test), (data.val_fraction, has_val)) if not has]
        left = 1 - sum(round(total * share) for share in shares) / total
    if data.fraction == 1:
        return round(total * left)
    return int(np.maximum(np.round(data.fraction * np.round(counts * left)), 1).sum())


def build_data(config: Config, source: "ImageSource", splits: "Splits | None" = None) -> "ImageDataModule":
    """Return the data module of a configuration, its images not yet decoded.

    Args:
        config: Checked values.
        source: Its images.
        splits: Which of them train, validate and test; None for what the configuration says.
    """
    from unfreeze.data.datamodule import ImageDataModule

    return ImageDataModule(
        source,
        batch_size=config.data.batch_size,
        labels=answers_of(config, source.tasks)[1],
        splits=build_splits(config.data, source) if splits is None else splits,
        split_seed=config.data.seed,
        balance=config.data.balance == "sampler",
        seed=config.seed,
        store=store_options(config),
        on_error=config.data.on_error,
    )


def build_splits(data: DataConfig, source: "ImageSource") -> "Splits":
    """Return the splits of a configuration.

    Raises:
        UnfreezeError: If there are not enough images for them, or nothing to tell apart.
    """
    from unfreeze.data.sources.images import FileImages
    from unfreeze.data.splits.splits import split_source

    for task in source.tasks:
        if len(task.classes) < 2:
            raise UnfreezeError(
                f"data: {source.name} has one class of {task.name!r}, {task.classes[0]!r}; want two or more to tell "
                f"apart{_hint_at_folder(data, task.classes[0])}"
            )
    try:
        return split_source(
            source,
            val_fraction=data.val_fraction,
            test_fraction=data.test_fraction,
            fraction=data.fraction,
            folds=data.folds,
            fold=data.fold,
            seed=data.seed,
        )
    except UnfreezeError as error:
        is_about_images = str(error).startswith("data:")  # others name the key that is wrong
        if is_about_images and isinstance(source.images, FileImages):
            source.images.check_some_are_there()
        raise


def store_options(config: Config) -> "StoreOptions":
    """Return where decoded images are kept."""
    from unfreeze.data.store.store import StoreOptions

    return StoreOptions(
        place=config.data.store,
        memory_gb=config.data.store_gb,
        folder=cache_folder(config.cache),
        folder_gb=config.cache.gb,
        workers=config.data.num_workers,
    )


def cache_folder(cache: CacheConfig) -> Path:
    """Return the folder for what later runs can use again: the one asked for, or the user's cache folder."""
    return cache_root(cache.dir)


def prefix_cache_options(cache: CacheConfig, *, sweep: Path | None) -> "PrefixCacheOptions":
    """Return what is cached of a frozen prefix, and the folder of the sweep whose other runs will want all of it."""
    from unfreeze.cache.folder import CacheFolder
    from unfreeze.training.features.demand import PrefixCacheOptions

    folder = CacheFolder(cache_folder(cache), cache.gb)
    return PrefixCacheOptions(folder=folder, views=cache.views, exact=cache.exact, sweep=sweep)


def build_module(
    config: Config, classifier: "Classifier", data: "ImageDataModule", *, channels_last: bool = True
) -> "ImageClassifier":
    """Return the LightningModule of a configuration, to train on some data."""
    from unfreeze.data.augment.presets import augmentation
    from unfreeze.training.module import ImageClassifier
    from unfreeze.training.param_groups import OptimizerSpec
    from unfreeze.training.gradient_checkpointing import recompute_blocks

    module = ImageClassifier(
        classifier,
        objective=build_objective(config, classifier.outputs, data),
        optimizer=OptimizerSpec(
            name=config.optimizer.name,
            weight_decay=config.optimizer.weight_decay,
            momentum=config.optimizer.momentum,
        ),
        augment=augmentation(**config.augment.model_dump()),
        mirror=config.data.mirror,
        seed=config.seed,
        channels_last=channels_last,
    )
    if config.model.checkpointing:
        recompute_blocks(classifier)
    if config.trainer.get("compile"):
        # In place: torch.compile(network) would rename every key of the checkpoint.
        module.network.compile()
    return module


def build_objective(config: Config, outputs: "Outputs", data: "ImageDataModule") -> "Objective":
    """Return what a configuration minimises."""
    from unfreeze.training.losses import class_weights, positive_weights
    from unfreeze.training.objectives import Classify, Distill, Multilabel, Multitask

    asked = config.objective
    gamma = asked.gamma if asked.loss == "focal" else 0.0
    smoothing = asked.label_smoothing
    weighted = config.data.balance == "weights"
    labels = data.labels[data.splits.train] if weighted else None
    if outputs.multilabel:
        positive = None if labels is None else positive_weights(labels)
        return Multilabel(outputs, gamma=gamma, label_smoothing=smoothing, weights=positive)
    if config.head.is_multitask:
        each = None
        if labels is not None:
            each = [class_weights(own, size) for own, size in zip(labels.T, outputs.sizes, strict=True)]
        return Multitask(
            outputs, task_weights=config.head.weights, gamma=gamma, label_smoothing=smoothing, weights=each
        )
    weights = None if labels is None else class_weights(labels, len(outputs))
    if asked.name == "distill":
        return Distill(
            outputs,
            on_features=asked.match == "features",
            temperature=asked.temperature,
            alpha=asked.alpha,
            gamma=gamma,
            label_smoothing=smoothing,
            weights=weights,
        )
    return Classify(outputs, gamma=gamma, label_smoothing=smoothing, weights=weights)


def build_teacher(
    config: Config, source: "ImageSource", data: "ImageDataModule", outputs: "Outputs"
) -> "tuple[Teacher, ImageDataModule]":
    """Return the teacher of a configuration, and the images of a run as it sees them, decoded.

    Raises:
        UnfreezeError: If there is none such, or it does not go with the data.
    """
    from unfreeze.data.store.framing import Resize
    from unfreeze.training.callbacks.teacher import check_bands, check_classes, check_splits, find_teacher

    assert config.objective.teacher is not None
    teacher = find_teacher(config.objective.teacher, trust_repo=config.model.trust_repo)
    if config.objective.match == "logits":
        check_classes(teacher, outputs)
    check_bands(teacher, source.images.bands)
    check_splits(teacher, data.describe_splits())
    wanted = teacher.classifier.preprocessing
    if Resize.of(wanted) == data.decoded_for:
        return teacher, data
    own = build_data(config, source)
    decode(own, wanted)
    return teacher, own


def resolve(config: Config, outputs: "Outputs") -> "Plan":
    """Return the plan of a configuration, without loading weights.

    Raises:
        UnfreezeError: If model, weights, image size or stages are not to be had.
    """
    from unfreeze.models.outline import find_outline

    return _resolve(config, find_outline(config.model.spec), len(outputs), config.head.spec(outputs))


def check_by_catalog(config: Config) -> None:
    """Refuse what the catalogue of networks knows to be wrong, before torch and the images are loaded.

    Raises:
        UnfreezeError: If there is no such network, or it has no such weights or layer groups.
    """
    from unfreeze.models.outline import find_in_catalog
    from unfreeze.models.spec import HeadSpec

    outline = find_in_catalog(config.model.spec)
    if outline is not None:
        _resolve(config, outline, _ANY_CLASSES, HeadSpec())


def _resolve(config: Config, outline: "Outline", num_classes: int, head: "HeadSpec") -> "Plan":
    from unfreeze.training.plan.plan import Group, Rates, Stage, resolve_plan

    outline.check_weights(config.model.weights)
    if config.data.image_size is not None:
        outline.check_image_size(config.data.image_size)
    strategy = config.strategy
    _check_solvers(config)
    return resolve_plan(
        [Stage(**stage.model_dump(exclude={"lr"}), lr=_stage_lr(stage.lr)) for stage in strategy.stages],
        [Group(name, parameters) for name, parameters in outline.group_sizes(num_classes, head)],
        rates=Rates(**strategy.lr.model_dump()),
        schedule=config.optimizer.schedule,
        optimizer=config.optimizer.name,
        restore=strategy.restore,
        frozen_norm=strategy.frozen_norm,
        architecture=config.model.name,
        count=lambda live, only: outline.count_trainable(num_classes, live, only, head),
        scale=_rate_scale(config),
    )


def cut_to_limits(config: Config, plan: "Plan", images: int) -> "Plan":
    """Return a plan that ends where `trainer.max_epochs` or `trainer.max_steps` ends the fit.

    Args:
        config: Checked values.
        plan: What the stages come to.
        images: To train on.
    """
    from unfreeze.training.plan.limits import cut_plan, epochs_of_steps

    epochs = config.trainer.get("max_epochs") or plan.epochs
    steps = config.trainer.get("max_steps")
    if steps is not None:
        from unfreeze.data.order import steps_per_epoch

        ranks, limit = count_ranks(config), config.trainer.get("limit_train_batches") or 1.0
        batches = steps_per_epoch(images, min(config.data.batch_size, -(-images // ranks)), ranks, limit=limit)
        per_step = config.trainer.get("accumulate_grad_batches") or 1
        epochs = min(epochs, epochs_of_steps(steps, batches_per_epoch=batches, batches_per_step=per_step))
    return cut_plan(plan, epochs)


def count_ranks(config: Config) -> int:
    """Return the number of processes that train together."""
    devices, nodes = config.trainer.get("devices"), config.trainer.get("num_nodes") or 1
    return devices * nodes if isinstance(devices, int) and devices > 0 else _bare_trainer(config).world_size


def decode(data: "ImageDataModule", preprocessing: "Preprocessing") -> None:
    """Decode all images, with a bar in a terminal."""
    from unfreeze.data.store.framing import Resize

    with counting_bar("decoding", len(data.source.images)) as progress:
        data.build_store(Resize.of(preprocessing), progress)


def audit_data(config: Config, *, min_per_class: int, near: bool) -> "AuditReport":
    """Look at the images of a configuration; what is decoded for it is there for a run of the same configuration."""
    import numpy as np

    from unfreeze.data.audit.audit import audit
    from unfreeze.data.store.framing import Resize
    from unfreeze.data.store.store import build_store
    from unfreeze.models.architecture import find_architecture

    source = build_source(config)
    preprocessing = find_architecture(config.model.spec).preprocessing().at(config.data.image_size)
    with counting_bar("decoding", len(source.images)) as progress:
        store = build_store(
            source,
            Resize.of(preprocessing),
            options=store_options(config),
            on_error="skip",
            progress=progress,
        )
    unreadable = np.array(sorted(store.facts.unreadable), dtype=np.int64)
    splits = build_splits(config.data, source).without(unreadable)
    return audit(source, splits, store, min_per_class=min_per_class, near=near)


def trainer_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of a Trainer, but for its callbacks and loggers."""
    own = ("compile", "tf32", "max_time")
    arguments = {key: value for key, value in config.trainer.items() if value is not None and key not in own}
    if arguments.get("precision") == AUTO:
        arguments["precision"] = FLOAT32  # until a probe has settled it
    arguments |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    arguments["max_epochs"] = min(config.trainer.get("max_epochs") or 10**6, _most_epochs(config))
    if not (config.callbacks or {}).get("progress"):
        arguments["enable_progress_bar"] = False
    return arguments


def check_trainer(config: Config) -> "Trainer":
    """Let Lightning look at its arguments before anything is loaded; return a Trainer that has them and no more."""
    import lightning  # noqa: F401  # chooses INFO for itself; what it would say, `announce` says

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    from unfreeze.training.plan.limits import parse_max_time

    try:
        parse_max_time(config.trainer.get("max_time"))
        trainer = _bare_trainer(config)
    except Exception as error:
        accelerator = config.trainer.get("accelerator", "auto")
        hint = "" if accelerator in ("auto", "cpu") else "; type trainer.accelerator=auto to use what this machine has"
        raise UnfreezeError(f"trainer: {first_line(error).rstrip('.!')}{hint}") from None
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > allowed_cores():
        raise UnfreezeError(
            f"trainer.devices: got {trainer.num_devices}, but this process may use {allowed_cores()} cores, and each "
            f"rank on the CPU needs one; type trainer.devices={allowed_cores()} or fewer"
        )
    return trainer


def _bare_trainer(config: Config) -> "Trainer":
    from lightning import Trainer

    return Trainer(**{**trainer_arguments(config), "logger": False, "enable_checkpointing": False})


def _check_solvers(config: Config) -> None:
    """Refuse what a head that is solved can't follow."""
    for index, stage in enumerate(config.strategy.stages):
        if stage.solver is None:
            continue
        where = f"strategy.stages[{index}] {stage.name!r}: solver lbfgs"
        if (stage.augment or config.augment.name) != "none":
            raise UnfreezeError(f"{where} sees each image once, as it is; give the stage augment: none")
        if not config.cache.enabled:
            raise UnfreezeError(f"{where} works on cached features; leave out cache.enabled=false")
        if config.strategy.frozen_norm == "train":
            raise UnfreezeError(f"{where} works on features that stand still; leave out strategy.frozen_norm=train")
        if config.objective.label_smoothing or config.objective.loss != "cross_entropy":
            given = "objective.label_smoothing" if config.objective.label_smoothing else "objective.loss"
            raise UnfreezeError(f"{where} minimises the cross entropy itself; leave out {given}")
        if config.objective.name != "classify" or config.head.is_multitask:
            given = "head=multitask" if config.head.is_multitask else f"objective={config.objective.name}"
            raise UnfreezeError(f"{where} solves for one class per image; leave out {given}, or the solver")


def _rate_scale(config: Config) -> dict[str, float] | None:
    """Return what the rates of each optimizer are multiplied by for the global batch.

    SGD's grow with it (Goyal et al. 2017), those of the Adam family with its square root (Malladi et al. 2022).
    """
    if config.optimizer.lr_batch is None:
        return None
    batches = _bare_trainer(config).world_size * (config.trainer.get("accumulate_grad_batches") or 1)
    ratio = config.data.batch_size * batches / config.optimizer.lr_batch
    return {"sgd": ratio, "adam": ratio**0.5, "adamw": ratio**0.5}


def _stage_lr(lr: Any) -> Any:
    return lr.model_dump(exclude_none=True) if hasattr(lr, "model_dump") else lr


def _most_epochs(config: Config) -> int:
    return sum(stage.epochs for stage in config.strategy.stages)
