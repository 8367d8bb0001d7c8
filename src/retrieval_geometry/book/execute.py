"""Execute one chapter: script -> notebook -> papermill -> a notebook that the book can show.

The executed notebook appears under its name only when it is complete, so an interrupted build never leaves a
half-executed chapter behind. It carries a digest of itself, so that no damaged or edited one is shown.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval_geometry._cost import Cost, cost_so_far
from retrieval_geometry._files import naming, write_whole
from retrieval_geometry._sealed import FIELD, json_digest
from retrieval_geometry.book.each_paper import with_each_paper
from retrieval_geometry.book.places import without_places
from retrieval_geometry.book.sources import fence_problems, length_problems

PARAMETERS = ("profile", "data_root", "device", "seed")


class ChapterError(RuntimeError):
    """A chapter failed; the message names its cell and shows the error."""


def execute_chapter(
    script: Path,
    output: Path,
    parameters: Mapping[str, Any],
    cwd: Path,
    made_from: str = "",
    held: tuple[int, ...] = (),
) -> float:
    """Execute a chapter with papermill and write it to ``output``.

    Args:
        script: the chapter, a Jupytext py:percent script with one cell tagged ``parameters``.
        output: the executed notebook; replaced atomically.
        parameters: values of ``profile``, ``data_root``, ``device`` and ``seed``.
        cwd: working directory of the kernel.
        made_from: digest of what the execution follows from; the notebook carries it.
        held: descriptors that the kernel holds open as well: the lock of the build.

    Returns:
        Seconds since this process began.

    Raises:
        ValueError: a parameter is unknown or missing, the chapter has no parameters cell, a fence swallows
            a cell, or a cell is too long.
        ChapterError: a cell failed.
        OSError: the notebook cannot be written.
    """
    _check_parameters(script, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    executed = _executed(script, output, parameters, cwd, held)
    cost = cost_so_far()
    assert cost is not None  # a system without it has no locks either
    _finish(executed, parameters, cost, made_from)
    executed = without_places(executed, cwd, str(parameters["data_root"]))
    executed["metadata"][FIELD] = json_digest(json.dumps(executed, allow_nan=False), "metadata")
    write_whole(output, (json.dumps(executed, indent=1, ensure_ascii=False) + "\n").encode())
    return cost.seconds


def _read_chapter(script: Path) -> Any:
    """The chapter as a notebook, if it can be executed at all."""
    import jupytext

    notebook = jupytext.read(script)
    notebook.cells = with_each_paper(notebook.cells, script.parent)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{script.name} needs exactly one cell tagged 'parameters', found {len(tagged)}")
    if faults := [*fence_problems(notebook), *length_problems(notebook)]:
        raise ValueError(f"{script.name}: {faults[0]}")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def _executed(
    script: Path, output: Path, parameters: Mapping[str, Any], cwd: Path, held: tuple[int, ...]
) -> dict[str, Any]:
    """The chapter as papermill leaves it; its own files are deleted again."""
    import jupytext
    import papermill
    from nbclient.exceptions import DeadKernelError

    notebook = _read_chapter(script)
    source, partial = (output.with_name(f".{output.stem}.{name}.ipynb") for name in ("source", "partial"))
    try:
        with naming(output, str(output.with_name(f".{output.stem}."))):
            jupytext.write(notebook, source)
            papermill.execute_notebook(
                _literal(source),
                _literal(partial),
                parameters=dict(parameters),
                cwd=str(cwd),
                progress_bar=False,
                log_output=False,
                start_timeout=120,
                # The profile decides how long a cell may take; papermill's own limit stays off.
                execution_timeout=None,
                # The kernel listens on this machine alone; its warning about that is noise.
                extra_arguments=["--log-level=ERROR"],
                kernel_manager_class=_kernel_manager(held),
            )
            notebook_executed: dict[str, Any] = json.loads(partial.read_text(encoding="utf-8"))
            return notebook_executed
    except RuntimeError as error:  # also of a kernel that dies while it starts
        if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):
            raise
        raise ChapterError(
            f"chapter {script.name}: its kernel died; it was killed, or memory ran out: build again"
        ) from None
    except papermill.PapermillExecutionError as error:
        raise ChapterError(_explain(script, error)) from None
    finally:
        source.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def _literal(path: Path) -> str:
    """Papermill fills parameters into braces of a path."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernel_manager(descriptors: tuple[int, ...]) -> type:
    """A starter of kernels that hold these descriptors open."""
    from jupyter_client.manager import AsyncKernelManager

    class KernelManager(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            await super().start_kernel(**options, pass_fds=descriptors)

    return KernelManager


def _check_parameters(script: Path, parameters: Mapping[str, Any]) -> None:
    """Papermill accepts a misspelt parameter in silence, so the names are checked here."""
    if wrong := sorted(set(parameters) ^ set(PARAMETERS)):
        raise ValueError(f"{script.name}: parameters must be {list(PARAMETERS)}; wrong or missing: {wrong}")


def _explain(script: Path, error: Any) -> str:
    """Return a message with the failing cell's number, its source and the error."""
    source = "\n".join(f"    {line}" for line in error.source.rstrip().splitlines())
    return (
        f"chapter {script.name} failed in code cell {error.exec_count}:\n\n{source}\n\n"
        f"{error.ename}: {error.evalue}\n\n" + "\n".join(error.traceback[-3:])
    )


def _finish(notebook: dict[str, Any], parameters: Mapping[str, Any], cost: Cost, made_from: str) -> None:
    """Hide the parameter cells, drop run-time noise, and record what the execution cost."""
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        for tag, page_tag in (("parameters", "remove-cell"), ("injected-parameters", "remove-cell")):
            if tag in tags and page_tag not in tags:
                tags.append(page_tag)
        for noise in ("papermill", "execution", "ExecuteTime"):
            cell["metadata"].pop(noise, None)
    notebook["metadata"].pop("papermill", None)
    # Jupyter Book must show these outputs, not make its own.
    notebook["metadata"]["mystnb"] = {"execution_mode": "off"}
    notebook["metadata"]["made_from"] = made_from
    notebook["metadata"]["cost"] = {
        **asdict(cost),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "parameters": {key: value for key, value in parameters.items() if key != "data_root"},
    }
