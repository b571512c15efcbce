"""What is wrong with a file or a folder, when that is no error yet: it may belong to a model that nobody asked for."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ModelError

__all__ = ["Fault"]


@dataclass(frozen=True)
class Fault:
    """text: "file: what is wrong with it", one line.  next_step: what to do, "" where the file alone can't tell."""

    text: str
    next_step: str = ""

    @classmethod
    def of(cls, error: ModelError) -> Fault:
        without = ModelError(error.what, got=error.got, allowed=error.allowed, where=error.where)
        return cls(without.one_line(), error.next_step)

    def __str__(self) -> str:
        return f"{self.text}; {self.next_step}" if self.next_step else self.text
