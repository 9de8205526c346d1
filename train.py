"""Train an image classifier in stages. `python train.py --help` says how."""

from unfreeze.system.parent import end_with_parent
from unfreeze.system.ranks import is_first_process
from unfreeze.system.signals import STOP

STOP.install()  # before the imports that take a while
if not is_first_process():
    end_with_parent()

import hydra
from omegaconf import DictConfig

from unfreeze.cli.train import run_hydra_job, start


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(config: DictConfig) -> float | None:
    """Run one job and return its best monitored value, which searches go by."""
    return run_hydra_job(config)


if __name__ == "__main__":
    start(train)
