"""The watch loop: everything of one run directory to one destination, until it is told to stop.

Two lanes, each a thread, so that a checkpoint on a slow link does not hold up the logs: what is small and grows, and
what is large. Neither ever holds up the training, which writes to its disk and knows nothing of this process. A store
that can't be reached is tried again for ever; what was missed meanwhile is still on the disk. A file that can't be read
or is refused is tried again too, and holds up no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from launcher.streaming.stores import patience
from launcher.streaming.stores.store import Changed, ContentDiffers, Store, StoreRefused, StoreUnavailable
from launcher.streaming.stream_metrics import StreamMetrics
from launcher.streaming.upload.checkpoint_uploads import CheckpointUploads
from launcher.streaming.upload.growing_file import GrowingFile
from launcher.streaming.upload.guarded_object import Conflict
from launcher.streaming.upload.refusals import Refusals, is_permanent, told
from launcher.streaming.upload.run_files import small_files
from launcher.streaming.upload.whole_files import ExportFolder, WholeFile
from maskfleet.backoff import pauses
from maskfleet.errors import DONE, FAILED, BadSettings, MaskfleetError
from maskfleet.plain_files import Entry, LeftOut, PlainFiles
from maskfleet.run_directory import RunDirectory, is_event_file
from maskfleet.sentences import not_copied
from maskfleet.tfrecords import scan_lines, scan_tfrecords

log = logging.getLogger("launcher.stream")

INTERVAL = 2.0
"""Seconds between two looks at the run directory, and at least between two appends to one object."""
WHOLE_FILE_FACTOR = 5
"""How many intervals pass between two replacements of progress.json and the like."""
UPLOADS_AT_ONCE = 3
METRICS_SECONDS = 5.0
LOG_SECONDS = 30.0
_EXPORT = "the export"
_CHECKPOINTS = "the checkpoints"


class _Copied(Protocol):
    history: bool
    pending: int
    pending_since: float | None
    problem: str | None

    def step(self, now: float, *, final: bool = False) -> int: ...

    def is_caught_up(self) -> bool: ...


class Streamer:
    """Copies ``run`` to ``store`` in the foreground.

    Args:
        worker: of a run whose workers have a disk each: of any but the chief only the log is copied, since the rest is
            the chief's to write. None copies all.
        interval: seconds between two looks.
        keep_checkpoints: how many of the newest checkpoints the store keeps, beside the best; None keeps all.
        grace: seconds that draining may take after :meth:`stop`.
    """

    def __init__(
        self,
        run: RunDirectory,
        store: Store,
        *,
        worker: int | None = None,
        interval: float = INTERVAL,
        keep_checkpoints: int | None = None,
        grace: float = 25.0,
    ):
        self.metrics = StreamMetrics(destination=store.url)
        self._run = run
        self._store = store
        self._worker = worker
        self._interval = interval
        self._grace = grace
        self._files: dict[str, _Copied] = {}
        self._export = ExportFolder(store, run)
        self._checkpoints = CheckpointUploads(store, run, keep_checkpoints)
        self._uploading_since: float | None = None
        self._tried: set[int] = set()
        self._refusals = Refusals(self._count_refusal)
        self._undeleted = Refusals(self._count_refusal)
        self._left_out = LeftOut()
        self._unreadable: dict[str, list[str]] = {}
        self._plain_files = PlainFiles(run.path)
        self._once = False
        self._final = threading.Event()
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._running = 0
        self._fatal: BaseException | None = None
        self._reported: set[str] = set()
        self._compared = threading.Event()
        store.on_retry = self._count_retry

    def stop(self) -> None:
        """Makes :meth:`run` copy what is left and return. May be called from a signal handler's thread."""
        self._stopped.set()
        self._final.set()

    def run(self, *, once: bool = False) -> int:
        """Copies until :meth:`stop`, then what is left; or with ``once`` just what is there now.

        What is refused is tried until the grace after :meth:`stop` has passed, with ``once`` only once.

        Returns:
            DONE; FAILED if something could not be copied, which the log names.

        Raises:
            StoreRefused: at the start: credentials, permissions, or no such bucket.
            BadSettings: the run's folder can't be made.
            StoreUnavailable: told to stop, and the store could not be reached even once.
            Conflict: another streamer writes to the destination, or it holds another run.
        """
        self._once = once
        if once:
            self._final.set()
        self._check()
        lanes = [self._small_step, self._large_step] if self._worker in (None, 0) else [self._small_step]
        self._running = len(lanes)
        for lane in lanes:
            threading.Thread(target=self._lane, args=(lane,), daemon=True).start()
        drained = self._supervise()
        self._note(time.monotonic())
        if isinstance(self._fatal, Conflict):
            raise self._fatal
        if self._fatal is not None:
            raise RuntimeError("the streamer failed") from self._fatal
        left = self._left(drained)
        for line in left:
            log.error("%s", not_copied(line))
        for name, each in self._files.items():
            if each.pending and each.problem is None and drained:
                log.warning("the last %d bytes of %s are no whole record and were not copied", each.pending, name)
        log.info("%s: %s", "drained" if drained else "stopped before all was copied", self.metrics.line())
        return DONE if drained and not left else FAILED

    def _check(self) -> None:
        """The probe at the start; tried again until the store can be reached or :meth:`stop` was called."""
        for warning in patience.retry_until_reachable(self._store.check, self._stopped.wait, self._count_error):
            log.warning(warning)
        try:
            self._run.path.mkdir(parents=True, exist_ok=True)  # the run may be still to come
        except FileExistsError as error:
            raise BadSettings(f"{self._run.path}: expected a run's folder, or nothing") from error
        except OSError as error:
            raise BadSettings(f"{self._run.path}: can't be made: {error.strerror}") from error

    def _supervise(self) -> bool:
        """Waits for the lanes; notes and logs the metrics meanwhile. False if the grace period ran out."""
        next_note = next_line = time.monotonic()
        stop_at: float | None = None
        while self._running:
            now = time.monotonic()
            if self._stopped.is_set() and stop_at is None:
                stop_at = now + self._grace
            if stop_at is not None and now >= stop_at:
                return False
            if now >= next_note:
                self._note(now)
                next_note = now + METRICS_SECONDS
            if now >= next_line:
                log.info(self.metrics.line())
                next_line = now + LOG_SECONDS
            with self._changed:
                self._changed.wait_for(lambda: not self._running, 0.25)
        return True

    def _lane(self, step: Callable[[bool], bool]) -> None:
        """Calls ``step`` for ever; once it is final, until it says that all is done."""
        waits = _pauses()
        try:
            while self._fatal is None:
                final = self._final.is_set()
                try:
                    if step(final) and final:
                        return
                    waits = _pauses()
                    self._final.wait(self._interval) if not final else time.sleep(0.1)
                except (StoreUnavailable, StoreRefused, Changed, ContentDiffers, OSError) as error:
                    self._count_error(error)
                    pause = next(waits)
                    time.sleep(pause) if final else self._final.wait(pause)
        except BaseException as error:  # a thread must not end without the other and the caller knowing
            self._fatal = error
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _small_step(self, final: bool) -> bool:
        found = list(small_files(self._run, self._worker))
        self._tell_left_out("the files", found)
        names = [entry.name for entry in found if entry.problem is None]
        events = self._run.events.name
        if any("/" not in name for name in names) and not any(entry.name == events for entry in found):
            names.append(events)  # not there yet; in the destination of another run it is
        for name in names:
            if name not in self._files:
                self._files[name] = self._follow(name)
        done = True
        # Histories first: they tell whether the destination is another run's, before anything there is replaced.
        for name, copied in sorted(self._files.items(), key=lambda file: not file[1].history):
            self._count_sent(self._refusals.attempt(name, partial(copied.step, time.monotonic(), final=final)))
            if copied.problem is not None and copied.problem not in self._reported:
                self._reported.add(copied.problem)
                log.error("%s", copied.problem)
            done = self._is_done(name, copied.is_caught_up()) and done
        self._compared.set()
        return done

    def _large_step(self, final: bool) -> bool:
        if not self._compared.wait(self._interval):  # the destination may turn out to be another run's
            return False
        self._refusals.attempt(_CHECKPOINTS, self._copy_checkpoints)
        self._tell_left_out(_CHECKPOINTS, self._checkpoints.left_out)
        self._count_sent(self._refusals.attempt(_EXPORT, partial(self._export.step, time.monotonic(), final=final)))
        self._tell_left_out(_EXPORT, self._export.left_out)
        return self._are_checkpoints_done() and self._is_done(_EXPORT, self._export.is_caught_up())

    def _copy_checkpoints(self) -> None:
        self._checkpoints.start()
        steps = self._checkpoints.pending()
        for step in self._tried.difference(steps):
            self._refusals.forget(_checkpoint(step))  # the trainer has deleted it meanwhile
        self._tried = set(steps)
        if steps:
            self._uploading_since = self._uploading_since or time.monotonic()
            self._upload(steps)
        if not any(self._refusals.error(_checkpoint(step)) for step in steps):
            self._uploading_since = None
        self._undeleted.attempt("old checkpoints", self._checkpoints.delete_old)

    def _are_checkpoints_done(self) -> bool:
        if self._refusals.error(_CHECKPOINTS) is not None:
            return self._is_done(_CHECKPOINTS, False)
        return all(self._is_done(_checkpoint(step), False) for step in self._checkpoints.pending())

    def _tell_left_out(self, what: str, entries: Sequence[Entry]) -> None:
        self._unreadable[what] = [f"{each.name}: {each.problem}" for each in entries if each.error is not None]
        if line := self._left_out.line(entries):
            log.warning("%s", line)
            self.metrics.left_out = len(self._left_out)

    def _upload(self, steps: list[int]) -> None:
        """Several checkpoints at once, in threads that do not hold up the end of the process."""
        waiting = list(steps)
        errors: list[Exception] = []

        def work() -> None:
            while waiting and not errors:
                try:
                    step = waiting.pop(0)
                except IndexError:  # another thread took the last one
                    return
                try:
                    upload = partial(self._checkpoints.upload, step)
                    self._count_sent(self._refusals.attempt(_checkpoint(step), upload))
                except Exception as error:
                    errors.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(UPLOADS_AT_ONCE, len(steps)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _is_done(self, what: str, caught_up: bool) -> bool:
        """Whether nothing more is to be tried for ``what``."""
        error = self._refusals.error(what)
        return caught_up if error is None else self._once and is_permanent(error)

    def _follow(self, name: str) -> _Copied:
        files, path = self._plain_files, self._run.path / name
        if is_event_file(path.name):
            return GrowingFile(self._store, files, name, scan_tfrecords, interval=self._interval)
        if path in (self._run.events, self._run.goodput) or path.suffix == ".log":
            return GrowingFile(self._store, files, name, scan_lines, interval=self._interval, history=True)
        settle = path.is_relative_to(self._run.pictures) or path.is_relative_to(self._run.tensorboard)
        # Metrics too: the trainer takes back the lines of epochs that a resumed run does again.
        return WholeFile(self._store, files, name, interval=self._interval * WHOLE_FILE_FACTOR, settle=settle)

    def _left(self, drained: bool) -> list[str]:
        """What should be in the store and is not, a line each."""
        copied: list[_Copied] = [*self._files.values(), self._export]
        lines = [each.problem for each in copied if each.problem is not None]
        lines += [*self._refusals.lines(), *(line for each in self._unreadable.values() for line in each)]
        if not drained:
            files = self._files.items()
            left = {
                name: f"{each.pending} bytes of {name}" for name, each in files if each.pending and not each.problem
            }
            left |= {_checkpoint(step): _checkpoint(step) for step in self._checkpoints.pending()}
            left |= {_EXPORT: _EXPORT} if self._export.pending else {}
            lines += [line for what, line in left.items() if not self._refusals.error(what)]
        return lines + list(self._checkpoints.problems.values())

    def _note(self, now: float) -> None:
        """Brings the metrics up to date and writes them down."""
        copied: list[_Copied] = [*self._files.values(), self._export]
        since = [each.pending_since for each in copied if each.pending_since is not None]
        if self._uploading_since is not None:
            since.append(self._uploading_since)
        metrics = self.metrics
        metrics.time = time.time()
        metrics.lag_seconds = max(0.0, now - min(since, default=now))
        metrics.lag_bytes = sum(each.pending for each in copied) + self._checkpoints.pending_bytes()
        metrics.problems = [each.problem for each in copied if each.problem] + self._refusals.lines()
        metrics.problems += self._checkpoints.problems.values()
        try:
            metrics.write(self._run)
        except OSError as error:
            problem = f"{self._run.streamer_notes}: can't be written: {error.strerror or error}"
            if problem not in self._reported:
                self._reported.add(problem)
                log.warning("%s", problem)

    def _count_error(self, error: MaskfleetError | OSError, reported: bool = False) -> None:
        self.metrics.errors += 1
        self.metrics.last_error = told(error)
        if not reported:
            log.warning("%s; trying again", told(error))

    def _count_refusal(self, error: MaskfleetError | OSError, reported: bool) -> None:
        self._count_error(error, reported or (self._once and is_permanent(error)))  # which is told at the end

    def _count_sent(self, size: int) -> None:
        with self._changed:
            self.metrics.bytes_sent += size

    def _count_retry(self, error: Exception) -> None:
        self.metrics.retries += 1


def _pauses() -> Iterator[float]:
    return pauses(patience.SHORTEST_PAUSE, patience.LONGEST_PAUSE)


def _checkpoint(step: int) -> str:
    return f"the checkpoint of step {step}"
