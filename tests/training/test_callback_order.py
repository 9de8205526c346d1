"""Callbacks that depend on others are refused before them."""

import lightning as L
import pytest

from tests.training.cached_run import make_data
from tests.training.conftest import make_classifier, quiet_trainer
from unfreeze import ImageClassifier, Stage, StagedUnfreezing
from unfreeze.errors import UnfreezeError
from unfreeze.results.run_directory import RunDirectory
from unfreeze.training.callbacks.compiling import CompiledStages
from unfreeze.training.callbacks.recorder import RunRecorder
from unfreeze.training.features.prefix_cache import FrozenPrefixCache


def dependants(stages: StagedUnfreezing, tmp_path) -> list[L.Callback]:
    recorder = RunRecorder(RunDirectory(tmp_path), stages, identity={})
    return [recorder, FrozenPrefixCache(stages), CompiledStages(stages)]


@pytest.mark.parametrize("number", [0, 1, 2], ids=["recorder", "cache", "compiling"])
@pytest.mark.parametrize("is_there", [True, False], ids=["after", "missing"])
def test_a_callback_before_the_stages_that_it_reads_is_refused(number: int, is_there: bool, tmp_path) -> None:
    stages = StagedUnfreezing([Stage("head", 1, 1)])
    early = dependants(stages, tmp_path)[number]
    trainer = quiet_trainer(callbacks=[early, *([stages] if is_there else [])], max_epochs=1)
    with pytest.raises(UnfreezeError) as refused:
        trainer.fit(ImageClassifier(make_classifier()), make_data())
    name = type(early).__name__
    assert str(refused.value) == (
        f"callbacks: {name} needs StagedUnfreezing before it; pass both to the Trainer in the order "
        f"[StagedUnfreezing, {name}]"
    )
