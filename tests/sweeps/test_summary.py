"""The jobs of a multirun, read back from directories."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from unfreeze.errors import UnfreezeError
from unfreeze.results.result import UNFINISHED
from unfreeze.results.run_directory import RunDirectory
from unfreeze.results.sweep_directory import Job, best_job, check_is_free, read_jobs
from unfreeze.sweeps.summary import format_jobs, shortened, write_summary


def result(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "completed",
        "reason": None,
        "monitor": "val/acc",
        "best": {"epoch": 4, "stage": "head"},
        "val": {"acc": 0.9, "loss": 0.3, "f1_macro": 0.88},
        "test": {"acc": 0.91, "f1_macro": 0.89, "per_class": {"cat": {"recall": 0.5}}},
        "seconds": 12.4,
        "overrides": ["model=tiny", "seed=0"],
        **changes,
    }


def job(number: int, **changes: Any) -> Job:
    return Job(number, Path(f"sweep/{number}"), result(**changes))


def put(folder: Path, name: str, **changes: Any) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(result(**changes)))
    return folder / name


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def failed(number: int, reason: str = "no memory") -> Job:
    content = {"schema": 1, "status": "failed", "reason": reason, "overrides": ["model=tiny", f"seed={number}"]}
    return Job(number, Path(f"sweep/{number}"), content)


def test_the_score_is_the_monitored_value() -> None:
    assert job(0).score == 0.9
    assert job(0, monitor="val/loss").score == 0.3
    assert job(0, val=None).score is None
    assert failed(0).score is None


def test_a_row_has_settings_figures_and_place() -> None:
    row = job(3, overrides=["model=tiny", "strategy.lr.groups={a: 1}", "data.root=/x/a=b", "~callbacks.progress"]).row()
    assert row == {
        "job": 3,
        "status": "completed",
        "reason": None,
        "model": "tiny",
        "strategy.lr.groups": "{a: 1}",
        "data.root": "/x/a=b",
        "val_acc": 0.9,
        "val_loss": 0.3,
        "val_f1_macro": 0.88,
        "test_acc": 0.91,
        "test_f1_macro": 0.89,
        "best_epoch": 4,
        "seconds": 12.4,
        "directory": "sweep/3",
    }


def test_a_failed_job_has_a_row_too() -> None:
    row = failed(1).row()
    assert (row["status"], row["reason"], row["val_acc"], row["seconds"]) == ("failed", "no memory", None, None)


def test_jobs_are_read_by_number_and_other_folders_left_out(tmp_path: Path) -> None:
    for name in ("10", "2", "0", "notes", ".hidden"):
        put(tmp_path, name)
    (tmp_path / "3").mkdir()
    assert [job.number for job in read_jobs(tmp_path)] == [0, 2, 10]
    assert read_jobs(tmp_path / "nowhere") == []


class TestWinner:
    @pytest.mark.parametrize(
        ("monitor", "values", "winner"),
        [
            ("val/acc", [0.7, 0.9, 0.8], 1),
            ("val/loss", [0.7, 0.9, 0.8], 0),
            ("val/acc", [0.5, 0.9, 0.9], 1),
            ("val/f1_macro", [0.1, 0.2, 0.3], 2),
        ],
    )
    def test_it_has_the_best_value_and_came_first(self, monitor: str, values: list[float], winner: int) -> None:
        key = monitor.removeprefix("val/")
        jobs = [job(number, monitor=monitor, val={key: value}) for number, value in enumerate(values)]
        best = best_job(jobs, monitor)
        assert best is not None
        assert best.number == winner

    def test_only_what_completed_can_win(self) -> None:
        jobs = [job(0, status="stopped", val={"acc": 1.0}), failed(1), job(2), job(3, val={"acc": None})]
        best = best_job(jobs, "val/acc")
        assert best is not None
        assert best.number == 2

    def test_nobody_wins_where_nobody_completed(self) -> None:
        assert best_job([failed(0), job(1, status="stopped")], "val/acc") is None
        assert best_job([], "val/acc") is None


class TestSummary:
    def test_it_has_a_row_per_job_and_every_column_of_any(self, tmp_path: Path) -> None:
        put(tmp_path, "0", overrides=["model=tiny", "seed=0"])
        put(tmp_path, "1", overrides=["model=resnet18", "strategy.stages=[{name: a, train: 1, epochs: 2}]"])
        RunDirectory(tmp_path / "2").record_failure("never made", [])
        write_summary(tmp_path)
        rows = rows_of(tmp_path / "summary.csv")
        assert [row["job"] for row in rows] == ["0", "1"]
        assert [row["model"] for row in rows] == ["tiny", "resnet18"]
        assert [row["seed"] for row in rows] == ["0", ""]
        assert rows[1]["strategy.stages"] == "[{name: a, train: 1, epochs: 2}]"
        assert float(rows[0]["val_acc"]) == 0.9

    def test_it_is_written_anew_whole_and_nothing_is_left_beside_it(self, tmp_path: Path) -> None:
        put(tmp_path, "0")
        write_summary(tmp_path)
        put(tmp_path, "1", status="failed", reason="two\nlines, and a comma")
        write_summary(tmp_path)
        rows = rows_of(tmp_path / "summary.csv")
        assert [row["reason"] for row in rows] == ["", "two\nlines, and a comma"]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["0", "1", "summary.csv"]


class TestFailure:
    def test_it_is_recorded_where_a_job_left_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "4").mkdir()
        RunDirectory(tmp_path / "4").record_failure("out of memory", ["seed=4"])
        (read,) = read_jobs(tmp_path)
        assert (read.number, read.status, read.result["reason"]) == (4, "failed", "out of memory")
        assert read.row()["seed"] == "4"

    def test_what_was_left_at_the_start_is_replaced(self, tmp_path: Path) -> None:
        folder = put(tmp_path, "0", status="stopped", reason=UNFINISHED)
        RunDirectory(folder).record_failure("other", [])
        result = json.loads((folder / "result.json").read_text())
        assert (result["status"], result["reason"]) == ("failed", "other")

    def test_a_result_that_a_job_has_written_stays(self, tmp_path: Path) -> None:
        folder = put(tmp_path, "0", status="stopped", reason="SIGTERM")
        RunDirectory(folder).record_failure("other", [])
        assert json.loads((folder / "result.json").read_text())["reason"] == "SIGTERM"

    def test_no_folder_is_made_for_it(self, tmp_path: Path) -> None:
        RunDirectory(tmp_path / "9").record_failure("never began", [])
        assert not (tmp_path / "9").exists()


class TestPlace:
    def test_a_folder_that_holds_a_multirun_is_refused(self, tmp_path: Path) -> None:
        put(tmp_path / "jobs", "0")
        (tmp_path / "summed").mkdir()
        (tmp_path / "summed" / "summary.csv").touch()
        for name in ("jobs", "summed"):
            with pytest.raises(UnfreezeError, match=f"hydra.sweep.dir: '.*{name}' holds a multirun; name another"):
                check_is_free(tmp_path / name)

    def test_an_empty_or_missing_folder_is_free(self, tmp_path: Path) -> None:
        check_is_free(tmp_path)
        check_is_free(tmp_path / "nowhere")


class TestTable:
    def test_it_shows_what_differs_between_jobs(self) -> None:
        jobs = [job(0), job(1, overrides=["model=tiny", "seed=1"], test=None, seconds=None), failed(2)]
        text = format_jobs(jobs, Path("sweep"))
        lines = [line.split() for line in text.splitlines() if line]
        assert lines[0] == ["job", "status", "val/acc", "test/acc", "time", "overrides"]
        assert lines[1] == ["#0", "completed", "0.900", "0.910", "12", "s", "seed=0"]
        assert lines[2] == ["#1", "completed", "0.900", "-", "-", "seed=1"]
        assert lines[3] == ["#2", "failed", "-", "-", "-", "seed=2"]
        assert lines[4:] == [["#2", "failed:", "no", "memory"], ["sweep/summary.csv"]]

    def test_a_single_job_shows_all_it_was_asked_with(self) -> None:
        assert "model=tiny seed=0" in format_jobs([job(0)], Path("sweep"))

    def test_nothing_to_show_is_no_error(self) -> None:
        assert "summary.csv" in format_jobs([], Path("sweep"))


def test_of_equally_accurate_jobs_the_one_of_the_lowest_loss_wins() -> None:
    jobs = [job(number, val={"acc": 0.9, "loss": loss}) for number, loss in enumerate((1.44, 0.93, 0.93, 1.0))]
    winner = best_job(jobs, "val/acc")
    assert winner is not None
    assert winner.number == 1


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("strategy.lr.head=0.0012345678901234567", "strategy.lr.head=0.001235"),
        ("optimizer.weight_decay=3.123456789e-05", "optimizer.weight_decay=3.123e-05"),
        ("strategy.lr.head=0.001", "strategy.lr.head=0.001"),
        ("seed=1234567", "seed=1234567"),
        ("data.root=/a/0.123456789", "data.root=/a/0.123456789"),
        ("~callbacks.progress", "~callbacks.progress"),
    ],
)
def test_numbers_that_a_search_drew_are_shown_with_four_digits(override: str, shown: str) -> None:
    assert shortened(override) == shown
    told = format_jobs([job(0, overrides=[override]), job(1, overrides=["seed=1"])], Path("sweep"))
    assert shown in told
