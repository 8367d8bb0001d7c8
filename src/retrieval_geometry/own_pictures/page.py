"""What was found, as one HTML page that needs no other file: small pictures, names, distances."""

from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path

from retrieval_geometry._files import write_whole
from retrieval_geometry._text import printable
from retrieval_geometry.own_pictures.outputs import thumbnail
from retrieval_geometry.own_pictures.ranking import Found, SearchResult

SIDE = 320
"""Pixels of a small picture: twice its size on the page, for dense screens."""

QUALITY = 80

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --quiet: #595959; --ground: #fff; --card: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececec; --quiet: #b3b3b3; --ground: #161616; --card: #262626; }
}
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: var(--text); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; overflow-wrap: anywhere; }
p { color: var(--quiet); overflow-wrap: anywhere; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem; padding: 0;
  list-style: none; }
figure { margin: 0; padding: .5rem; background: var(--card); border-radius: .4rem; height: 100%;
  box-sizing: border-box; }
img { display: block; width: 100%; height: 10rem; object-fit: contain; }
.query { width: 12rem; height: auto; }
figcaption { margin-top: .4rem; font-size: .85rem; overflow-wrap: anywhere; }
figcaption span { display: block; color: var(--quiet); font-variant-numeric: tabular-nums; }
.gone { display: grid; place-items: center; height: 10rem; color: var(--quiet); }
"""


def write_page(answer: SearchResult, file: Path) -> None:
    """Write the page, whole or not at all.

    A picture that is gone since it was ranked has a word in its place.

    Raises:
        OSError: the file cannot be written.
    """
    title = f"Pictures of {_text(answer.folder.name or answer.folder)} by likeness"
    sections = "\n".join(
        _section(number, found, answer) for number, found in enumerate(answer.found, start=1)
    )
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>The nearest pictures of each query, ranked by {_text(answer.request)}.</p>
{sections}
</main>
</body>
</html>
"""
    write_whole(file, page.encode())


def _section(number: int, found: Found, answer: SearchResult) -> str:
    name = _text(found.query.name)
    items = "\n".join(
        f"<li>{_figure(answer.folder / path, path, f'{rank}. distance {value:.6g}')}</li>"
        for rank, (path, value) in enumerate(found.nearest, start=1)
    )
    return f"""<section aria-labelledby="query{number}">
<h2 id="query{number}">Query {name}</h2>
{_figure(found.query, found.query.name, "the query", "query")}
<ol aria-label="nearest pictures">
{items}
</ol>
</section>"""


def _figure(path: Path, name: str, note: str, kind: str = "") -> str:
    where = f' class="{kind}"' if kind else ""
    return f"""<figure{where}>{_picture(path, name)}
<figcaption>{_text(name)}<span>{note}</span></figcaption></figure>"""


def _picture(path: Path, name: str) -> str:
    try:
        small = thumbnail(path, SIDE)
    except Exception:  # it went away or changed since it was ranked
        return '<div class="gone">not there any more</div>'
    data = BytesIO()
    small.save(data, "JPEG", quality=QUALITY)
    width, height = small.size
    source = b64encode(data.getvalue()).decode()
    return (
        f'<img alt="{_text(name)}" width="{width}" height="{height}" src="data:image/jpeg;base64,{source}">'
    )


def _text(text: object) -> str:
    return escape(printable(text))
