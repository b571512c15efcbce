"""Models and GPUs of this machine, looked for again only now and then: a page asks with every key pressed."""

from __future__ import annotations

import threading
import time
from typing import Any

from ..checkpoints import ModelInfo
from ..errors import ModelError
from ..preflight import find_model
from ..settings import RenderSettings
from ..wan_integration import discover_models, model_search_folders
from . import host
from .environment import gpus

_SECONDS = 30.0
_MOST_NAMES = 100


class ModelShelf:
    """Safe to ask from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._found: dict[tuple[str, bool], tuple[float, ModelInfo | ModelError]] = {}
        self._list: tuple[float, list[ModelInfo]] | None = None
        self._gpus: list[dict[str, Any]] | None = None

    def find(self, settings: RenderSettings) -> ModelInfo:
        key, now = (settings.model, settings.starts_from_picture), time.monotonic()
        with self._lock:
            known = self._found.get(key)
            if known is None or now - known[0] > _SECONDS:
                if len(self._found) > _MOST_NAMES:
                    self._found.clear()
                known = self._found[key] = now, self._look_up(*key)
        if isinstance(known[1], ModelError):
            raise known[1].with_traceback(None)
        return known[1]

    def _look_up(self, model: str, picture: bool) -> ModelInfo | ModelError:
        try:
            return find_model(model, model_search_folders(host.model_folders()), picture=picture)
        except ModelError as error:
            return error

    def all(self, *, refresh: bool) -> list[ModelInfo]:
        with self._lock:
            if refresh:
                self._found.clear()
                self._gpus = None
            if refresh or self._list is None or time.monotonic() - self._list[0] > _SECONDS:
                self._list = time.monotonic(), discover_models(host.model_folders())
            return self._list[1]

    def gpus(self) -> list[dict[str, Any]]:
        with self._lock:
            if self._gpus is None:
                self._gpus = gpus()
            return self._gpus

    def gpu_memory(self) -> int:
        return max((gpu["memory"] for gpu in self.gpus()), default=0)
