"""The features at one edge of a network for the images of a run: read from the cache, or extracted and stored."""

import logging
import time
from collections.abc import Callable, Sequence, Set
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from unfreeze.cache.folder import CacheEntry, NoRoomError
from unfreeze.data.image_data import ImageData
from unfreeze.data.loader import Batch
from unfreeze.data.sources.images import Indices
from unfreeze.models.partition import Partition, check_partition
from unfreeze.system.memory import free_memory_bytes
from unfreeze.system.signals import STOP
from unfreeze.training.features.demand import JUDGED, Demand, data_of
from unfreeze.training.features.extraction import Extractor, Kind, fill_table
from unfreeze.training.features.faster import FasterPrefix, faster_prefix, same_copy
from unfreeze.training.features.keys import cut_key, digest_of, entry_metadata, feature_facts, features_key
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.table import FeatureFiles, FeatureTable, RowLayout, are_pooled
from unfreeze.training.module import ImageClassifier

log = logging.getLogger(__name__)

_FETCHED_BYTES_PER_S = 2e9
"""Lower bound of the speed of reading rows, from memory or from the page cache."""

_CUTS: dict[tuple[object, ...], dict[str, tuple[RowLayout, ...]]] = {}
"""Layouts of rows by precision, at the cuts that runs of a sweep have checked in this process."""

_SHARE_OF_GPU = 4
"""Features stay on a GPU if they take less than this fraction of its free memory."""


class StageFeatures:
    """Activations at the edge of a frozen prefix.

    Args:
        trainer: The trainer that runs the stage.
        module: The module that it trains, its frozen part in eval mode.
        partition: The network cut at the edge.
        options: Options of the feature cache.
        data: The images; None for those of the trainer.

    Attributes:
        computed: Images that passed through the prefix so far, on all ranks.
        seconds: Time of the extraction.
        trial_seconds: The part of it that went into trials of faster copies of the prefix.
        saved_seconds: Estimate of the time that the requested features save.

    Raises:
        CannotPartitionError: If the parts do not do what the whole does.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        module: ImageClassifier,
        partition: Partition,
        options: PrefixCacheOptions,
        *,
        data: ImageData | None = None,
    ) -> None:
        self.partition = partition
        self.computed = 0
        self.seconds = 0.0
        self.trial_seconds = 0.0
        self.saved_seconds = 0.0
        self._trainer = trainer
        self._module = module
        self._options = options
        self._data = data_of(trainer) if data is None else data
        self._place: Literal["memory", "files"] = "memory" if trainer.world_size == 1 else "files"
        self._wanted: dict[Kind, Indices] = {}
        self._tables: dict[Kind, FeatureTable] = {}
        self._files: dict[Kind, tuple[CacheEntry, FeatureFiles, bool]] = {}
        self._faster: FasterPrefix | None = None
        self._how: str | None = None
        self._layouts_by_precision = self._check_partition()

    @property
    def kinds(self) -> Set[Kind]:
        """The kinds that were requested."""
        return self._wanted.keys()

    def pays(self, demands: Sequence[Demand]) -> bool:
        """Return whether features save more time than they cost, or are stored for later runs."""
        if not demands:
            return False
        if all(self.is_kept(demand.kind) for demand in demands):
            return True
        fetched = sum(demand.passes * self.row_bytes(demand.kind) for demand in demands) / _FETCHED_BYTES_PER_S
        return sum(map(self._saved_seconds, demands)) > fetched

    def want(self, demand: Demand) -> None:
        """Request features."""
        if not self.has(demand.kind, demand.images):  # what is found needs no trial
            self.saved_seconds += self._saved_seconds(demand)
        self._wanted[demand.kind] = np.union1d(self._wanted.get(demand.kind, demand.images), demand.images)

    def _saved_seconds(self, demand: Demand) -> float:
        is_there = demand.kind in self._tables or self.has(demand.kind, demand.images)
        computed = 0 if is_there else len(demand.images)
        return (demand.passes - computed) * self._seconds_per_image

    @property
    def nbytes(self) -> int:
        """Bytes of all requested rows."""
        return sum(len(images) * self.row_bytes(kind) for kind, images in self._wanted.items())

    def row_bytes(self, kind: Kind) -> int:
        """Return the bytes of an image's row."""
        return sum(layout.nbytes for layout in self._layouts(kind))

    @property
    def is_pooled(self) -> bool:
        """True if the features of an image are vectors, in each precision."""
        return are_pooled(self._layouts(JUDGED))

    def is_kept(self, kind: Kind) -> bool:
        """Return whether later runs find these features again."""
        return self._options.folder is not None and (self.is_pooled or self._options.sweep is not None)

    def has(self, kind: Kind, images: Indices) -> bool:
        """Return whether the features of some images are there from an earlier run."""
        return self.is_kept(kind) and bool(self._files_of(kind, kept=True)[1].done()[images].all())

    @cached_property
    def _prefix_digest(self) -> str:
        return digest_of(self.partition.prefix)

    @cached_property
    def _seconds_per_image(self) -> float:
        sample = self._data.splits.train[: self._extractor(JUDGED).batch_size]
        return self._extractor(JUDGED).seconds_per_image(sample)

    def find_place(self) -> str | None:
        """Choose between memory and files; return why neither has room, or None.

        Ranks share files, and so do runs; otherwise memory comes first, then a mapped file.
        """
        ranks, memory = self._trainer.world_size, free_memory_bytes() // 2
        if self._trainer.num_nodes > 1:
            return "it is not shared between nodes"
        fits_in_memory = ranks == 1 and self.nbytes <= memory
        kept = any(self.is_kept(kind) for kind in self._wanted)
        if fits_in_memory and not kept:
            return None
        if self._options.folder is None:
            needs = "needs a folder for files that all processes share" if ranks > 1 else "does not fit into memory"
            return f"{self.nbytes / 1e9:.1f} GB {needs}; name one (cache.dir)"
        try:
            self._make_room()
        except (NoRoomError, OSError) as problem:
            if not fits_in_memory:
                return str(problem)
            self._say_not_kept(problem)
            return None
        self._place = "files"
        return None

    @property
    def place(self) -> str:
        """The place of the rows, for messages."""
        return next((table.place for table in self._tables.values()), "nowhere")

    def table(self, kind: Kind) -> FeatureTable:
        """Return the features that are wanted of a kind; those that are not there are computed first.

        Raises:
            OSError: If neither files nor memory can take them.
            torch.OutOfMemoryError: If a GPU's memory does not do.
        """
        if kind not in self._tables:
            with STOP.at_once():
                self._tables[kind] = self._built(kind, self._wanted[kind])
        return self._tables[kind]

    def _built(self, kind: Kind, wanted: Indices) -> FeatureTable:
        if self._place == "memory":
            return self._in_memory(kind, wanted)
        try:
            return self._in_files(kind, wanted)
        except OSError as error:  # a folder that may only be read, a full disk
            if self._trainer.world_size > 1 or self.nbytes > free_memory_bytes() // 2:
                raise
            self._say_not_kept(error)
            return self._in_memory(kind, wanted)

    def _say_not_kept(self, problem: Exception) -> None:
        reason = str(problem)
        if isinstance(problem, OSError):
            root = "the cache" if self._options.folder is None else self._options.folder.root
            reason = f"can't write to {root} ({problem.strerror or problem})"
        log.warning(f"  ! features are not kept for later runs: {reason}; type another cache.dir")

    def close(self) -> None:
        """Release all rows, and remove those that later runs can't use."""
        self._tables.clear()
        for entry, _, kept in self._files.values():
            entry.release()
            if not kept and self._trainer.local_rank == 0:
                entry.remove()

    def _in_memory(self, kind: Kind, wanted: Indices) -> FeatureTable:
        table = FeatureTable.allocate(
            self._layouts(kind), wanted, images=len(self._data.source.images), device=self._home
        )
        self._fill(table, kind, wanted)
        return table

    def _in_files(self, kind: Kind, wanted: Indices) -> FeatureTable:
        entry, files, kept = self._files_of(kind, kept=self.is_kept(kind))
        trainer, rank, ranks = self._trainer, self._trainer.local_rank, self._trainer.world_size
        rows = files.rows_of(wanted)
        there = rank == 0 and entry.use() and bool(files.done()[rows].all())
        there = trainer.strategy.broadcast(there)
        with entry.locked() if rank == 0 and not there else nullcontext():  # what is there needs no builder
            if rank == 0 and not there:
                entry.clean()
                files.create()
                files.reserve(rows[~files.done()[rows]])
                entry.use()  # by one rank for all: they live as long as it does
            trainer.strategy.barrier()
            done = files.done()
            missing = wanted[~done[rows]]
            trainer.strategy.barrier()
            table = files.table(writable=not there)
            if len(missing):

                def record(computed: Indices) -> None:
                    done[files.rows_of(computed)] = True
                    files.mark_done(done)
                    entry.describe(self._metadata(kind, int(done.sum())))

                may_go_on = kept and ranks == 1 and kind.exact  # another run's trial may find another copy faster
                self._fill(table, kind, missing[rank::ranks], record=record if may_go_on else None)
                trainer.strategy.barrier()
                if rank == 0:
                    record(missing)
                trainer.strategy.barrier()
        fits = ranks == 1 and len(wanted) * self.row_bytes(kind) <= free_memory_bytes() // 2
        if self._home.type == "cuda" or (fits and kept):
            return table.copy_of(wanted, images=len(self._data.source.images), device=self._home)
        return table

    def _fill(
        self, table: FeatureTable, kind: Kind, images: Indices, *, record: Callable[[Indices], None] | None = None
    ) -> None:
        started = time.perf_counter()
        extractor = self._extractor(kind)
        if not kind.exact:
            extractor = replace(extractor, prefix=self._faster_prefix(kind).module)
        fill_table(table, extractor, images, record=record, shown=self._trainer.is_global_zero)
        self.computed += len(images) * self._trainer.world_size
        self.seconds += time.perf_counter() - started

    def _faster_prefix(self, kind: Kind) -> FasterPrefix:
        """Return what computes features that need not be exact; tried once, on the batches that it will see."""
        if self._faster is None:
            started = time.perf_counter()
            images = self._prepared(self._extractor(kind).batch_size)
            passes = sum(len(images) for kind, images in self._wanted.items() if not kind.exact)
            with self._extractor(kind).context():  # as they will be computed
                if self._how is None:
                    self._faster = faster_prefix(self.partition.prefix, images, passes=passes)
                    self._how = self._trainer.strategy.broadcast(self._faster.how)  # ranks measure different times
                if self._faster is None or self._faster.how != self._how:
                    self._faster = same_copy(self.partition.prefix, images, how=self._how)
            self.trial_seconds = time.perf_counter() - started
        return self._faster

    @property
    def how(self) -> str | None:
        """How the prefix was made faster, for messages; None before the trial."""
        return self._how

    def compute_as(self, how: str) -> None:
        """Do to the prefix what a trial has found before, without another."""
        self._how = how

    def _files_of(self, kind: Kind, *, kept: bool) -> tuple[CacheEntry, FeatureFiles, bool]:
        """Return the entry and the files of a kind; only stored kinds have a row for every image."""
        if kind not in self._files:
            assert self._options.folder is not None
            wanted = None if kept else self._wanted[kind]
            layouts, images = self._layouts(kind), len(self._data.source.images)
            facts = feature_facts(self._module, self._data, self.partition, kind, layouts=layouts, wanted=wanted)
            entry = self._options.folder.entry("features", features_key(self._prefix_digest, facts))
            self._files[kind] = entry, FeatureFiles(entry, layouts, images=images, wanted=wanted), kept
        return self._files[kind]

    def _make_room(self) -> None:
        for kind in self._wanted:
            entry, files, _ = self._files_of(kind, kept=self.is_kept(kind))
            if files.missing_bytes:
                entry.make_room(files.missing_bytes)

    def _metadata(self, kind: Kind, rows: int) -> dict[str, object]:
        sweep = None if self.is_pooled else self._options.sweep
        return entry_metadata(self._module, self._data, self.partition, self._layouts(kind), rows=rows, sweep=sweep)

    def _layouts(self, kind: Kind) -> tuple[RowLayout, ...]:
        if kind.precision not in self._layouts_by_precision:
            images = self._sample(2)
            values = self._extractor(kind).activations(images, torch.zeros(len(images), dtype=torch.int64))
            self._layouts_by_precision[kind.precision] = tuple(map(RowLayout.of, values))
        return self._layouts_by_precision[kind.precision]

    def _check_partition(self) -> dict[str, tuple[RowLayout, ...]]:
        """Check that the parts compute what the network computes; return the layouts of evaluation's rows.

        The runs of a sweep share a process, and check a cut that all of them make once.
        """
        module = self._module
        layouts: dict[str, tuple[RowLayout, ...]] = {}
        if self._options.sweep is not None:
            cut = cut_key(module, self.partition, self._prefix_digest)
            layouts = _CUTS.setdefault(cut, layouts)
        if not layouts:
            values = check_partition(module.network, self.partition, self._prepared(2))
            layouts[JUDGED.precision] = tuple(map(RowLayout.of, values))
        return layouts

    def _extractor(self, kind: Kind) -> Extractor:
        context = self._trainer.precision_plugin.forward_context
        return Extractor(self._module, self._data, self.partition.prefix, kind, autocast=context)

    def _sample(self, count: int) -> Tensor:
        return self._data.store.read(np.resize(self._data.splits.train, count))

    def _prepared(self, count: int) -> Tensor:
        """Return some images in the preprocessing of evaluation."""
        images, index = self._sample(count).to(self._module.device), torch.zeros(count, dtype=torch.int64)
        return self._module.prepared_for_evaluation(Batch(images, index, index)).pixels

    @cached_property
    def _home(self) -> torch.device:
        """The device of the rows: a GPU if the requested rows take a small part of its memory."""
        device = self._module.device
        if device.type == "cuda" and self.nbytes * _SHARE_OF_GPU > torch.cuda.mem_get_info(device)[0]:
            return torch.device("cpu")
        return device
