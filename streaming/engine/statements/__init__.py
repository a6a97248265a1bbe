"""Statements that are no SELECT: CREATE TABLE, INSERT, LOAD DATA, SELECT … INTO OUTFILE.

May be imported by: `engine`, `batch`. May import: `plan`, `storage`, `streaming.files`.
"""
