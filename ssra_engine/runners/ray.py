"""A run on a Ray cluster: the engines live in actors, everything else stays in this process.

For each role of the run (score, query, comparator) there is a pool of actors, each of which loads
the model once. This process reads the documents, applies the filters, and writes the shards,
several at a time and in order; what it sends to the actors are the request batches of the engine
protocol. So what a shard yields does not depend on the runner, and a run that was started with one
goes on with the other.

The only module that imports ray.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa

from ssra_engine.config import ActorConfig, Role, RunnerConfig
from ssra_engine.engines.engine import Engine, EngineStats, Sampling
from ssra_engine.errors import ConfigError, EngineError, EngineGoneError

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError
except ImportError as error:  # told to the user with the mend
    raise ConfigError(
        "runner 'ray' needs Ray: pip install 'ssra-engine[ray]', here and on every node."
    ) from error

__all__ = ["RayRunner"]

_log = logging.getLogger(__name__)

Shard = TypeVar("Shard")
Outcome = TypeVar("Outcome")

# Batches that wait at an actor beside the one it works on.
_AHEAD = 1
_BETWEEN_LOOKS = 0.2  # seconds


class RayRunner:
    """Opens engines as pools of actors and works on several shards at once.

    Joins the cluster at `address`, or the one this process has joined already, or starts one on
    this machine, which ends with `close`.

    Raises:
        ConfigError: there is no cluster at the address.
    """

    def __init__(self, settings: RunnerConfig) -> None:
        self._settings = settings
        self._joined = not ray.is_initialized()
        if not self._joined:
            return
        try:
            with _own_signals():
                ray.init(
                    address=settings.address or "local",
                    include_dashboard=None if settings.address else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"runner.address: no Ray cluster at '{settings.address}': {error}"
            ) from error

    def open(self, role: Role, load: Callable[[], Engine]) -> Engine:
        """A pool of actors, each of which has called `load`.

        Args:
            role: "score", "query" or "comparator"; chooses the settings of the pool.
            load: must be free of what cannot be sent to another process.

        Raises:
            EngineError: the model cannot be loaded, or no node has room for an actor.
        """
        return _Pool(role, load, self._settings.actors.get(role, ActorConfig()), self._settings)

    def run_shards(
        self, shards: Iterable[Shard], work: Callable[[Shard], Outcome]
    ) -> Iterator[tuple[Shard, Outcome]]:
        """As `local.run_shards`, with `runner.shards_at_once` of them at a time."""
        source, waiting = iter(shards), deque[tuple[Shard, Future[Outcome]]]()
        failure: Exception | None = None
        with ThreadPoolExecutor(self._settings.shards_at_once, "shard") as workers:
            try:
                while failure is None:
                    try:
                        shard = next(source)
                    except StopIteration:
                        break
                    except Exception as error:  # due behind the shards that were read before it
                        failure = error
                        break
                    waiting.append((shard, workers.submit(work, shard)))
                    if len(waiting) == self._settings.shards_at_once:
                        yield _outcome(waiting)
                while waiting:
                    yield _outcome(waiting)
            finally:
                for _, future in waiting:
                    future.cancel()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._joined:
            ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, in place of which Ray puts one that ends the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _outcome(waiting: deque[tuple[Shard, Future[Outcome]]]) -> tuple[Shard, Outcome]:
    shard, future = waiting.popleft()
    return shard, future.result()


class _Host:
    """What an actor runs: one engine, loaded at the first call."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._told = EngineStats()

    @cached_property
    def _engine(self) -> Engine:
        return self._load()

    def limits(self) -> tuple[str, ...]:
        return self._engine.limits()

    def generate(self, requests: pa.Buffer, sampling: Sampling) -> tuple[pa.Buffer, EngineStats]:
        (rows,) = self._engine.generate_batches([_unpacked(requests)], sampling)
        return _packed(rows), self._news()

    def score(
        self, requests: pa.Buffer, labels: Sequence[str | int]
    ) -> tuple[pa.Buffer, EngineStats]:
        (rows,) = self._engine.score_batches([_unpacked(requests)], labels)
        return _packed(rows), self._news()

    def _news(self) -> EngineStats:
        """What the counters gained since the last call."""
        now, before = asdict(self._engine.stats), asdict(self._told)
        self._told = EngineStats(**now)
        gained = {name: value - before[name] for name, value in now.items() if name != "notes"}
        return EngineStats(**gained)


@dataclass(eq=False)
class _Flight:
    """A batch on its way: at which actor, the how-manieth try, and whether it cost that actor."""

    method: str
    arguments: tuple[Any, ...]
    actor: int
    reference: Any
    seconds: float
    sent: int
    to_blame: bool | None = None


class _Pool(Engine):
    """An engine whose batches are worked on by actors, each batch by one of them alone.

    An actor that dies or is silent for too long loses its batches, which are sent to another one,
    or to itself when Ray has started it again; so is a batch for which an engine has no memory
    left. Of these tries there is a limit, for the batch that was worked on: one that waited behind
    it was not the cause. Other errors of the engine are raised here, and not tried again: the shard
    looks for the documents at fault.
    """

    name = "ray"

    def __init__(
        self, role: Role, load: Callable[[], Engine], actors: ActorConfig, settings: RunnerConfig
    ) -> None:
        super().__init__()
        self._role, self._settings = role, settings
        options = {"num_cpus": actors.cpus, "num_gpus": actors.gpus, "max_restarts": -1}
        host = ray.remote(_Host).options(**options)
        self._actors = [host.remote(load) for _ in range(actors.replicas)]
        self._lines: list[list[_Flight]] = [[] for _ in range(actors.replicas)]
        self._lost: dict[int, Any] = {}  # actors that failed, and a call that they have to answer
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(actors.replicas * (1 + _AHEAD))
        try:
            described = ray.get(
                [actor.limits.remote() for actor in self._actors],
                timeout=settings.start_seconds,
            )
        except GetTimeoutError as error:
            self.close()
            raise EngineError(
                f"runner.actors.{role}: the actors did not start within "
                f"{settings.start_seconds:g} s. Ask for fewer replicas, CPUs or GPUs than the "
                "cluster has, or raise runner.start_seconds where loading takes longer."
            ) from error
        except RayError as error:
            self.close()
            raise _cause(error, f"the {role} model cannot be loaded") from error
        self._limits: tuple[str, ...] = described[0]

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.generate_batches`."""
        return self._each("generate", batches, sampling)

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.score_batches`."""
        return self._each("score", batches, tuple(labels))

    def limits(self) -> tuple[str, ...]:
        """Those of the engine behind it."""
        return self._limits

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _each(
        self, method: str, batches: Iterable[pa.RecordBatch], *arguments: Any
    ) -> Iterator[pa.RecordBatch]:
        flights = deque[_Flight]()
        try:
            for batch in batches:
                # One batch may always wait for room, so that threads never wait for each other.
                while flights and not self._room.acquire(blocking=False):
                    yield self._land(flights)
                if not flights:
                    self._room.acquire()
                try:
                    flights.append(self._sent(method, (_packed(batch), *arguments)))
                except BaseException:
                    self._room.release()
                    raise
            while flights:
                yield self._land(flights)
        finally:
            for flight in flights:
                ray.cancel(flight.reference)
                self._free(flight)
                self._room.release()

    def _sent(
        self,
        method: str,
        arguments: tuple[Any, ...],
        sent: int = 1,
        rather_not: int | None = None,
    ) -> _Flight:
        """Send a batch to the actor with the fewest; waits where all are lost."""
        end = time.monotonic() + self._settings.start_seconds
        while True:
            with self._lock:
                self._look_for_the_lost()
                well = [n for n in range(len(self._actors)) if n not in self._lost]
                if well:
                    actor = min(well, key=lambda n: (n == rather_not, len(self._lines[n])))
                    reference = getattr(self._actors[actor], method).remote(*arguments)
                    line = self._lines[actor]
                    seconds = self._settings.batch_seconds * (len(line) + 1)
                    line.append(_Flight(method, arguments, actor, reference, seconds, sent))
                    return line[-1]
            if time.monotonic() > end:
                raise EngineGoneError(
                    f"no actor of the {self._role} model has come back within "
                    f"{self._settings.start_seconds:g} s. Look at the cluster, and run the same "
                    "command again; finished shards are kept."
                )
            time.sleep(_BETWEEN_LOOKS)

    def _look_for_the_lost(self) -> None:
        """Take back actors that answer again; Ray starts them where a node has room."""
        for actor, ping in list(self._lost.items()):
            if not ray.wait([ping], timeout=0)[0]:
                continue
            if _answers(ping):
                del self._lost[actor]
            else:
                self._lost[actor] = self._actors[actor].limits.remote()

    def _free(self, flight: _Flight) -> None:
        with self._lock:
            line = self._lines[flight.actor]
            if flight in line:
                line.remove(flight)

    def _land(self, flights: deque[_Flight]) -> pa.RecordBatch:
        """The rows of the first flight; it is sent again where its actor fails."""
        while True:
            flight = flights[0]
            try:
                rows, gained = ray.get(flight.reference, timeout=flight.seconds)
            except RayError as error:
                if isinstance(error, RayTaskError) and not _lacks_memory(error):
                    raise _cause(error, f"the {self._role} model failed") from error
                flights[0] = self._again(flight, error)
                continue
            self._count(gained)
            self._free(flights.popleft())
            self._room.release()
            return _unpacked(rows)

    def _again(self, flight: _Flight, error: RayError) -> _Flight:
        stays = isinstance(error, RayTaskError)
        if isinstance(error, GetTimeoutError):
            what = f"was silent for {flight.seconds:g} s"
            ray.kill(self._actors[flight.actor], no_restart=False)
        elif stays:
            what = str(_cause(error, "ran out of memory"))
        else:
            what = f"failed: {type(error).__name__}"
        _log.warning("an actor of the %s model %s (%d times)", self._role, what, flight.sent)
        if not stays:
            self._lose(flight)
        to_blame = stays or bool(flight.to_blame)
        if to_blame and flight.sent > self._settings.retries:
            raise EngineError(
                f"a batch was given to the {self._role} model {flight.sent} times; the last time "
                f"its actor {what}."
            ) from error
        self._free(flight)
        return self._sent(flight.method, flight.arguments, flight.sent + to_blame, flight.actor)

    def _lose(self, flight: _Flight) -> None:
        """Note that an actor is lost, to a batch that is to blame; those behind it are not."""
        with self._lock:
            line = self._lines[flight.actor]
            if flight not in line:  # another thread was here
                return
            self._lost.setdefault(flight.actor, self._actors[flight.actor].limits.remote())
            unfinished = [one for one in line if one is flight or not _has_ended(one.reference)]
            for one in unfinished:
                one.to_blame = one is unfinished[0]
            self._lines[flight.actor] = [one for one in line if one not in unfinished]

    def _count(self, gained: EngineStats) -> None:
        with self._lock:
            for name, value in asdict(gained).items():
                if name != "notes":
                    setattr(self.stats, name, getattr(self.stats, name) + value)


def _answers(ping: Any) -> bool:
    try:
        ray.get(ping)
    except RayError:
        return False
    return True


def _has_ended(call: Any) -> bool:
    """Whether the actor has ended a call by now, with rows or an error of its own."""
    try:
        ray.get(call, timeout=0)
    except RayError as error:
        return isinstance(error, RayTaskError)
    return True


def _lacks_memory(error: RayTaskError) -> bool:
    """Whether the engine raised for want of memory: Python, Arrow, NumPy, or torch on either."""
    cause = error.cause
    return (
        isinstance(cause, MemoryError)
        or type(cause).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(cause)
    )


def _cause(error: RayError, what: str) -> Exception:
    """The error that an engine raised in its actor, or one that tells of it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, EngineError | ConfigError):
        return cause
    first = str(cause or error).strip().splitlines()
    return EngineError(f"{what}: {first[-1] if first else type(error).__name__}")


def _packed(batch: pa.RecordBatch) -> pa.Buffer:
    """Arrow IPC: of a slice, only its own rows."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _unpacked(data: pa.Buffer) -> pa.RecordBatch:
    with pa.ipc.open_stream(data) as reader:
        (batch,) = reader
    return batch
