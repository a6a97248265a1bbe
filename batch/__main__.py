"""`python -m batch`, and the console script `jd-intent-batch`: the commands are in `batch.cli.commands`."""

from __future__ import annotations

from batch.cli.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
