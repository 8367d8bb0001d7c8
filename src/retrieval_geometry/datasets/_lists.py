"""The lists that come with published data sets: words line by line, every fault named by file and line."""

from collections.abc import Iterable
from dataclasses import dataclass

from retrieval_geometry._text import printable
from retrieval_geometry.datasets._trees import Tree

LONGEST = 9  # digits of a number in a list


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        words: of the line.
        wanted: the expected words, by name.
        where: file and line.
    """

    words: tuple[str, ...]
    wanted: str
    where: str

    def fault(self, why: str) -> ValueError:
        """The error that refuses this line."""
        line = printable(" ".join(self.words))
        return ValueError(f"{self.where}: {why} in {line[:80]!r}, which should be {self.wanted!r}")

    def number(self, position: int) -> int:
        """The word at a position as a whole number of at least 0."""
        word = self.words[position].rstrip(",")
        if not (word.isascii() and word.isdecimal() and len(word) <= LONGEST):
            raise self.fault(f"{self.wanted.split()[position]} is no whole number")
        return int(word)


def read_rows(tree: Tree, file: str, wanted: str, titles: int = 0) -> list[Row]:
    """Read a list of a data set; empty lines do not count.

    Args:
        tree: the files of the set.
        file: the list.
        wanted: the words of a line by name, such as ``"image_id class_id"``.
        titles: how many lines come before the rows; the last of them must be ``wanted``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no text in UTF-8, no row at all, or a line of another number of words.
    """
    lines = tree.lines(file)
    rows = [Row(tuple(words), wanted, f"{tree.place}: {file}, line {number}") for number, words in lines]
    if len(rows) <= titles:
        raise ValueError(f"{tree.place}: {file} holds no row of {wanted!r}; fetch it again")
    # A list of the same name from another data set has other columns.
    if titles and rows[titles - 1].words != tuple(wanted.split()):
        raise rows[titles - 1].fault("other titles")
    for row in rows[titles:]:
        if len(row.words) != len(wanted.split()):
            raise row.fault(f"{len(row.words)} words")
    return rows[titles:]


def by_key(rows: Iterable[Row]) -> dict[str, Row]:
    """The rows by their first word.

    Raises:
        ValueError: two rows begin with the same word.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if row.words[0] in found:
            raise row.fault(f"{row.words[0]} stands there twice")
        found[row.words[0]] = row
    return found
