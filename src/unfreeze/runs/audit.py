"""The images of a configuration, checked before a run."""

import numpy as np

from unfreeze.config.schema import Config
from unfreeze.data.audit.audit import AuditReport, audit
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import build_store
from unfreeze.models.architecture import find_architecture
from unfreeze.runs.builders.data import store_options
from unfreeze.runs.builders.source import build_source
from unfreeze.runs.builders.splits import build_splits
from unfreeze.system.terminal import counting_bar


def audit_data(config: Config, *, min_per_class: int, near: bool) -> AuditReport:
    """Audit the images of a configuration; a run of the same configuration uses the decoded images again."""
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
