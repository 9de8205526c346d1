"""Before a run: what it would do, and whether its images will do."""

import sys
from typing import Annotated

import typer

from unfreeze.cli.options import ConfigDir, Overrides, console, print_json
from unfreeze.config.compose import compose_config


def plan(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the layer groups, what trains when and at which rates; train nothing."""
    from unfreeze.runs.fit import check_values, describe_plan

    typed = list(overrides or [])
    sys.stdout.write(describe_plan(check_values(compose_config(typed, config_dir), typed)) + "\n")


def audit(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all names, instead of tables")] = False,
    min_per_class: Annotated[
        int, typer.Option("--min-per-class", min=1, help="Report classes with fewer images to train on")
    ] = 20,
    near: Annotated[
        bool,
        typer.Option("--near/--no-near", help="Look for near-equal images (a minute for 100,000, four for 200,000)"),
    ] = True,
) -> None:
    """Say what is wrong with the images; exit code 1 where something would mislead a result."""
    from unfreeze.runs.build.data import audit_data, check_by_catalog
    from unfreeze.runs.fit import check_values

    typed = list(overrides or [])
    config = check_values(compose_config(typed, config_dir), typed)
    check_by_catalog(config)
    from unfreeze.data.audit.text import print_audit

    report = audit_data(config, min_per_class=min_per_class, near=near)
    if as_json:
        print_json(report.to_dict())
    else:
        print_audit(report, console())
    if report.problems:
        raise SystemExit(1)
