"""Open the built pages in Chromium, with the network off, as a reader on a train would: wide and narrow, by
day and by night. Whatever a page asks for beyond the folder of the book is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A container without user namespaces has no sandbox; the pages are our own.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
WIDTHS = (1400, 1280, 400)
SCHEMES = ("light", "dark")
# Shows what a click would show, and waits until formulas are set.
OPEN = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  document.querySelectorAll('details').forEach(node => node.open = true);
  document.querySelectorAll('.toggle-hidden').forEach(node => node.classList.remove('toggle-hidden'));
  document.querySelectorAll('img').forEach(node => node.loading = 'eager');
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
}"""
# What is cut off, sticks out of its box, or covers something else. A box that scrolls may hold anything.
MEASURE = """() => {
  const article = document.querySelector('.bd-article') || document.querySelector('main') || document.body;
  const found = [];
  const title = node => node.localName + ' '
    + (node.getAttribute('alt') || node.innerText || '').replace(/\\s+/g, ' ').slice(0, 60);
  const report = (what, ...nodes) => found.push(what + ': ' + nodes.map(title).join(' / '));
  const style = node => getComputedStyle(node);
  const shown = node => node.getClientRects().length > 0 && style(node).visibility !== 'hidden';
  const scrolls = node => /auto|scroll/.test(style(node).overflowX);
  const inside = node => node.parentElement.closest('mjx-container') !== null;
  const parents = node => {
    const all = [];
    while (node !== article && (node = node.parentElement)) all.push(node);
    return all.filter(node => !/^(inline|contents)$/.test(style(node).display));
  };

  for (const node of article.querySelectorAll('table, img, svg, pre, mjx-container')) {
    if (!shown(node) || inside(node)) continue;
    const box = node.getBoundingClientRect();
    for (const parent of parents(node)) {
      if (scrolls(parent)) break;
      const frame = parent.getBoundingClientRect();
      if (box.right <= frame.right + 1 && box.left >= frame.left - 1) continue;
      report(style(parent).overflowX === 'visible' ? 'sticks out of its box' : 'cut off', node);
      break;
    }
  }
  for (const node of article.querySelectorAll('*'))
    if (shown(node) && !inside(node) && style(node).overflowY === 'hidden' && node.clientHeight > 1
        && node.scrollHeight > node.clientHeight + 2) report('cut off below', node);

  const kinds = 'p, li, td, th, dt, dd, h1, h2, h3, h4, h5, h6, figcaption, caption, pre, img, div.math';
  const leaves = [...article.querySelectorAll(kinds)]
    .filter(node => shown(node) && !node.querySelector(kinds));
  for (const node of leaves)
    if (!/img|pre/.test(node.localName) && node.clientWidth && node.scrollWidth > node.clientWidth + 1
        && ![node, ...parents(node)].some(scrolls)) report('text runs out of its box', node);

  const boxes = leaves.map(node => {
    const box = node.getBoundingClientRect();
    const frames = parents(node).filter(parent => style(parent).overflowX !== 'visible')
      .map(parent => parent.getBoundingClientRect()).concat([box]);
    const [most, least] = ['max', 'min'].map(end => side => Math[end](...frames.map(frame => frame[side])));
    return {node, left: most('left'), right: least('right'), top: most('top'), bottom: least('bottom')};
  }).filter(box => box.right - box.left > 4 && box.bottom - box.top > 4).sort((a, b) => a.top - b.top);
  boxes.forEach((a, i) => {
    for (const b of boxes.slice(i + 1)) {
      if (b.top >= a.bottom - 4) break;
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 4) report('overlap', a.node, b.node);
    }
  });

  // On a telephone a formula may scroll; at a desk it is set in several lines.
  if (innerWidth > 1300) for (const node of article.querySelectorAll('span.math, div.math mjx-container'))
    if (shown(node) && node.scrollWidth > node.clientWidth + 8) report('wider than its line', node);

  for (const node of document.querySelectorAll('mjx-merror')) report('formula error', node);
  // Of all signs for a norm this one is half as high as a letter; it is meant for the pieces of taller bars.
  for (const node of document.querySelectorAll('mjx-mo > mjx-c.mjx-c2016.TEX-S1'))
    report('bars lower than what they enclose', node.closest('mjx-container'));
  for (const image of document.images)
    if (image.offsetParent && image.complete && !image.naturalWidth)
      found.push('image not shown: ' + image.src);
  const [formulas, rendered] = ['.math', '.math mjx-container']
    .map(kind => article.querySelectorAll(kind).length);
  if (rendered < formulas) found.push(`${formulas - rendered} of ${formulas} formulas are not rendered`);
  const overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (overflow > 1) found.push(`the page scrolls sideways by ${overflow} px`);
  return [...new Set(found)];
}"""


# What keeps readers out, by axe-core: contrast, names of buttons, order of headings, ...
IMPACTS = ("serious", "critical")
BARRIERS = """async impacts => {
  document.getAnimations().forEach(animation => animation.finish());  // what fades in is pale until then
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const found = (await axe.run({resultTypes: ['violations'], preload: false})).violations;
  const why = node => node.target.join(' ') + ':' + node.failureSummary.split('\\n')[1];
  return found.filter(rule => impacts.includes(rule.impact))
    .flatMap(rule => rule.nodes.map(node => `barrier (${rule.id}): ${why(node)}`));
}"""


@cache
def _axe() -> str:
    """The code of axe-core, which a package carries."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def browser_problems(pages: Sequence[Path], html: Path, executable: str) -> list[str]:
    """Return what goes wrong when the pages are opened, a line for each fault, width and colour scheme.

    Args:
        pages: the files to open.
        html: the folder of the book, which their names are relative to.
        executable: the path of Chromium.
    """
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        for scheme in SCHEMES:
            context = chromium.new_context(color_scheme=scheme, offline=True)  # type: ignore[arg-type]
            for path in pages:
                found = _visit(context, path, html)
                problems += [f"{path.relative_to(html)} ({scheme}, {line}" for line in found]
            context.close()
        chromium.close()
    return problems


def _visit(context: Any, path: Path, html: Path) -> list[str]:
    """Open one page at every width and return its problems."""
    noise: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: noise.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.extend(_beyond(request.url, html)))
    page.on("websocket", lambda socket: noise.extend(_beyond(socket.url, html)))
    page.on("requestfailed", lambda request: noise.append(f"request failed: {request.url}"))
    page.goto(
        path.resolve().as_uri(), wait_until="load", timeout=300_000
    )  # a busy machine is no fault of the page
    page.evaluate(OPEN)
    page.evaluate(_axe())
    found: list[str] = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{width} px): {problem}" for problem in page.evaluate(MEASURE)]
        if width == WIDTHS[0]:  # seconds a page, and much the same at the others
            found += [f"{width} px): {problem}" for problem in page.evaluate(BARRIERS, list(IMPACTS))]
    page.close()
    return [*(f"any width): {text}" for text in noise), *found]


def _beyond(url: str, html: Path) -> Iterator[str]:
    """Yield a line for a request that leaves the book: of the network, or of another folder."""
    inside = (html.resolve().as_uri() + "/", "data:", "blob:", "about:")
    if not url.startswith(inside):
        yield f"asks for what is not part of the book: {url}"
