"""`jd-intent-score sql`: scripts and a prompt over an embedded engine of its own.

Everything that the engine runs, and what one wants to ask beside it: SHOW DATABASES, TABLES, DEPLOYMENTS, DEPLOYMENT,
DESC, EXPLAIN, and `.commands` (`.help` lists them). The same scripts run in OpenMLDB's own client.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine.sql.tokens import Token, tokens_of
from streaming.engine.storage.catalogue import TableInfo
from streaming.errors import ConfigError
from streaming.files.tables import Options, write_csv
from streaming.ops import exits
from streaming.store.sql_scripts import blanked, read_script, within

__all__ = ["Shell", "mapped", "run_shell", "statements_of"]

FAILURES = (UnsupportedSQL, BadRow, KeyError, OSError, ConfigError)
ROWS_MAX = 20  # rows of a result that are shown; all are counted
CELL_CHARS_MAX = 60
WORDS_CHARS_MAX = 100  # of a statement that is reported
HELP = """\
A statement ends with `;` and may take several lines. Beside what docs/reference/sql lists:
  SHOW DATABASES; SHOW TABLES; SHOW DEPLOYMENTS; SHOW DEPLOYMENT name; DESC table; EXPLAIN SELECT …;
  .read FILE           run a script
  .request NAME {…}    answer one request row (JSON) of a deployment
  .rows N              show so many rows of a result (20)
  .help  .quit"""


def mapped(pairs: Sequence[str]) -> dict[str, str]:
    """`PREFIX=FOLDER` words as the engine's `paths`.

    Raises:
        UnsupportedSQL: a word without `=`.
    """
    paths = {}
    for pair in pairs:
        prefix, equals, folder = pair.partition("=")
        if not (prefix and equals and folder):
            raise UnsupportedSQL(f"--map {pair}: not as PREFIX=FOLDER, for example /root/project/data=data")
        paths[prefix] = folder
    return paths


def statements_of(script: str) -> Iterator[tuple[str, bool]]:
    """Each statement without its `;`, behind blanks for all that stands before it, so that its places are the script's.

    The flag says whether a `;` ended it. Before an unclosed string or comment the rest is one open statement.
    """
    start = 0
    try:
        tokens = tokens_of(script)
    except UnsupportedSQL:
        yield script, False
        return
    for token in tokens:
        if (token.kind, token.text) != ("symbol", ";") and token.kind != "end":
            continue
        text = script[start : token.at]
        if any(start <= t.at < token.at for t in tokens):
            yield blanked(script[:start]) + text, token.kind != "end"
        start = token.at + 1


class Shell:
    """Runs statements against one engine and shows what they answer.

    Args:
        paths: as of `Engine`.
        out: where results go.
        csv: print results as csv instead of tables, all of their rows.
    """

    def __init__(self, paths: Mapping[str, str], out: Console, csv: bool = False) -> None:
        self.engine = Engine(paths)
        self.out, self.csv, self.rows_max = out, csv, ROWS_MAX
        self.database = ""

    def script(self, text: str) -> None:
        """Runs all statements of a script.

        Raises:
            UnsupportedSQL, BadRow, KeyError: of the first that fails; those before it have run.
        """
        for statement, _ in statements_of(text):
            try:
                self.statement(statement)
            except BadRow as error:  # what the engine says of SQL has a place already; a file or a row has not
                raise BadRow(f"{_place(statement)}: {error}") from None

    def statement(self, text: str) -> None:
        """Runs one statement, without its `;`, and shows its answer."""
        tokens = tokens_of(text)[:-1]
        if self.answered(tokens):
            return
        words = [token.lower for token in tokens]
        if words[:1] == ["explain"]:
            self.explain(blanked(text[: tokens[0].at + len("explain")]) + text[tokens[0].at + len("explain") :])
            return
        start, before = time.perf_counter(), self.counts()
        if words[:1] in (["select"], ["("]) and ("into", "outfile") not in itertools.pairwise(words):
            self.show(self.engine.query(text), start)
            return
        self.engine.execute(text)
        if words[:1] == ["use"]:
            self.database = tokens[1].text.strip("`")
        if not self.csv:
            more = [
                f"{name} {n - before.get(name, 0):+,} rows"
                for name, n in self.counts().items()
                if n != before.get(name, 0)
            ]
            done = f"{_named(text[tokens[0].at :])}: ok{''.join(f', {m}' for m in more)} ({_since(start)})"
            self.out.print(Text(done, "green"), soft_wrap=True)

    def answered(self, tokens: Sequence[Token]) -> bool:
        """Answers a question about what there is, which the engine's SQL has no statement for; or it is none."""
        match [token.lower for token in tokens]:
            case ["show", "databases"]:
                self.show_databases()
            case ["show", "tables"]:
                self.show_tables()
            case ["show", "deployments"]:
                self.show_deployments()
            case ["show", "deployment", _]:
                self.show_deployment(tokens[2].text.strip("`"))
            case ["desc" | "describe", _] | ["desc" | "describe", _, ".", _]:
                self.describe("".join(token.text.strip("`") for token in tokens[1:]))
            case _:
                return False
        return True

    def command(self, line: str) -> None:
        """Runs a `.command`; `.quit` raises EOFError."""
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word in (".quit", ".exit"):
            raise EOFError
        if word == ".read":
            self.script(read_script(Path(rest)).text)
        elif word == ".rows" and rest.isdecimal():
            self.rows_max = int(rest)
        elif word == ".request":
            name, _, row = rest.partition(" ")
            start = time.perf_counter()
            try:
                self.show(self.engine.request(name, [json.loads(row)]), start)
            except json.JSONDecodeError as error:
                raise BadRow(f"{row or 'nothing'} is not a row as JSON: {error}") from None
        else:
            self.out.print(HELP, markup=False, highlight=False)

    # -- questions -------------------------------------------------------------------------------------------------

    def show_databases(self) -> None:
        self.grid("Databases", ["database"], [[name] for name in self.engine.databases()])

    def show_tables(self) -> None:
        stats = self.engine.stats()
        rows = []
        for table in self.engine.tables(self.database):
            size = stats[table.full_name]
            rows.append([table.name, f"{size.rows:,}", f"{size.bytes / 2**20:.1f} MiB"])
        self.grid(f"Tables of {self.database or 'no database'}", ["table", "rows", "memory"], rows)

    def show_deployments(self) -> None:
        found = self.engine.deployments(self.database)
        rows = [[d.name, str(len(d.answer)), ", ".join(name for _, name in d.tables)] for d in found]
        self.grid(f"Deployments of {self.database or 'no database'}", ["deployment", "columns", "tables"], rows)

    def show_deployment(self, name: str) -> None:
        found = [d for d in self.engine.deployments(self.database) if d.name == name]
        if not found:
            raise KeyError(f"unknown deployment {name}")
        self.out.print(found[0].sql, markup=False, highlight=False)
        self.grid("Request", ["column", "type"], [[c.name, str(c.type)] for c in found[0].request])
        self.grid("Answer", ["column", "type"], [[column, str(kind)] for column, kind in found[0].answer])

    def describe(self, name: str) -> None:
        database, _, bare = name.rpartition(".")
        found = [t for t in self.engine.tables(database or self.database) if t.name == bare]
        if not found:
            raise BadRow(f"unknown table {name}")
        columns = [
            [c.name, str(c.type), "" if c.nullable else "NOT NULL", "" if c.default is None else _shown(c.default)]
            for c in found[0].columns
        ]
        self.grid(name, ["column", "type", "null", "default"], columns)
        self.grid("Indexes", ["key", "order", "time to live"], _indexes(found[0]))

    def explain(self, sql: str) -> None:
        self.out.print(self.engine.explain(sql), markup=False, highlight=False, soft_wrap=True)

    # -- answers ---------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        return {name: stats.rows for name, stats in self.engine.stats().items()}

    def grid(self, title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Shows a small table of texts."""
        grid = Grid(*names, title=title, title_justify="left", title_style="bold")
        for row in rows:
            grid.add_row(*map(Text, row))
        self.out.print(grid)

    def show(self, answer: pa.Table, start: float) -> None:
        """Shows a result: as a table where its columns fit, else each row as a list."""
        if self.csv:
            write_csv(answer, sys.stdout.buffer, Options(null_value=""))
            sys.stdout.buffer.flush()
            return
        rows = answer.slice(0, self.rows_max).to_pylist()
        if 12 * answer.num_columns <= self.out.width:
            grid = Grid(*map(escape, answer.column_names))
            for row in rows:
                grid.add_row(*map(_cell, row.values()))
            self.out.print(grid)
        else:
            rows = rows[: max(1, self.rows_max // 7)]
            for number, row in enumerate(rows):
                grid = Grid("column", "value", title=f"row {number}", title_justify="left", title_style="bold")
                for name, value in row.items():
                    grid.add_row(Text(name), _cell(value))
                self.out.print(grid)
        left = answer.num_rows - len(rows)
        counted = f"{answer.num_rows:,} rows" if answer.num_rows != 1 else "1 row"
        hidden = f", the first {len(rows)} shown" if left > 0 else ""
        self.out.print(Text(f"{counted} of {answer.num_columns} columns{hidden} ({_since(start)})", "green"))


def _place(text: str) -> str:
    """line:column of a statement's first word, in the script that it stands in."""
    at = tokens_of(text)[0].at
    return f"{text.count(chr(10), 0, at) + 1}:{at - text.rfind(chr(10), 0, at)}"


def _named(bare: str) -> str:
    """A statement up to its first parenthesis, on one line: what it is about."""
    words = " ".join(bare.split()).partition("(")[0].strip()
    return words if len(words) <= WORDS_CHARS_MAX else words[: WORDS_CHARS_MAX - 1] + "…"


def _since(start: float) -> str:
    seconds = time.perf_counter() - start
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, float)) else str(value)
    text = text[1:-1] if isinstance(value, str) else text
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 1] + "…"


def _cell(value: Any) -> Text:
    return Text("NULL", "dim") if value is None else Text(_shown(value))


def _indexes(table: TableInfo) -> list[list[str]]:
    rows = []
    for index in table.indexes:
        limits = [f"{index.ttl_ms // 60_000} min"] * bool(index.ttl_ms) + [f"{index.ttl_rows} rows"] * bool(
            index.ttl_rows
        )
        lives = f"{index.ttl_type}: {', '.join(limits)}" if limits else "for ever"
        rows.append([", ".join(index.key), index.ts or "insertion", lives])
    return rows


# -- the command ---------------------------------------------------------------------------------------------------


def run_shell(scripts: Sequence[Path], maps: Sequence[str], execute: str | None, csv: bool, interactive: bool) -> int:
    """Runs the scripts, then `execute`; without either (or with `interactive`) statements from the terminal or stdin.

    Returns the exit status: `exits.MISTAKE` after an error, which names its place and stops what is not typed by hand.
    """
    shell = Shell(mapped(maps), Console(soft_wrap=False), csv)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    place = ""
    try:
        for path in scripts:
            _run_file(shell, path)
        if execute is not None:
            place = "--execute: "
            shell.script(execute)
        if interactive or not (scripts or execute is not None):
            if sys.stdin.isatty():
                _prompt(shell, errors)
            else:
                place = "stdin: "
                shell.script(sys.stdin.read())
    except FAILURES as error:
        _fail(errors, error, place)
        return exits.MISTAKE
    return exits.DONE


def _run_file(shell: Shell, path: Path) -> None:
    """Runs a script; every error names its file."""
    script = read_script(path)
    with within(script):
        try:
            shell.script(script.text)
        except (KeyError, OSError, ConfigError) as error:
            raise BadRow(_message(error)) from error


def _message(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) else str(error)


def _fail(errors: Console, error: Exception, place: str = "") -> None:
    errors.print(Text(f"{place}{_message(error)}", "red"))


def _prompt(shell: Shell, errors: Console) -> None:
    """Reads statements by hand until `.quit` or Ctrl-D; what fails is shown, and the next one read."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "jd-intent-scorer"
    state.mkdir(parents=True, exist_ok=True)
    session: PromptSession[str] = PromptSession(history=FileHistory(str(state / "sql_history")))
    shell.out.print("Embedded engine: tables live in this process. `.help` helps, Ctrl-D leaves.", markup=False)
    typed = ""
    while True:
        try:
            typed += session.prompt("…> " if typed else f"{shell.database or 'sql'}> ") + "\n"
            if typed.lstrip().startswith("."):
                line, typed = typed, ""
                shell.command(line)
                continue
            found = list(statements_of(typed))
            if found and not found[-1][1]:
                continue  # the statement goes on
            script, typed = typed, ""
            shell.script(script)
        except KeyboardInterrupt:
            typed = ""
        except EOFError:
            return
        except FAILURES as error:
            _fail(errors, error)
