"""The application that a configuration names, under the names that it has there."""

from __future__ import annotations

from streaming.app.folder import App, load_app
from streaming.app.topics import TopicNames
from streaming.config import Config
from streaming.shipped_files import app_folder

__all__ = ["application", "configured_app"]


def configured_app(config: Config) -> App:
    """The application of `app`, in the database and under the name that `[store]` may say.

    Raises:
        WrongApp: the first thing that is wrong with it.
    """
    return load_app(app_folder(config.app)).deployed_as(config.store.database, config.store.deployment)


def application(config: Config) -> tuple[App, TopicNames]:
    """The application, and how its topics are called.

    Raises:
        WrongApp: as `configured_app`. ConfigError: `[kafka.topics]` does not fit it.
    """
    app = configured_app(config)
    return app, TopicNames.of(app, config.kafka.topics)
