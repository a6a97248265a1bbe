"""Tables: rows, their indexes, the string pool; rows in and out as Arrow; expiry and snapshots.

May be imported by: every room above. May import: `library`, `native`.
"""
