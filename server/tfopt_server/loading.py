"""The loader: one background thread that watches the repository and brings versions up and down.

Each round: look at every model's base path; let `lifecycle.next_steps` say what to do; load what is new or due for
another attempt, one version after the other; give back versions whose last request is answered. A version is loaded
while the old one serves. Nothing here decides which version is wanted, and nothing ends this thread but `stop`.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfopt_server import repository
from tfopt_server.errors import Code
from tfopt_server.improving import PLAN_LOOK_S, Arrivals, Improver, waiting
from tfopt_server.lifecycle import Event, Latest, Policy, State, missing, next_steps, wanted
from tfopt_server.memory import give_memory_back
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadError, LoadOptions, Source, count_compilations, prepare
from tfopt_server.registry import Loaded, Registry, Version, unavailable_error
from tfopt_server.storage.places import Places
from tfopt_server.storage.store import StorageError
from tfopt_server.uris import Uri

log = logging.getLogger(__name__)

# How often versions that finish their last requests are looked at.
UNLOAD_LOOK_S = 0.1

Prepare = Callable[[Source, LoadOptions, Metrics], Loaded]


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve. `base_path`, a folder or a place in a bucket, holds one SavedModel or a folder per version."""

    name: str
    base_path: Path | Uri
    policy: Policy = field(default_factory=Latest)


@dataclass(frozen=True)
class Schedule:
    """When to look and how often to try. `poll_s` None: look once. Another attempt comes after `retry_s`, `retries`
    times at most."""

    poll_s: float | None = 1.0
    retries: int = 5
    retry_s: float = 60.0


@dataclass
class Attempts:
    """A version that is being loaded: how often it was tried, and when (monotonic) and why it is tried again."""

    version: Version
    made: int = 0
    due: float = 0.0
    stamp: object = ()


class Loader:
    """`loaded` is called with each version just before it is AVAILABLE (the dataplane sets the number of runners),
    `available` once it is (the doctor looks at it)."""

    def __init__(
        self,
        models: Sequence[ModelConfig],
        registry: Registry,
        options: LoadOptions,
        schedule: Schedule,
        metrics: Metrics,
        *,
        loaded: Callable[[Loaded], None] = lambda _: None,
        available: Callable[[Version], object] = lambda _: None,
        reconfigured: Callable[[], Sequence[ModelConfig] | None] = lambda: None,
        reconfigure_s: float | None = None,
        settled: Callable[[], None] = lambda: None,
        catch_up: bool = False,
        prepare: Prepare = prepare,
        places: Places | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models, self._registry = tuple(models), registry
        self._options, self._schedule, self._metrics = options, schedule, metrics
        self._loaded, self._available = loaded, available
        self._prepare, self._clock = prepare, clock
        self._places = places or Places(Path())
        self._reconfigured, self._reconfigure_s, self._settled = reconfigured, reconfigure_s, settled
        self._dropped: dict[str, ModelConfig] = {}
        self._attempts: dict[tuple[str, int], Attempts] = {}
        self._unloading: list[Version] = []
        self._improved: list[Version] = []
        self._said: dict[tuple[str, str], object] = {}
        self._polled = False
        self._catches_up = catch_up
        self._ever_ready = False
        self._wake = threading.Event()
        self._improver = Improver(self._prepare_with_plan, self._wake.set)
        self._arrivals = Arrivals(options.plan_bucket, clock)
        self._stopping = False
        self._news = False
        self._end_counting: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="tfopt-loader", daemon=True)

    def start(self) -> None:
        self._end_counting = count_compilations(self._metrics)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """Starts nothing new and waits for the round under way, at most `timeout_s`: a plan that is being made is not
        worth waiting for, its process ends with this one."""
        self._stopping = True
        self._wake.set()
        self._end_counting()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """There is something to look at: the next round begins now, or after the load that is under way."""
        self._news = True
        self._wake.set()

    def failure(self) -> str:
        """Why the server will never become ready: TensorFlow Serving's text. "" while it still may, or once it was."""
        if self._ever_ready:
            return ""
        failed = unavailable_error({name: self._registry.history(name) for name in self._registry.names})
        return failed or self._nothing_there()

    def _nothing_there(self) -> str:
        """With polling off, a path without a version is the end."""
        if self._schedule.poll_s is not None or not self._polled:
            return ""
        empty = [model for model in self._models if not self._registry.states(model.name)]
        return "; ".join(f"no version of model {m.name} found under base path {m.base_path}" for m in empty)

    def caught_up(self) -> bool:
        """With `catch_up`: every version that was there at the start has been tried. A replacement for a worker that
        died must not say of a model that a client configured that it is not there, only because it loads still."""
        return not self._catches_up

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.round()
            except Exception:
                log.exception("a round of the loader failed; the next one tries again")
            self._wake.wait(self._pause(self._clock()))
            self._wake.clear()

    def round(self) -> None:
        """Looks, loads and gives back once. Public so that tests need no thread."""
        self._news = False
        self._take_over()
        for version in self._arrivals.look(self._registry.available()):
            self._improve(version)
        models = self._reconfigured()
        if models is not None:
            self._configure(models)
        self._drop()
        if not self._polled or self._schedule.poll_s is not None:
            for model in self._models:
                self._look(model)
            self._polled = True
        for attempts in sorted(self._attempts.values(), key=lambda a: (a.made, -a.version.number)):
            if self._stopping or self._news:
                break
            # A load before this one may have taken minutes: what it looked at then may have vanished since.
            wanted_still = self._attempts.get((attempts.version.name, attempts.version.number)) is attempts
            if wanted_still and (attempts.due <= self._clock() or self._was_repaired(attempts)):
                self._attempt(attempts)
        if self._polled and all(attempts.made for attempts in self._attempts.values()):
            self._catches_up = False
        self._settled()
        self._give_back()

    def _configure(self, models: Sequence[ModelConfig]) -> None:
        """Serves these models from now on: those left out are unloaded, the others go on undisturbed."""
        names = {model.name for model in models}
        self._dropped |= {model.name: model for model in self._models if model.name not in names}
        self._dropped = {name: model for name, model in self._dropped.items() if name not in names}
        self._models = tuple(models)
        self._registry.configure([model.name for model in models])
        self._polled = False

    def _drop(self) -> None:
        for name in self._dropped.copy():
            self._take(name, {}, ())
            if not self._registry.states(name):
                del self._dropped[name]

    def _pause(self, now: float) -> float | None:
        """Seconds until there is something to do; None: until somebody wakes us."""
        times = [a.due - now for a in self._attempts.values()]
        if self._schedule.poll_s is not None:
            times.append(self._schedule.poll_s)
        if self._reconfigure_s is not None:
            times.append(self._reconfigure_s)
        if self._unloading or self._improved:
            times.append(UNLOAD_LOOK_S)
        if waiting(self._registry.available()):
            times.append(PLAN_LOOK_S)
        return max(0.0, min(times)) if times else None

    def _look(self, model: ModelConfig) -> None:
        listing = self._places.look(model.base_path)
        if listing.problem:
            # Not the same as an empty folder: a mount that is away for a moment must not unload anything.
            self._say(logging.WARNING, model, "problem", listing.problem)
            return
        states = self._registry.states(model.name)
        present = listing.versions
        serving = {n for n in listing.incomplete if states.get(n) is State.AVAILABLE}
        found = present.keys() | serving
        self._tell(model, listing, found)
        self._take(model.name, present, wanted(model.policy, found))

    def _take(self, name: str, present: Mapping[int, Path], target: Sequence[int]) -> None:
        """Does what leads from the versions there are to those in `target`."""
        states = self._registry.states(name)
        steps = next_steps(states, target)
        for number in steps.cancel:
            self._cancel(name, number)
        for number in steps.unload:
            self._unload(self._registry.get(name, number))
        for number, state in states.items():
            if state is State.END and number not in target:
                self._registry.retire(self._registry.get(name, number))
        for number in steps.load:
            version = self._registry.add(name, number, present[number])
            self._registry.move(version, Event.LOAD)
            self._attempts[name, number] = Attempts(version)

    def _tell(self, model: ModelConfig, listing: repository.Listing, found: set[int]) -> None:
        """Says what is odd about the base path, once each time it changes."""
        base = model.base_path
        nothing = "" if found or listing.incomplete else (
            f"No versions of servable {model.name} found under base path {base}. Did you forget to name your leaf "
            "directory as a number (eg. '/1/')?"
        )  # fmt: skip
        self._say(logging.WARNING, model, "problem", nothing)
        waiting = "; ".join(f"version {n} lacks {what}" for n, what in sorted(listing.incomplete.items()))
        self._say(logging.INFO, model, "incomplete", waiting and f"waiting for files under {base}: {waiting}")
        twice = ", ".join(listing.ignored)
        self._say(
            logging.WARNING, model, "ignored", twice and f"{base}: ignored, another name is the same number: {twice}"
        )
        absent = ", ".join(map(str, missing(model.policy, found)))
        self._say(
            logging.WARNING, model, "absent", absent and f"versions asked for and not found under {base}: {absent}"
        )

    def _say(self, level: int, model: ModelConfig, topic: str, text: str) -> None:
        key = (model.name, topic)
        if self._said.get(key, "") != text:
            self._said[key] = text
            if text:
                log.log(level, "%s", text, extra={"model": model.name})

    def _attempt(self, attempts: Attempts) -> None:
        version = attempts.version
        attempts.made += 1
        attempts.stamp = self._places.stamp(version.path)
        begin = self._clock()
        extra = {"model": version.name, "version": version.number}
        log.info("loading %s", version.path, extra=extra)
        try:
            self._places.fetch(version.path, lambda line: log.info("%s", line, extra=extra))
            loaded = self._prepare(Source(version.name, version.number, version.path), self._options, self._metrics)
        except LoadError as error:
            self._failed(attempts, error.code, error.message, error.lasting)
            return
        except StorageError as error:
            self._failed(attempts, error.code, error.message)
            return
        except Exception as error:
            log.exception("loading %s failed unexpectedly", version.path, extra=extra)
            self._failed(attempts, Code.INTERNAL, f"{type(error).__name__}: {error}")
            return
        del self._attempts[version.name, version.number]
        self._loaded(loaded)
        version.loaded = loaded
        self._registry.move(version, Event.READY, message=loaded.warning)
        self._ever_ready = self._ever_ready or self._registry.ready()
        self._metrics.available.labels(version.name, version.number).set(1)
        log.info("AVAILABLE after %.1f s (%s)", self._clock() - begin, loaded.why, extra=extra)
        if loaded.provisional:
            self._improve(version)
        self._available(version)
        # What this version replaces goes at once, not a poll later: two copies of a model are many.
        for model in self._models:
            if model.name == version.name:
                self._look(model)

    def _improve(self, version: Version) -> None:
        self._metrics.optimizing.labels(version.name, version.number).set(1)
        self._improver.add(version)

    def _prepare_with_plan(self, version: Version) -> Loaded:
        options = dataclasses.replace(self._options, background=False)
        return self._prepare(Source(version.name, version.number, version.path), options, self._metrics)

    def _take_over(self) -> None:
        """Swaps in the plans that were made in the background; requests under way finish where they are."""
        for version, outcome in self._improver.finished():
            self._metrics.optimizing.remove(model=version.name, version=str(version.number))
            extra = {"model": version.name, "version": version.number}
            current = version.loaded
            if version.closing or current is None:
                if isinstance(outcome, Loaded):
                    outcome.servable.close()
            elif isinstance(outcome, Loaded) and outcome.plan is not None:
                self._loaded(outcome)
                version.replace(outcome)
                self._registry.tell(version, outcome.warning)
                self._improved.append(version)
                log.info("the plan is ready and serves from now on (%s)", outcome.why, extra=extra)
            else:
                why, awaited = f"no plan could be made: {outcome}", current.awaited
                if isinstance(outcome, Loaded):
                    why, awaited = outcome.why, outcome.awaited
                    outcome.servable.close()
                version.replace(dataclasses.replace(current, why=why, provisional=False, awaited=awaited))
                log.warning("plain TensorFlow goes on serving: %s", why, extra=extra)

    def _failed(self, attempts: Attempts, code: Code, message: str, lasting: bool = False) -> None:
        version = attempts.version
        extra = {"model": version.name, "version": version.number, "code": code.name}
        if attempts.made <= self._schedule.retries and not lasting:
            attempts.due = self._clock() + self._schedule.retry_s
            self._registry.move(version, Event.RETRY, code, message)
            log.warning(
                "loading %s failed, attempt %d of %d, again in %g s: %s",
                version.path, attempts.made, self._schedule.retries + 1, self._schedule.retry_s, message, extra=extra,
            )  # fmt: skip
        else:
            del self._attempts[version.name, version.number]
            self._registry.move(version, Event.FAIL, code, message)
            self._places.release(version.path)
            log.error("loading %s failed for good: %s", version.path, message, extra=extra)
        give_memory_back()

    def _was_repaired(self, attempts: Attempts) -> bool:
        """Whether the files changed since the last attempt: a copy that arrived in the wrong order is complete now."""
        return attempts.made > 0 and self._places.stamp(attempts.version.path) != attempts.stamp

    def _cancel(self, name: str, number: int) -> None:
        self._attempts.pop((name, number), None)
        version = self._registry.get(name, number)
        self._registry.move(version, Event.CANCEL)
        self._registry.retire(version)
        self._places.release(version.path)
        log.info("no longer wanted, given up", extra={"model": name, "version": number})

    def _unload(self, version: Version) -> None:
        """Takes a version out of service; it is given back when its requests are answered."""
        self._registry.move(version, Event.UNLOAD)
        version.close()
        self._unloading.append(version)
        self._metrics.available.labels(version.name, version.number).set(0)
        log.info(
            "unloading, %d requests under way", version.users, extra={"model": version.name, "version": version.number}
        )

    def _give_back(self) -> None:
        for version in self._improved.copy():
            for old in version.replaced():
                old.servable.close()
                log.info("plain TensorFlow is given back", extra={"model": version.name, "version": version.number})
            if not version.replacing:
                self._improved.remove(version)
                give_memory_back()
        for version in [v for v in self._unloading if v.users == 0]:
            self._unloading.remove(version)
            if version.loaded is not None:
                version.loaded.servable.close()
            self._registry.move(version, Event.GONE)
            self._registry.retire(version)
            self._forget(version)
            self._places.release(version.path)
            give_memory_back()
            log.info("unloaded", extra={"model": version.name, "version": version.number})

    def _forget(self, version: Version) -> None:
        """Takes a version's gauges off the metrics page."""
        for family in (
            self._metrics.available, self._metrics.plan_info, self._metrics.candidates_dropped,
            self._metrics.optimize_seconds, self._metrics.optimizing,
        ):  # fmt: skip
            family.remove(model=version.name, version=str(version.number))
