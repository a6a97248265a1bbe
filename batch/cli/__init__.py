"""The commands of `jd-intent-batch`: `commands` is the program, `options` what several commands take.

May be imported by: `batch.__main__`, tests. May import: every room of `batch`; `streaming.store`, `streaming.ops`.
"""
