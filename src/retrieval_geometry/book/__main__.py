"""Steps of the build graph, called as ``python -m retrieval_geometry.book STEP``."""

from __future__ import annotations

import argparse
import sys

from retrieval_geometry.book.execute import PARAMETERS, ChapterError, execute_chapter
from retrieval_geometry.book.graph import chapter_source, pages_source, results_of, stale
from retrieval_geometry.book.lock import inherited
from retrieval_geometry.book.pairs import out_of_step, sync
from retrieval_geometry.book.project import Project
from retrieval_geometry.book.stage import BookError, build_html


def main() -> int:
    """Run one step and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m retrieval_geometry.book", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    execute = steps.add_parser("execute", help="execute one chapter")
    execute.add_argument("chapter")
    look = steps.add_parser("stale", help="list what a build would make again, and why")
    html = steps.add_parser("html", help="build the pages from the executed chapters")
    for step in (execute, look, html):
        step.add_argument("--profile", default="quick")
        step.add_argument("--data-root", default="data")
        step.add_argument("--device", default="cpu")
        step.add_argument("--seed", type=int, default=0)
    steps.add_parser("sync", help="write the paired notebooks")
    steps.add_parser("check-pairs", help="fail if a paired notebook is out of step")
    pages = steps.add_parser("check-pages", help="check the built pages")
    pages.add_argument(
        "--browser", action="store_true", help="open them in Chromium too, with the network off"
    )
    arguments = parser.parse_args()
    try:
        return _run(arguments, Project.find())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (BookError, ChapterError, OSError, ValueError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace, project: Project) -> int:
    parameters = {key: value for key, value in vars(arguments).items() if key in PARAMETERS}
    if arguments.step == "execute":
        script = project.chapters / f"{arguments.chapter}.py"
        output = project.executed / f"{arguments.chapter}.ipynb"
        print(f"chapter {arguments.chapter}: executing", flush=True)
        source = chapter_source(project, arguments.chapter, parameters)
        held = inherited(project.root)
        seconds = execute_chapter(script, output, parameters, project.root, source, held)
        print(f"chapter {arguments.chapter}: executed in {seconds:.0f} s", flush=True)
    elif arguments.step == "html":
        print("building the pages", flush=True)
        build_html(project, pages_source(project), results_of(project, arguments.profile))
    elif arguments.step == "stale":
        for path, why in stale(project, parameters).items():
            print(f"{path}: {why}")
    elif arguments.step == "sync":
        print("\n".join(f"wrote {name}.ipynb" for name in sync(project)) or "all notebooks are in step")
    elif arguments.step == "check-pairs":
        if behind := out_of_step(project):
            print(f"notebooks out of step with their chapters: {behind}; run `make sync`", file=sys.stderr)
            return 1
    elif arguments.step == "check-pages":
        from retrieval_geometry.book.pages import check_pages

        problems = check_pages(project.html, browser=arguments.browser)
        print("\n".join(problems) or "all pages are sound", file=sys.stderr if problems else sys.stdout)
        return 1 if problems else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
