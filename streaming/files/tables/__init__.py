"""The files that hold a table's rows: which they are, what may stand in them, and how csv spells it.

One reader for LOAD DATA, `store.history`, `jd-intent-score load`, `jd-intent-batch extract` and `replay`, and the check
before Spark gets the files, so that the same files are taken, with the same rows, and refused in the same words
(docs/reference/table-files.md). `find` knows folders, `parquetfile` and `csvin` read a file, `convert` and `celltext`
make a column's type of what they read, `csvout` writes csv. Needs Arrow only: the engine stands above this room,
nothing of it is here.

May be imported by: everything. May import: `errors`.
"""

from streaming.files.tables.csvout import write_csv
from streaming.files.tables.errors import BadFile
from streaming.files.tables.find import files_of, is_there
from streaming.files.tables.options import Options, load_options, outfile_options
from streaming.files.tables.read import Piece, check_columns, ordered, read, read_file

__all__ = [
    "BadFile",
    "Options",
    "Piece",
    "check_columns",
    "files_of",
    "is_there",
    "load_options",
    "ordered",
    "outfile_options",
    "read",
    "read_file",
    "write_csv",
]
