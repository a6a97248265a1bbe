"""The commands of `jd-intent-score` that are no server and no loop: the command line itself, the SQL shell, `send`,
and what makes and fills a cluster's tables.

May be imported by: `streaming.__main__`, tests. May import: every room of `streaming`.
"""
