"""One object knows the files of a run: it finds them, reads them back, and refuses what is no run."""

from pathlib import Path

import pytest

from unfreeze.errors import UnfreezeError
from unfreeze.results.run_directory import RunDirectory, runs_in


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.checkpoints.mkdir(parents=True)
    directory.splits_file.write_text('{"fingerprint": "x", "splits": {}}')
    directory.write_result({"status": "completed", "val": {"acc": float("nan")}})
    return directory


def test_a_checkpoint_and_a_folder_belong_to_their_run(run: RunDirectory, tmp_path: Path) -> None:
    assert RunDirectory.containing(run.path) == run
    assert RunDirectory.containing(run.best) == run
    assert RunDirectory.containing(tmp_path) is None


def test_rows_are_read_back_as_numbers_without_empty_cells(run: RunDirectory) -> None:
    rows = [{"epoch": 1, "val/acc": 0.5, "stage": "head"}, {"epoch": 2, "stage": "head", "seconds": 1.5}]
    run.write_history(rows, [{"name": "head", "epochs": 2}])
    assert run.read_history() == rows
    assert run.read_stages() == [{"name": "head", "epochs": 2}]


def test_numbers_that_are_not_finite_become_null(run: RunDirectory) -> None:
    assert run.read_result() == {"status": "completed", "val": {"acc": None}}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"monitor": "val/acc"}'])
def test_a_damaged_result_is_refused(content: str, run: RunDirectory) -> None:
    run.result_file.write_text(content)
    with pytest.raises(UnfreezeError, match=r"want a run's directory, as train\.py leaves it"):
        run.read_result()


def test_a_place_that_holds_a_run_is_not_free(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match="holds a run; type resume="):
        run.check_is_free()
    RunDirectory(tmp_path / "new").check_is_free()
    (tmp_path / "file").write_text("")
    with pytest.raises(UnfreezeError, match="is not a folder to write in"):
        RunDirectory(tmp_path / "file" / "run").check_is_free()


def test_runs_are_found_below_a_folder_but_not_their_evaluations(run: RunDirectory, tmp_path: Path) -> None:
    evaluation = RunDirectory(run.evaluations / "other")
    evaluation.path.mkdir(parents=True)
    evaluation.write_result({"status": "completed"})
    assert runs_in(tmp_path) == [run.path]
    assert runs_in(run.path) == [run.path]
    with pytest.raises(UnfreezeError, match="no run in"):
        runs_in(run.checkpoints)


def test_reserved_space_is_released(run: RunDirectory) -> None:
    run.reserve_space()
    assert sum(file.stat().st_size for file in run.path.iterdir() if file.is_file()) > 1 << 18
    run.release_space()
    run.release_space()
    assert sum(file.stat().st_size for file in run.path.iterdir() if file.is_file()) < 1 << 12
