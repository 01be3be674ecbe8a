"""The command line: ``fsboundary demo``, ``report`` and ``plugins``.

Only light modules are imported here, so that help comes at once; each command imports what it
needs.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsboundary._version import __version__
from fsboundary.core.errors import FsboundaryError

if TYPE_CHECKING:
    from fsboundary.plugins import PluginInfo

app = typer.Typer(
    name="fsboundary",
    help="Certified decision boundaries of deep classifiers, in feature space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Out = Annotated[Path, typer.Option(help="Where to write the report.", dir_okay=False)]
_Json = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the numbers to this file.", dir_okay=False),
]
_Open = Annotated[bool, typer.Option("--open", help="Show the report in the browser.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


class _NewKind(StrEnum):
    """Kinds of plugin for which there is a template."""

    HULL_SOLVER = "hull-solver"
    BOUNDARY_FINDER = "boundary-finder"
    FEATURE_EXTRACTOR = "feature-extractor"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fsboundary {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: _Out = Path("report.html"),
    json_path: _Json = None,
    open_it: _Open = False,
    quiet: _Quiet = False,
) -> None:
    """Study the built-in network on real images and write a report."""
    from fsboundary.demo import run_demo

    _finish(run_demo(out, json_path=json_path, show_progress=not quiet), open_it)


@app.command()
def report(
    model: Annotated[
        str, typer.Option(help="Function that makes the model: package.module:factory.")
    ],
    weights: Annotated[
        Path, typer.Option(help="Weights, a safetensors file.", exists=True, dir_okay=False)
    ],
    data: Annotated[Path, typer.Option(help="Images: an npz file or a folder.", exists=True)],
    out: _Out = Path("report.html"),
    json_path: _Json = None,
    finder: Annotated[
        str, typer.Option(help="Boundary finder; `fsboundary plugins` lists them.")
    ] = "dual_newton",
    finder_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the finder; may be repeated."),
    ] = None,
    hull_solver: Annotated[
        str, typer.Option(help="Hull solver; `fsboundary plugins` lists them.")
    ] = "active_set",
    hull_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the hull solver; may be repeated."),
    ] = None,
    extractor: Annotated[
        str, typer.Option(help="Feature extractor; `fsboundary plugins` lists them.")
    ] = "head_input",
    extractor_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the extractor; may be repeated."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward pass.")] = 256,
    open_it: _Open = False,
    quiet: _Quiet = False,
) -> None:
    """Study your own model on your own images and write a report."""
    finder_options = _parse_options("--finder-option", finder_option or [])
    hull_options = _parse_options("--hull-option", hull_option or [])
    extractor_options = _parse_options("--extractor-option", extractor_option or [])
    # A console script does not look in the folder where it is called, as `python -m` does.
    sys.path.insert(0, os.getcwd())
    from fsboundary.report.user import run_report

    path = run_report(
        model=model,
        weights=weights,
        data=data,
        out=out,
        json_path=json_path,
        finder=finder,
        finder_options=finder_options,
        hull_solver=hull_solver,
        hull_options=hull_options,
        extractor=extractor,
        extractor_options=extractor_options,
        batch_size=batch_size,
        show_progress=not quiet,
    )
    _finish(path, open_it)


plugins_app = typer.Typer(
    name="plugins", add_completion=False, rich_markup_mode=None, invoke_without_command=True
)
app.add_typer(plugins_app)


@plugins_app.callback()
def plugins(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the installed plugins, and why some were set aside; check one, or begin a new one.

    FSBOUNDARY_PLUGINS chooses: unset for all, empty for the built-in one only, or a
    comma-separated list of distribution or entry-point names.
    """
    if context.invoked_subcommand is not None:
        return
    with _stdout_to_stderr():
        from fsboundary import plugins

        found = plugins.describe()
    if as_json:
        rows = [dataclasses.asdict(i) | {"capabilities": sorted(i.capabilities)} for i in found]
        typer.echo(json.dumps(rows, indent=2))
    else:
        typer.echo(_table(found))


@plugins_app.command()
def check(
    name: Annotated[str, typer.Argument(help="A plugin that `fsboundary plugins` lists.")],
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the plugin; may be repeated."),
    ] = None,
    expect_failure: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK=REASON", help="A check that must fail; may be repeated."),
    ] = None,
) -> None:
    """Hold a plugin to its contract, check by check; exit code 1 where it breaks it."""
    options = _parse_options("--option", option or [])
    expected = {
        k: str(v) for k, v in _parse_options("--expect-failure", expect_failure or []).items()
    }
    failures = 0
    with _stdout_to_stderr() as show:
        from fsboundary.testing import check_plugin

        for info, outcomes in check_plugin(name, options=options, expected_failures=expected):
            show(f"{info.kind} {name} ({info.distribution} {info.version})")
            for outcome in outcomes:
                failures += not outcome.passed
                told = f": {' '.join(outcome.message.split())}" if outcome.message else ""
                show(f"  {'ok  ' if outcome.passed else 'FAIL'} {outcome.check}{told}")
    typer.echo("all checks passed" if not failures else f"{failures} checks failed")
    if failures:
        raise typer.Exit(1)


@plugins_app.command()
def new(
    name: Annotated[str, typer.Argument(help="The plugin's name, such as my_solver.")],
    kind: Annotated[_NewKind, typer.Option(help="What it is to be.")],
    folder: Annotated[Path, typer.Option(help="Where to put it.", file_okay=False)] = Path("."),
) -> None:
    """Write a plugin that works and whose tests pass, to begin from."""
    from fsboundary.testing.scaffold import write_template

    path = write_template(name, kind.value, folder)
    typer.echo(f"Wrote {path}. Next: pip install -e {path} && pytest {path}")


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[Callable[[str], None]]:
    """Send to stderr what foreign code writes to file descriptor 1, also from C.

    Yields a function that writes a line to the real standard output.
    """
    sys.stdout.flush()
    kept = os.dup(1)

    def show(line: str) -> None:
        os.write(kept, f"{line}\n".encode())

    try:
        os.dup2(2, 1)
        yield show
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _table(found: Sequence[PluginInfo]) -> str:
    heads = ("name", "kind", "distribution", "version", "state", "reason")
    rows = [heads, *(tuple(getattr(info, head) for head in heads) for info in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _parse_options(flag: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``name=value`` into keyword arguments; values are Python literals, or else text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"got {pair!r}; wanted NAME=VALUE", param_hint=flag)
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options


def _finish(path: Path, open_it: bool) -> None:
    typer.echo(f"Wrote {path}")
    if open_it:
        webbrowser.open(path.resolve().as_uri())


def main() -> None:
    """Run the command line; an error raised on purpose becomes one line and exit code 2."""
    try:
        app()
    except FsboundaryError as error:
        typer.echo(f"fsboundary: error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
