"""Contenders for one lease on simulated hosts: a shared disk with delays and stale reads, clocks that differ, freezes.

Every contender runs the true code of moextend.util.lease in a thread. One thread runs at a time; before and after each
operation on the disk, a random other one may run, and time passes. The model says whether a process wrote after the
holder of a later lease had written.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moextend.errors import LeaseLost
from moextend.util import lease
from moextend.util.holder import Holder, Life
from moextend.util.lease_files import Disk

NAME = Path("/shared/run/.lease")
T = 60.0
STALE = T / 8
"""Most seconds by which a host sees the disk as it was."""


class Killed(BaseException):
    """Ends the thread of a contender, as kill -9 ends a process: nothing that follows has an effect."""


@dataclass
class Inode:
    """A file: its content over time."""

    versions: list[tuple[float, bytes]]

    def at(self, time: float) -> bytes:
        """Content at a time; the first one before it was made."""
        return [content for when, content in self.versions if when <= time][-1:][0] if self.versions[0][0] <= time \
            else self.versions[0][1]  # fmt: skip


@dataclass
class Server:
    """The shared disk: names over time."""

    now: float = 0.0
    names: list[tuple[float, dict[Path, Inode]]] = field(default_factory=lambda: [(0.0, {})])

    def at(self, time: float) -> dict[Path, Inode]:
        """Names at a time."""
        return next(names for when, names in reversed(self.names) if when <= time)

    def change(self, names: dict[Path, Inode]) -> None:
        """Replaces the names from now on."""
        self.names.append((self.now, names))


class HostDisk(Disk):
    """The disk as one contender sees it."""

    def __init__(self, contender: Contender) -> None:
        self.me, self.server = contender, contender.world.server
        self._changed = 0.0

    def _then(self) -> float:
        """A time not long ago, but not before this host's own last change."""
        return max(
            self._changed, self.server.now - self.me.draw.uniform(0, STALE) * self.me.draw.choice((0, 1))
        )

    def clock(self) -> float:
        return self.me.offset + self.server.now * self.me.rate

    def sleep(self, seconds: float) -> None:
        end = self.server.now + seconds
        while self.server.now < end:
            self.me.pause()

    def numbers(self, name: Path) -> list[int]:
        self.me.pause()
        found = [int(path.name.rpartition("-")[2]) for path in self.server.at(self._then())]
        self.me.pause()
        return found

    def read(self, path: Path) -> bytes | None:
        self.me.pause()
        then = self._then()
        inode = self.server.at(then).get(path)
        found = inode.at(then) if inode else None
        self.me.pause()
        return found

    def exists(self, path: Path) -> bool:
        self.me.pause()
        found = path in self.server.at(self._then())
        self.me.pause()
        return found

    def create(self, path: Path, content: bytes) -> bool:
        self.me.pause()
        names = self.server.at(self.server.now)
        made = path not in names
        if made:
            self.server.change({**names, path: Inode([(self.server.now, content)])})
        self._changed = self.server.now
        self.me.pause()
        return made

    def open(self, path: Path) -> int:
        self.me.pause()
        inode = self.server.at(self.server.now).get(path)
        if inode is None:
            raise FileNotFoundError(path)
        self.me.files.append(inode)
        return len(self.me.files) - 1

    def close(self, fd: int) -> None:
        self.me.pause()

    def rewrite(self, fd: int, content: bytes, *, synced: bool = True) -> None:
        self.me.pause()
        self.me.files[fd].versions.append((self.server.now, content))
        self.me.pause()
        if self.me.draw.random() < 0.03:
            raise TimeoutError("the server does not answer")

    def same(self, fd: int, path: Path) -> bool:
        self.me.pause()
        found = self.server.at(self._then()).get(path) is self.me.files[fd]
        self.me.pause()
        return found

    def remove(self, path: Path) -> None:
        self.me.pause()
        names = dict(self.server.at(self.server.now))
        names.pop(path, None)
        self.server.change(names)
        self._changed = self.server.now


class Contender:
    """A process that takes the lease, writes some times, and releases it."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.draw = world, number, world.draw
        self.host = f"host{number // 2}"  # two processes per host
        self.offset, self.rate = self.draw.uniform(-1e6, 1e6), self.draw.uniform(0.99, 1.01)
        self.files: list[Inode] = []
        self.turn, self.done, self.killed = threading.Semaphore(0), False, False
        self.frozen = 0.0
        self.todo = self.draw.randrange(1, 4)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def pause(self) -> None:
        """Lets others run."""
        self.world.back.release()
        self.turn.acquire()
        if self.killed:
            raise Killed

    def _run(self) -> None:
        self.turn.acquire()
        try:
            if self.killed:
                raise Killed
            while self.todo:
                self._work(self._take())
                self.todo -= 1
        except Killed:
            pass
        except BaseException as error:
            self.world.problem = error
        self.done = True
        self.world.back.release()

    def _take(self) -> lease.Lease:
        disk = HostDisk(self)
        claim = lease.Claim(NAME, disk=disk)
        claim.me = claim.me.model_copy(update={"host": self.host, "pid": self.number, "seconds": T})
        while (taken := claim.attempt()) is None:
            disk.sleep(1.0)
        return taken

    def _work(self, taken: lease.Lease) -> None:
        disk, beat = HostDisk(self), self.world.server.now
        try:
            for _ in range(self.draw.randrange(1, 30)):
                if self.world.server.now - beat > T / lease.BEATS:
                    beat = self.world.server.now
                    taken.renew()
                taken.check()
                self.world.wrote(int(taken.path.name.rpartition("-")[2]), self.number)
                disk.sleep(self.draw.uniform(0, 4))
        except LeaseLost:
            self.world.lost += 1
        taken.release()


class World:
    """Contenders and a schedule drawn from a seed."""

    def __init__(self, seed: int, contenders: int) -> None:
        self.draw, self.server = random.Random(seed), Server()
        self.back = threading.Semaphore(0)
        self.problem: BaseException | None = None
        self.lost = self.writes = 0
        self._latest = (0, -1)
        self.contenders = [Contender(self, number) for number in range(contenders)]

    def wrote(self, number: int, contender: int) -> None:
        """Notes a write under a lease with this number."""
        self.writes += 1
        if (number, contender) < self._latest and number < self._latest[0]:
            self.problem = self.problem or AssertionError(
                f"{contender} wrote under {number} after {self._latest}"
            )
        if number == self._latest[0] and contender != self._latest[1]:
            self.problem = self.problem or AssertionError(f"two holders of {number}")
        self._latest = max(self._latest, (number, contender))

    def run(self) -> None:
        """Runs until all contenders are done or killed; raises what went wrong."""
        for contender in self.contenders:
            contender.thread.start()
        while self.problem is None and (left := [one for one in self.contenders if not one.done]):
            if self.server.now > 1e5:
                self.problem = AssertionError("somebody waits for ever")
            one = self.draw.choice(left)
            if one.frozen > self.server.now:
                self.server.now += 0.5 / len(left)
                continue
            self._disturb(one)
            self.server.now += self.draw.expovariate(8.0)
            one.turn.release()
            self.back.acquire()
        self._end()
        if self.problem:
            raise self.problem

    def _disturb(self, one: Contender) -> None:
        chance = self.draw.random()
        if chance < 0.002:
            one.frozen = self.server.now + self.draw.uniform(0, 3 * T)
        elif chance < 0.0022 and sum(not other.killed for other in self.contenders) > 1:
            one.killed = True

    def _end(self) -> None:
        for one in self.contenders:
            while not one.done:
                one.killed = True
                one.turn.release()
                self.back.acquire()

    def life(self, holder: Holder) -> Life:
        """What the running contender can know of a holder."""
        runs = next(one for one in self.contenders if one.thread is threading.current_thread())
        other = self.contenders[holder.pid]
        if runs.host != holder.host:
            return "unknown"
        if other.killed:
            return "dead"
        return "suspended" if other.frozen > self.server.now else "alive"


def play(seed: int, patch: Callable[[str, object], None]) -> World:
    """One history; raises AssertionError if two processes wrote at a time."""
    world = World(seed, contenders=2 + seed % 3)
    patch("life", lambda self: world.life(self))
    world.run()
    return world
