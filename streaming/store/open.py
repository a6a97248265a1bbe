"""The store of `store.kind`. What only a cluster needs is imported where it is asked for: a start waits for imports."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streaming.app.folder import App
from streaming.config import Dedup, Store
from streaming.errors import ConfigError
from streaming.store.embedded import EmbeddedStore

if TYPE_CHECKING:
    from streaming.store.openmldb.cluster import ClusterStore
    from streaming.store.openmldb.rest import RestTransport
    from streaming.store.openmldb.sdk import Client

__all__ = ["open_cluster", "open_store"]


def open_store(
    settings: Store, app: App, beat: Callable[[], None] = lambda: None, dedup: Dedup | None = None
) -> EmbeddedStore | ClusterStore:
    """The store of `store.kind`; `load` it.

    Args:
        app: whose tables and query they are.
        dedup: none: off.
        beat: called at least once a second or two while a cluster is waited for.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    if settings.kind == "embedded":
        return EmbeddedStore(app, settings.history, dedup.horizon_ms if dedup else 0)
    from streaming.store.openmldb.cluster import ClusterStore

    if dedup and dedup.horizon_ms:
        kept = f"store.kind {settings.kind!r} keeps rows, but no request ids: a restart would forget them"
        raise ConfigError(f"dedup.horizon_s: {kept}; set it to 0")
    return ClusterStore(app, open_cluster(settings, app, beat))


def open_cluster(settings: Store, app: App, beat: Callable[[], None] = lambda: None) -> Client | RestTransport:
    """The calls of the cluster of `store.kind`, for an application's database and deployment; nothing is connected yet.

    Raises:
        ConfigError: `store.kind` is "embedded", or a setting is missing or wrong.
    """
    match settings.kind:
        case "openmldb":
            from streaming.store.openmldb.sdk import Client, connect_options

            return Client(connect_options(settings, app.tables.database), app.settings.deployment.name, beat)
        case "openmldb-rest":
            from streaming.store.openmldb.rest import RestTransport

            return RestTransport(settings.rest, app.tables.database, app.settings.deployment.name, beat)
    raise ConfigError('store.kind is "embedded", whose tables are made at every start: set "openmldb"')
