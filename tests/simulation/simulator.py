"""A seeded simulator of scorers that fail: the real loop, source, publisher and engine; Kafka,
time, threads and the model are its own, handed in as the process hands in the real ones.

    PYTHONPATH=.:tests python -m simulation.simulator --seeds 1000 [--first N]       (`make simulate SEEDS=1000`)
    PYTHONPATH=.:tests python -m simulation.simulator --replay 4711                  what happened under a seed,
    step by step

    world      time, chance, and who runs: which faults a schedule has, and when they come
    broker, clients    Kafka in memory
    servers    the model server, the disk, and records that kill
    workload   what is sent, and what must come of it
    schedule   one seed: shop, supervisor, scorers
    checks     what was published, held against the truth

A schedule is drawn from its seed: which faults it has and how often, what is sent when, who runs when.
A quarter of the schedules take snapshots all the time; in half the scorers are mended at some time, and take from then
on records that they have refused until then; in an eighth, which cost the most, there are records that kill whoever
prepares them; in half records that repeat a request are left out. After a while the faults end; then all must be
answered: every event once, in its partition's order, with exactly the score that its features have when it is answered
alone; every refused record in the dead letters once, and in no window; what repeats neither here nor there.
"""

from __future__ import annotations

import argparse
import functools
import gc
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import structlog

from simulation.bench import bench
from simulation.schedule import REFUSALS_MAX, Schedule
from simulation.world import Violation, World
from streaming.loop.scorer import Scorer

__all__ = ["simulate"]

PIECE = 50  # schedules that a process takes at a time


def simulate(
    seed: int,
    *,
    faults: bool | Mapping[str, float] = True,
    mutate: Callable[[Scorer], None] = lambda _: None,
    snapshots: bool | None = None,
    harm: str | None = None,
    delivery: str = "exactly_once",
    store: str = "embedded",
) -> World:
    """Runs one schedule.

    Args:
        faults: with faults; or how often some of them come, whatever the seed says.
        mutate, snapshots, harm, delivery, store: see `Schedule`.

    Raises:
        Violation: names the seed, and how to see it again.
    """
    schedule = Schedule(seed, faults, mutate, snapshots, harm, delivery, store)
    try:
        schedule.run()
    except BaseException as error:
        trace = "\n".join(schedule.world.trace)
        how = "" if delivery == "exactly_once" else f" --delivery {delivery}"
        how += "" if store == "embedded" else f" --store {store}"
        command = f"PYTHONPATH=.:tests {sys.executable} -m simulation.simulator --replay {seed}{how}"
        raise Violation(f"{trace}\nseed {seed}: {type(error).__name__}: {error}\nagain: {command}") from error
    if schedule.harmed:
        schedule.world.counts[schedule.harm] = 1
        schedule.world.counts["refused for good"] = int(schedule.refusals >= REFUSALS_MAX)
    return schedule.world


def simulate_all(seeds: Iterable[int], delivery: str, store: str) -> Counter[str] | str:
    """The faults of some schedules; or of the first that goes wrong what its `Violation` says."""
    counts = Counter[str]()
    for seed in seeds:
        try:
            counts.update(simulate(seed, delivery=delivery, store=store).counts)
        except Violation as violation:
            return str(violation)
    gc.collect()  # what is left of so many would be gigabytes before it is collected by itself
    return counts


def quiet() -> None:
    """Schedules fail on purpose, thousands of times: no log of it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def begin() -> None:
    """Makes a process ready for thousands of schedules."""
    quiet()
    structlog.configure(cache_logger_on_first_use=True)
    # Loads what schedules share. Not by a schedule: a pool whose processes fail as they begin makes others for ever.
    bench().stores[0].append(bench().take())
    # A schedule leaves cycles, and few: to look for them among all that numba and Arrow have loaded takes longer than
    # many a schedule.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--replay", type=int)
    parser.add_argument("--delivery", choices=("exactly_once", "at_least_once"), default="exactly_once")
    parser.add_argument("--store", choices=("embedded", "openmldb"), default="embedded")
    words = parser.parse_args()
    how = {"delivery": words.delivery, "store": words.store}
    quiet()
    if words.replay is not None:
        world = simulate(words.replay, **how)
        print("\n".join(world.trace))
        print(f"seed {words.replay}: nothing wrong; faults: {world.counts}")
        return
    started, counts, done = time.monotonic(), Counter[str](), 0
    seeds = range(words.first, words.first + words.seeds)
    pieces = [seeds[at : at + PIECE] for at in range(0, len(seeds), PIECE)]
    with multiprocessing.get_context("spawn").Pool(words.processes, begin) as pool:
        # In the order of the seeds, whoever is faster: the same seeds end with the same words.
        for piece, found in zip(pieces, pool.imap(functools.partial(simulate_all, **how), pieces), strict=True):
            if isinstance(found, str):
                sys.exit(found)
            counts += found
            done += len(piece)
            if done % (10 * PIECE) == 0 or done == words.seeds:
                pace = done / (time.monotonic() - started) * 60
                print(f"{done:,} schedules, {pace:,.0f} a minute, nothing wrong; faults: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
