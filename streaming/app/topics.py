"""How the topics of an application are called at the brokers that it runs on.

events.sql and app.toml name them; `[kafka.topics]` of the configuration may call each otherwise: a stream by its own
name, and `scores` and `dead_letters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streaming.app.folder import App
from streaming.app.names import topic_fault
from streaming.app.streams import Stream
from streaming.errors import ConfigError

__all__ = ["TopicNames"]

_SCORES, _DEAD_LETTERS = "scores", "dead_letters"


@dataclass(frozen=True)
class TopicNames:
    """The topics, by their names at the brokers.

    Attributes:
        events: of the streams that are read through the consumer group: those that are scored first, then those that
            are read by partition with them.
        dimensions: of the streams that every scorer reads whole.
        scores, dead_letters: what is written.
        streams: by topic, the stream.
        keys: by topic, its key in the configuration.
    """

    events: tuple[str, ...]
    dimensions: tuple[str, ...]
    scores: str
    dead_letters: str
    streams: Mapping[str, Stream] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, app: App, named: Mapping[str, str]) -> TopicNames:
        """The application's topics.

        Args:
            named: `[kafka.topics]`.

        Raises:
            ConfigError: a key is none of the application's, two topics have one name, or Kafka takes no such name.
        """
        own = {stream.name: stream.topic for stream in app.streams}
        own |= {_SCORES: app.settings.scores.topic, _DEAD_LETTERS: app.dead_letters}
        for key in named:
            if key not in own:
                raise ConfigError(f"kafka.topics.{key}: application {app.settings.name} has {', '.join(own)}")
        names = {**own, **named}
        keys: dict[str, str] = {}
        for key, name in names.items():
            if name in keys:
                raise ConfigError(f"kafka.topics.{key}: topic {name!r} is {keys[name]}, too")
            if why := topic_fault(name, keys):
                raise ConfigError(f"kafka.topics.{key}: {why}")
            keys[name] = f"kafka.topics.{key}"
        return cls(
            tuple(names[stream.name] for stream in (*app.scored, *app.partitioned)),
            tuple(names[stream.name] for stream in app.dimensions),
            names[_SCORES],
            names[_DEAD_LETTERS],
            {names[stream.name]: stream for stream in app.streams},
            keys,
        )

    @property
    def scored(self) -> tuple[str, ...]:
        """Of the streams whose records are requests."""
        return tuple(topic for topic in self.events if self.streams[topic].scored)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All that is read."""
        return (*self.events, *self.dimensions)
