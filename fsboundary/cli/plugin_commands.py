"""The command ``fsboundary plugins`` and those below it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsboundary.cli.options import PluginOptions, parse_options, plugin_option
from fsboundary.cli.output import stdout_to_stderr
from fsboundary.core.files import printable

if TYPE_CHECKING:
    from fsboundary.plugins import PluginInfo

plugins_app = typer.Typer(
    name="plugins",
    short_help="List, check and create plugins.",
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)


class _NewKind(StrEnum):
    """Kinds of plugin for which a template exists."""

    HULL_SOLVER = "hull-solver"
    BOUNDARY_FINDER = "boundary-finder"
    FEATURE_EXTRACTOR = "feature-extractor"


@plugins_app.callback()
def plugins(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the installed plugins and why some were rejected; check a plugin or create a new one.

    The environment variable FSBOUNDARY_PLUGINS selects plugins: unset for all, empty for the
    built-in ones only, or a comma-separated list of distribution or entry-point names.
    """
    if context.invoked_subcommand is not None:
        return
    with stdout_to_stderr():
        from fsboundary import plugins

        infos = plugins.describe()
    if as_json:
        rows = [dataclasses.asdict(i) | {"capabilities": sorted(i.capabilities)} for i in infos]
        typer.echo(json.dumps(rows, indent=2))
    else:
        typer.echo(_table(infos))


@plugins_app.command(short_help="Check that a plugin meets its contract.")
def check(
    name: Annotated[str, typer.Argument(help="A plugin that `fsboundary plugins` lists.")],
    option: Annotated[PluginOptions, plugin_option("plugin")] = None,
    expect_failure: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK=REASON", help="A check that must fail; may be repeated."),
    ] = None,
) -> None:
    """Check that a plugin meets its contract; the exit code is 1 if a check fails."""
    options = parse_options("--option", option or [])
    expected = {
        k: str(v) for k, v in parse_options("--expect-failure", expect_failure or []).items()
    }
    failures = 0
    with stdout_to_stderr() as show:
        from fsboundary.testing import check_plugin

        for info, outcomes in check_plugin(name, options=options, expected_failures=expected):
            show(f"{info.kind} {name} ({info.distribution} {info.version})")
            for outcome in outcomes:
                failures += not outcome.passed
                detail = f": {' '.join(outcome.message.split())}" if outcome.message else ""
                show(f"  {'ok  ' if outcome.passed else 'FAIL'} {outcome.check}{detail}")
    typer.echo("all checks passed" if not failures else f"{failures} checks failed")
    if failures:
        raise typer.Exit(1)


@plugins_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the plugin, such as my_solver.")],
    kind: Annotated[_NewKind, typer.Option(help="Kind of the plugin.")],
    folder: Annotated[Path, typer.Option(help="Parent folder.", file_okay=False)] = Path("."),
) -> None:
    """Create a working plugin with passing tests as a starting point."""
    from fsboundary.testing.scaffold import write_template

    path = write_template(name, kind.value, folder)
    typer.echo(f"Wrote {path}. Next: pip install -e {path} && pytest {path}")


def _table(infos: Sequence[PluginInfo]) -> str:
    heads = ("name", "kind", "distribution", "version", "state")
    rows = [[*heads, "summary or reason"]]
    for info in infos:
        parts = (*(getattr(info, head) for head in heads), "; ".join(_words(info)))
        rows.append([printable(part) for part in parts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _words(info: PluginInfo) -> list[str]:
    """Return the summary of a plugin, and the reason or remark about its state."""
    return [text for text in (info.reason, info.summary) if text]
