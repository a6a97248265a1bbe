"""Running it: metrics, health, logs, exit statuses, worker processes, the watchdog.

May be imported by: everything. May import: `config`, `errors`.
"""
