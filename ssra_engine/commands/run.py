"""`ssra-engine run`."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssra_engine.commands.options import (
    GRADES,
    config_option,
    json_option,
    print_resumption,
    python_option,
    quiet_option,
    remember_log,
    seed_option,
)

if TYPE_CHECKING:
    from ssra_engine.config import Config
    from ssra_engine.roles import Roles
    from ssra_engine.run import Plan, RunResult

__all__ = ["run"]

_DEFAULT_ENGINES = Path("engines")
_FAILED_DOCUMENTS = 3
_SIGNALLED = 128

#: Option and its place in the configuration.
_PLACES = {
    "grades": "synthesize.grades",
    "per_grade": "synthesize.per_grade",
    "attempts": "synthesize.attempts",
    "budget": "synthesize.budget",
    "rounds": "refine.rounds",
    "shard_documents": "output.shard_documents",
    "backend": "engine.backend",
    "python": "engine.python",
    "comparator": "filter.comparator",
    "file_format": "output.format",
    "limit": "input.limit",
    "on_error": "input.on_error",
    "seed": "seed",
    "threads": "engine.threads",
    "runner": "runner.kind",
    "address": "runner.address",
}


@click.command(short_help="Make graded synthetic queries for documents (stage 2).")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    help="Documents: Arrow, Parquet, JSONL or CSV; a folder, glob or URI of them; repeats.",
)
@click.option(
    "--engines", type=click.Path(path_type=Path), help="What `build` wrote. [default: engines]"
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("out"), show_default=True)
@click.option("--grades", type=GRADES, help="Target grades. [default: all of the engines]")
@click.option(
    "--per-grade",
    type=click.IntRange(min=1),
    help="Samples to keep per document and grade. [default: 1]",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    help="Waves of sampling, each for what the filters left short. [default: 3]",
)
@click.option(
    "--budget",
    help='Most of the final synthesis: "20000 samples", "500000 tokens" or "600 seconds". With '
    "seconds the rows depend on the speed of the machine.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    help="Rounds of refinement; 0 for none. [default: 1]",
)
@click.option(
    "--shard-documents",
    type=click.IntRange(min=1),
    help="Documents per shard, the unit of resuming. [default: 2000]",
)
@click.option(
    "--comparator",
    help="Who orders queries of a document: score, none, trained (see `build`), or a model folder "
    "or GGUF file that is asked by prompt. [default: score]",
)
@click.option("--backend", help="auto, torch, openvino, tensorrt-llm, vllm, fake. [default: auto]")
@python_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["parquet", "arrow"]),
    help="Of the outputs. [default: parquet]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Read at most this many documents.")
@click.option("--dry-run", is_flag=True, help="Validate, print the plan and write nothing.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "reject"]),
    help="End at a bad document, or send it to rejected. [default: stop]",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of an engine.")
@click.option(
    "--runner",
    type=click.Choice(["local", "ray"]),
    help="Engines in this process, or in actors on a Ray cluster. [default: local]",
)
@click.option("--address", help="Ray cluster, such as auto. [default: one on this machine]")
@config_option
@seed_option
@quiet_option
@json_option
def run(
    inputs: tuple[str, ...],
    engines: Path | None,
    output: Path,
    dry_run: bool,
    config: Path | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Synthesise, score and filter queries for each document at each target grade.

    Rounds of refinement come first, then the final synthesis. The same command after an
    interruption goes on where it stopped. SIGINT (Ctrl-C) and SIGTERM end it after the batch at
    work; a second one ends it at once, and loses nothing that was finished either.

    \b
    Examples:
      ssra-engine run --input world/corpus.arrow --engines engines --output out
      ssra-engine run --input world/corpus.arrow --backend fake --dry-run
    """
    from ssra_engine.commands.printing import print_json
    from ssra_engine.interruption import Interruption
    from ssra_engine.progress import ProgressBar
    from ssra_engine.run import plan
    from ssra_engine.run import run as run_method

    overrides = {place: options[name] for name, place in _PLACES.items()}
    settings, roles = _prepare(config, overrides, engines)
    if dry_run:
        _print_plan(plan(settings, inputs, roles), settings, output, as_json)
        return
    remember_log(output / "run.log")
    try:
        with Interruption() as interruption, ProgressBar(quiet=quiet) as progress:
            watched = interruption.watch(progress)
            result = run_method(settings, inputs, roles, output, watched)
    except KeyboardInterrupt as error:
        print_resumption(output)
        number = getattr(error, "number", signal.SIGINT)
        click.get_current_context().exit(_SIGNALLED + number)
    report = _make_report(result, engines)
    if as_json:
        print_json({"output": str(output), **result.summary})
    elif not quiet:
        _print_result(result, inputs, report)
    if result.failed_documents:
        click.get_current_context().exit(_FAILED_DOCUMENTS)


def _prepare(
    path: Path | None, overrides: dict[str, Any], engines: Path | None
) -> tuple[Config, Roles]:
    """The effective configuration, whose grades are those of the engines, and the models."""
    from ssra_engine.config import load_config
    from ssra_engine.engines import BACKENDS, check_backend
    from ssra_engine.errors import ConfigError

    # The longest scale admits any target, until the scale of the engines is known.
    asked = load_config(path, {**overrides, "grades": tuple(range(10))})
    backend = asked.engine.backend
    if backend not in ("auto", *BACKENDS):
        known = ", ".join(("auto", *BACKENDS))
        raise ConfigError(f"engine.backend: no backend '{backend}'. Choose one of {known}.")
    if backend != "auto":
        check_backend(backend, asked.engine.python)
    if backend == "fake" and engines is None:
        from ssra_engine.roles import fake_roles

        settings = load_config(path, overrides)
        return settings, fake_roles(settings.grades, settings.filter.comparator)
    folder = engines or _DEFAULT_ENGINES
    from ssra_engine.engine_folder import open_roles, read_engines

    built = read_engines(folder)
    _check_scale(folder, built.grades, asked.synthesize.grades, _scale_of_file(path))
    of_engines = {"grades": built.grades, "model.preset": built.config.model.preset}
    settings = load_config(path, {**overrides, **of_engines})
    return settings, open_roles(folder, settings)


def _scale_of_file(path: Path | None) -> tuple[int, ...] | None:
    """The grade scale that a configuration file, known to be valid, sets."""
    if path is None:
        return None
    import yaml

    grades = (yaml.safe_load(path.read_text("utf-8")) or {}).get("grades")
    return None if grades is None else tuple(grades)


def _check_scale(
    engines: Path,
    scale: tuple[int, ...],
    targets: tuple[int, ...] | None,
    configured: tuple[int, ...] | None,
) -> None:
    from ssra_engine.errors import ConfigError

    if configured is not None and configured != scale:
        raise ConfigError(
            f"the configuration has the grades {_listed(configured)}, the engines in {engines} "
            f"grade on {_listed(scale)}. Set grades to those, or build engines for the others."
        )
    if targets is not None and not set(targets) <= set(scale):
        raise ConfigError(
            f"the target grades {_listed(targets)} are not all on the scale {_listed(scale)} of "
            f"the engines in {engines}. Choose among those, or build engines for the others."
        )


def _listed(grades: tuple[int, ...]) -> str:
    return ",".join(map(str, grades))


def _print_plan(plan: Plan, settings: Config, output: Path, as_json: bool) -> None:
    from ssra_engine.commands.printing import print_facts, print_json

    if as_json:
        print_json({"output": str(output), "targets": settings.targets, **asdict(plan)})
        return
    facts = {
        "documents": plan.documents,
        "rejected documents": plan.rejected_documents,
        "target grades": _listed(settings.targets),
        "samples per document and grade": settings.synthesize.per_grade,
        "waves of sampling at most": settings.synthesize.attempts,
        "budget": settings.synthesize.budget or "none",
        "rounds of refinement": settings.refine.rounds,
        "documents of each round": plan.round_documents,
        "shards": plan.shards,
        "queries asked for": plan.requests,
        "estimate": _duration(plan.seconds),
    }
    print_facts(f"Plan for {output} (a dry run: nothing was written)", facts)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not known: the speed of these engines was not measured"
    minutes = f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
    return f"about {minutes}, without training between rounds"


def _make_report(result: RunResult, engines: Path | None) -> Path | None:
    """The report of a run that has ended; None where it cannot be made, which fails no run."""
    from ssra_engine.errors import SsraError
    from ssra_engine.report.write import REPORT, write_report

    path = result.output / REPORT
    if result.already_finished and path.exists():
        return path
    try:
        return write_report(result.output, engines=engines)
    except SsraError as error:
        click.echo(f"No report was made: {error}", err=True)
        return None


def _print_result(result: RunResult, inputs: tuple[str, ...], report: Path | None) -> None:
    from ssra_engine.commands.printing import (
        cost_table,
        funnel_table,
        print_note_if_simulated,
        print_table,
    )

    summary, output = result.summary, result.output
    if result.already_finished:
        click.echo(f"{output}: this run has ended before, nothing was left to do.")
    for one in summary["rounds"]:
        print_table(funnel_table(f"Round {one['round']}: kept for training", one))
    print_table(funnel_table("Final synthesis", summary))
    print_table(cost_table(summary["cost"]))
    if summary["documents_not_begun"]:
        click.echo(
            f"{summary['documents_not_begun']:,} documents were left out: the budget is spent."
        )
    _print_comparator(summary["comparator"])
    timing = summary["timing"]
    click.echo(
        f"{summary['documents']:,} documents in {timing['seconds']:,.1f} s "
        f"({timing['documents_per_second']:,.1f} documents/s, rounds counted)"
    )
    for name in ("synthetic", "rejected"):
        click.echo(f"{name:9}  {output / name}")
    click.echo(f"{'summary':9}  {output / 'summary.json'}")
    if report is not None:
        click.echo(f"{'report':9}  {report}")
    if result.failed_documents:
        click.echo(
            f"{result.failed_documents:,} documents failed; {output / 'rejected'} says why "
            "(reason error)."
        )
    print_note_if_simulated(inputs)
    click.echo(f"Next: ssra-engine evaluate samples {output}, ssra-engine audit {output}")


def _print_comparator(asked: Mapping[str, Any]) -> None:
    """How often a comparator contradicted itself, where one was asked."""
    if not asked["pairs"]:
        return
    click.echo(
        f"The comparator was asked about {asked['pairs']:,} pairs of queries; its answer changed "
        f"with their order in {asked['flip_rate']:.0%} (drawn by lot: 50%)."
    )
