"""The page checks find what they are there for, and leave sound pages in peace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from retrieval_geometry.book.browser import BROWSERS, browser_problems
from retrieval_geometry.book.pages import check_pages

SOUND = "<article><h1 id='top'>Title</h1><p>Words.</p><a href='other.html#place'>x</a></article>"
BLOCK = "<div class='highlight-{0} notranslate'><div class='highlight'><pre>{1}</pre></div></div>"
INPUT = f"<div class='cell_input docutils container'>{BLOCK}</div>"
OUTPUT = f"<div class='cell_output docutils container'><div class='output stream'>{BLOCK}</div></div>"


def _book(folder: Path, body: str) -> Path:
    (folder / "other.html").write_text("<article><p id='place'>here</p></article>")
    (folder / "index.html").write_text(f"<html lang='en'><title>Toy</title><body>{body}</body></html>")
    return folder


def _check(folder: Path, body: str) -> list[str]:
    return check_pages(_book(folder, f"<article>{body}</article>"))


def test_a_sound_page_passes(tmp_path: Path) -> None:
    assert check_pages(_book(tmp_path, SOUND)) == []
    outside = "<a href='https://example.org'>x</a><link rel='canonical' href='https://example.org'>"
    assert _check(tmp_path, outside) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<div class='output traceback'>KeyError</div>", "a cell ended in an error"),
        ("<div class='output stderr'>UserWarning</div>", "a cell printed a warning"),
        ("<a href='nowhere.html'>x</a>", "broken link: nowhere.html"),
        ("<a href='other.html#nowhere'>x</a>", "link to a missing place"),
        ("<a href='#nowhere'>x</a>", "link to a missing place"),
        ("<img src='other.html'>", "without alternative text"),
        ("<img alt='a' src='gone.png'>", "broken link: gone.png"),
        ("<script src='https://example.org/x.js'></script>", "asset from the network"),
        ("<video src='https://example.org/x.mp4'></video>", "asset from the network"),
        ("<link rel='preconnect' href='//example.org'>", "asset from the network"),
        ("<link rel='shortcut icon' href='https://example.org/x.ico'>", "asset from the network"),
        ("<table><tr><td>nan</td></tr></table>", "a table cell says 'nan'"),
        ("<table><tr><td><p>0.51 [0.4, inf]</p></td></tr></table>", "a table cell says '0.51 [0.4, inf]'"),
        ("<p>so <span class='pasted-text'>(&#39;nine reproduced, &#39;</span></p>", "a glued value shows"),
        ("<p>so <span class='pasted-text'>np.float64(0.3)</span></p>", "a glued value shows Python"),
        ("<p>so <span class='pasted-text'>nan</span></p>", "a glued value shows Python"),
        ("<p>see ?? below</p>", "unrendered reference"),
        ("<p>see tab-03-axioms below</p>", "unrendered reference"),
        ("<p>a**b** or **</p>", "unrendered emphasis"),
        ("<p># Title</p>", "unrendered Markdown"),
        ("<p>| a | b |\n| --- | --- |</p>", "unrendered Markdown"),
        ("<p>in [chapter 4](04_textures.md)</p>", "unrendered Markdown"),
    ],
)
def test_each_fault_is_reported(tmp_path: Path, body: str, problem: str) -> None:
    found = _check(tmp_path, body)
    assert any(problem in line for line in found), found


MARKUP = {
    "fence": ("````{table} A caption", "```", "~~~~", ":::{div} note"),
    "role": (
        "{numref}`fig-x`",
        "{glue:text}`90-here`",
        "see {glue:text}",
        "{cite:p}`c03-a`",
        "{cite}`a`",
        "{my-role}`x`",
        "[@key]",
    ),
    "directive": (".. table:: A caption", "text\n:name: tab-x", "{prf:theorem} Rank", "{solution-start} ex"),
    "cell marker": ("# %%", "%% tags=[&quot;remove-cell&quot;]", "# %% [markdown]", "+++", "+++ {}", "%% "),
}
TEXT = {
    "formula": ("the value $x^2$ is", r"\frac{1}{2}", r"\(x\)", r"\[x\]", "$$", r"\mathcal{N}", r"$\lambda$"),
    "emphasis": ("it is **bold** here",),
    "HTML": (
        "&lt;div class=&quot;x&quot;&gt;",
        "&lt;br/&gt;",
        "&lt;/td&gt;",
        "a &amp;lt; b",
        "&lt;!-- x --&gt;",
    ),
}
PLACES = {
    "text": "<p>{}</p>",
    "heading": "<h2>{}</h2>",
    "table cell": "<table><tr><td>{}</td></tr></table>",
    "caption of a table": "<table><caption><span class='caption-text'>{}</span></caption></table>",
    "caption of a figure": "<figure><figcaption><p>{}</p></figcaption></figure>",
    "alternative text": "<img alt='{}' src='other.html'>",
    "title": "<a title='{}' href='other.html'>x</a>",
    "block": "<pre>{}</pre>",
    "block without a language": BLOCK.replace("{0}", "none").replace("{1}", "{}"),
    "block in the default language": BLOCK.replace("{0}", "default").replace("{1}", "{}"),
    "output": OUTPUT.replace("{0}", "myst-ansi").replace("{1}", "{}"),
}
CODE = {"literal": "<p><code>{}</code></p>", "shell": BLOCK.replace("{0}", "sh").replace("{1}", "{}")}


@pytest.mark.parametrize("place", [*PLACES, *CODE])
@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in MARKUP for text in MARKUP[kind]])
def test_markup_is_refused_in_every_element(tmp_path: Path, place: str, kind: str, text: str) -> None:
    found = _check(tmp_path, {**PLACES, **CODE}[place].format(text))
    assert any("unrendered" in line for line in found), (kind, found)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in TEXT for text in TEXT[kind]])
def test_formulas_emphasis_and_html_are_refused_outside_code(
    tmp_path: Path, place: str, kind: str, text: str
) -> None:
    found = _check(tmp_path, PLACES[place].format(text))
    assert any(f"unrendered {kind}" in line for line in found), found


@pytest.mark.parametrize("text", ["$x^2$", r"$\lambda$", "$S_{ij}$", r"\frac{a}{b}"])
def test_a_formula_in_a_literal_is_refused(tmp_path: Path, text: str) -> None:
    assert any("unrendered formula" in line for line in _check(tmp_path, f"<code>{text}</code>"))


def test_a_broken_title_of_the_page_is_refused(tmp_path: Path) -> None:
    (_book(tmp_path, SOUND) / "index.html").write_text(f"<head><title>On $x^2$</title></head>{SOUND}")
    assert any("unrendered formula" in line for line in check_pages(tmp_path))


MARKDOWN = (
    "````{{table}} `x`\n:name: tab-x\n```{{glue:md}} tab-x\n```\n# %% tags=[]\n+++\n**bold** $x^2$ {{eq}}`e`"
)


@pytest.mark.parametrize(
    "body",
    [
        "<code>echo $x and $y</code><span class='math'>\\(x^2\\)</span>",
        "<div class='math notranslate'>\\[\\frac{1}{2}\\]</div>",
        INPUT.format("ipython3", MARKDOWN.format()),
        INPUT.format("ipython3", "f'{eq}`' + '**x**' + '&lt;b&gt;'  # %% no marker"),
        BLOCK.format("md", MARKDOWN.format()),
        BLOCK.format("myst", MARKDOWN.format()),
        BLOCK.format("sh", "awk '{print $1, $2}' x; echo **/*.py $HOME$; cd ${HOME} # &lt;b&gt;"),
        BLOCK.format("python", "print(f'{x}', a[1:2], {**a, **b}, x**2**3, r'\\frac{1}{2}')  # 50 %"),
        OUTPUT.format(
            "myst-ansi", "{'a': 1, 'b': {2}} x**2 50 %\n100%|###| 3/3 [00:01&lt;00:00] &lt;b object&gt;"
        ),
        '<p>at 50 % of {a, b}: see <code>x**2</code>, <code>**kwargs</code>, <code>f"{x}"</code>, 3 $.</p>',
        "<p>a :: b, 3 ~ 4, x_1, snake_case, 2 * 3 * 4, [0.1, 0.2] (n = 3), # of pairs, C++ and a ? b : c</p>",
        "<p>GMM-Normal KL, tab-separated, fig-04 and <code>--tags=x</code> <code>a|b|c</code></p>",
        "<table><tr><td>None of them</td><td>inf_dim</td><td>[-0.04, 0.00]</td><td>inform</td></tr></table>",
        "<p><span class='pasted-text'>more, &#39;so&#39;</span> <span class='pasted-text'>-0.2</span></p>",
        "<script>var a = '```{table}';</script><style>a::before { content: '$x$' }</style>",
    ],
)
def test_sound_pages_that_look_suspicious_pass(tmp_path: Path, body: str) -> None:
    assert _check(tmp_path, body) == []


def _markdown(source: str) -> dict[str, object]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _code(*glued: str, **figure: str) -> dict[str, object]:
    outputs = [{"metadata": {"scrapbook": {"name": name}}} for name in glued]
    metadata = {"mystnb": {"figure": figure}} if figure else {}
    return {"cell_type": "code", "metadata": metadata, "source": ["glue"], "outputs": outputs}


def _with_sources(folder: Path, *cells: dict[str, object]) -> list[str]:
    sources = _book(folder, SOUND) / "_sources"
    (sources / "notebooks").mkdir(parents=True)
    (sources / "index.md").write_text("See {numref}`tab-1`.")
    (sources / "notebooks" / "01_a.ipynb").write_text(json.dumps({"cells": cells}))
    return check_pages(folder)


TABLE = "```{table} One\n:name: tab-1\n\n```"


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([_code("a", "b"), _markdown("{glue:text}`a:.2f`")], "'b' is glued, but not used"),
        ([_code("a"), _markdown("{glue:text}`a`, {glue:}`b`")], "'b' is used, but not glued"),
        ([_code("a"), _markdown("{glue:text}`a`\n```{glue:md} b\n```")], "'b' is used, but not glued"),
        ([_code(caption="so {glue:text}`a`")], "'a' is used, but not glued"),
        ([_markdown(TABLE), _markdown(TABLE)], "the label 'tab-1' stands 2 times"),
        ([_markdown("$$ (eq-1)\n$$ (eq-1)\n")], "the label 'eq-1' stands 2 times"),
        ([_markdown("(sec-1)=\n# A"), _code(name="sec-1")], "the label 'sec-1' stands 2 times"),
        ([_markdown(TABLE.replace("tab-1", "tab-2"))], "no text refers to 'tab-2'"),
        ([_code(name="fig-1")], "no text refers to 'fig-1'"),
        (
            [_markdown("````{table} For `x`\n:name: tab-1\n````")],
            "a backtick in the head of a backtick fence",
        ),
        ([_markdown("text\n\n%% tags=[]\nx = 1")], "cell 1 holds the marker of another cell"),
    ],
)
def test_each_fault_of_the_sources_is_reported(
    tmp_path: Path, cells: list[dict[str, object]], problem: str
) -> None:
    found = _with_sources(tmp_path, *cells)
    assert any(line.startswith("notebooks/01_a: ") and problem in line for line in found), found


def test_sound_sources_pass(tmp_path: Path) -> None:
    text = _markdown(f"{TABLE}\n{{glue:text}}`a:.2f` of {{numref}}`figure <fig-1>`\n:::{{table}} `x`\n:::")
    labels = _markdown("$$x$$ (eq-1)\n\n```{math}\n:label: eq-2\n```")
    figure = _code(name="fig-1", caption="{glue:text}`b` of them")
    assert (
        _with_sources(tmp_path, _code("a", "b", "t"), text, labels, figure, _markdown("```{glue:md} t\n```"))
        == []
    )


def test_the_name_of_a_glued_value_has_no_business_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_a.html").write_text(
        "<article><p>we find <code>90-here</code></p></article>"
    )
    found = _with_sources(tmp_path, _code("90-here"), _markdown("{glue:text}`90-here`"), _markdown(TABLE))
    assert found == ["notebooks/01_a.html: the name of a glued value: '90-here'"]


def test_a_chapter_without_its_source_is_reported(tmp_path: Path) -> None:
    (_book(tmp_path, SOUND) / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_a.html").write_text("<article><p>words</p></article>")
    assert ["notebooks/01_a.html: its source is missing" in line for line in check_pages(tmp_path)] == [True]


def test_no_book_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make book"):
        check_pages(tmp_path)


WIDE = "<span style='display: inline-block; width: 900px'>wide</span>"
FORMULA = (
    "<span class='math' style='display: flex; white-space: pre; overflow: auto hidden'>"
    "<mjx-container>{}</mjx-container></span>"
)


def _in_browser(folder: Path, body: str) -> list[str]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("no Chromium")
    page = _book(folder, f"<article class='bd-article'>{body}</article>") / "index.html"
    return browser_problems([page], folder, executable)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (f"<div style='overflow: hidden'><table><tr><td>{WIDE}</td></tr></table></div>", "cut off: table"),
        (f"<table><tr><td>{WIDE}</td></tr></table>", "sticks out of its box: table"),
        (
            f"<p><mjx-container style='display: inline-block'>{WIDE}</mjx-container></p>",
            "sticks out of its box: mjx-container",
        ),
        ("<div style='overflow-y: hidden; height: 20px'><p>a<br>b<br>c</p></div>", "cut off below: div"),
        ("<p>one</p><p style='margin-top: -30px'>two</p>", "overlap: p one / p two"),
        (f"<p>{'a' * 200}</p>", "text runs out of its box: p aaa"),
        ("<span class='math'>x</span>", "1 of 1 formulas are not rendered"),
        ("<p><mjx-merror>bad</mjx-merror></p>", "formula error: mjx-merror bad"),
        (
            "<mjx-container><mjx-mo><mjx-c class='mjx-c2016 TEX-S1'></mjx-c></mjx-mo>v</mjx-container>",
            "bars lower than what they enclose: mjx-container v",
        ),
        ("<img alt='a' src='other.html' width=9 height=9>", "image not shown"),
        ("<script>throw Error('deliberate')</script>", "deliberate"),
        (f"<div style='overflow-x: auto'><table><tr><td>{WIDE}</td></tr></table></div>", None),
        (f"<div style='overflow-x: auto'><mjx-container>{WIDE}</mjx-container></div>", None),
        (FORMULA.format(WIDE), None),
        (FORMULA.format(WIDE * 2), "wider than its line: span wide"),
        (f"<pre tabindex='0' style='overflow-x: auto'>{'a' * 200}</pre>", None),
        (f"<pre style='overflow-x: auto'>{'a' * 200}</pre>", "barrier (scrollable-region-focusable): pre"),
        ("<p style='color: #ccc; background: #fff'>pale</p>", "barrier (color-contrast): p"),
        (
            "<table><tr><td>one<br>two</td><td>three</td></tr></table><ul><li>a</li><li><p>b</p></li></ul>",
            None,
        ),
    ],
)
def test_the_browser_sees_what_is_cut_off_or_covered(tmp_path: Path, body: str, problem: str | None) -> None:
    found = _in_browser(tmp_path, body)
    seen = [line for line in found if line.startswith("index.html (dark, ")]
    assert any(problem in line for line in seen) if problem else found == [], found


OUTSIDE = "http://outside.invalid/x"


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        f"<script>fetch('{OUTSIDE}').catch(() => null)</script>",
        f"<style>@font-face {{ font-family: f; src: url({OUTSIDE}) }}</style><p style='font-family: f'>a</p>",
        f"<style>@import url({OUTSIDE});</style>",
        f"<p style='background: url({OUTSIDE})'>a</p>",
        f"<script>new Image().src = '{OUTSIDE}'</script>",
        f"<script>new WebSocket('{OUTSIDE}'.replace('http', 'ws'))</script>",
        f"<script>navigator.sendBeacon('{OUTSIDE}')</script>",
        f"<iframe src='{OUTSIDE}'></iframe>",
        "<img alt='a' src='../beyond.svg' width=9 height=9>",
    ],
)
def test_a_page_that_asks_for_what_is_not_in_the_book_is_reported(tmp_path: Path, body: str) -> None:
    folder = tmp_path / "a book"
    folder.mkdir()
    (tmp_path / "beyond.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")
    found = _in_browser(folder, body)
    assert any(
        "not part of the book" in line and line.endswith(("invalid/x", "beyond.svg")) for line in found
    )


@pytest.mark.slow
def test_a_page_may_ask_for_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text("p { color: red }")
    own = "<link rel='stylesheet' href='x.css'><img alt='a' src='data:image/svg+xml,<svg/>'>"
    assert [line for line in _in_browser(tmp_path, own) if "asks for" in line] == []
