"""Check the built pages: what a stranger would stumble over is an error here.

The static checks need the files alone. The browser check opens every page in Chromium with the network off,
wide and narrow, light and dark, as a reader on a train would.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RAW_FORMULA = re.compile(r"\$[^$\n]{1,200}\$|\\\(|\\\[|\\(?:frac|mathbb|begin|operatorname|lVert)\b")
RAW_ROLE = re.compile(r"\{(?:numref|eq|ref|cite(?::\w)?|doc|glue(?::\w+)?|prf:ref|term)\}|:::|\[@")
# What a page computes in the reader's browser, once formulas are set.
MEASURE = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const wide = [...document.querySelectorAll('.bd-article img, .bd-article table, .bd-article pre')]
    .filter(node => !node.closest('.pst-scrollable-table-container, pre, .table-wrapper, .highlight')
                    && node.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
  return {
    formulas: document.querySelectorAll('.math').length,
    rendered: document.querySelectorAll('.math mjx-container').length,
    broken: [...document.querySelectorAll('mjx-merror')].map(node => node.textContent),
    images: [...document.images].filter(image => image.offsetParent && image.complete && !image.naturalWidth)
      .map(image => image.src),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    clipped: wide.map(node => node.tagName + ' ' + node.className),
  };
}"""


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
    problems = [
        f"{page.relative_to(html)}: {problem}" for page in pages for problem in _static_problems(page, html)
    ]
    if browser:
        executable = next(filter(None, map(shutil.which, BROWSERS)), None)
        if executable is None:
            print(
                f"no Chromium found (looked for {', '.join(BROWSERS)}): pages are checked without a browser"
            )
        else:
            problems += _browser_problems(pages, html, executable)
    return problems


def _static_problems(page: Path, html: Path) -> Iterator[str]:
    """Yield what is wrong in the HTML of one page."""
    from bs4 import BeautifulSoup

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
        if cell.get_text(strip=True).lower() in {"nan", "none", "inf"}:
            yield f"a table cell says {cell.get_text(strip=True)!r}"
    for node in article.select("pre, code, script, style, .math"):
        node.extract()
    text = article.get_text(" ")
    for pattern, what in ((RAW_FORMULA, "unrendered formula"), (RAW_ROLE, "unrendered markup")):
        if match := pattern.search(text):
            yield f"{what}: {text[max(0, match.start() - 30) : match.end() + 30]!r}"
    yield from _link_problems(BeautifulSoup(page.read_text(), "html.parser"), page, html)


def _link_problems(soup: Any, page: Path, html: Path) -> Iterator[str]:
    """Yield broken internal links, and assets that are not part of the book."""
    for node in soup.find_all(True):
        for attribute in ("href", "src"):
            target = node.get(attribute)
            if not target or target.startswith(("data:", "mailto:", "javascript:")):
                continue
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if node.name in {"script", "img", "iframe"} or "stylesheet" in (node.get("rel") or []):
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


def _browser_problems(pages: list[Path], html: Path, executable: str) -> list[str]:
    """Open every page in Chromium with the network off and return what went wrong."""
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable)
        for width, scheme in ((1280, "light"), (1280, "dark"), (400, "light")):
            context = chromium.new_context(
                viewport={"width": width, "height": 900},
                color_scheme=scheme,  # type: ignore[arg-type]
                offline=True,
            )
            for path in pages:
                found = _visit(context, path)
                problems += [f"{path.relative_to(html)} ({width} px, {scheme}): {line}" for line in found]
            context.close()
        chromium.close()
    return problems


def _visit(context: Any, path: Path) -> list[str]:
    """Open one page and return its problems."""
    found: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"request failed: {request.url}"))
    page.goto(path.as_uri(), wait_until="load")
    seen = page.evaluate(MEASURE)
    page.close()
    if seen["rendered"] < seen["formulas"]:
        found.append(f"{seen['formulas'] - seen['rendered']} of {seen['formulas']} formulas are not rendered")
    found += [f"formula error: {text}" for text in seen["broken"]]
    found += [f"image not shown: {source}" for source in seen["images"]]
    found += [f"wider than the page: {node}" for node in seen["clipped"]]
    if seen["overflow"] > 1:
        found.append(f"the page scrolls sideways by {seen['overflow']} px")
    return found
