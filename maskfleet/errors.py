"""What an exit code of the trainer or the launcher means, and the errors that lead to it.

The Job's podFailurePolicy, the supervisor and the launcher all act on these numbers, so they are written down once,
here. All errors that are for the user are in one tree; each has its code::

    MaskfleetError                    1    an ending in one line
    ├── BadInput                      2    wrong settings, flags or files; never tried again
    │   ├── BadSettings               2    a flag or a configuration file
    │   │   ├── SecretInTheOpen       2    --env with what looks like a secret           (launcher.job.pod_settings)
    │   │   └── StoreRefused          2    credentials, permissions, no such bucket      (launcher.streaming.stores)
    │   ├── BadData                   2    an image, a mask or a data directory
    │   │   └── NotThere              2    an object of packed data is gone                  (trainer.data.packed)
    │   ├── InTheWay                  2    a link or folder where a file shall be        (launcher.streaming.download)
    │   └── NotAllFetched             2    all but such files were pulled                (launcher.streaming.download)
    ├── NotFound                      3    no such job, run or checkpoint
    ├── TrainingFailed                1    a loss that is not finite, a disk that is full
    ├── PeerLost                     75    another worker is gone or did not come; all start again
    ├── Stopped                     143    SIGTERM was honoured, the state is saved
    ├── TimedOut                    124    what was waited for did not happen in time
    ├── ApiError                      1    the API server refused a request              (launcher.cluster)
    ├── Unreachable                   1    the API server did not answer                 (launcher.cluster)
    ├── LeftBehind                    *    a submit was refused, and its Job is still there; the cause's code
    │                                                                                   (launcher.operations.submission)
    ├── NotStartedAgain               *    a job was deleted and not submitted again; the cause's code
    │                                                                                    (launcher.operations.ending)
    ├── LeftBehind                    *    a submit was refused in the middle, its Job is there; the cause's code
    │                                                                                    (launcher.operations)
    ├── NotStreamed                   1    not all of a run reached its destination      (launcher.local)
    ├── DiskFailed                    1    what is fetched can't be written: a full disk (launcher.streaming.download)
    ├── StoreUnavailable              1    a store can't be reached now                  (launcher.streaming.stores)
    ├── Unavailable                   1    the bucket of packed data can't be reached    (trainer.data.packed)
    ├── Changed                       1    an object is not the version that was expected (launcher.streaming.stores)
    ├── ContentDiffers                1    a file or object is not what its digest says  (launcher.streaming.stores)
    └── Conflict                      1    another streamer writes, or another run's     (launcher.streaming.upload)
"""

import re

DONE = 0
FAILED = 1
"""A bug, or the training itself failed: a traceback, or a loss that is not finite."""
BAD_INPUT = 2
"""Bad settings or data. Permanent: starting again would fail in the same way, so nothing retries it."""
NOT_FOUND = 3
"""Launcher: no such job or run."""
PEER_LOST = 75
"""A peer was lost, or the start timed out (EX_TEMPFAIL): every worker has to start again."""
TIMED_OUT = 124
"""Launcher: what was waited for did not happen in time."""
INTERRUPTED = 130
"""Launcher: stopped by Ctrl-C."""
STOPPED = 143
"""Told to stop by SIGTERM; the state was saved. Start again if the job lives on."""


class MaskfleetError(Exception):
    """An ending that is told to the user in one line, without a traceback.

    The message says what happened, where (file, flag or object), what was expected, what was found and
    how to mend it.
    """

    exit_code = FAILED


class BadInput(MaskfleetError):
    """The user's settings, flags or files are wrong; trying again without a change can't help."""

    exit_code = BAD_INPUT


class BadSettings(BadInput):
    """A flag or a configuration file is wrong."""


class BadData(BadInput):
    """An image, a mask or a data directory is wrong."""


class NotFound(MaskfleetError):
    """The job, run or checkpoint that was named does not exist."""

    exit_code = NOT_FOUND


class TrainingFailed(MaskfleetError):
    """Training can't go on, by its own doing: a loss that is not finite, a disk that is full."""


class PeerLost(MaskfleetError):
    """Another worker is gone or did not come: all workers must start again."""

    exit_code = PEER_LOST


class Stopped(MaskfleetError):
    """SIGTERM was honoured: the state is saved."""

    exit_code = STOPPED


class TimedOut(MaskfleetError):
    """What was waited for did not happen in time."""

    exit_code = TIMED_OUT


def reason(error: Exception) -> str:
    """What the disk or TensorFlow says has gone wrong, in one line of at most 500 characters."""
    words = str(getattr(error, "strerror", None) or error)
    words = re.sub(r"{{.*?}}|\[Op:\w+\]|.*\.tempstate\d+; ", "", words)  # TensorFlow's names for place, step and file
    return " ".join(words.split())[:500]
