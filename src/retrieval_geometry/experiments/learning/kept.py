"""Models of a recorded run that is not finished, kept with the book: the next run goes on behind them.

A run of hours outlives the code beside it. Its finished models are therefore kept a second time, as one small
file under ``book/results/parts``, which a change of the sources does not make stale. Remove the file when the
result itself is recorded, and when the losses or the training change in their numbers.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval_geometry._files import write_whole
from retrieval_geometry._folders import recorded_dir
from retrieval_geometry._sources import combined
from retrieval_geometry.experiments.checkpoints import Checkpoints, Kept
from retrieval_geometry.reporting._decode import decode
from retrieval_geometry.reporting.results import ResultError


def kept_models_file() -> Path:
    """The file of finished models: ``book/results/parts/learning.json``."""
    return recorded_dir() / "parts" / "learning.json"


class ModelCheckpoints(Checkpoints):
    """Checkpoints that find the models of :func:`kept_models_file` as well, if their setting is the same."""

    def __init__(self, cache: Path, make: Any, **identity: Any) -> None:
        super().__init__(cache, make, **identity)
        self._setting = combined([json.dumps(identity, sort_keys=True)])[:16]

    def get(self, name: str, kind: type[Kept]) -> Kept | None:  # type: ignore[override]
        """The part as this code has made it, or a kept one; None if there is neither.

        Raises:
            ResultError: the file of kept models is damaged.
        """
        found = super().get(name, kind)
        return self._kept(name, kind) if found is None else found

    def _kept(self, name: str, kind: type[Kept]) -> Kept | None:
        path = kept_models_file()
        if not path.is_file():
            return None
        try:
            models = json.loads(path.read_text(encoding="utf-8"))
            model = models.get(self._key(name))
            return None if model is None else decode(kind, model)
        except (ValueError, AttributeError) as error:
            raise ResultError(f"{path} is damaged ({error})", "remove it to train its models anew") from None

    def keep(self, name: str, kind: type[Any]) -> bool:
        """Copy a finished part into the file of kept models; False if it was not finished."""
        part = self.get(name, kind)
        if part is None:
            return False
        path = kept_models_file()
        models = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        models[self._key(name)] = asdict(part)
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(models[key])}" for key in sorted(models))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{{\n{lines}\n}}\n".encode())
        return True

    def _key(self, name: str) -> str:
        return f"{self._setting}/{name}"
