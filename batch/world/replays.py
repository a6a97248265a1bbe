"""How the world of an application is replayed: by its archive of events, where it has one."""

from __future__ import annotations

from pathlib import Path

from batch.replay import EVENTS, ArchiveReplays, Replays
from batch.world.tutorial_replay import TutorialReplays
from streaming.app.folder import App

__all__ = ["TUTORIAL", "replays_of"]

TUTORIAL = "jd"
"""The generator whose worlds have tables, and no archive of events."""


def replays_of(app: App, data: Path) -> Replays:
    """The replays of a data folder.

    Raises:
        BadInput: it has no archive of the events that ask.
    """
    if app.settings.demo.generator == TUTORIAL and not (data / EVENTS).is_dir():
        return TutorialReplays()
    return ArchiveReplays(app, data / EVENTS)
