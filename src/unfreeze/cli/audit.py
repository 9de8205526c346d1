"""`unfreeze audit`."""

from typing import Annotated

import typer

from unfreeze.cli.options import ConfigDir, Overrides, console, print_json
from unfreeze.config.compose import compose_config


def audit(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all names instead of tables")] = False,
    min_per_class: Annotated[
        int, typer.Option("--min-per-class", min=1, help="Report classes with fewer images to train on")
    ] = 20,
    near: Annotated[
        bool,
        typer.Option(
            "--near/--no-near", help="Search for near-duplicates (a minute for 100,000 images, four for 200,000)"
        ),
    ] = True,
) -> None:
    """Report problems of the images; exit code 1 if one of them would falsify a result."""
    from unfreeze.config.values import check_values
    from unfreeze.runs.audit import audit_data
    from unfreeze.runs.builders.plan import check_by_catalog

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
