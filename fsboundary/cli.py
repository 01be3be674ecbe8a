"""The command line: ``fsboundary demo``, ``report``, ``compare``, ``triage`` and ``plugins``.

Only lightweight modules are imported at the top level, so that help is shown at once; each command
imports what it needs.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import sys
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from fsboundary._version import __version__
from fsboundary.core.errors import ArgumentError, FsboundaryError, ReportWarning
from fsboundary.core.files import check_outputs, is_foreign, printable

if TYPE_CHECKING:
    from fsboundary.plugins import PluginInfo

app = typer.Typer(
    name="fsboundary",
    help="Certified decision boundaries of deep classifiers, in feature space.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Out = Annotated[Path, typer.Option(help="HTML file to write.", dir_okay=False)]
_Model = Annotated[
    str,
    typer.Option(
        help="Function that is called without arguments and returns the model, as "
        "package.module:factory; the current folder is searched last. The model takes pixels in "
        "[0, 1]: put normalisation into it."
    ),
]
_Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights: a safetensors file, or a .pt, .pth or .bin file of a state dict, read "
        "without running code of it. Without it, the model keeps those of the function.",
        exists=True,
        dir_okay=False,
    ),
]
_DATA = (
    "an npz file with the arrays images, (N, C, H, W) or (N, H, W), and optionally labels and "
    "class_names, or a folder of images of one size, with a subfolder per class if they have "
    "labels"
)
_Json = Annotated[
    Path | None,
    typer.Option("--json", help="JSON file for the numbers of the report.", dir_okay=False),
]
_Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace existing files; without it, a terminal is asked, and else they are kept.",
    ),
]
_Open = Annotated[bool, typer.Option("--open", help="Open the report in the browser.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Do not show progress.")]
_PluginOptions = list[str] | None


def _plugin_option(what: str) -> Any:
    """Return the declaration of a repeatable option NAME=VALUE of a plugin."""
    return typer.Option(metavar="NAME=VALUE", help=f"Option of the {what}; may be repeated.")


class _NewKind(StrEnum):
    """Kinds of plugin for which a template exists."""

    HULL_SOLVER = "hull-solver"
    BOUNDARY_FINDER = "boundary-finder"
    FEATURE_EXTRACTOR = "feature-extractor"


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"fsboundary {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = None,
) -> None:
    pass


@app.command(short_help="Study the included network, and write a report.")
def demo(
    out: _Out = Path("report.html"),
    json_path: _Json = None,
    force: _Force = False,
    open_it: _Open = False,
    quiet: _Quiet = False,
) -> None:
    """Study the included network on real images and write a report."""
    force = _may_replace(force, out, json_path)
    from fsboundary.demo import run_demo

    path = run_demo(out, json_path=json_path, force=force, show_progress=not quiet)
    _finish(path, open_it)


@app.command(short_help="Study your own model on your own images.")
def report(
    model: _Model,
    data: Annotated[
        Path,
        typer.Option(
            help=f"Images: {_DATA}. train_images and train_labels in an npz file are the training "
            "images.",
            exists=True,
        ),
    ],
    weights: _Weights = None,
    out: _Out = Path("report.html"),
    json_path: _Json = None,
    finder: Annotated[
        str, typer.Option(help="Boundary finder; `fsboundary plugins` lists them.")
    ] = "dual_newton",
    finder_option: Annotated[_PluginOptions, _plugin_option("finder")] = None,
    hull_solver: Annotated[
        str, typer.Option(help="Hull solver; `fsboundary plugins` lists them.")
    ] = "active_set",
    hull_option: Annotated[_PluginOptions, _plugin_option("hull solver")] = None,
    extractor: Annotated[
        str, typer.Option(help="Feature extractor; `fsboundary plugins` lists them.")
    ] = "head_input",
    extractor_option: Annotated[_PluginOptions, _plugin_option("extractor")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 256,
    force: _Force = False,
    open_it: _Open = False,
    quiet: _Quiet = False,
) -> None:
    """Study your own model on your own images and write a report."""
    finder_options = _parse_options("--finder-option", finder_option or [])
    hull_options = _parse_options("--hull-option", hull_option or [])
    extractor_options = _parse_options("--extractor-option", extractor_option or [])
    sources = [data, *([] if weights is None else [weights])]
    force = _may_replace(force, out, json_path, *sources)
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
        # unlike `python -m`, a console script does not search the current folder for modules
        module_folder=Path.cwd(),
        force=force,
        show_progress=not quiet,
    )
    _finish(path, open_it)


@app.command(short_help="List suspicious images: novel, mislabelled, ..")
def triage(
    model: _Model,
    data: Annotated[Path, typer.Option(help=f"Images to examine: {_DATA}.", exists=True)],
    train: Annotated[Path, typer.Option(help="Training images, like --data.", exists=True)],
    weights: _Weights = None,
    out: Annotated[
        Path, typer.Option(help="Table to write: .csv, .parquet or .html.", dir_okay=False)
    ] = Path("suspects.csv"),
    reference: Annotated[
        Path | None,
        typer.Option(help="File of the reference: opened if it exists, else saved there."),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(help="File with which an interrupted run continues.")
    ] = None,
    pixels: Annotated[bool, typer.Option(help="Compute pixel margins.")] = True,
    level: Annotated[float, typer.Option(help="p-value up to which a score is suspicious.")] = 0.05,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 256,
    force: _Force = False,
    quiet: _Quiet = False,
) -> None:
    """List the images that are novel, untrustworthy, mislabelled or fragile."""
    sources = [data, train, *([] if weights is None else [weights])]
    force = _may_replace(force, out, None, *sources)
    from fsboundary.review.folders import run_triage

    path = run_triage(
        model=model,
        weights=weights,
        data=data,
        train=train,
        out=out,
        reference=reference,
        rows=rows,
        pixels=pixels,
        level=level,
        batch_size=batch_size,
        module_folder=Path.cwd(),
        force=force,
        show_progress=not quiet,
    )
    typer.echo(f"Wrote {printable(str(path))}")


@app.command(short_help="Compare reports of several models.")
def compare(
    reports: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more JSON files of `fsboundary report --json`, on the same images; the "
            "first is the one that the others are compared with.",
            exists=True,
            dir_okay=False,
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with every changed image.")
    ] = False,
) -> None:
    """Print in what models differ: accuracy, predictions, neighbouring classes."""
    if len(reports) < 2:
        raise typer.BadParameter("got one report; wanted two or more", param_hint="REPORTS")
    from fsboundary.review.reports import compare_reports, comparison_text

    numbers = compare_reports(reports)
    typer.echo(json.dumps(numbers, indent=1) if as_json else comparison_text(numbers))


plugins_app = typer.Typer(
    name="plugins",
    short_help="List, check and create plugins.",
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)
app.add_typer(plugins_app)


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
    with _stdout_to_stderr():
        from fsboundary import plugins

        infos = plugins.describe()
    if as_json:
        rows = [dataclasses.asdict(i) | {"capabilities": sorted(i.capabilities)} for i in infos]
        typer.echo(json.dumps(rows, indent=2))
    else:
        typer.echo(_table(infos))


@app.command(short_help="Write the program that checks certificates.")
def verifier(
    out: Annotated[Path, typer.Argument(help="File to write, such as verify.py.", dir_okay=False)],
    force: _Force = False,
) -> None:
    """Write the program that checks files of certificates exactly, with Python alone."""
    from fsboundary.certificates import write_verifier

    path = write_verifier(out, force=_may_replace(force, out, None))
    typer.echo(f"Wrote {path}. Next: python {path} certificates.json")


@plugins_app.command(short_help="Check that a plugin meets its contract.")
def check(
    name: Annotated[str, typer.Argument(help="A plugin that `fsboundary plugins` lists.")],
    option: Annotated[_PluginOptions, _plugin_option("plugin")] = None,
    expect_failure: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK=REASON", help="A check that must fail; may be repeated."),
    ] = None,
) -> None:
    """Check that a plugin meets its contract; the exit code is 1 if a check fails."""
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


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[Callable[[str], None]]:
    """Redirect to stderr what third-party code, including C code, writes to file descriptor 1.

    Yields a function that writes a line to the real standard output.
    """
    sys.stdout.flush()
    saved = open(os.dup(1), "w", encoding="utf-8", newline="\n")  # noqa: SIM115  # closed below

    def show(line: str) -> None:
        typer.echo(printable(line), file=saved)

    try:
        os.dup2(2, 1)
        yield show
    finally:
        sys.stdout.flush()
        os.dup2(saved.fileno(), 1)
        with contextlib.suppress(OSError):  # of a line that could not be written, reported already
            saved.close()


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


def _parse_options(flag: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` pairs to keyword arguments; values are Python literals or else text."""
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


def _may_replace(force: bool, out: Path, json_path: Path | None, *inputs: Path) -> bool:
    """Check the outputs, and return whether files that fsboundary did not write may be replaced.

    On a terminal, the user decides about each; elsewhere they are refused without --force.
    """
    outputs = {"--out": out, "--json": json_path}
    check_outputs(outputs, inputs=inputs, force=True)  # nothing to ask if they cannot be written
    existing = {
        name: path
        for name, path in outputs.items()
        if path is not None and path.is_file() and path.stat().st_size
    }
    if not force and sys.stdin.isatty() and sys.stderr.isatty():
        for path in existing.values():
            foreign = is_foreign(path)
            what = "was not written by fsboundary" if foreign else "is an earlier result"
            typer.confirm(f"{printable(str(path))} {what}. Replace it?", abort=True, err=True)
            force |= foreign
    elif not force:
        check_outputs(outputs, inputs=inputs)
        for name, path in existing.items():
            fix = "name another file, or add --force to replace it"
            raise ArgumentError(name, f"{path}, which exists", "a new file", fix)
    check_outputs(outputs, inputs=inputs, force=force)
    return force


def _finish(path: Path, open_it: bool) -> None:
    typer.echo(f"Wrote {printable(str(path))}")
    if open_it:
        webbrowser.open(path.resolve().as_uri())


def _open_closed_streams() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise a file that is opened later gets the stream's number, and what libraries print is
    written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  # stays open
            setattr(sys, name, stream)


def _is_from_printing(error: OSError) -> bool:
    """Return whether typer, which prints all output and help, raised `error` as it printed."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is typer.echo.__code__:
            return True
        trace = trace.tb_next
    return False


def _discard_unprinted() -> None:
    """Discard text that cannot be printed; Python would try again, and complain, at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()


_show_other = warnings.showwarning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning about a report as one line, and others as Python does."""
    if issubclass(category, ReportWarning):
        typer.echo(f"fsboundary: warning: {printable(' '.join(str(message).split()))}", err=True)
    else:
        _show_other(message, category, filename, lineno, file, line)


def main() -> None:
    """Run the command line; an FsboundaryError is shown as one line, with exit code 2.

    So is output that cannot be written because, for example, a disk is full.
    """
    _open_closed_streams()
    # Read when torch is loaded. Threads that wait for work otherwise keep a core busy, so on cores
    # that other programs use too, each of a network's small operations waits for a time slice.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.showwarning = _show_warning
    try:
        app()
    except (FsboundaryError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            if not _is_from_printing(error):
                raise
            message = (
                f"output cannot be written ({error.strerror}). Free space, or redirect it to "
                "another file"
            )
        with contextlib.suppress(OSError):  # then the exit code is all that can be seen
            typer.echo(f"fsboundary: error: {printable(' '.join(message.split()))}", err=True)
        _discard_unprinted()
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
