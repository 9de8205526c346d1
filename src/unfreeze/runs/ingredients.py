"""The checkpoints that a folder has for a soup, before any is read."""

from pathlib import Path

from unfreeze.errors import UnfreezeError
from unfreeze.results.run_directory import RunDirectory
from unfreeze.results.sweep_directory import read_jobs
from unfreeze.system.files import shown_path


def ingredient_files(folder: Path) -> list[tuple[Path, Path]]:
    """Return checkpoints of a sweep or of a run, each with the directory of its run.

    Raises:
        UnfreezeError: If there are fewer than two.
    """
    if not folder.is_dir():
        raise UnfreezeError(f"soup: no folder {str(folder)!r}; want that of a sweep, or of a run with keep_best=3")
    if RunDirectory(folder).checkpoints.is_dir():
        files = [(file, folder) for file in sorted(RunDirectory(folder).checkpoints.glob("epoch*.ckpt"))]
        lack = "keeps the best checkpoint alone; train with keep_best=3"
    else:
        jobs = [job for job in read_jobs(folder) if job.status == "completed"]
        files = [(RunDirectory(job.folder).best, job.folder) for job in jobs]
        lack = f"has {len(files)} completed jobs; want two or more, as in: python train.py -m seed=0,1,2"
    if len(files) < 2:
        raise UnfreezeError(f"soup: {shown_path(folder)} {lack}")
    return files
