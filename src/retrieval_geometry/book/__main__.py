"""Steps of the build graph, called as ``python -m retrieval_geometry.book STEP``."""

from __future__ import annotations

import argparse
import sys

from retrieval_geometry.book.execute import ChapterError, execute_chapter
from retrieval_geometry.book.pairs import out_of_step, sync
from retrieval_geometry.book.project import Project
from retrieval_geometry.book.stage import BookError, build_html


def main() -> int:
    """Run one step and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m retrieval_geometry.book", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    execute = steps.add_parser("execute", help="execute one chapter")
    execute.add_argument("chapter")
    execute.add_argument("--profile", default="quick")
    execute.add_argument("--data-root", default="data")
    execute.add_argument("--device", default="cpu")
    execute.add_argument("--seed", type=int, default=0)
    steps.add_parser("html", help="build the pages from the executed chapters")
    steps.add_parser("sync", help="write the paired notebooks")
    steps.add_parser("check-pairs", help="fail if a paired notebook is out of step")
    pages = steps.add_parser("check-pages", help="check the built pages")
    pages.add_argument(
        "--browser", action="store_true", help="open them in Chromium too, with the network off"
    )
    arguments = parser.parse_args()
    try:
        return _run(arguments, Project.find())
    except (BookError, ChapterError, FileNotFoundError, ValueError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace, project: Project) -> int:
    if arguments.step == "execute":
        parameters = {key: getattr(arguments, key) for key in ("profile", "data_root", "device", "seed")}
        script = project.chapters / f"{arguments.chapter}.py"
        output = project.executed / f"{arguments.chapter}.ipynb"
        print(f"chapter {arguments.chapter}: executing", flush=True)
        seconds = execute_chapter(script, output, parameters, cwd=project.root)
        print(f"chapter {arguments.chapter}: executed in {seconds:.0f} s", flush=True)
    elif arguments.step == "html":
        print("building the pages", flush=True)
        build_html(project)
    elif arguments.step == "sync":
        print("\n".join(f"wrote {name}.ipynb" for name in sync(project)) or "all notebooks are in step")
    elif arguments.step == "check-pairs":
        if stale := out_of_step(project):
            print(f"notebooks out of step with their chapters: {stale}; run `make sync`", file=sys.stderr)
            return 1
    elif arguments.step == "check-pages":
        from retrieval_geometry.book.pages import check_pages

        problems = check_pages(project.html, browser=arguments.browser)
        print("\n".join(problems) or "all pages are sound", file=sys.stderr if problems else sys.stdout)
        return 1 if problems else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
