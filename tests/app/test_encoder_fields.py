"""The fields that the tutorial's folder says are those that `batch.dataset.fit_encoder` writes out."""

from __future__ import annotations

from pathlib import Path

from places import SQL

from batch.dataset.fit_encoder import SEEN_MIN_IDENTITY, fit
from batch.dataset.write import read_features
from batch.features.extract import extract_features
from batch.world.generate import generate_world
from streaming.app.folder import load_app
from streaming.model.encoder import Binned, Category, Field, ListShape, ListTop


def described(field: Field) -> tuple[str, str, str, int | None]:
    """Name, column, kind and place of a fitted field."""
    match field:
        case Binned():
            return field.name, field.column, field.of, None
        case ListTop():
            return field.name, field.column, "list_top", field.place
        case Category():
            return field.name, field.column, "category", None
        case ListShape():
            return field.name, field.column, "list_shape", None
    return field.name, field.column, "hashed", None


def test_the_folder_s_fields_are_the_encoder_s(tmp_path: Path) -> None:
    generate_world(tmp_path / "data", 60, 2)
    extract_features(tmp_path / "data", tmp_path / "features")
    fitted = fit(read_features(tmp_path / "features"))
    fields = load_app(SQL / "jd").encoder_fields
    assert [(f.name, f.column, f.kind, f.place) for f in fields] == [described(field) for field in fitted.fields]
    assert [f.column for f in fields if f.count_min == SEEN_MIN_IDENTITY] == [f.column for f in fields[:3]]
