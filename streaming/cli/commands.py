"""`jd-intent-score`: run | doctor | deploy | load | serve | predict | board | top | send | apiserver | sql |
explain | init | check | print-script | dlq."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from streaming.cli.importing import what_is_imported_stays
from streaming.cli.init_app import init
from streaming.ops import exits
from streaming.version import Version

__all__ = ["app", "run_command"]


class ScriptName(str, Enum):
    """Scripts of OpenMLDB's command line."""

    tables = "tables"
    deploy = "deploy"
    load_online = "load-online"
    load_offline = "load-offline"
    extract = "extract"


app = typer.Typer(
    name=exits.SCORE,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Scores events from Kafka: for each, exactly once, the probability of what the application asks.",
)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file; see deploy/scorer.toml. The environment (JD_INTENT__…) wins."),
]


Host = Annotated[str, typer.Option(help="Address to listen on; beyond loopback callers need a token.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the token of callers, and nothing else; or JD_INTENT_TOKEN in the environment."),
]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain, PEM: HTTPS instead of HTTP.")]
TlsKey = Annotated[Path | None, typer.Option(help="Its private key, PEM.")]
AllowHost = Annotated[
    list[str] | None, typer.Option(help="Another name under which it may be called; may be repeated.")
]
Connections = Annotated[int, typer.Option(help="At a time; more are told to come again.", min=1, max=10_000)]

# What `board` and `top` follow.
LookBack = Annotated[str, typer.Option(help="Scores of so long are read at the start: 90s, 15m, 1h, 2d.")]
ScoresKept = Annotated[int, typer.Option(help="The newest so many are kept.", min=1000, max=5_000_000)]
MetricsUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        help="URL of a scorer's /metrics; may be repeated. Default: where [http] of the configuration says.",
    ),
]
PredictUrl = Annotated[
    str | None, typer.Option(help="URL of `jd-intent-score serve`, which computes the features of an opened row.")
]
PredictToken = Annotated[Path | None, typer.Option(help="File that holds its token.")]
PredictCa = Annotated[Path | None, typer.Option(help="Certificates, PEM, that vouch for it.")]
LOOK_BACK, SCORES_KEPT = "1h", 100_000


@app.callback()
def program(version: Version = False) -> None:
    """Options of the program itself."""


@app.command()
def run(
    config: ConfigFile = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Scorer processes under one supervisor and port; default: workers.count.", min=0, max=256),
    ] = None,
) -> None:
    """Score the events of the application until SIGTERM or Ctrl-C.

    Exit status, here and of the other commands: 0 done or stopped, 1 a defect, 2 usage, configuration, a file or a
    script, 3 encoder, model and SQL do not fit, 4 a server stayed away, 5 Kafka refuses.
    """
    with what_is_imported_stays():
        from streaming.loop.run import main as run_scorer

    run_scorer(config, workers)


@app.command()
def deploy(
    config: ConfigFile = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop and make anew what differs: tables with their rows, the deployment.")
    ] = False,
    range_bias: Annotated[
        str | None,
        typer.Option(help="RANGE_BIAS instead of the application's: how much older rows are kept; inf, 7d or ms."),
    ] = None,
    rows_bias: Annotated[str | None, typer.Option(help="ROWS_BIAS, the same in rows.")] = None,
) -> None:
    """Make database, tables, indexes and deployment of the application on the OpenMLDB cluster of [store].

    What is there already is compared; where it differs nothing is changed, unless --replace is given (status 3).
    """
    from streaming.cli.deploy_sql import run_deploy
    from streaming.config import load as load_config

    run_deploy(load_config(config), replace=replace, range_bias=range_bias, rows_bias=rows_bias)


@app.command()
def load(
    history: Annotated[Path, typer.Argument(help="Folder with a folder of parquet or csv files for each table.")],
    config: ConfigFile = None,
) -> None:
    """Insert a folder of history into the OpenMLDB cluster of [store], row by row: needs no TaskManager.

    Rows that are there already are not inserted again: after an interruption, give the command again.
    """
    from streaming.cli.load_history import run_load
    from streaming.config import load as load_config

    run_load(load_config(config), history)


@app.command()
def doctor(
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines: level, about, text, fix.")] = False,
) -> None:
    """Check all that `run` needs, and say how to mend what is wrong: Kafka, rights, topics, model, SQL, folders, clock.

    Nothing is changed. Exit status: 0, or 2 when something is wrong.
    """
    from streaming.doctor.command import run_doctor

    raise typer.Exit(run_doctor(config, as_json=as_json))


@app.command()
def serve(
    config: ConfigFile = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 9080,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    allow_host: AllowHost = None,
    connections: Connections = 128,
) -> None:
    """Answer request rows over HTTP, from the scorer's tables and model: POST /predict, GET /schema, /docs."""
    from streaming.predict.server import run_serve
    from streaming.web.listen import Listen

    listen = Listen(host, port, token_file, tls_cert, tls_key, tuple(allow_host or ()), connections)
    run_serve(config, listen)


@app.command()
def predict(
    words: Annotated[list[str] | None, typer.Argument(help="One row: JSON, or column=value words.")] = None,
    file: Annotated[Path | None, typer.Option(help="Or the file it is in: .json, .jsonl or .parquet.")] = None,
    row: Annotated[int, typer.Option(help="Its number in the file, from 0.", min=0)] = 0,
    url: Annotated[str, typer.Option(help="Of `jd-intent-score serve`.")] = "http://127.0.0.1:9080",
    ids: Annotated[bool, typer.Option("--ids", help="Show the encoder's ids, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as it came.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds.", min=0.1)] = 30.0,
    token_file: TokenFile = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates, PEM, that vouch for an https server.")] = None,
) -> None:
    """Ask `serve` about one request, a row of the main table: prints its features and the probability."""
    from streaming.predict.client import run_predict
    from streaming.web.listen import read_token

    token = read_token(token_file)
    run_predict(
        words or (), file=file, row=row, url=url, ids=ids, as_json=as_json, timeout_s=timeout_s, token=token, ca=ca
    )


@app.command()
def board(
    config: ConfigFile = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 9082,
    look_back: LookBack = LOOK_BACK,
    scores: ScoresKept = SCORES_KEPT,
    metrics: MetricsUrls = None,
    predict: PredictUrl = None,
    predict_token_file: PredictToken = None,
    predict_ca: PredictCa = None,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    allow_host: AllowHost = None,
    connections: Connections = 128,
) -> None:
    """Show the scores as they come, on a page: who is about to want what, why, and how the scorers are.

    It reads the scores as any subscriber does, and asks the scorers for their metrics only.
    """
    from streaming.board.following import Following, parse_age
    from streaming.board.parts import BoardOptions
    from streaming.board.server import run_board
    from streaming.web.listen import Listen

    listen = Listen(host, port, token_file, tls_cert, tls_key, tuple(allow_host or ()), connections)
    following = Following(parse_age("--look-back", look_back), scores, metrics or ())
    run_board(config, listen, BoardOptions(following, predict, predict_token_file, predict_ca))


@app.command()
def top(
    config: ConfigFile = None,
    look_back: LookBack = LOOK_BACK,
    scores: ScoresKept = SCORES_KEPT,
    metrics: MetricsUrls = None,
    predict: PredictUrl = None,
    predict_token_file: PredictToken = None,
    predict_ca: PredictCa = None,
    once: Annotated[bool, typer.Option("--once", help="Print what is there, and end.")] = False,
) -> None:
    """Show the scores as they come, in the terminal: what `board` shows on a page. `q` ends it."""
    from streaming.board.following import Following, parse_age
    from streaming.board.parts import BoardOptions
    from streaming.board.top import run_top

    following = Following(parse_age("--look-back", look_back), scores, metrics or ())
    run_top(config, BoardOptions(following, predict, predict_token_file, predict_ca), once=once)


@app.command()
def send(
    event: Annotated[str, typer.Argument(help="One event as JSON; without its event time it happens now.")],
    stream: Annotated[str, typer.Option(help="Which one it is of; default: the first that is scored.")] = "",
    config: ConfigFile = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the score.", min=0.1)] = 30.0,
) -> None:
    """Send one event through Kafka and wait for its score."""
    from streaming.cli.send import send_and_wait
    from streaming.config import load
    from streaming.ops import log

    log.to_stderr()
    print(json.dumps(send_and_wait(load(config), event, timeout_s, stream), ensure_ascii=False))


@app.command()
def apiserver(
    config: ConfigFile = None,
    application: Annotated[
        str | None, typer.Option("--app", help="Folder of the application; default: that of the configuration.")
    ] = None,
    history: Annotated[Path | None, typer.Option(help="Folder with a folder of files for each table.")] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(help="Folder below which LOAD DATA and INTO OUTFILE may read, write, replace; may be repeated."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 9081,
    empty: Annotated[bool, typer.Option("--empty", help="Make no tables: start without a database.")] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    allow_host: AllowHost = None,
    connections: Connections = 128,
) -> None:
    """Serve the embedded engine under OpenMLDB's REST interface, to develop against without a cluster."""
    from streaming.standin.server import run_apiserver
    from streaming.web.listen import Listen

    listen = Listen(host, port, token_file, tls_cert, tls_key, tuple(allow_host or ()), connections)
    run_apiserver(config, application, history, files or (), listen, empty=empty)


@app.command()
def sql(
    scripts: Annotated[list[Path] | None, typer.Argument(help="Scripts to run; none: a prompt, or stdin.")] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", help="PREFIX=FOLDER: where the scripts' paths that begin with PREFIX lie here."),
    ] = None,
    execute: Annotated[str | None, typer.Option("--execute", "-e", help="Statements to run after them.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print results as csv, all rows.")] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Go on with a prompt.")] = False,
) -> None:
    """Run feature SQL on an embedded engine: scripts, or a prompt.

    Exit status: 2 after an error, whose line and column are named.
    """
    from streaming.cli.sql_shell import run_shell

    raise typer.Exit(run_shell(scripts or (), maps or (), execute, csv, interactive))


@app.command()
def explain(
    script: Annotated[Path, typer.Argument(help="A SELECT, or a script with DEPLOY.")],
    tables: Annotated[
        Path | None,
        typer.Option(help="Script that makes the tables; by default tables.sql (or create_tables.sql) beside it."),
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Take what only the embedded engine answers, and no cluster compiles.")
    ] = False,
) -> None:
    """Print the plan of a query: windows, joins, indexes, times to live, and what the windows share."""
    from streaming.engine import Engine
    from streaming.store.sql_scripts import read_script, within

    beside = [script.with_name(name) for name in ("tables.sql", "create_tables.sql")]
    tables_path = tables or next((path for path in beside if path.is_file()), beside[0])
    engine = Engine(portable=not embedded)
    if tables or tables_path.is_file():
        made = read_script(tables_path)
        with within(made):
            engine.execute(made.text)
    explained = read_script(script)
    with within(explained):
        print(engine.explain(explained.text))


app.command()(init)


@app.command()
def check(
    application: Annotated[
        str, typer.Argument(metavar="APP", help="A folder with tables.sql, features.sql, events.sql and app.toml.")
    ],
) -> None:
    """Check an application's folder, and print it as a picture: events, tables, windows, features, label, scores.

    What is wrong is one line on stderr that begins with file:line:column.
    """
    from streaming.app.folder import load_app
    from streaming.app.picture import picture
    from streaming.shipped_files import app_folder

    print(picture(load_app(app_folder(application))))


@app.command()
def print_script(
    script: Annotated[ScriptName, typer.Argument(help="Which one.")],
    application: Annotated[str, typer.Option("--app", help="Folder of the application.")] = "sql/jd",
    data: Annotated[str, typer.Option(help="The data folder, as OpenMLDB's servers see it.")] = "",
    out: Annotated[str, typer.Option(help="Where features go, as they see it.")] = "",
) -> None:
    """Print a script that is made from an application, as OpenMLDB's own command line takes it.

    For example: jd-intent-score print-script deploy | openmldb --role=sql_client …
    """
    from streaming.app import scripts
    from streaming.app.folder import load_app
    from streaming.shipped_files import app_folder

    shop = load_app(app_folder(application))
    made = {
        ScriptName.tables: lambda: scripts.tables_script(shop),
        ScriptName.deploy: lambda: scripts.deploy_script(shop),
        ScriptName.load_online: lambda: scripts.load_script(shop, "online", data),
        ScriptName.load_offline: lambda: scripts.load_script(shop, "offline", data),
        ScriptName.extract: lambda: scripts.extract_script(shop, out or scripts.OUT),
    }
    print(made[script](), end="")


dlq = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What is in the dead-letter topic, and why; send it back after a fix.",
)
app.add_typer(dlq, name="dlq")

Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="Only of this reason, as in jd_intent_dead_letters_total; may be repeated."),
]
Topics = Annotated[
    list[str] | None, typer.Option("--topic", help="Only records that came from this topic; may be repeated.")
]
Partitions = Annotated[
    list[int] | None, typer.Option("--partition", help="Only from this partition of it; may be repeated.")
]
Offsets = Annotated[str, typer.Option("--offsets", help="Only from these offsets of it: 17, or 17-20.")]
Since = Annotated[str, typer.Option(help="Only since then: 30m, 2h, 7d ago, or a time such as 2026-01-31T12:00 (UTC).")]


@dlq.command("list")
def dlq_list(
    config: ConfigFile = None,
    reason: Reasons = None,
    topic: Topics = None,
    partition: Partitions = None,
    offsets: Offsets = "",
    since: Since = "",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
) -> None:
    """List dead letters: where, when, from where, why, and whether they were replayed."""
    from streaming.dlq.commands import filter_of, list_letters

    wanted = filter_of(reason or (), topic or (), partition or (), offsets, since)
    list_letters(config, wanted, limit, as_json=as_json)


@dlq.command("show")
def dlq_show(
    place: Annotated[str, typer.Argument(help="As `list` shows it: topic[partition]@offset.")],
    config: ConfigFile = None,
) -> None:
    """Show one dead letter whole, as JSON: key, value, headers, reason."""
    from streaming.dlq.commands import show_letter

    show_letter(config, place)


@dlq.command("replay")
def dlq_replay(
    places: Annotated[list[str] | None, typer.Argument(help="As `list` shows them: topic[partition]@offset.")] = None,
    config: ConfigFile = None,
    reason: Reasons = None,
    topic: Topics = None,
    partition: Partitions = None,
    offsets: Offsets = "",
    since: Since = "",
    everything: Annotated[bool, typer.Option("--all", help="All that were not replayed before.")] = False,
    limit: Annotated[int, typer.Option(help="The oldest so many.", min=1)] = 100_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
) -> None:
    """Send the records of dead letters back to their topics, each once, however often this is given.

    Exit status: 0 done, 1 some cannot be sent (they are named; the others were), 2 configuration, 4 Kafka stayed away,
    5 another replay has begun.
    """
    from streaming.dlq.commands import filter_of, replay_letters

    wanted = filter_of(reason or (), topic or (), partition or (), offsets, since, places or ())
    raise typer.Exit(replay_letters(config, wanted, limit, everything=everything, dry_run=dry_run))


def run_command() -> None:
    """Runs the command that argv names, and ends the process with its status."""
    exits.main(exits.SCORE, "streaming", app)
