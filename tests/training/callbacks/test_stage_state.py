"""The state of a stage: validations are counted, an advance starts anew, a checkpoint restores all of it."""

import pytest

from unfreeze.results.monitor import Score
from unfreeze.training.callbacks.stage_state import StageState


def test_the_best_validation_breaks_ties_by_the_loss_and_patience_counts_the_value_alone() -> None:
    state = StageState()
    assert state.update(Score(0.5, 1.0), "max", epoch=1, step=10)
    assert state.update(Score(0.5, 0.8), "max", epoch=2, step=20)
    assert (state.best_epoch, state.best_step, state.waited) == (2, 20, 1)
    assert not state.update(Score(0.5, 0.9), "max", epoch=3, step=30)
    assert not state.update(Score(float("nan"), 0.1), "max", epoch=4, step=40)
    assert (state.best, state.waited) == (Score(0.5, 0.8), 3)
    assert state.update(Score(0.6, 2.0), "max", epoch=5, step=50)
    assert state.waited == 0


def test_an_advance_keeps_only_the_epochs_of_the_run() -> None:
    state = StageState(index=1, epochs=3, steps=30, epochs_counted=5, waited=2, best=Score(0.5, 1.0), best_epoch=4)
    state.is_over = True
    assert state.advanced() == StageState(index=2, epochs_counted=5)


@pytest.mark.parametrize("best", [None, Score(0.25, 1.5)])
def test_a_state_survives_a_checkpoint(best: Score | None) -> None:
    state = StageState(2, 1, 7, 9, 1, best, 8, 70, {"weights": {}, "moments": {}}, is_over=True)
    assert StageState.from_dict(state.to_dict()) == state


def test_the_state_of_an_earlier_version_is_read() -> None:
    values = StageState(best=Score(0.5, 1.0)).to_dict()
    del values["best_loss"], values["best_step"]
    assert StageState.from_dict(values).best == Score(0.5)
