"""The schema of a run: every value a person types is checked here, before anything is loaded."""

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticKnownError

from unfreeze.config.messages import describe_errors
from unfreeze.config.trainer_values import check_trainer_values
from unfreeze.data.sources.registry import SOURCES
from unfreeze.errors import UnfreezeError
from unfreeze.models.spec import HeadName, HeadSpec, ModelSpec, Source
from unfreeze.results.monitor import LABEL_MONITORS, MONITORS, Mode, mode_of
from unfreeze.system.files import cache_root
from unfreeze.training.plan.schedules import SCHEDULES

if TYPE_CHECKING:
    from unfreeze.models.outputs import Outputs

Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32, examples=[0])]
GroupRate = Annotated[float, Field(ge=0, le=100)]
GroupRates = Annotated[dict[str, GroupRate] | list[GroupRate], Field(min_length=1)]
ScheduleName = Literal["constant", "step", "cosine", "one_cycle", "cyclic"]
OptimizerName = Literal["adamw", "adam", "sgd"]
AugmentName = Literal["none", "light", "standard", "strong"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


def _known_source(name: object) -> object:
    """Refuse a name that no data source has, like a `Literal` of the names."""
    if not isinstance(name, str) or name not in SOURCES:
        *others, last = map(repr, SOURCES)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
    return name


class ColumnsConfig(_Section):
    """Columns of a manifest; see `unfreeze.data.sources.columns.Columns`."""

    image: str | None = Field(examples=["path"])
    label: str | Annotated[list[str], Field(min_length=1)] | None = Field(examples=["species"])
    split: str | Literal[False] | None = Field(examples=["split"])
    group: str | Literal[False] | None = Field(examples=["patient"])
    separator: str | None = Field(default=None, min_length=1, examples=["|"])


class DataConfig(_Section):
    """Source of the images, and their splits."""

    name: Annotated[str, BeforeValidator(_known_source)]
    root: str | None = Field(examples=["photos"])
    csv: str | None = Field(examples=["photos.csv"])
    columns: ColumnsConfig | None
    download: bool
    mirror: bool
    image_size: int | None = Field(ge=8, le=2048, examples=[96])
    batch_size: int = Field(ge=1, le=65536, examples=[64])
    num_workers: int | None = Field(ge=0, le=256, examples=[2])
    fraction: float = Field(gt=0, le=1, examples=[0.25])
    seed: Seed
    val_fraction: Annotated[float, Field(gt=0, lt=1, examples=[0.1])]
    test_fraction: Fraction
    folds: int | None = Field(ge=2, le=1000, examples=[5])
    fold: int | None = Field(ge=0, examples=[0])
    balance: Literal["none", "weights", "sampler"] = Field(examples=["weights"])
    on_error: Literal["raise", "skip"] = Field(examples=["skip"])
    store: Literal["auto", "ram", "disk", "off"] = Field(examples=["disk"])
    store_gb: float | None = Field(gt=0, examples=[4.0])

    @model_validator(mode="after")
    def _has_the_settings_of_its_source(self) -> "DataConfig":
        source = SOURCES[self.name]
        for key in source.required:
            if getattr(self, key) is None:
                raise ValueError(f"data.{key}: missing; type data.{key}=...")
        if not source.reads_table and (self.csv is not None or self.columns is not None):
            tables = " or ".join(f"data={name}" for name, other in SOURCES.items() if other.reads_table)
            raise ValueError(f"data.csv: data={self.name} reads no table; type {tables}")
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_the_folds(self) -> "DataConfig":
        if self.folds is not None and self.fold is None:
            raise ValueError(
                f"data.fold: missing beside data.folds={self.folds}; type data.fold=0, or all of them: "
                f"-m data.fold={','.join(map(str, range(min(self.folds, 10))))}{',...' if self.folds > 10 else ''}"
            )
        if self.fold is not None and self.folds is None:
            raise ValueError(f"data.folds: missing beside data.fold={self.fold}; type data.folds=5, or leave both out")
        if self.fold is not None and self.folds is not None and self.fold >= self.folds:
            raise ValueError(
                f"data.fold: got {self.fold}, want one of 0 to {self.folds - 1}, since data.folds={self.folds}"
            )
        return self

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "DataConfig":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"data.val_fraction={self.val_fraction} and data.test_fraction={self.test_fraction} leave nothing "
                "to train on; want a sum below 1, such as data.val_fraction=0.1 data.test_fraction=0.1"
            )
        return self


class CacheConfig(_Section):
    """The cache of decoded images and features."""

    dir: str | None = Field(examples=["~/.cache/unfreeze"])
    gb: float = Field(gt=0, examples=[50.0])
    enabled: bool
    views: int | None = Field(ge=1, le=1000, examples=[3])
    exact: bool

    @model_validator(mode="after")
    def _dir_is_a_folder(self) -> "CacheConfig":
        if self.dir is not None and (
            not self.dir or (cache_root(self.dir).exists() and not cache_root(self.dir).is_dir())
        ):
            raise ValueError(
                f"cache.dir: got {self.dir!r}, want a folder, which is made where there is none, or cache.dir=null for "
                f"{cache_root(None)}"
            )
        return self


class ModelConfig(_Section):
    """The backbone and its weights; see `unfreeze.models.spec.ModelSpec`."""

    name: str
    weights: str | None = Field(examples=["DEFAULT"])
    source: Source = "torchvision"
    repo: str | None = Field(default=None, examples=["path/to/folder"])
    trust_repo: bool = False
    in_chans: int = Field(default=3, ge=1, le=1024, examples=[1])
    options: dict[str, Any] | None = Field(default=None, examples=["{drop_path_rate: 0.1}"])
    checkpointing: bool = False

    @property
    def spec(self) -> ModelSpec:
        """The network as a plain value."""
        return ModelSpec(
            name=self.name,
            source=self.source,
            repo=_absolute(self.repo),
            trust_repo=self.trust_repo,
            in_chans=self.in_chans,
            options=tuple(
                (key, tuple(value) if isinstance(value, list) else value) for key, value in (self.options or {}).items()
            ),
        )


def _absolute(repo: str | None) -> str | None:
    """Return a repository that is a folder by its whole path, which a checkpoint can name."""
    if repo is None or not os.path.isdir(os.path.expanduser(repo)):
        return repo
    return os.path.abspath(os.path.expanduser(repo))


class HeadConfig(_Section):
    """The head on the backbone."""

    name: HeadName | Literal["multitask"]
    dropout: float | None = Field(ge=0, lt=1, examples=[0.2])
    hidden: int | None = Field(default=None, ge=1, le=65536, examples=[512])
    each: HeadName = "linear"
    weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] | None = Field(default=None, examples=["{species: 2}"])

    @property
    def is_multitask(self) -> bool:
        """True if there is a head for each column of labels."""
        return self.name == "multitask"

    def spec(self, outputs: "Outputs") -> HeadSpec:
        """Return the kind of head that is meant for some logits."""
        name = self.each if self.name == "multitask" else self.name
        tasks = outputs.sizes if self.is_multitask else ()
        return HeadSpec(name=name, dropout=self.dropout, hidden=self.hidden, tasks=tasks)


class LearningRates(_Section):
    """Rates by depth; see `unfreeze.training.plan.plan.Rates`."""

    head: float = Field(gt=0, le=100, examples=[1e-3])
    decay: float = Field(gt=0, le=1, examples=[0.1])
    floor: float = Field(ge=0, le=1, examples=[0.01])
    groups: GroupRates | None = Field(examples=["{stem: 1e-5}"])
    freeze_below: float | None = Field(ge=0, le=1, examples=[0.01])


class LearningRateChanges(_Section):
    """Changes of a stage to the rates."""

    head: float | None = Field(default=None, gt=0, le=100)
    decay: float | None = Field(default=None, gt=0, le=1)
    floor: float | None = Field(default=None, ge=0, le=1)
    groups: GroupRates | None = None
    freeze_below: float | None = Field(default=None, ge=0, le=1)


class StageConfig(_Section):
    """One stage; see `unfreeze.training.plan.plan.Stage`."""

    name: str = Field(min_length=1, examples=["head"])
    train: int | str | list[str] = Field(examples=[1])
    epochs: int = Field(ge=1, le=100_000, examples=[3])
    patience: int | None = Field(default=None, ge=1, examples=[2])
    warmup: Fraction = Field(default=0.0, examples=[0.1])
    lr: Annotated[float, Field(gt=0, le=100)] | LearningRateChanges | None = None
    schedule: ScheduleName | None = None
    optimizer: OptimizerName | None = None
    augment: AugmentName | None = None
    solver: Literal["lbfgs"] | None = None
    only: str | Annotated[list[str], Field(min_length=1)] | None = Field(default=None, examples=["norms"])


class StrategyConfig(_Section):
    """The stages of a run and their rates."""

    name: str
    stages: list[StageConfig] = Field(min_length=1)
    lr: LearningRates
    blocks: int | None = Field(ge=1, examples=[2])
    restore: Literal["best", "last"]
    frozen_norm: Literal["eval", "train"]
    from_scratch: bool


class ObjectiveConfig(_Section):
    """The loss and its options."""

    name: Literal["classify", "multilabel", "distill"]
    loss: Literal["cross_entropy", "focal"]
    gamma: float = Field(ge=0, le=100, examples=[2.0])
    label_smoothing: Fraction = Field(examples=[0.1])
    teacher: str | None = Field(default=None, min_length=1, examples=["outputs/<run>"])
    match: Literal["logits", "features"] = "logits"
    temperature: float = Field(default=4.0, gt=0, le=1000, examples=[4.0])
    alpha: float = Field(default=0.7, ge=0, le=1, examples=[0.7])


class AugmentConfig(_Section):
    """Augmentation; null takes the value of the preset."""

    name: AugmentName
    ops: Literal["none", "randaugment", "trivial"] | None
    erase: float | None = Field(ge=0, le=1, examples=[0.25])
    mixup: float | None = Field(ge=0, le=100, examples=[0.2])
    cutmix: float | None = Field(ge=0, le=100, examples=[1.0])
    mix: float | None = Field(ge=0, le=1, examples=[0.5])


class OptimizerConfig(_Section):
    """The optimizer and the schedule that every stage starts anew."""

    name: OptimizerName
    weight_decay: float = Field(ge=0, le=10, examples=[0.01])
    momentum: float = Field(ge=0, lt=1, examples=[0.9])
    schedule: ScheduleName = Field(examples=["cosine"])
    lr_batch: int | None = Field(default=None, ge=1, le=2**24, examples=[256])


class Config(_Section):
    """The configuration of one run."""

    data: DataConfig
    cache: CacheConfig
    model: ModelConfig
    head: HeadConfig
    strategy: StrategyConfig
    objective: ObjectiveConfig
    augment: AugmentConfig
    optimizer: OptimizerConfig
    trainer: dict[str, Any]
    callbacks: dict[str, Any] | None
    logger: dict[str, Any] | None
    search: bool
    seed: Seed
    monitor: str
    mode: Literal["min", "max"] | None
    test: bool
    resume: str | None
    report: bool = True
    keep_best: int = Field(default=1, ge=1, le=1000, examples=[3])

    @model_validator(mode="after")
    def _monitor_is_known(self) -> "Config":
        allowed = LABEL_MONITORS if self.objective.name == "multilabel" else MONITORS
        split, *task, metric = self.monitor.split("/")
        known = f"{split}/{metric}" in allowed
        if not known or len(task) > self.head.is_multitask or (task and metric == "loss"):
            of_tasks = ", or of one task, such as val/<task>/acc" if self.head.is_multitask else ""
            raise ValueError(
                f"monitor: nothing logs {self.monitor!r}; want one of {', '.join(allowed)}{of_tasks}, such as "
                "monitor=val/acc"
            )
        if self.mode not in (None, self.monitor_mode):
            raise ValueError(
                f"mode: {self.mode!r} contradicts monitor={self.monitor}, which is better "
                f"{'lower' if self.monitor_mode == 'min' else 'higher'}; leave mode out"
            )
        return self

    @model_validator(mode="after")
    def _choices_go_together(self) -> "Config":
        if self.model.in_chans not in (1, 3) and SOURCES[self.data.name].is_rgb:
            raise ValueError(
                f"model.in_chans: got {self.model.in_chans}, but the images of data={self.data.name} are red, green "
                "and blue; want 1 or 3"
            )
        if self.objective.name == "distill" and self.objective.teacher is None:
            raise ValueError("objective.teacher: missing; type objective.teacher=outputs/<run>, or a model's name")
        if self.model.checkpointing and self.trainer.get("compile"):
            raise ValueError("model.checkpointing: trainer.compile decides itself what to keep; leave one of them out")
        if self.objective.name == "distill" and self.objective.match == "features" and self.trainer.get("compile"):
            raise ValueError("trainer.compile: a compiled network shows no features; type objective.match=logits")
        return self

    @model_validator(mode="after")
    def _trainer_is_usable(self) -> "Config":
        check_trainer_values(self.trainer, shortest_stage=min(stage.epochs for stage in self.strategy.stages))
        return self

    @property
    def monitor_mode(self) -> Mode:
        """True if lower or higher is better."""
        return mode_of(self.monitor)


def parse_config(values: dict[str, Any]) -> Config:
    """Return the checked configuration of a run.

    Raises:
        UnfreezeError: With one line that names each wrong key, what it was given and what it wants.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UnfreezeError(describe_errors(error, Config)) from None


assert set(SCHEDULES) == set(ScheduleName.__args__)  # type: ignore[attr-defined]
