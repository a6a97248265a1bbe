"""Running the statements of a script: CREATE TABLE, INSERT, LOAD DATA, SELECT … INTO OUTFILE, DROP, DEPLOY.

May be imported by: `engine`; `outfile` by whoever resolves paths of scripts. May import: `deployment`, `plan`,
`program`, `sql`, `storage`, `streaming.files`.
"""
