"""Numbers, tables and figures of a chapter, under the names that its text cites, and their sources.

A chapter makes one :class:`Page` and hands it whatever it shows; the text cites ``NN-name``, ``tab-NN-name``
and ``fig-NN-name``, where ``NN`` is the number of the chapter.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.registry import load_or_run
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.reporting.results import load_recorded as read_recorded  # not a read of its own
from retrieval_geometry.reporting.tables import format_interval, markdown_table

SOURCES = "application/x.retrieval-geometry.sources+json"
"""The media type of the output that says which results a table or a figure was made from."""


@runtime_checkable
class _Interval(Protocol):
    """A value between two ends."""

    value: float
    low: float
    high: float


class Page:
    """The numbers, tables and figures of one chapter.

    Args:
        number: of the chapter, as its file has it, such as ``"03"``.
        settings: ``profile``, ``data_root``, ``device`` and ``seed`` of this build; ``context`` holds them.

    Example:
        >>> page = Page("11", profile="quick", data_root="data", device="cpu", seed=0)
        >>> page.key("best-loss")
        '11-best-loss'
    """

    def __init__(self, number: str, **settings: Any) -> None:
        if not isinstance(number, str) or len(number) != 2 or not number.isascii() or not number.isdecimal():
            raise ValueError(f"number must be the two digits of the chapter's file, got {number!r}")
        self._number, self.context = number, RunContext(**settings)
        self._recorded: set[str] = set()

    def load_or_run(self, experiment: str) -> Result:
        """The result of an experiment in this build; see :func:`~.registry.load_or_run`."""
        return load_or_run(experiment, self.context)

    def load_recorded(self, experiment: str, profile: str = "real") -> Result:
        """A result that was recorded earlier; see :func:`~.results.load_recorded`."""
        self._recorded.add(f"{experiment}-{profile}")
        return read_recorded(experiment, profile)

    def key(self, name: str) -> str:
        """The name under which the text cites a number."""
        return f"{self._number}-{name.replace('_', '-')}"

    def say(self, **values: object) -> None:
        """Give numbers and words to the text, which cites ``say(best_loss=...)`` as ``NN-best-loss``.

        A value with ends is written as ``0.62 [0.55, 0.69]``; a number keeps its digits for the format at the
        place of citation; a tensor or array of one entry is a number.
        """
        for name, value in values.items():
            shown = format_interval(value) if isinstance(value, _Interval) else value
            self._glue(self.key(name), shown.item() if hasattr(shown, "item") else shown)

    def table(
        self,
        name: str,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        words: int = 1,
        results: Sequence[Result] = (),
    ) -> None:
        """Give the text a table as ``tab-NN-name``.

        Args:
            name: of the table.
            header: names of the columns.
            rows: cells as Markdown.
            words: how many columns hold words; they are aligned left, numbers right.
            results: the results that its numbers come from; none if this page has computed them.
        """
        self.markdown(name, markdown_table(header, rows, words), results)

    def markdown(self, name: str, text: str, results: Sequence[Result] = ()) -> None:
        """Give the text ready Markdown as ``tab-NN-name``; ``results`` as in :meth:`table`."""
        from IPython.display import Markdown

        label = f"tab-{self.key(name)}"
        self._glue(label, Markdown(text))
        self._note_sources(label, results)

    def figure_from(self, name: str, *results: Result) -> None:
        """Say which results ``fig-NN-name`` shows."""
        self._note_sources(f"fig-{self.key(name)}", results)

    def _note_sources(self, label: str, results: Sequence[Result]) -> None:
        from IPython.display import display

        if results:
            names = dict.fromkeys(f"{result.experiment}-{result.profile}" for result in results)
            places = [f"{'recorded' if name in self._recorded else 'results'}/{name}" for name in names]
            # An output of its own type: the staging finds it, and no page shows it.
            note = {"label": label, "results": places}
            display({SOURCES: note}, raw=True)

    @staticmethod
    def _glue(name: str, value: object) -> None:
        from myst_nb import glue

        glue(name, value, display=False)
