"""The command ``retina-codec``."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import jsonargparse

from retina_codec._common.version import __version__

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command-line arguments; those of the process by default.

    Returns
    -------
    int
        0, or 2 after one line on standard error that says what was wrong.
    """
    parser = _parser()
    try:
        options = parser.parse_args(None if arguments is None else list(arguments))
    except jsonargparse.ArgumentError as error:
        return _refuse(" ".join(str(error).split()))
    if options.subcommand is None:
        parser.print_help()
        return USAGE_ERROR
    chosen = options[options.subcommand]
    try:
        with warnings.catch_warnings():
            # A stranger reads sentences, not source lines.
            warnings.showwarning = _one_line_warning
            return _COMMANDS[options.subcommand](chosen)
    except (ValueError, TypeError, OSError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _refuse("stopped; run the same command again to go on from the last finished stage")


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog="retina-codec",
        description="Models of the retina, and what each of their interneurons contributes.",
        exit_on_error=False,
        version=__version__,
    )
    commands = parser.add_subcommands(required=False)

    demo = jsonargparse.ArgumentParser(exit_on_error=False)
    demo.add_argument("--folder", type=str, default="runs/demo", help="where the results go")
    demo.add_argument("--quick", action="store_true", help="a small version, in about a minute")
    demo.add_argument("--seed", type=int, default=0, help="of everything drawn at random")
    demo.add_argument("--progress", type=bool, default=True, help="show progress")
    commands.add_subcommand("demo", demo, help="simulate a retina, and run the whole job on it")

    run = jsonargparse.ArgumentParser(exit_on_error=False)
    run.add_argument("config", type=str, help="YAML file with the settings of the job")
    run.add_argument("--progress", type=bool, default=True, help="show progress")
    commands.add_subcommand("run", run, help="run the whole job on a recording")

    again = jsonargparse.ArgumentParser(exit_on_error=False)
    again.add_argument("folder", type=str, help="folder of a finished run")
    commands.add_subcommand("report", again, help="write figures and report of a run once more")

    sets = jsonargparse.ArgumentParser(exit_on_error=False)
    commands.add_subcommand("datasets", sets, help="known data sets: list, show, fetch")
    actions = sets.add_subcommands(dest="action")
    for action, text in (
        ("list", "list the known data sets, and which are on this machine"),
        ("show", "say what is known of a data set, and where its files belong"),
        ("fetch", "download the files of a data set, and check them"),
    ):
        one = jsonargparse.ArgumentParser(exit_on_error=False)
        if action != "list":
            one.add_argument("name", type=str, help="name of the data set")
        one.add_argument("--folder", type=str, help="data folder; default: RETINA_CODEC_DATA")
        if action == "fetch":
            one.add_argument("--progress", type=bool, default=True, help="show progress")
        actions.add_subcommand(action, one, help=text)

    zoo = jsonargparse.ArgumentParser(exit_on_error=False)
    commands.add_subcommand("models", zoo, help="trained models of the package: list, show")
    actions = zoo.add_subcommands(dest="action")
    for action, text in (
        ("list", "list the trained models that come with the package"),
        ("show", "print what a model is, and its card: data, training, scores, limits"),
    ):
        one = jsonargparse.ArgumentParser(exit_on_error=False)
        if action == "show":
            one.add_argument("name", type=str, help="name of the model")
        actions.add_subcommand(action, one, help=text)
    return parser


def _demo(options: jsonargparse.Namespace) -> int:
    from retina_codec.jobs import demo_job

    return _run(demo_job(options.folder, quick=options.quick, seed=options.seed), options)


def _run_config(options: jsonargparse.Namespace) -> int:
    from retina_codec.jobs import read_job

    return _run(read_job(options.config), options)


def _run(job: object, options: jsonargparse.Namespace) -> int:
    from retina_codec.jobs import run_job

    page = run_job(job, progress=options.progress)  # type: ignore[arg-type]
    summary = json.loads((page.parent / "summary.json").read_text())
    for sentence in summary["findings"]:
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"Look at {page}\n")
    return 0


def _report(options: jsonargparse.Namespace) -> int:
    from retina_codec.reporting import report

    sys.stdout.write(f"Look at {report(Path(options.folder))}\n")
    return 0


def _datasets(options: jsonargparse.Namespace) -> int:
    from retina_codec import catalogue

    chosen = options[options.action]
    if options.action == "list":
        text = catalogue.list_command(chosen.folder)
    elif options.action == "show":
        text = catalogue.show_command(chosen.name, chosen.folder)
    else:
        text = catalogue.fetch_command(chosen.name, chosen.folder, progress=chosen.progress)
    sys.stdout.write(f"{text}\n")
    return 0


def _models(options: jsonargparse.Namespace) -> int:
    from retina_codec.models import zoo

    if options.action == "list":
        text = zoo.list_command()
    else:
        text = zoo.show_command(options[options.action].name)
    sys.stdout.write(f"{text}\n")
    return 0


_COMMANDS = {
    "demo": _demo,
    "run": _run_config,
    "report": _report,
    "datasets": _datasets,
    "models": _models,
}


def _refuse(message: str) -> int:
    sys.stderr.write(f"retina-codec: error: {message}\n")
    return USAGE_ERROR


def _one_line_warning(message: object, *_: object, **__: object) -> None:
    sys.stderr.write(f"retina-codec: note: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
