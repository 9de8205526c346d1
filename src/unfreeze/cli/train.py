"""`unfreeze train`."""

import sys
from typing import Annotated

import typer


def train(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides and flags as for train.py; train --help lists the keys")
    ] = None,
) -> None:
    """Train a model in stages; the same as python train.py."""
    from unfreeze.system.parent import end_with_parent
    from unfreeze.system.ranks import is_first_process
    from unfreeze.system.signals import STOP

    STOP.install()  # before the imports that take a while
    if not is_first_process():
        end_with_parent()
    from unfreeze.cli import script

    sys.argv = [str(script.__file__), *(overrides or [])]  # the ranks that Lightning starts run this file
    script.main()
