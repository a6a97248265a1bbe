"""Every command with every file and folder that it reads missing, empty, damaged, of the wrong kind, or not to be read.

Each must end with a documented status and one message that names the path; never in a traceback.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from places import REPOSITORY, SQL
from rigs.wrong_files import FILE_KINDS, FOLDER_KINDS

from batch.dataset.write import prepare_dataset
from batch.features.extract import extract_features
from batch.world.ad_clicks import generate_ad_clicks
from batch.world.generate import generate_world
from deploy.environments import interpreter
from streaming.files.tables import Options, write_csv
from streaming.ops.exits import BATCH, SCORE

Case = tuple[str, list[str], str, str]

# A command, with {} for the folder of the fixture, and what of it is damaged in turn; a folder's name ends in /.
SCORER: list[tuple[str, str, str]] = [
    (BATCH, "extract --data {}/data --out {}/new", "data/ data/bo_user/ data/bo_action/*.parquet"),
    (
        BATCH,
        "extract --data {}/data --app {}/sql/jd --out {}/new",
        "sql/jd/ sql/jd/tables.sql sql/jd/features.sql sql/jd/events.sql sql/jd/app.toml",
    ),
    (
        BATCH,
        "prepare --features {}/features --data {}/data --out {}/new",
        "features/ features/*.parquet data/ data/bo_action/ data/bo_action/*.parquet",
    ),
    (BATCH, "prepare --features {}/features --data {}/data --app {}/sql/jd --out {}/new", "sql/jd/ sql/jd/app.toml"),
    (
        BATCH,
        "encode --features {}/features --data {}/data --encoder {}/dataset/encoder --out {}/new",
        "features/*.parquet data/bo_action/*.parquet dataset/encoder/ dataset/encoder/*.json dataset/encoder/*.np*",
    ),
    (
        BATCH,
        "parity --served {}/features --offline {}/features --encoder {}/dataset/encoder",
        "features/ features/*.parquet dataset/encoder/ dataset/encoder/*.json",
    ),
    (
        BATCH,
        "export --dataset {}/tiny --checkpoint {}/checkpoint --evaluation {}/evaluation --app {}/sql/jd --out {}/new",
        "tiny/ tiny/dataset.json tiny/encoder/ checkpoint/ checkpoint/config.json checkpoint/model/ evaluation/ "
        "evaluation/metrics.json sql/jd/ sql/jd/features.sql tiny/app/ tiny/app/app.toml",
    ),
    (
        BATCH,
        "report {}/checkpoint {}/evaluation --out {}/new",
        "checkpoint/ checkpoint/report.json evaluation/report.json",
    ),
    (
        BATCH,
        "match --features {}/features --data {}/data --evaluation {}/checkpoint --day 2016-04-01 --out {}/new",
        "features/ features/*.parquet checkpoint/ checkpoint/predictions.parquet",
    ),
    (BATCH, "generate --app {}/sql/talkingdata --out {}/new", "sql/talkingdata/ sql/talkingdata/app.toml"),
    (BATCH, "generate --app {}/sql/talkingdata --sample {}/clicks.csv --out {}/new", "clicks.csv"),
    (
        BATCH,
        "backfill --app {}/sql/talkingdata --from ad_clicks={}/events --out {}/new",
        "sql/talkingdata/ sql/talkingdata/events.sql events/ events/*.jsonl",
    ),
    (BATCH, "backfill --app {}/sql/talkingdata --from ad_clicks={}/clicks.parquet --out {}/new", "clicks.parquet"),
    (
        BATCH,
        "backfill --app {}/sql/talkingdata --from-topic ad_clicks --config {}/scorer.toml --out {}/new",
        "scorer.toml",
    ),
    (BATCH, "extract --engine openmldb --config {}/cluster.toml --data /d --out /o", "cluster.toml"),
    (BATCH, "load-online --config {}/cluster.toml --data /d", "cluster.toml"),
    (SCORE, "run --config {}/scorer.toml", "scorer.toml"),
    (SCORE, "run --workers 2 --config {}/scorer.toml", "scorer.toml"),
    (
        SCORE,
        "serve --port 0 --config {}/scorer.toml",
        # history comes after Kafka, in the way in which apiserver has it
        "scorer.toml sql/jd/ sql/jd/tables.sql sql/jd/features.sql sql/jd/events.sql sql/jd/app.toml artifact/ "
        "artifact/manifest.json artifact/features.sql artifact/encoder/ artifact/encoder/*.json artifact/encoder/*.np*",
    ),
    (
        SCORE,
        "apiserver --port 0 --config {}/scorer.toml",
        "scorer.toml sql/jd/ sql/jd/tables.sql sql/jd/features.sql data/ data/bo_user/*.parquet",
    ),
    (
        SCORE,
        "deploy --config {}/cluster.toml",
        "cluster.toml sql/jd/ sql/jd/tables.sql sql/jd/features.sql sql/jd/app.toml",
    ),
    (SCORE, "load {}/data --config {}/cluster.toml", "cluster.toml sql/jd/tables.sql"),
    (SCORE, "send {{}} --config {}/scorer.toml", "scorer.toml"),
    (SCORE, "predict --file {}/row.json --url http://127.0.0.1:9", "row.json"),
    (SCORE, "predict --file {}/row.jsonl --url http://127.0.0.1:9", "row.jsonl"),
    (SCORE, "predict --file {}/row.parquet --url http://127.0.0.1:9", "row.parquet"),
    (SCORE, "sql {}/sql/jd/tables.sql", "sql/jd/tables.sql"),
    (SCORE, "explain {}/sql/jd/features.sql", "sql/jd/features.sql sql/jd/tables.sql"),
    (SCORE, "print-script deploy --app {}/sql/jd", "sql/jd/ sql/jd/features.sql sql/jd/app.toml"),
    (SCORE, "explain {}/sql/jd/features.sql --tables {}/sql/jd/tables.sql", "sql/jd/tables.sql"),
    (SCORE, "check {}/sql/jd", "sql/jd/ sql/jd/tables.sql sql/jd/features.sql sql/jd/events.sql sql/jd/app.toml"),
    (SCORE, "init {}/draft --from {}/events/ad-clicks.jsonl --from {}/clicks.parquet", "events/*.jsonl clicks.parquet"),
    (SCORE, "dlq list --config {}/scorer.toml", "scorer.toml"),
    (SCORE, "dlq show a[0]@1 --config {}/scorer.toml", "scorer.toml"),
    (SCORE, "dlq replay --all --config {}/scorer.toml", "scorer.toml"),
]
MODEL: list[tuple[str, str, str]] = [
    (
        BATCH,
        "train --dataset {}/tiny --out {}/new --epochs 1",
        "tiny/ tiny/dataset.json tiny/train.parquet tiny/val.parquet",
    ),
    (
        BATCH,
        "evaluate --dataset {}/tiny --checkpoint {}/checkpoint --out {}/new",
        "tiny/ tiny/test.parquet tiny/encoder/ tiny/encoder/*.json checkpoint/ checkpoint/config.json "
        "checkpoint/vocabulary.npz checkpoint/model/ "
        "checkpoint/model/deep.0.weight/ checkpoint/model/deep.0.weight/out",
    ),
]
# What is no mistake: nothing to configure is the defaults; nothing to load are empty tables; nothing to run is done.
FINE = {"scorer.toml empty", "cluster.toml empty", "data bare", "part-00000.parquet missing"}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_checkpoint: Path, tiny_artifact: Path
) -> Path:
    """All that the commands read, and nothing wrong with it."""
    root = tmp_path_factory.mktemp("wrong")
    shutil.copytree(SQL, root / "sql")
    generate_world(root / "data", 60, 2)
    extract_features(root / "data", root / "features")
    prepare_dataset(root / "features", root / "data", root / "dataset")
    shutil.copytree(tiny_dataset, root / "tiny")
    shutil.copytree(tiny_checkpoint, root / "checkpoint")
    (root / "evaluation").mkdir()
    for name in ("metrics.json", "report.json"):
        shutil.copy(tiny_checkpoint / name, root / "evaluation")
    shutil.copytree(tiny_artifact, root / "artifact")
    shutil.rmtree(root / "artifact" / "encoder")
    shutil.copytree(root / "dataset" / "encoder", root / "artifact" / "encoder")
    store = "[store]\n"
    app = f'app = "{root / "sql" / "jd"}"\n'
    away = '[kafka]\nbootstrap_servers = "127.0.0.1:9"\ngive_up_after_s = 1\n[http]\nport = 0\n'
    (root / "scorer.toml").write_text(
        f'{app}{away}{store}history = "{root / "data"}"\n'
        f'[model]\nurl = "127.0.0.1:9"\nartifact = "{root / "artifact"}"\n'
    )
    (root / "cluster.toml").write_text(
        f'{app}{store}kind = "openmldb-rest"\ngive_up_after_s = 1\n'
        '[store.rest]\nurl = "http://127.0.0.1:9"\ntimeout_s = 1\n'
    )
    generate_ad_clicks(root / "clicks", 20, 1)
    shutil.copytree(root / "clicks" / "events", root / "events")
    clicks = pq.read_table(root / "clicks" / "clicks")
    pq.write_table(clicks, root / "clicks.parquet")
    with (root / "clicks.csv").open("xb") as file:
        write_csv(clicks, file, Options())
    (root / "row.json").write_text("{}")
    (root / "row.jsonl").write_text("{}\n")
    shutil.copy(next((root / "data" / "flattenRequest_clean").glob("*.parquet")), root / "row.parquet")
    return root


def cases(root: Path, table: list[tuple[str, str, str]]) -> list[Case]:
    found = []
    for program, command, patterns in table:
        words = [
            word.replace("{{}}", "{}") if "{{}}" in word else word.replace("{}", str(root)) for word in command.split()
        ]
        for pattern in patterns.split():
            (path,) = itertools.islice(root.glob(pattern), 1)
            for kind in FOLDER_KINDS if pattern.endswith("/") else FILE_KINDS:
                fine = f"{path.name} {kind}" in FINE and (program == SCORE or path.suffix == ".toml")
                fine = fine or (words[0] == "sql" and kind == "empty")
                if not fine and not (kind == "unreadable" and os.geteuid() == 0):
                    found.append((program, words, str(path), kind))
    return found


@pytest.mark.parametrize("environment", ["scorer", "model"])
def test_no_wrong_file_ends_in_a_traceback(folder: Path, environment: str) -> None:
    given = cases(folder, SCORER if environment == "scorer" else MODEL)
    done = subprocess.run(
        [str(interpreter(environment)), "-m", "rigs.wrong_files"],
        input=json.dumps(given),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == len(given)
    wrong = []
    for (program, words, path, kind), (status, output) in zip(given, outcomes, strict=True):
        named = Path(path).name in output or Path(path).parent.name in output
        if status not in (2, 3) or "Traceback" in output or not named or len(output.splitlines()) > 8:
            command = " ".join([program, *words]).replace(str(folder), "")
            wrong.append(f"{command}: {Path(path).relative_to(folder)} {kind}: {status}\n{output}")
    assert not wrong, f"{len(wrong)} of {len(given)}:\n\n" + "\n".join(wrong)
