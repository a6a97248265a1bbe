"""Asks the model for one score: the only question that tells a Triton that works from one whose Python process is dead.

    python -m deploy.triton.probe --url http://127.0.0.1:8000       # exit status 0, or 1 and what is wrong

Triton's Python backend runs the model in a process of its own. When that is killed, `/v2/health/live`,
`/v2/health/ready` and `/v2/models/embedding/ready` go on answering 200; only an inference fails. Standard library
alone: it runs in any image and is a container's health check.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import urllib.error
import urllib.request
from typing import Any

__all__ = ["MODEL", "ProbeFailed", "probe"]

MODEL = "embedding"
TIMEOUT_S = 5.0


class ProbeFailed(RuntimeError):
    """The model gives no score; the message carries the server's own words."""


def probe(url: str, timeout_s: float = TIMEOUT_S) -> None:
    """One inference of one row of zeros, over HTTP, of the shape that the model itself says.

    Args:
        url: `http://host:port` of Triton's HTTP.
        timeout_s: for each of two calls.

    Raises:
        ProbeFailed: nobody answers in time, the model is not loaded, or it answers with an error.
    """
    about = _ask(f"{url}/v2/models/{MODEL}", None, timeout_s)
    inputs = []
    for tensor in about["inputs"]:
        shape = [max(1, size) for size in tensor["shape"]]  # -1: any number of rows
        zeros = [0] * math.prod(shape)
        inputs.append({"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape, "data": zeros})
    answer = _ask(f"{url}/v2/models/{MODEL}/infer", {"inputs": inputs}, timeout_s)
    if not answer.get("outputs"):
        raise ProbeFailed(f"{url}: model {MODEL} answers without an output")


def _ask(url: str, body: dict[str, Any] | None, timeout_s: float) -> Any:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise ProbeFailed(f"{url} answers {error.code}: {error.read().decode(errors='replace')}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ProbeFailed(f"{url} does not answer: {error}") from error


def main() -> None:
    """Exit status 0: there was a score. 1: there was none, and stderr says why."""
    parser = argparse.ArgumentParser(description=f"Ask Triton's model {MODEL} for one score.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of Triton's HTTP (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds (default: %(default)s)")
    args = parser.parse_args()
    try:
        probe(args.url, args.timeout)
    except ProbeFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
