"""`unfreeze plan`."""

import sys

from unfreeze.cli.options import ConfigDir, Overrides
from unfreeze.config.compose import compose_config


def plan(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the layer groups, the stages and their learning rates, without training."""
    from unfreeze.config.values import check_values
    from unfreeze.runs.estimate import describe_plan

    typed = list(overrides or [])
    sys.stdout.write(describe_plan(check_values(compose_config(typed, config_dir), typed)) + "\n")
