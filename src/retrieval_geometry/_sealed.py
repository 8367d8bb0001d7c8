"""Files that we read back: each ends in, or holds, a SHA-256 of all that it says, and is checked before use.

JSON carries it in the field ``digest``, so that people can read it and git can compare it; other files in a
last line. Content that is not as it was written is refused with file and remedy; content that can be made
again is made again, and one line on stderr says so.
"""

import hashlib
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_geometry._files import write_whole

FIELD = "digest"


@dataclass(frozen=True)
class Kind:
    """A kind of file whose last line is its seal.

    Args:
        name: what such a file is called.
        version: raised whenever a file of the former version would be misread.
        remedy: what to do about a file that is refused.
    """

    name: str
    version: int
    remedy: str

    def write(self, path: str | os.PathLike[str], content: bytes, about: str = "") -> None:
        """Write a file, whole or not at all.

        Args:
            path: of the file.
            content: any bytes.
            about: what the reader asks for as well: a file of something else is refused, though it is whole.
        """
        write_whole(path, content, self._seal(content, about))

    def read(self, path: str | os.PathLike[str], about: str = "") -> bytes:
        """The content of a file.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged, another version, or about something else; with the remedy.
        """
        data = Path(path).read_bytes()
        # All seals of one kind and one subject are of one length.
        content = data[: -len(self._seal(b"", about))]
        if data[len(content) :] != self._seal(content, about):
            raise ValueError(
                f"{self.name} {path} is damaged; {self.remedy} (or it is no {self.name} of this version)"
            )
        return content

    def recover(self, path: str | os.PathLike[str], about: str = "") -> bytes | None:
        """The same for what is made again: None where there is no file, or a bad one, with a line on stderr.

        Raises:
            OSError: the file cannot be read, though it is there.
        """
        try:
            return self.read(path, about)
        except FileNotFoundError:
            return None
        except ValueError as error:
            print(error, file=sys.stderr, flush=True)
            return None

    def _seal(self, content: bytes, about: str) -> bytes:
        seal = f"\nretrieval_geometry {self.name} {self.version} {about} sha256 ".encode()
        digest = hashlib.sha256(content)
        # The subject is sealed too: a file that was given another name is found out.
        digest.update(seal)
        return seal + digest.hexdigest().encode()


def parse_json(text: str) -> Any:
    """Parse JSON by the letter.

    Raises:
        ValueError: it is none, is nested too deeply, or holds a number that JSON or 64 bits lack.
    """
    try:
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_digest(text: str, *above: str) -> str:
    """SHA-256 over what a JSON text says, whatever its line breaks, spaces and order of names.

    Numbers count as they are written, so that no changed digit is lost in rounding.

    Args:
        text: JSON of an object.
        above: names that lead to the object that holds the digest, if that is not the outermost.
    """
    as_written = "number {}".format
    # As text: 0.1 and 0.10 are one float, but not one file.
    content = json.loads(text, parse_int=as_written, parse_float=as_written)
    holder = content
    for name in above:
        holder = holder[name]
    holder.pop(FIELD, None)
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(text: str) -> int:
    # Before int(): a million digits would take seconds.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"it holds a whole number of {len(text.lstrip('-'))} digits, {text[:20]}...")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {text[:20]}, which is beyond all numbers of 64 bits")
    return number


def _no_constant(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no number")
