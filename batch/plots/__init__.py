"""Plots as SVG: for a page, and as files that stand alone; one style for all that this project draws.

`chart` draws one plot, `sheet` puts several into one file with a title, `latency` and `parity` are sheets of their own,
`style` has the colours. May be imported by: `report`, `batch.cli`, `deploy`, `benchmarks`, tests. May import:
`streaming.errors`. Runs in either environment.
"""
