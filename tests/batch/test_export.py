"""The artifact folder: whole or not at all, and everything in it belongs together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fixtures.model import APP, FEATURES_SQL, TABLE_SIZES

from batch.dataset.folder_hash import digest
from batch.dataset.read import DatasetError, read_part
from batch.train.export import ExportOptions, export_artifact, read_manifest
from deploy.triton.server import Triton
from streaming.app.digest import digest_of, read_files
from streaming.model.triton import Model


def test_the_artifact_is_the_tutorials_repository_and_a_manifest(
    tiny_artifact: Path, tiny_dataset: Path, tiny_checkpoint: Path
) -> None:
    model = tiny_artifact / "triton" / "embedding"
    served = model / "1"
    assert (served / "model" / "deep.0.weight" / "out").stat().st_size == 41 * 16 * 32 * 4
    assert (served / "model" / "deep.0.weight" / "meta").read_text() == (
        "shape {\n  dim: 32\n  dim: 656\n}\ndata_type: kFloat\n"
    )
    config = (model / "config.pbtxt").read_text()
    for line in ('name: "embedding"', "max_batch_size: 10000", "data_type: TYPE_INT64", "dims: [ 41 ]", "dims: [ 1 ]"):
        assert line in config
    assert 'string_value: "sha256:encoder"' in config
    assert "$" not in config

    manifest = read_manifest(tiny_artifact)
    assert manifest.model_version == 1
    assert manifest.sql_sha256 == digest(tiny_artifact / "features.sql") == digest(FEATURES_SQL)
    assert manifest.encoder_sha256 == "sha256:encoder"
    assert manifest.data_sha256 == "sha256:data"
    assert manifest.weights_sha256 == digest(served / "model")
    assert manifest.table_size_array == TABLE_SIZES
    assert manifest.options["layers"] == [32, 16]
    assert manifest.metrics == json.loads((tiny_checkpoint / "metrics.json").read_text())
    assert manifest.app == "jd"
    assert manifest.app_sha256 == digest_of(read_files(tiny_artifact / "app")) == digest_of(read_files(APP))
    assert digest(tiny_artifact / "encoder") == digest(tiny_dataset / "encoder")


def test_versions_count_up_and_the_older_ones_stay(tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    artifact, contents = tmp_path / "artifact", dict[int, str]()
    for number, options in ((1, None), (2, None), (7, ExportOptions(model_version=7)), (8, ExportOptions())):
        made = export_artifact(tiny_dataset, tiny_checkpoint, artifact, options)
        assert made.model_version == read_manifest(artifact).model_version == number
        contents[number] = digest(artifact / "versions" / str(number))
    repository = artifact / "triton" / "embedding"
    assert sorted(path.name for path in repository.iterdir() if path.is_dir()) == ["1", "2", "7", "8"]
    for number, content in contents.items():
        version = artifact / "versions" / str(number)
        assert digest(version) == content
        assert read_manifest(version).model_version == number
        assert digest(version / "triton" / "embedding" / str(number)) == digest(repository / str(number))
        assert f"versions: [ {number} ]" in (version / "triton" / "embedding" / "config.pbtxt").read_text()
    # What the scorer and Triton read is the newest version's, and Triton serves no other beside its encoder.
    assert (repository / "config.pbtxt").read_bytes() == (
        artifact / "versions" / "8" / "triton" / "embedding" / "config.pbtxt"
    ).read_bytes()
    with pytest.raises(DatasetError, match="holds version 8; version 8 would not be newer"):
        export_artifact(tiny_dataset, tiny_checkpoint, artifact, ExportOptions(model_version=8))
    assert read_manifest(artifact).model_version == 8
    # A version that was removed for its place stays away, and its number is not given again.
    for folder in (repository / "8", repository / "1", artifact / "versions" / "1"):
        shutil.rmtree(folder)
    assert export_artifact(tiny_dataset, tiny_checkpoint, artifact).model_version == 9
    assert sorted(path.name for path in (artifact / "versions").iterdir()) == ["2", "7", "8", "9"]


def test_triton_serves_the_newest_version_and_an_older_one_from_its_own_folder(
    tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    artifact = tmp_path / "artifact"
    for _ in range(2):
        export_artifact(tiny_dataset, tiny_checkpoint, artifact)
    ids = read_part(tiny_dataset, "test").ids[:3]
    with Triton(artifact / "triton", tmp_path / "newest") as server, Model(server.grpc_url) as model:
        assert model.score(ids).version == "2"
    with Triton(artifact / "versions" / "1" / "triton", tmp_path / "older") as server, Model(server.grpc_url) as model:
        assert model.score(ids).version == "1"
    assert export_artifact(tiny_dataset, tiny_checkpoint, artifact).model_version == 3


def test_instances_are_an_option(tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    export_artifact(tiny_dataset, tiny_checkpoint, tmp_path / "artifact", ExportOptions(instances=2))
    assert "count: 2" in (tmp_path / "artifact" / "triton" / "embedding" / "config.pbtxt").read_text()
    with pytest.raises(ValueError, match="instances must be 1 or more"):
        ExportOptions(instances=0)
    with pytest.raises(ValueError, match="model_version must be 1 or more"):
        ExportOptions(model_version=0)


def test_what_does_not_belong_together_is_not_exported(
    tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    artifact = tmp_path / "artifact"
    other_app = shutil.copytree(APP, tmp_path / "app")
    export_artifact(tiny_dataset, tiny_checkpoint, artifact, app=other_app)
    shutil.rmtree(artifact)
    with (other_app / "app.toml").open("a") as file:
        file.write("# another\n")
    with pytest.raises(DatasetError, match="is not the application that made"):
        export_artifact(tiny_dataset, tiny_checkpoint, artifact, app=other_app)
    changed = shutil.copytree(tiny_dataset, tmp_path / "changed")
    (changed / "app" / "features.sql").write_text("SELECT 1;")
    with pytest.raises(DatasetError, match="is not the application that made"):
        export_artifact(changed, tiny_checkpoint, artifact)

    other_data = shutil.copytree(tiny_dataset, tmp_path / "dataset")
    description = json.loads((other_data / "dataset.json").read_text())
    (other_data / "dataset.json").write_text(json.dumps(description | {"data_sha256": "sha256:other"}))
    with pytest.raises(DatasetError, match=r"was trained on data_sha256 sha256:data, .* has sha256:other"):
        export_artifact(other_data, tiny_checkpoint, artifact)

    unmeasured = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    (unmeasured / "metrics.json").unlink()
    with pytest.raises(DatasetError, match=r"metrics\.json does not exist: run `jd-intent-batch evaluate` first"):
        export_artifact(tiny_dataset, unmeasured, artifact)

    with pytest.raises(DatasetError, match=r"config\.json does not exist: is .* a folder that `jd-intent-batch train`"):
        export_artifact(tiny_dataset, tmp_path, artifact)
    assert not artifact.exists()


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = digest(tmp_path / "a")
    assert digest(shutil.copytree(tmp_path / "a", tmp_path / "b")) == before
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert digest(tmp_path / "a") != before
    assert digest(tmp_path / "b" / "x") == "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
