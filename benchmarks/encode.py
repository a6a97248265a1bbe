"""How fast features become ids: `python -m benchmarks.encode [FEATURES]`.

FEATURES is a folder that `jd-intent-batch extract` wrote; without one a small world is generated and extracted. The
peer is the seed system's way on the same rows: a hash of `str(value)` per cell.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from batch.dataset.fit_encoder import Encoding, fit, seed_order
from batch.dataset.labelled import read_features
from batch.features.extract import extract_features
from batch.world.generate import generate_world
from streaming.app.folder import load_app
from streaming.shipped_files import app_folder

ROWS = 1000
REPEATS = 30


def best_ms(encode: Callable[[pa.Table], object], batches: list[pa.Table]) -> tuple[float, float]:
    """Median and fastest time of a batch in ms; every batch is new to the encoder."""
    times = []
    for batch in batches:
        started = time.perf_counter()
        encode(batch)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times), min(times)


def loop(batch: pa.Table) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The seed system's encoding: a hash per cell."""
    columns = [
        [xxhash.xxh64_intdigest(str(value).encode(), 10) for value in batch[name].to_pylist()]
        for name in batch.column_names
    ]
    return np.array(columns, np.uint64).view(np.int64).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path, nargs="?")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = words.features
        if source is None:
            source = Path(folder) / "features"
            generate_world(Path(folder) / "data", users=1200, seed=1)
            extract_features(Path(folder) / "data", source)
        app = load_app(app_folder())
        features = read_features(source, app)
    encodings: tuple[Encoding, ...] = ("typed", "seed")
    for encoding in encodings:
        started = time.perf_counter()
        encoder = fit(features.slice(0, features.num_rows // 2), encoding)
        print(f"{encoding}: fit on {features.num_rows // 2:,} rows: {time.perf_counter() - started:.2f} s")
        rest = features.num_rows - features.num_rows // 2
        starts = [features.num_rows // 2 + at % max(rest - ROWS, 1) for at in range(0, REPEATS * ROWS, ROWS)]
        batches = [features.slice(start, ROWS).combine_chunks() for start in starts]
        median, fastest = best_ms(encoder.encode, batches)
        peer, _ = best_ms(loop, [some.select(seed_order(app)) for some in batches[:5]])
        print(
            f"{encoding}: {ROWS} rows x 41: median {median:.2f} ms, fastest {fastest:.2f} ms "
            f"({ROWS / median * 1000:,.0f} rows/s), {peer / median:.0f} x the loop over cells ({peer:.1f} ms)"
        )


if __name__ == "__main__":
    main()
