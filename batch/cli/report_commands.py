"""Commands that show what a model is worth and what it says: reports side by side, a day's users and items.

Each imports what it needs when it runs.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch.cli.options import AppFolder, DataFolder, Force, chosen_app, say, when_forced

if TYPE_CHECKING:
    from batch.match import Matched

__all__ = ["match", "report"]


def report(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder that `evaluate` wrote to, with report.json.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another such folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write report.html to.")],
    force: Force = False,
) -> None:
    """Put the reports of two models side by side on one page, and say which is better, where that can be said."""
    from batch.report.comparison import compare_reports
    from batch.report.report import REPORT_HTML

    for line in compare_reports(first, second, out, force=when_forced(force)):
        say(line)
    say(f"report: {out / REPORT_HTML}")


def match(
    *,
    features: Annotated[Path, typer.Option(help="Folder that `extract` wrote, with the day and with validation.")],
    data: DataFolder,
    evaluation: Annotated[Path, typer.Option(help="Folder that `evaluate` wrote, with the predictions of the day.")],
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="In the application's time zone.")],
    out: Annotated[Path, typer.Option(help="Folder to write to: matches.parquet, match.json.")],
    threshold: Annotated[float | None, typer.Option(help="Take no pair of a lower probability.")] = None,
    per_user: Annotated[int | None, typer.Option(help="Take so many items of a user at most.")] = None,
    per_item: Annotated[int | None, typer.Option(help="Then take so many users of an item at most.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write matches.csv instead of parquet.")] = False,
    validation: Annotated[
        Path | None, typer.Option(help="Folder with the predictions of validation; default: --evaluation.")
    ] = None,
    app: AppFolder = None,
    force: Force = False,
) -> None:
    """Rank a day's users with their items, and say what share of them to expect to be right, by validation."""
    from batch.match import Rule, match_day

    told = match_day(
        chosen_app(app),
        features,
        data,
        evaluation,
        out,
        day.date(),
        Rule(threshold, per_user, per_item),
        csv=csv,
        validation=validation,
        force=when_forced(force),
    )
    for line in _matched(told):
        say(line)
    say(f"matches: {out / ('matches.csv' if csv else 'matches.parquet')}")


def _matched(told: Matched) -> list[str]:
    """What was chosen, and what to expect of it."""
    who = ", ".join(told.user)
    pairs = "pairs " if told.item else ""
    what = f" and {told.items:,} {', '.join(told.item)}" if told.item else ""
    chosen = f"{told.day}: {told.chosen:,} of {told.candidates:,} {pairs}chosen, of {told.users:,} {who}{what}"
    expected = told.expected
    tried = f"{expected.right:,} of {expected.chosen:,} chosen on {expected.days} days of validation"
    if expected.precision is None or expected.precision_interval is None or expected.lift_interval is None:
        why = f"{expected.positives:,} of {expected.candidates:,} candidates are positive, {expected.chosen:,} chosen"
        return [chosen, f"what to expect cannot be said: on the other days of validation {why}"]
    low, high = (f"{end:.1%}" for end in expected.precision_interval)
    least, most = (f"{end:.2f}" for end in expected.lift_interval)
    precision = f"expected: precision {expected.precision:.1%} ({low} to {high})"
    return [chosen, f"{precision}, lift {expected.lift:.2f} ({least} to {most}): {tried}"]
