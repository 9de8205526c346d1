"""`unfreeze soup`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import TrustRepo, silence_warnings
from unfreeze.runs.ingredients import ingredient_files
from unfreeze.system.files import shown_path


def soup(
    folder: Annotated[Path, typer.Argument(help="A sweep's directory, or that of a run with keep_best=3")],
    out: Annotated[Path | None, typer.Option(help="Output folder; default soup/ in the folder")] = None,
    trust_repo: TrustRepo = False,
) -> None:
    """Average the best checkpoints of a sweep or a run while validation improves; test the average once."""
    silence_warnings()
    ingredient_files(folder)
    from unfreeze.runs.soup import make_soup

    result = make_soup(folder, out=out, say=lambda line: print(line, flush=True), trust_repo=trust_repo)
    metric = str(result["monitor"])
    tested = f" · test accuracy {result['test']['acc']:.4f}" if result["test"] else ""
    sys.stdout.write(
        f"  {len(result['ingredients'])} of {len(result['ingredients']) + len(result['left_out'])} averaged · "
        f"{metric} {result['val'][metric.removeprefix('val/')]:.4f}{tested}\n"
        f"  {shown_path((out or folder / 'soup').absolute())}\n"
    )
