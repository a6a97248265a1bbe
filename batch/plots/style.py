"""Colours and strokes, light or dark as the reader has it."""

from __future__ import annotations

__all__ = ["COLOURS", "COLOUR_COUNT", "STROKES"]

COLOUR_COUNT = 8

COLOURS = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #59636e; --faint: #8b949e; --grid: #e3e6ea;
  --card: #f6f8fa; --good: #1a7f37; --bad: #b35900; --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df;
  --c4: #bf3989; --c5: #0a7d91; --c6: #7d6600; --c7: #59636e; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9aa4af; --faint: #6e7681;
  --grid: #2b323b; --card: #161b22; --good: #3fb950; --bad: #e3953a; --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950;
  --c3: #bc8cff; --c4: #ff7eb6; --c5: #39c5cf; --c6: #d9b23c; --c7: #9aa4af; } }
"""
"""What every page and every file of plots begins with."""

STROKES = """
svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--text); font-family: inherit; }
svg .soft { fill: var(--soft); }
svg .card { fill: var(--card); }
svg .back { fill: var(--back); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .even { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 4 4; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .thin { stroke-width: 1; }
svg .reach { stroke-width: 1.5; }
svg .band { opacity: .18; stroke: none; }
svg .dot { fill-opacity: .55; stroke: none; }
svg .d1 { stroke-dasharray: 6 3; } svg .d2 { stroke-dasharray: 2 2; } svg .d3 { stroke-dasharray: 8 3 2 3; }
""" + "".join(f"svg .s{n} {{ stroke: var(--c{n}); }} svg .f{n} {{ fill: var(--c{n}); }}\n" for n in range(COLOUR_COUNT))
"""Classes of what is drawn; they need `COLOURS`."""
