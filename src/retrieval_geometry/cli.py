"""The command line: build the book, run an experiment, list data sets, judge claims, rank one's own pictures.

Imports of a command happen when it runs, so that ``--help`` and a misspelt option answer at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from retrieval_geometry import __version__
from retrieval_geometry._text import printable

if TYPE_CHECKING:
    from retrieval_geometry.own_pictures import SearchResult

EXAMPLES = """examples:
  retrieval-geometry build                                    the whole book, no download, no GPU
  retrieval-geometry run geometric-table1                     one experiment with bundled photographs
  retrieval-geometry run geometric-table1 --profile real --data-root data
  retrieval-geometry claims                                   what the results say about the papers
  retrieval-geometry rank cat.jpg ~/Pictures --k 5            the five most similar pictures of a folder
  retrieval-geometry rank cat.jpg dog.jpg ~/Pictures --html found.html
"""
PROGRAM = "retrieval-geometry"
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files that the terminal's encoding lacks are escaped
            stream.reconfigure(errors="backslashreplace")
    options = _parsed(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        # At exit Python flushes once more, into the pipe that nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        # torch says it in words.
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print(f"{PROGRAM}: error: out of memory; take fewer images", file=sys.stderr)
        return FAILED


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, more = parser.parse_known_args(arguments)
    if options.command is _rank and not any(word.startswith("-") for word in more):
        # argparse takes the last word before an option for the folder, though others follow.
        places = [*options.queries, options.folder, *more]
        options.queries, options.folder = places[:-1], places[-1]
        if not isinstance(options.folder, str):  # it makes [] of a second "--"
            parser.error("the following arguments are required: FOLDER")
    elif more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    return options


class _Parser(argparse.ArgumentParser):
    """One whose messages show what was typed as it is."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog=PROGRAM,
        description="Images as distributions, ranked by the geometry between them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"retrieval-geometry {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_build(commands)
    _add_run(commands)
    _add_datasets(commands)
    _add_claims(commands)
    _add_rank(commands)
    return parser


def _add_build(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    build = commands.add_parser(
        "build", help="build the book: run what is out of date, execute, make the pages"
    )
    _add_settings(build)
    build.add_argument("--cores", type=_positive, help="processes at a time (default: all cores)")
    build.add_argument("--threads", type=_positive, default=1, help="threads of each experiment (default: 1)")
    build.add_argument("targets", nargs="*", help="files to make instead of the whole book")
    build.set_defaults(command=_build)


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="run one experiment and write its result")
    run.add_argument("experiment", metavar="EXPERIMENT", help="a name such as geometric-table1")
    _add_settings(run)
    run.add_argument("--output", metavar="FILE", help="result file (default: where chapters look for it)")
    run.add_argument(
        "--part", type=_share, metavar="I/N", help="do only this share of the work, and keep it for the run"
    )
    run.set_defaults(command=_run)


def _add_datasets(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    datasets = commands.add_parser("datasets", help="list the data sets, found and missing")
    datasets.add_argument("--data-root", default="data", metavar="FOLDER", help="where downloads lie")
    datasets.set_defaults(command=_datasets)


def _add_claims(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    claims = commands.add_parser("claims", help="judge the papers' claims by the results at hand")
    claims.add_argument("--profile", help="one profile (default: every profile that has results)")
    claims.set_defaults(command=_claims)


def _add_rank(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    rank = commands.add_parser("rank", help="the pictures of a folder nearest to query pictures")
    rank.add_argument("queries", metavar="QUERY", nargs="+", help="an image file, or several")
    rank.add_argument("folder", metavar="FOLDER", help="a folder of images")
    rank.add_argument(
        "--model", default="", help="pooled (default: one vector a picture), gaussian, mixture or smt"
    )
    rank.add_argument("--distance", default="", help="cosine (pooled), or a distance between the models")
    rank.add_argument("--backbone", default="efficientnet_lite0", help="a network (default: %(default)s)")
    rank.add_argument("--layer", help="layer of the network to read the features from")
    rank.add_argument("--weights", metavar="FILE", help="weight file of the network, or a torchvision name")
    rank.add_argument("--k", type=_positive, default=10, help="how many neighbours (default: 10)")
    rank.add_argument("--plot", default="nearest.png", metavar="FILE", help="picture (default: nearest.png)")
    rank.add_argument("--no-plot", action="store_true", help="no picture")
    rank.add_argument("--html", metavar="FILE", help="page of small pictures, in one file")
    rank.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    rank.set_defaults(command=_rank)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="quick", help="quick (default), real or paper")
    parser.add_argument("--data-root", default="data", metavar="FOLDER", help="where downloads lie")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _share(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"must be a share such as 1/2, got {text!r}")
    return int(number), int(of)


def _build(options: argparse.Namespace) -> int:
    try:
        from retrieval_geometry.book.build import build
    except ModuleNotFoundError as error:
        raise ValueError(
            f"building the book needs {error.name}: pip install 'retrieval-geometry[book]'"
        ) from None
    return build(
        profile=options.profile,
        data_root=options.data_root,
        device=options.device,
        seed=options.seed,
        cores=options.cores,
        targets=options.targets,
        threads=options.threads,
    )


def _run(options: argparse.Namespace) -> int:
    from retrieval_geometry.experiments import RunContext, find

    experiment = find(options.experiment)
    context = RunContext(options.profile, options.data_root, options.device, options.seed)
    if options.part:
        experiment.run_part(context, *options.part)
        return 0
    # Known before the run, which may take hours, that its result has a place.
    output = Path(options.output) if options.output else context.result_of(experiment.name)
    if output.exists() and not output.is_file():
        found = "a folder" if output.is_dir() else "a device or a pipe"
        raise ValueError(f"--output must be a file, {output} is {found}")
    result = experiment.run(context)
    result.write(output)
    seconds = f"{result.provenance.seconds:.0f} s"
    _say(f"{experiment.name} ({options.profile}): {seconds}, written to {output}")
    return 0


def _datasets(options: argparse.Namespace) -> int:
    from retrieval_geometry.experiments.data import overview

    for line in overview(options.data_root):
        _say(line)
    return 0


def _claims(options: argparse.Namespace) -> int:
    from retrieval_geometry.experiments import PROFILES, check_profile, claims
    from retrieval_geometry.reporting.claims import ClaimError, check_all, needed, require_expected
    from retrieval_geometry.reporting.results import load_all

    rows = []
    for profile in PROFILES if options.profile is None else (check_profile(options.profile),):
        results = load_all(needed(claims(), replicas=True), profile)
        # Of all profiles those are told that were run; one that was asked for is told in any case.
        if results or options.profile is not None:
            rows += check_all(claims(), results, profile)
    if not rows:
        raise ValueError("no results yet: run `retrieval-geometry run geometric-table1` first")
    for row in rows:
        changed = f" (registered: {row.expected})" if row.changed else ""
        _say(f"{row.verdict}{changed}  {row.claim.id} ({row.profile}; {row.claim.where})")
        _say(f"    {row.claim.sentence}\n    {row.claim.rule}\n    {row.evidence}")
        if row.reach:
            _say(f"    holds for: {row.reach}")
    try:
        require_expected(rows)
    except ClaimError as error:
        print(error, file=sys.stderr)
        return FAILED
    return 0


def _rank(options: argparse.Namespace) -> int:
    from retrieval_geometry.own_pictures import Request, outputs, rank_pictures

    queries = [Path(query) for query in options.queries]
    plot = None if options.no_plot else Path(options.plot)
    page = Path(options.html) if options.html is not None else None
    written = []
    for option, file, endings, what in (
        ("--plot", plot, outputs.PLOT_ENDINGS, "picture"),
        ("--html", page, outputs.PAGE_ENDINGS, "page"),
    ):
        if file is not None:
            outputs.check_output(option, file, endings, queries)
            written.append((file, f"{what} to be written"))
    request = Request(
        options.model, options.distance, options.backbone, options.layer, options.weights, options.device
    )
    answer = rank_pictures(queries, Path(options.folder), request, options.k, written)
    for number, found in enumerate(answer.found):
        if len(queries) > 1:
            print("\n" * (number > 0) + f"query {printable(found.query)}")
        print(f"{'rank':>4}  {request.distance:>14}  image")
        for place, (name, value) in enumerate(found.nearest, start=1):
            print(f"{place:4d}  {value:14.6g}  {printable(name)}")
    sys.stdout.flush()
    return max(_show("picture", answer, plot), _show("page", answer, page))


def _show(what: str, answer: "SearchResult", file: Path | None) -> int:
    """Write a picture or a page of what was found; whatever that meets, the table stands."""
    if file is None:
        return 0
    try:
        if what == "picture":
            from retrieval_geometry.own_pictures.plot import draw

            draw(answer, file)
        else:
            from retrieval_geometry.own_pictures.page import write_page

            write_page(answer, file)
    except Exception as error:
        print(f"{PROGRAM}: error: the {what} was not written to {_one_line(error, file)}", file=sys.stderr)
        return FAILED
    _say(f"{what}: {file}")
    return 0


def _say(lines: str) -> None:
    """Print some lines, whatever names they hold."""
    print("\n".join(printable(line) for line in lines.split("\n")))


def _one_line(error: Exception, file: Path | None = None) -> str:
    """The message on one line; a file error names its file."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and (error.filename or file):
        file, text = file or error.filename, error.strerror
    return printable(text if file is None else f"{file}: {text}")
