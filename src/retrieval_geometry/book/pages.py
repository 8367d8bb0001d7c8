"""Check the built pages: what a stranger would stumble over is an error here.

The static checks need the files alone. The browser check opens every page in Chromium with the network off,
wide and narrow, light and dark, as a reader on a train would.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from retrieval_geometry.book.browser import BROWSERS, browser_problems
from retrieval_geometry.book.leftovers import leftovers
from retrieval_geometry.book.sources import glued_names, read_sources, source_problems

# What a browser fetches, or connects to, for a `link`; the others (canonical, next, ...) only tell.
FETCHED = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
}
# A number that is none, alone or in an interval; words ("None of them") and names ("inf_dim") are no numbers.
NO_NUMBER = re.compile(r"^\W*(?:nan|inf|none)\W*$|(?:^|[\[(,±=]\s*)[-+]?(?:nan|inf)(?=[\s,\]%)]|$)", re.I)


def check_pages(html: Path, browser: bool = False) -> list[str]:
    """Return the problems of the pages below ``html``, one line each; an empty list means that all is well.

    Args:
        html: the folder of the built book.
        browser: open the pages in Chromium too (skipped with a note where none is installed).

    Raises:
        FileNotFoundError: there is no book at ``html``.
    """
    if not (html / "index.html").exists():
        raise FileNotFoundError(f"no built book at {html}: run `make book` first")
    pages = sorted(path for path in html.rglob("*.html") if "_static" not in path.parts)
    sources = read_sources(html / "_sources")
    problems = [f"{page}: {problem}" for page, problem in source_problems(sources)]
    for page in pages:
        name = page.relative_to(html)
        source = sources.get(str(name.with_suffix("")))
        if source is None and page.parent.name == "notebooks":
            problems.append(f"{name}: its source is missing, so that its names cannot be checked")
        keys = glued_names(source) if source else set()
        problems += [f"{name}: {problem}" for problem in _static_problems(page, html, keys)]
    if browser:
        executable = next(filter(None, map(shutil.which, BROWSERS)), None)
        if executable is None:
            print(
                f"no Chromium found (looked for {', '.join(BROWSERS)}): pages are checked without a browser"
            )
        else:
            problems += browser_problems(pages, html, executable)
    return problems


def _static_problems(page: Path, html: Path, keys: Collection[str]) -> Iterator[str]:
    """Yield what is wrong in the HTML of one page."""
    from bs4 import BeautifulSoup

    # The parser of the standard library: it keeps broken markup where it stands, for the checks to find.
    soup = BeautifulSoup(page.read_text(), "html.parser")
    article = soup.select_one("article") or soup
    for selector, what in {
        ".output.traceback": "a cell ended in an error",
        ".output.stderr": "a cell printed a warning",
        ".system-message, .problematic": "Sphinx could not render something",
    }.items():
        for node in soup.select(selector):
            yield f"{what}: {node.get_text(' ', strip=True)[:160]}"
    for image in article.select("img"):
        if not str(image.get("alt") or "").strip() or str(image.get("alt")).startswith("../_images"):
            yield f"image without alternative text: {image.get('src')}"
    for cell in article.select("td"):
        if NO_NUMBER.search(cell.get_text(" ", strip=True)):
            yield f"a table cell says {cell.get_text(' ', strip=True)[:80]!r}"
    yield from leftovers(soup, keys)
    yield from _link_problems(soup, page, html)


def _link_problems(soup: Any, page: Path, html: Path) -> Iterator[str]:
    """Yield broken internal links, and assets that are not part of the book."""
    for node in soup.find_all(True):
        for attribute in ("href", "src"):
            target = node.get(attribute)
            if not target or target.startswith(("data:", "mailto:", "javascript:")):
                continue
            parts = urlsplit(target)
            # A link to the web is fine; a script, style or picture from there is not.
            if parts.scheme or parts.netloc:
                if node.name not in {"a", "area", "link"} or FETCHED & set(node.get("rel") or []):
                    yield f"asset from the network: {target}"
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if file.is_dir():
                file = file / "index.html"
            if not file.exists():
                yield f"broken link: {target}"
            elif parts.fragment and file.suffix == ".html" and not _has_anchor(file, unquote(parts.fragment)):
                yield f"link to a missing place: {target}"


def _has_anchor(file: Path, anchor: str) -> bool:
    return re.search(rf"""(?:id|name)=["']{re.escape(anchor)}["']""", file.read_text()) is not None
