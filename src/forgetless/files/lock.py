"""A lock on a folder: one process at a time writes to it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from forgetless.errors import ForgetlessError
from forgetless.files.places import told

try:
    import fcntl
except ImportError:  # a system without them; results are merged from disk there too, but nobody is kept out
    fcntl = None  # type: ignore[assignment]

NAME = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if it does not exist.

    Raises:
        ForgetlessError: another process holds it, or the folder cannot be written.
    """
    lock = Lock(folder)
    try:
        yield
    finally:
        lock.release()


class Lock:
    """The lock of a folder, held until it is released.

    The system lets go of it when the process ends, however it ends: what a killed process has left behind does not keep
    anybody out.

    Attributes:
        folder: where it lies; whoever moves the folder says so here.
    """

    def __init__(self, folder: Path) -> None:
        """Hold the lock of `folder`, which is made if it does not exist.

        Raises:
            ForgetlessError: another process holds it, or the folder cannot be written.
        """
        self.folder = folder
        with told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._handle: int | None = _held(folder / NAME)

    def release(self) -> None:
        """Let go of it; a second time nothing is done."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            try:
                # Not another's, where the folder was removed and made anew. Before letting go: whoever opened the file
                # sees that it is gone.
                if _still_there(self.folder / NAME, handle):
                    (self.folder / NAME).unlink(missing_ok=True)
            finally:
                os.close(handle)


def _held(path: Path) -> int:
    """An open file that this process alone has locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
            if _still_there(path, handle):
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
                return handle
        except BlockingIOError as error:
            number = os.read(handle, 32).decode("ascii", "replace").strip()
            os.close(handle)
            who = f"another process ({number})" if number.isdigit() else "another process"
            raise ForgetlessError(
                f"{path.parent} is in use by {who}; wait until it ends, or choose another --out."
            ) from error
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # it was removed between opening and locking


def _lock(handle: int) -> None:
    """Lock an open file, where the system and the file system know how; where not, nobody is kept out.

    Raises:
        BlockingIOError: another process has locked it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise


def _still_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
