"""Messages that kill the process that prepares them: found by its deaths, and put aside as dead letters.

May be imported by: `loop`, `dlq`. May import: `events` and what is below it; nothing of the loop.
"""
