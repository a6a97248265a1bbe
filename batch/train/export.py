"""Packs what training made into one artifact folder, which Triton serves and the scorer reads.

jd-intent-batch export --dataset DIR --checkpoint DIR --artifact DIR [--model-version N]

manifest.json                       version, hashes of SQL, encoder, data and weights, metrics, options
features.sql                        the one query that made the features
app/                                the four files of the application, features.sql among them
encoder/                            what makes ids of them
triton/embedding/config.pbtxt       the model's contract: INT64 [fields] in, FP32 [1] out; its one version; its encoder
triton/embedding/<version>/model/   weights; beside them the vocabulary and the code that runs them
versions/<version>/                 each version that was exported here, with all of the above: an artifact by itself

A version and its encoder change together: what lies outside of `versions/` belongs to the newest version, the only one
that `config.pbtxt` lets Triton serve. An older one is served from its folder in `versions/`.
"""

from __future__ import annotations

import re
import shutil
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from batch.dataset.folder_hash import digest
from batch.dataset.read import APP_FOLDER, DatasetError, DatasetInfo, read_info
from batch.train.checkpoint import ModelShape, read_shape
from batch.train.verdict import METRICS, check_better
from streaming.app.digest import digest_of, read_files
from streaming.errors import BadInput
from streaming.files.output_folder import Say, link, made, replacing
from streaming.shipped_files import TRITON_FOLDER

__all__ = ["MODEL_NAME", "ArtifactManifest", "ExportOptions", "export_artifact", "read_manifest", "write_repository"]

MODEL_NAME = "embedding"  # the tutorial's; must be the name of the folder that holds config.pbtxt
FEATURES = "features.sql"
HERE = Path(__file__).resolve().parent
CODE = (TRITON_FOLDER / "model.py", HERE / "deepfm.py", HERE / "vocabulary.py")
# The encoder that config.pbtxt names is this version's and no other's, whatever lies beside it.
VERSION_POLICY = string.Template("\nversion_policy { specific { versions: [ $version ] } }\n")


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        model_version: None for one more than the version that lies in the artifact folder (1 where there is none).
        instances: processes that run the model in Triton, each with the weights in memory.
        accept_weak_model: export a model that is no better than the base rate, or that was judged on next to nothing.
    """

    model_version: int | None = None
    instances: int = 1
    accept_weak_model: bool = False

    def __post_init__(self) -> None:
        if self.model_version is not None and self.model_version < 1:
            raise BadInput(f"model_version must be 1 or more, not {self.model_version}")
        if self.instances < 1:
            raise BadInput(f"instances must be 1 or more, not {self.instances}")


class ArtifactManifest(msgspec.Struct, frozen=True):
    """`manifest.json`: what belongs together. Hashes are `sha256:…`.

    Attributes:
        model_version: the newest in the Triton repository.
        app: the application's name.
        app_sha256: its digest, `streaming.app.digest`.
        sql_sha256: of the feature query.
        encoder_sha256: of the encoder.
        data_sha256: of the tables that the dataset was made of.
        weights_sha256: of the weights.
        table_size_array: of each field the number of its ids.
        options: how it was trained.
        metrics: evaluation's `metrics.json`.
    """

    model_version: int
    app: str
    app_sha256: str
    sql_sha256: str
    encoder_sha256: str
    data_sha256: str
    weights_sha256: str
    table_size_array: list[int]
    options: dict[str, Any]
    metrics: dict[str, Any]


def export_artifact(
    dataset: Path,
    checkpoint: Path,
    artifact: Path,
    options: ExportOptions | None = None,
    *,
    app: Path | None = None,
    evaluation: Path | None = None,
    force: Say | None = None,
) -> ArtifactManifest:
    """Writes the artifact folder, or a new version into one that is there: all of it changes in one step.

    Args:
        app: an application's folder that must be the one that the dataset was made with; None: it is not looked at.
        evaluation: the folder that `evaluate` wrote `metrics.json` to, by default the checkpoint's.
        force: see `streaming.files.output_folder.replacing`.

    Raises:
        DatasetError: a file is missing; the checkpoint was trained on another dataset, or that was made by another
            application; it was not evaluated, or is no better than the base rate (`batch.train.verdict`); the version
            is not newer than those in `artifact`.
        OutputRefused: `artifact` holds something else, or touches an input.
    """
    options = options or ExportOptions()
    info, shape = read_info(dataset), read_shape(checkpoint)
    for name in ("data_sha256", "sql_sha256", "encoder_sha256"):
        if getattr(shape, name) != getattr(info, name):
            raise DatasetError(
                f"{checkpoint} was trained on {name} {getattr(shape, name)}, {dataset} has {getattr(info, name)}"
            )
    for path in (dataset / "encoder" / "encoder.json", checkpoint / "model", *CODE):
        if not path.exists():
            raise DatasetError(f"{path} does not exist")
    _check_app(dataset / APP_FOLDER, info, dataset)
    if app is not None:
        _check_app(app, info, dataset)
    weights = digest(checkpoint / "model")
    evaluated = check_better(evaluation or checkpoint, weights, accept_weak=options.accept_weak_model)
    inputs = [dataset, checkpoint, *([] if app is None else [app]), (evaluation or checkpoint) / METRICS]
    with replacing(artifact, "artifact", inputs=inputs, force=force) as folder:
        manifest = ArtifactManifest(
            model_version=_version(artifact, options.model_version),
            app=info.app,
            app_sha256=info.app_sha256,
            sql_sha256=shape.sql_sha256,
            encoder_sha256=shape.encoder_sha256,
            data_sha256=shape.data_sha256,
            weights_sha256=weights,
            table_size_array=shape.table_size_array,
            options=shape.options,
            metrics=msgspec.to_builtins(evaluated),
        )
        _keep_versions(artifact, folder)
        shutil.copytree(dataset / APP_FOLDER, folder / APP_FOLDER)
        shutil.copy(dataset / APP_FOLDER / FEATURES, folder / FEATURES)
        shutil.copytree(dataset / "encoder", folder / "encoder")
        write_repository(folder / "triton", checkpoint, shape, manifest.model_version, options.instances)
        (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        _keep_as_version(folder, manifest.model_version)
    return manifest


def read_manifest(artifact: Path) -> ArtifactManifest:
    """Reads `manifest.json`.

    Raises:
        DatasetError: it is missing or wrong.
    """
    path = artifact / "manifest.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=ArtifactManifest)
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist: is {artifact} a folder that `jd-intent-batch export` wrote?"
        ) from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path}: {error}") from error


def _check_app(folder: Path, info: DatasetInfo, dataset: Path) -> None:
    """Whether a folder holds the application that the dataset was made with."""
    try:
        found = digest_of(read_files(folder))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{folder}: no application in it: {error}") from error
    if found != info.app_sha256:
        what = f"{folder} is not the application that made {dataset}: it has digest {found}, not {info.app_sha256}"
        raise DatasetError(what)


def _version(artifact: Path, asked: int | None) -> int:
    folders = [*(artifact / "triton" / MODEL_NAME).glob("[1-9]*"), *(artifact / "versions").glob("[1-9]*")]
    newest = max((int(folder.name) for folder in folders if folder.name.isdecimal()), default=0)
    if asked is None:
        return newest + 1
    if asked <= newest:
        raise DatasetError(f"{artifact} holds version {newest}; version {asked} would not be newer")
    return asked


def _keep_versions(artifact: Path, fresh: Path) -> None:
    """Takes the versions of an artifact over into the one that takes its place."""
    for name in made(artifact):
        if re.match(rf"versions/|triton/{MODEL_NAME}/[0-9]+/", name):
            link(artifact / name, fresh / name)


def _keep_as_version(fresh: Path, version: int) -> None:
    """`versions/<version>`: what belongs to the newest version, by hard links."""
    served = fresh / "triton" / MODEL_NAME / str(version)
    files = [fresh / "manifest.json", fresh / FEATURES, served.parent / "config.pbtxt"]
    for folder in (fresh / "encoder", fresh / APP_FOLDER, served):
        files += [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        link(file, fresh / "versions" / str(version) / file.relative_to(fresh))


def write_repository(repository: Path, checkpoint: Path, shape: ModelShape, version: int, instances: int = 1) -> None:
    """Writes the model repository that Triton serves: the model `embedding` with one version, made of a checkpoint."""
    model = repository / MODEL_NAME
    served = model / str(version)
    served.mkdir(parents=True)
    config = string.Template((TRITON_FOLDER / "config.pbtxt").read_text())
    text = config.substitute(encoder_sha256=shape.encoder_sha256, fields=str(shape.fields), instances=str(instances))
    (model / "config.pbtxt").write_text(text + VERSION_POLICY.substitute(version=str(version)))
    for code in CODE:
        shutil.copy(code, served / code.name)
    for name in ("config.json", "vocabulary.npz"):
        shutil.copy(checkpoint / name, served / name)
    shutil.copytree(checkpoint / "model", served / "model")
