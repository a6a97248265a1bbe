"""The scorer: poll → decode → insert → features → encode → score → publish → commit. Start at `scorer`.

May be imported by: `cli`, `dlq`. May import: `state`, `kafka`, `model`, `store`, `events`, `ops`.
"""
