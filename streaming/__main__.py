"""`python -m streaming`, and the console script `jd-intent-score`: the commands are in `streaming.cli.commands`."""

from __future__ import annotations

from streaming.cli.importing import what_is_imported_stays
from streaming.cli.stopping import end_at_once_when_told

__all__ = ["main"]


def main() -> None:
    """Runs a command; SIGTERM and Ctrl-C are heeded before the modules are imported, which takes most of a second."""
    end_at_once_when_told()
    with what_is_imported_stays():
        from streaming.cli.commands import run_command

    run_command()


if __name__ == "__main__":
    main()
