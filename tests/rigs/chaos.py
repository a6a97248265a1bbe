"""Kills anything, round after round, and holds every score against the input. `make chaos [ROUNDS=30] [SEED=1]`

    PYTHONPATH=.:tests python -m rigs.chaos --rounds 30 [--only broker]
    PYTHONPATH=.:tests python -m rigs.chaos --rounds 30 --zk HOST:PORT [--cluster-control COMMAND]

A real Kafka, a real Triton and three real scorers over two partitions, which a supervisor starts again; a shop that
sends actions, some of them poison, all the time, and another that sends them in transactions, of which it aborts some;
a `read_committed` subscriber. A round does one thing of `KINDS`, and waits until events that were sent afterwards are
scored in each partition. Where the log or the group is harmed (`harms`), scorers may refuse to go on, if they name what
was harmed; then their operator does what they say. Last come partitions, for ever. At the end every record of the input
topics is decoded and answered once more, by a store of its own, and compared with what the subscriber saw of it.

With `--zk` an OpenMLDB cluster keeps the tables, and its parts die, too (`cluster_kills`); the log is left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec
from fixtures.scorer import PARTITIONS

from batch.plots.axis import Axis, Scale, spanning
from batch.plots.chart import Series, dots, lines
from batch.plots.sheet import write_sheet
from rigs.cluster_kills import CLUSTER_KINDS, ClusterParts, deployed, load
from rigs.harms import Harms
from rigs.scorers import Rig, Scorers, Slot, Subscriber, pipeline
from rigs.traffic import Archive, Failed, Traffic, Upstream
from rigs.verdict import Epoch, Verdict, judge

SCORERS = 3
PER_S = 120.0
UPSTREAM_PER_S = 30.0  # in transactions
READY_S = 300.0
RECOVERY_S_MAX = 240.0
QUIET_S = (0.5, 3.0)  # between two rounds
STOP_S_MAX = 60.0
LOOK_S = 1.0  # between two looks at Triton, while events are waited for
SILENCE_S_MAX = 20.0  # of a Triton that nobody holds back
SNAPSHOT_S = 5.0
KAFKA = {"session_timeout_s": 6.0, "transaction_timeout_s": 10.0, "give_up_after_s": 60.0}


@dataclass
class Round:
    """One thing that was done, and how long until all flowed again."""

    kind: str
    recovery_s: float
    stop_s: float | None = None
    """Of a SIGTERM: until the process had ended."""


@dataclass
class Chaos:
    """What the rounds need; each method named in `KINDS` does one thing and returns when it is over.

    Those that return a time (monotonic seconds) did it then, and have spent what came after on its remedy.
    """

    rig: Rig
    scorers: Scorers
    traffic: Traffic
    upstream: Upstream
    subscriber: Subscriber
    luck: random.Random
    harms: Harms
    cluster: ClusterParts | None = None
    stops_s: list[float] = field(default_factory=list)
    triton_deaths: int = 0

    def scorer_killed(self) -> None:
        self.scorers.signal(self._any(), signal.SIGKILL)

    def all_scorers_killed(self) -> None:
        for slot in self.scorers.running():
            self.scorers.signal(slot, signal.SIGKILL)

    def scorer_frozen(self) -> None:
        """Longer than its session now and then: it wakes up as a zombie."""
        slot = self._any()
        self.scorers.signal(slot, signal.SIGSTOP)
        time.sleep(self.luck.choice((1.0, 4.0, 9.0, 14.0)))
        self.scorers.signal(slot, signal.SIGCONT)

    def scorer_told_to_stop(self) -> None:
        slot = self._any(answering=True)  # not one that is so young that it has no handler yet
        popen = slot.process.popen
        self.scorers.signal(slot, signal.SIGTERM)
        self.stops_s.append(self.scorers.wait_ended(slot, STOP_S_MAX))
        # 5: a call that hung in librdkafka since an earlier round's death of the broker was given up while it stopped.
        if popen.returncode not in (0, 5):
            raise Failed(f"{slot.instance} was told to stop and ended with {popen.returncode}")

    def broker_killed(self) -> None:
        self.rig.broker.kill()
        time.sleep(self.luck.choice((0.0, 2.0, 8.0)))
        self.rig.broker.start()

    def triton_killed(self) -> None:
        self.rig.triton.kill()
        time.sleep(self.luck.choice((0.0, 3.0)))
        self.rig.triton.start()

    def triton_frozen(self) -> None:
        group = self.rig.triton.process.pid
        os.killpg(group, signal.SIGSTOP)
        time.sleep(self.luck.choice((1.0, 5.0, 12.0)))
        os.killpg(group, signal.SIGCONT)

    def scorer_killed_while_the_broker_is_away(self) -> None:
        self.rig.broker.kill()
        self.scorer_killed()
        time.sleep(1.0)
        self.rig.broker.start()

    def upstream_left_open(self) -> None:
        """A transaction of a shop's is open over something else, and ends late, or by the broker's patience."""
        self.upstream.hold()
        self.luck.choice((self.scorer_killed, self.all_scorers_killed, self.broker_killed, self.log_trimmed))()
        time.sleep(self.luck.choice((0.0, 2.0, 5.0)))
        self.upstream.release(die=self.luck.random() < 0.3)

    def log_trimmed(self) -> float:
        return self.luck.choice((self.harms.trim, self.harms.trim_and_kill))()

    def log_trimmed_snapshots_damaged(self) -> float:
        return self.harms.trim_and_damage()

    def group_deleted(self) -> float:
        return self.harms.delete_group()

    def topic_made_anew(self) -> float:
        return self.harms.make_anew(lambda _, since: [self.recovered(since)].clear())

    def partitions_added(self) -> float:
        return self.harms.add_partitions()

    def revive_triton(self, silent_s: float) -> None:
        """As its supervisor would: Triton's Python backend may crash by itself once it wakes up from a SIGSTOP."""
        if not self.rig.triton.process.running() or silent_s > SILENCE_S_MAX:
            self.triton_deaths += 1
            self.rig.triton.kill()
            self.rig.triton.start()

    def _any(self, answering: bool = False) -> Slot:
        deadline = time.monotonic() + RECOVERY_S_MAX
        while not (running := [s for s in self.scorers.running() if not answering or s.answers("/healthz")]):
            if time.monotonic() > deadline:
                raise Failed("no scorer runs")
            time.sleep(0.1)
        return self.luck.choice(running)

    def recovered(self, since: float | None = None) -> float:
        """Seconds from a time (now) until an event that was sent from then on is scored, in each partition."""
        now = looked = answered = time.monotonic()
        since = now if since is None else since
        while len([at for at in self.subscriber.newest.values() if at >= since]) < PARTITIONS:
            self.scorers.check()
            self.harms.look()
            if time.monotonic() > looked + LOOK_S:
                looked = time.monotonic()
                if self.rig.triton.ready():
                    answered = looked
                else:
                    self.revive_triton(looked - answered)
            if failure := self.subscriber.failure or self.traffic.failure or self.upstream.failure:
                raise Failed(f"{failure}")
            if time.monotonic() - now > RECOVERY_S_MAX:
                tails = "\n".join(slot.process.tail(15) for slot in self.scorers.slots)
                raise Failed(f"no score for {RECOVERY_S_MAX:.0f} s\n{tails}")
            time.sleep(0.01)
        return time.monotonic() - since


KINDS: dict[str, Callable[[Chaos], float | None]] = {
    "scorer SIGKILL": Chaos.scorer_killed,
    "all scorers SIGKILL": Chaos.all_scorers_killed,
    "scorer SIGSTOP 1–14 s": Chaos.scorer_frozen,
    "scorer SIGTERM": Chaos.scorer_told_to_stop,
    "broker SIGKILL, started again": Chaos.broker_killed,
    "broker and a scorer SIGKILL": Chaos.scorer_killed_while_the_broker_is_away,
    "Triton SIGKILL, started again": Chaos.triton_killed,
    "Triton SIGSTOP 1–12 s": Chaos.triton_frozen,
    "upstream transaction open over another fault": Chaos.upstream_left_open,
    "log trimmed": Chaos.log_trimmed,
    "log trimmed, a scorer's snapshots damaged": Chaos.log_trimmed_snapshots_damaged,
    "group deleted": Chaos.group_deleted,
    "topic made anew": Chaos.topic_made_anew,
}
HARMLESS = "^(scorer|all scorers|broker|Triton)"
"""What leaves the log and the group alone: a cluster's rows are not made anew from them."""

LAST = "partitions added"
"""It cannot be undone: nothing flows again."""


def drawn(luck: random.Random, word: str = "", cluster: ClusterParts | None = None) -> Iterator[str]:
    """All kinds whose names have this word (a regular expression), in another order each time."""
    kinds: list[str] = list(KINDS)
    if cluster is not None:
        kinds = [name for name in KINDS if re.search(HARMLESS, name)] + list(CLUSTER_KINDS if cluster.command else ())
    while True:
        names = [name for name in kinds if re.search(word, name)]
        luck.shuffle(names)
        yield from names


@dataclass
class Outcome:
    """What came of the rounds.

    Attributes:
        statuses: of the scorers that ended meanwhile.
        stops_s: how long each SIGTERM took.
        triton_deaths: how often Triton ended by itself.
        refusals, remedies: see `Harms`.
    """

    rounds: list[Round]
    verdict: Verdict
    statuses: list[int]
    stops_s: list[float]
    triton_deaths: int
    refusals: Mapping[str, int]
    remedies: Mapping[str, int]


def chaos(
    folder: Path, rounds: int, seed: int, minutes: float, word: str = "", zk: Sequence[str] = (), control: str = ""
) -> Outcome:
    """Does the rounds, of the kinds that have this word, and judges every score.

    Args:
        zk: ZooKeeper of a cluster that keeps the tables, and OpenMLDB's path in it.
        control: see `cluster_kills`.
    """
    luck = random.Random(seed)
    with contextlib.ExitStack() as stack:
        store = {"store": dict(stack.enter_context(deployed(folder, *zk)))} if zk else {}
        rig = stack.enter_context(pipeline(folder))
        if zk:
            load(store["store"], rig.shop)
        traffic = Traffic(rig.stage, PER_S, seed)
        upstream = Upstream(rig.stage, traffic, UPSTREAM_PER_S, seed + 1)
        subscriber = Subscriber(rig.stage, traffic, by_key=bool(zk))
        epochs = [Epoch(0, Archive(rig.stage))]
        scorers = Scorers(
            rig.stage,
            folder,
            SCORERS,
            kafka=KAFKA,
            model={"timeout_s": 3.0, **rig.stage.values["model"]},
            **(store or {"snapshots": {"every_s": SNAPSHOT_S}}),
        )
        deadline = time.monotonic() + READY_S
        while scorers.ready() < SCORERS:
            scorers.check()
            if time.monotonic() > deadline:
                raise Failed(f"not ready after {READY_S:.0f} s: {scorers.slots[0].process.tail()}")
            time.sleep(0.2)
        subscriber.start()
        traffic.start()
        upstream.start()
        harms = Harms(rig, scorers, traffic, upstream, subscriber, luck, epochs)
        cluster = ClusterParts(control, luck) if zk else None
        made = Chaos(rig, scorers, traffic, upstream, subscriber, luck, harms, cluster)
        made.recovered()
        done = do_rounds(made, rounds, minutes, word)
        upstream.close()
        traffic.close()
        deadline = time.monotonic() + RECOVERY_S_MAX
        while traffic.sent and not harms.epoch.ended and time.monotonic() < deadline:
            harms.look()
            time.sleep(0.1)
        time.sleep(2.0)  # what is published twice would show now
        statuses = [status for slot in scorers.slots for status in slot.statuses]
        ends = scorers.close()
        harms.epoch.archive.wait(dict(enumerate(rig.stage.ends())))
        harms.epoch.archive.close()
        subscriber.close()
        if any(ends):
            raise Failed(f"told to stop at the end, the scorers ended with {ends}")
        print("recomputing every score from the input topics", flush=True)
        verdict = judge(rig, subscriber, epochs, traffic, upstream)
        return Outcome(done, verdict, statuses, made.stops_s, made.triton_deaths, harms.refusals, harms.remedies)


def do_rounds(made: Chaos, rounds: int, minutes: float, word: str) -> list[Round]:
    """One after the other, until they or the minutes are over; then the one that is for ever."""
    done: list[Round] = []
    end = time.monotonic() + minutes * 60
    cluster = made.cluster
    last = bool(re.search(word, LAST)) and cluster is None
    for kind in islice(drawn(made.luck, word, cluster), rounds - last):
        if time.monotonic() > end:
            break
        time.sleep(made.luck.uniform(*QUIET_S))
        made.harms.look()
        since = CLUSTER_KINDS[kind](cluster) if cluster and kind in CLUSTER_KINDS else KINDS[kind](made)
        done.append(Round(kind, made.recovered(since)))
        print(f"{len(done):3}  {kind:44} flows again after {done[-1].recovery_s:5.1f} s", flush=True)
        if cluster and kind in CLUSTER_KINDS:
            cluster.whole_again()
    if last:
        since = made.partitions_added()
        done.append(Round(LAST, time.monotonic() - since))
        print(f"{len(done):3}  {LAST:44} all have refused after {done[-1].recovery_s:5.1f} s", flush=True)
    return done


def report(outcome: Outcome, seconds: float) -> str:
    """Markdown."""
    rounds, verdict, statuses = outcome.rounds, outcome.verdict, outcome.statuses
    lines = [
        f"{len(rounds)} rounds in {seconds / 60:.0f} minutes, {SCORERS} scorers, {PARTITIONS} partitions, "
        f"{PER_S:.0f} events/s and {UPSTREAM_PER_S:.0f} in transactions.",
        "",
        "| what | times | flows again after, median | longest |",
        "|---|---|---|---|",
    ]
    for kind in (*KINDS, *CLUSTER_KINDS, LAST):
        times = sorted(done.recovery_s for done in rounds if done.kind == kind)
        if times:
            lines.append(f"| {kind} | {len(times)} | {times[len(times) // 2]:.1f} s | {times[-1]:.1f} s |")
    by_itself = {status: statuses.count(status) for status in sorted(set(statuses)) if status != -signal.SIGKILL}
    lines += [
        "",
        "| verdict | |",
        "|---|---|",
        f"| actions scored and recomputed | {verdict.actions:,} |",
        f"| dead letters | {verdict.dead:,} |",
        f"| actions whose transactions were aborted: never scored | {verdict.aborted:,} |",
        f"| of the scored, records that retention had taken by the end | {verdict.trimmed:,} |",
        f"| lost | {len(verdict.lost)} |",
        f"| doubled | {len(verdict.doubled)} |",
        f"| wrong | {len(verdict.wrong)} |",
        f"| out of order | {len(verdict.disordered)} |",
        f"| SIGTERM under load until the end of the process | {', '.join(f'{s:.1f}' for s in outcome.stops_s)} s |",
        f"| refused to go on, naming the reason | {named(outcome.refusals)} |",
        f"| what their operator did | {named(outcome.remedies)} |",
        f"| scorers that ended by themselves, by exit status | {by_itself or 'none'} |",
        f"| Triton crashed by itself, and was started again | {outcome.triton_deaths} |",
    ]
    return "\n".join(lines)


def plot(outcome: Outcome, file: Path, title: str) -> None:
    """How long until all flowed again: by kind, and round after round."""
    rounds, verdict = outcome.rounds, outcome.verdict
    times = {kind: [done.recovery_s for done in rounds if done.kind == kind] for kind in (*KINDS, *CLUSTER_KINDS, LAST)}
    names = [kind for kind, found in times.items() if found]
    x = spanning(
        "seconds until events sent afterwards are scored in each partition",
        [done.recovery_s for done in rounds],
        Scale.LOG,
    )
    by_kind = dots("Flows again after", names, [times[kind] for kind in names], x, width=860)
    y = spanning("seconds", [done.recovery_s for done in rounds], Scale.LOG)
    numbers = [float(number) for number in range(1, len(rounds) + 1)]
    in_order = Series("flows again", numbers, [done.recovery_s for done in rounds], points=True)
    over_time = lines("Round after round", [in_order], Axis("round", 0.0, len(rounds) + 1.0), y, size=(860, 220))
    note = (
        f"{verdict.actions:,} scores recomputed: {len(verdict.lost)} lost, {len(verdict.doubled)} doubled, "
        f"{len(verdict.wrong)} wrong, {len(verdict.disordered)} out of order. The stroke is the median."
    )
    write_sheet(file, title, note, [by_kind, over_time])


def named(counts: Mapping[str, int]) -> str:
    """What was how often."""
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items())) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no round after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only kinds whose names match this (log|group)")
    parser.add_argument("--folder", type=Path, default=Path("build/chaos"))
    parser.add_argument("--zk", default="", metavar="HOST:PORT", help="an OpenMLDB cluster's ZooKeeper: use that store")
    parser.add_argument("--zk-path", default="/openmldb", help="OpenMLDB's path in it")
    parser.add_argument("--cluster-control", default="", metavar="COMMAND", help="kills and starts the cluster's parts")
    words = parser.parse_args()
    zk = (words.zk, words.zk_path) if words.zk else ()
    folder = words.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    outcome = chaos(folder, words.rounds, words.seed, words.minutes, words.only, zk, words.cluster_control)
    text, verdict = report(outcome, time.monotonic() - started), outcome.verdict
    (folder / "report.md").write_text(text + "\n")
    (folder / "report.json").write_bytes(msgspec.json.encode(outcome))
    plot(outcome, folder / "chaos.svg", f"Chaos: {len(outcome.rounds)} rounds")
    print(f"{text}\n\nplot: {folder / 'chaos.svg'}")
    if not verdict.clean():
        first = [*verdict.lost[:5], *verdict.doubled[:5], *verdict.wrong[:5], *verdict.disordered[:5]]
        sys.exit(f"not exactly once: {first}")


if __name__ == "__main__":
    main()
