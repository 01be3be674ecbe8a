"""The commands of ``fsboundary``; each imports what it needs, so that help is shown at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fsboundary._version import __version__
from fsboundary.cli.options import (
    DATA,
    BatchSize,
    DomainOption,
    Force,
    Head,
    Json,
    Labels,
    Model,
    Names,
    Open,
    Out,
    PluginOptions,
    Preprocess,
    Quiet,
    SizeOption,
    Weights,
    parse_options,
    plugin_option,
)
from fsboundary.cli.output import finish, may_replace
from fsboundary.cli.plugin_commands import plugins_app
from fsboundary.core.files import printable

app = typer.Typer(
    name="fsboundary",
    help="Certified decision boundaries of deep classifiers, in feature space.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(plugins_app)


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
    out: Out = Path("report.html"),
    json_path: Json = None,
    force: Force = False,
    open_it: Open = False,
    quiet: Quiet = False,
) -> None:
    """Study the included network on real images and write a report."""
    force = may_replace(force, out, json_path)
    from fsboundary.demo import run_demo

    path = run_demo(out, json_path=json_path, force=force, show_progress=not quiet)
    finish(path, open_it)


@app.command(short_help="Study your own model on your own images.")
def report(
    model: Model,
    data: Annotated[
        Path,
        typer.Option(
            help=f"Images: {DATA}. train_images and train_labels in an npz file are the training "
            "images.",
            exists=True,
        ),
    ],
    weights: Weights = None,
    train: Annotated[
        Path | None, typer.Option(help="Training images, like --data.", exists=True)
    ] = None,
    preprocess: Preprocess = None,
    head: Head = None,
    domain: DomainOption = "auto",
    labels: Labels = None,
    size: SizeOption = None,
    class_names: Names = None,
    out: Out = Path("report.html"),
    json_path: Json = None,
    finder: Annotated[
        str, typer.Option(help="Boundary finder; `fsboundary plugins` lists them.")
    ] = "dual_newton",
    finder_option: Annotated[PluginOptions, plugin_option("finder")] = None,
    hull_solver: Annotated[
        str, typer.Option(help="Hull solver; `fsboundary plugins` lists them.")
    ] = "active_set",
    hull_option: Annotated[PluginOptions, plugin_option("hull solver")] = None,
    extractor: Annotated[
        str, typer.Option(help="Feature extractor; `fsboundary plugins` lists them.")
    ] = "head_input",
    extractor_option: Annotated[PluginOptions, plugin_option("extractor")] = None,
    batch_size: BatchSize = 256,
    force: Force = False,
    open_it: Open = False,
    quiet: Quiet = False,
) -> None:
    """Study your own model on your own images and write a report."""
    finder_options = parse_options("--finder-option", finder_option or [])
    hull_options = parse_options("--hull-option", hull_option or [])
    extractor_options = parse_options("--extractor-option", extractor_option or [])
    sources = [path for path in (data, weights, train, labels, class_names) if path is not None]
    force = may_replace(force, out, json_path, *sources)
    from fsboundary.report.user import run_report

    path = run_report(
        model=model,
        weights=weights,
        data=data,
        out=out,
        train=train,
        preprocess=preprocess,
        head=head,
        domain=domain,
        labels=labels,
        size=size,
        class_names=class_names,
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
    finish(path, open_it)


@app.command(short_help="List suspicious images: novel, mislabelled, ..")
def triage(
    model: Model,
    data: Annotated[Path, typer.Option(help=f"Images to examine: {DATA}.", exists=True)],
    train: Annotated[Path, typer.Option(help="Training images, like --data.", exists=True)],
    weights: Weights = None,
    preprocess: Preprocess = None,
    head: Head = None,
    domain: DomainOption = "auto",
    labels: Labels = None,
    size: SizeOption = None,
    class_names: Names = None,
    out: Annotated[
        Path, typer.Option(help="Table to write: .csv, .parquet or .html.", dir_okay=False)
    ] = Path("suspects.csv"),
    reference: Annotated[
        Path | None,
        typer.Option(
            help="File of what is usual among the training images, such as "
            "reference.safetensors: opened if it exists, else saved there."
        ),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="File of the finished rows, such as rows.jsonl, with which an interrupted run "
            "continues."
        ),
    ] = None,
    pixels: Annotated[
        bool,
        typer.Option(
            help="Search the nearest flip image of each image, which takes most of the time."
        ),
    ] = True,
    level: Annotated[
        float, typer.Option(help="p-value, between 0 and 1, up to which a score is suspicious.")
    ] = 0.05,
    batch_size: BatchSize = 256,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """List the images that are novel, untrustworthy, mislabelled or fragile."""
    sources = [path for path in (data, train, weights, labels, class_names) if path is not None]
    force = may_replace(force, out, None, *sources)
    from fsboundary.review.folders import run_triage

    path = run_triage(
        model=model,
        weights=weights,
        data=data,
        train=train,
        out=out,
        preprocess=preprocess,
        head=head,
        domain=domain,
        labels=labels,
        size=size,
        class_names=class_names,
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


@app.command(short_help="Write the program that checks certificates.")
def verifier(
    out: Annotated[Path, typer.Argument(help="File to write, such as verify.py.", dir_okay=False)],
    force: Force = False,
) -> None:
    """Write the program that checks files of certificates exactly, with Python alone."""
    from fsboundary.certificates import write_verifier

    path = write_verifier(out, force=may_replace(force, out, None))
    typer.echo(f"Wrote {path}. Next: python {path} certificates.json")
