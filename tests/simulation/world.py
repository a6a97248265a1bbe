"""Time, chance, and who runs: the world in which the simulator's scorers live.

Every task (a scorer's loop, its publishing, the shop, the supervisor) is a greenlet that hands over at every call to
Kafka or to the model and after every step of the loop (`World.point`), so that a process dies, freezes or loses its
partitions between any two of them.
"""

from __future__ import annotations

import functools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from fixtures.scorer import START_MS
from greenlet import getcurrent, greenlet

from streaming.loop.poison.detection import Poison
from streaming.ops.clock import Clock
from streaming.state.snapshots import Snapshots

__all__ = ["FAULTS", "Defect", "Flag", "Killed", "Process", "Stuck", "Task", "Violation", "Work", "World"]

SWITCHES_MAX = 60_000
PATIENCE_S = 400.0  # simulated; all must be answered then
TRACE = 100_000  # lines that a violation shows at most

FAULTS = {
    "crash": 0.008,
    "freeze": 0.008,
    "rebalance": 0.02,
    "stop": 0.004,
    "abort": 0.03,
    "broker away": 0.02,
    "lost answer": 0.05,
    "lost producer": 0.004,
    "hang": 0.01,
    "id forgotten": 0.01,
    "queue full": 0.02,
    "noise": 0.02,
    "seek too early": 0.1,
    "model away": 0.05,
    "model slow": 0.05,
    "model mad": 0.015,
    "clock jump": 0.01,
    "snapshot fails": 0.1,
}
"""How often a fault comes, for each time that it can, in a schedule that has it."""


class Violation(AssertionError):
    """What must never happen has; the message names the seed and ends with what went before."""


class Stuck(Violation):
    """It does not come to an end."""


class Defect(Exception):
    """What nobody has foreseen: the process ends with status 1."""


class Killed(BaseException):
    """SIGKILL: no `finally` of the dead has any effect any more, because every call of it raises this again."""


@dataclass(eq=False)
class Process:
    """A scorer's process: dies whole."""

    name: str
    dead: bool = False
    frozen_until: float = 0.0
    silent_since: float | None = None
    """Since when the group has not heard of it."""
    snapshots: Snapshots | None = None
    poison: Poison | None = None


@dataclass(eq=False)
class Task:
    process: Process
    greenlet: greenlet
    wake: float = 0.0
    done: bool = False
    failure: BaseException | None = None


class Flag:
    """`threading.Event`, in simulated time."""

    def __init__(self, world: World) -> None:
        self._world, self._set = world, False
        self._connection: list[Task] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for task in self._connection:
            task.wake = self._world.now

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            self._connection.append(self._world.task)
            self._world.sleep(1e9 if timeout is None else timeout)
            self._connection.remove(self._world.task)
        return self._set


class Work:
    """What `Scorer(start=…)` returns: a task of the same process."""

    def __init__(self, world: World, work: Callable[[], None]) -> None:
        self._world = world
        self._over = Flag(world)
        self._task = world.spawn(world.process(), functools.partial(self._do, work))
        self._error: BaseException | None = None

    def result(self, timeout: float | None = None) -> None:
        if not self._over.wait(timeout):
            raise FutureTimeoutError
        if self._error is not None:
            raise self._error

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Killed:
            raise
        except BaseException as error:
            self._error = error
        self._over.set()


class World:
    """Time, chance and who runs.

    Attributes:
        now: simulated seconds.
        wall_s: by how much the wall clock has jumped.
        clock: for who asks for the time.
        calm: no more faults.
        rebalance: what the broker does when the group has to share its partitions out anew.
        trace: what happened last.
    """

    def __init__(self, seed: int, faults: bool | Mapping[str, float], kinds: Mapping[str, float] = FAULTS) -> None:
        self.random = random.Random(seed)
        # A schedule has some kinds of faults, and not always equally often: what is rare is not drowned.
        self._rates = {
            kind: rate * self.random.choice((1, 1, 3)) for kind, rate in kinds.items() if self.random.random() < 0.5
        }
        if isinstance(faults, Mapping):
            self._rates |= faults
        self.calm = faults is False
        self.now = 0.0
        self.wall_s = 0.0
        self.counts: dict[str, int] = {}
        self.trace: deque[str] = deque(maxlen=TRACE)
        self.switches = 0
        self._tasks: list[Task] = []
        self._hub = getcurrent()
        self.task: Task = cast(Task, None)
        self.rebalance: Callable[[], None] = lambda: None  # the broker's
        self.clock = Clock(lambda: self.now, lambda: START_MS / 1000 + self.now + self.wall_s, self.sleep)

    def process(self) -> Process:
        return self.task.process

    def tell(self, what: str) -> None:
        self.trace.append(f"{self.now:9.3f}  {what}")

    def luck(self, kind: str) -> bool:
        """Does a fault of this kind come now?"""
        if self.calm or self.random.random() >= self._rates.get(kind, 0.0):
            return False
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.tell(f"{self.task.process.name}: {kind}")
        return True

    def spawn(self, process: Process, work: Callable[[], None]) -> Task:
        def run() -> None:
            try:
                work()
            except Killed:
                pass
            except BaseException as error:
                task.failure = error
            task.done = True

        task = Task(process, greenlet(run, self._hub), self.now)
        self._tasks.append(task)
        return task

    def sleep(self, seconds: float) -> None:
        """Lets others run for so long at least."""
        task = self.task
        if task.process.dead:
            raise Killed
        task.wake = self.now + seconds
        self._hub.switch()
        if task.process.dead:
            raise Killed

    def point(self, name: str) -> None:
        """A place between two steps of a process."""
        process = self.process()
        self.tell(f"{process.name}: {name}")
        if self.luck("crash"):
            self.kill(process)
        if self.luck("freeze"):
            process.frozen_until = self.now + self.random.choice((0.5, 3.0, 9.0, 25.0))
            process.silent_since = self.now
        if self.luck("rebalance"):
            self.rebalance()
        if self.luck("clock jump"):
            self.wall_s += self.random.choice((-86_400.0, 86_400.0, -3.0))
        self.sleep(self.random.random() * 0.01 if self.random.random() < 0.5 else 0.0)

    def kill(self, process: Process) -> None:
        process.dead, process.silent_since = True, self.now

    def bury(self, process: Process) -> None:
        """Ends the tasks of a dead process: each is told so at the call that it waits in."""
        for task in [task for task in self._tasks if task.process is process]:
            if not task.done:
                self._switch(task)
            if not task.done:
                raise Violation(f"{process.name} is dead and goes on")
            self._tasks.remove(task)
        if process.snapshots is not None:
            if process.snapshots._taking is not None:
                process.snapshots._taking._capture.close()  # the engine is another schedule's next
            process.snapshots.folder.close()  # as the system does: its lock is free
            process.snapshots = None
        if process.poison is not None:
            process.poison.close()
            process.poison = None

    def run(self, until: Callable[[], bool]) -> None:
        """Lets tasks run until `until` holds; a task that failed fails the run."""
        while not until():
            self.switches += 1
            if self.switches > SWITCHES_MAX or self.now > PATIENCE_S:
                raise Stuck(f"not done after {self.now:.0f} simulated seconds and {self.switches} switches")
            task = self._next()
            if task.process.frozen_until:
                task.process.frozen_until, task.process.silent_since = 0.0, None
            self._switch(task)
            if task.done:
                self._tasks.remove(task)
                if task.failure is not None:
                    raise task.failure

    def _next(self) -> Task:
        """One of those that can run now; if none can, time passes until one can."""
        now, soonest = self.now, math.inf
        ready: list[Task] = []
        sleepers: list[Task] = []
        for task in self._tasks:
            process = task.process
            if process.dead:
                continue
            wake = max(task.wake, process.frozen_until)
            if wake <= now:
                ready.append(task)
            elif wake < soonest:
                soonest, sleepers = wake, [task]
            elif wake == soonest:
                sleepers.append(task)
        if not ready:
            self.now, ready = soonest, sleepers
        return self.random.choice(ready)

    def _switch(self, task: Task) -> None:
        before, self.task = self.task, task
        task.greenlet.switch()
        self.task = before

    @contextmanager
    def draws_jitter(self) -> Iterator[None]:
        """The loop's own jitter comes of the seed, too."""
        state = random.getstate()
        random.seed(self.random.random())
        try:
            yield
        finally:
            random.setstate(state)
