"""Train an image classifier in stages. `python train.py --help` says how; `unfreeze train` is the same command."""

from pathlib import Path

from unfreeze.system.parent import end_with_parent
from unfreeze.system.ranks import is_first_process
from unfreeze.system.signals import STOP

STOP.install()  # before the imports that take a while
if not is_first_process():
    end_with_parent()

from unfreeze.cli.script import main

if __name__ == "__main__":
    main(Path(__file__).with_name("conf"))
