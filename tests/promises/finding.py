"""What was promised, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.table import median

# By unit, how a number of it is written.
_FORMS = {"ms": ",.1f", "s": ",.2f", "MiB": ",.1f", "/s": ",.0f", "": ",.0f"}


@dataclass(frozen=True)
class Finding:
    """A line of the table.

    Args:
        promise: what is promised.
        bound: the number that it must not exceed, or the two that it must be between; None where only the
            figure is of interest.
        values: what was measured, each by itself; empty where it could not be measured.
        unit: of the bound and the values.
        why_not: why it could not be measured.
    """

    promise: str
    bound: float | tuple[float, float] | None
    values: Sequence[float] = field(default_factory=list)
    unit: str = "ms"
    why_not: str = ""

    @property
    def worst(self) -> float | None:
        """The value that is farthest on the wrong side, or None where there is none."""
        if not self.values:
            return None
        if not isinstance(self.bound, tuple):
            return max(self.values)
        low, high = self.bound
        return max(self.values, key=lambda value: max(low - value, value - high))

    @property
    def kept(self) -> bool | None:
        """Whether every value is within the bound; None where there is nothing to compare."""
        if not self.values or self.bound is None:
            return None
        low, high = self.bound if isinstance(self.bound, tuple) else (float("-inf"), self.bound)
        return all(low <= value <= high for value in self.values)

    def figures(self) -> dict[str, object]:
        """Return what a table shows of it, and how that is written."""
        shown = {name: value for name, value in asdict(self).items() if name != "promise"}
        return {**shown, "values": list(self.values), "kept": self.kept, "written": self._texts()}

    def _texts(self) -> list[str]:
        return [
            self._bound_text(),
            self._write(median(self.values)) if self.values else "-",
            self._write(self.worst) if self.worst is not None else "-",
            self._verdict(),
        ]

    def _bound_text(self) -> str:
        if self.bound is None:
            return "-"
        if isinstance(self.bound, tuple):
            low, high = self.bound
            return f"{low:,g} to {high:,g} {self.unit}".strip()
        return f"{self.bound:,g} {self.unit}".strip()

    def _write(self, value: float) -> str:
        return f"{value:{_FORMS[self.unit]}} {self.unit}".strip()

    def _verdict(self) -> str:
        if self.why_not:
            return f"not measured: {self.why_not}"
        return {True: "yes", False: "no", None: "-"}[self.kept]
