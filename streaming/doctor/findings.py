"""What a check of `jd-intent-score doctor` finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Finding", "ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        level: `ok`, `warning` (it will run, but think of this) or `wrong` (it will not run, or not rightly).
        about: what was looked at.
        text: what is so.
        fix: what to do; "": nothing.
    """

    level: str
    about: str
    text: str
    fix: str = ""

    def line(self) -> str:
        """For a terminal."""
        text = " | ".join(line.strip() for line in self.text.splitlines())
        return f"{self.level:<8} {self.about}: {text}{f'. Fix: {self.fix}' if self.fix else ''}"

    def fields(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def ok(about: str, text: str) -> Finding:
    return Finding("ok", about, text)


def warning(about: str, text: str, fix: str = "") -> Finding:
    return Finding("warning", about, text, fix)


def wrong(about: str, text: str, fix: str = "") -> Finding:
    return Finding("wrong", about, text, fix)
