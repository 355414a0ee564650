"""Places on a disk: regular files only, inside their folder, replaced whole; the system's errors become sentences."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from forgetless.errors import ForgetlessError, brief, quoted

MOST_BYTES = 1 << 30  # of a file that is read into memory at once

MISSING = "it does not exist"
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and try again",
    errno.EDQUOT: "the disk quota is used up; free some space and try again",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission is denied; choose another place or change the permissions",
    errno.EPERM: "the system does not permit it; choose another place or change the permissions",
    errno.EISDIR: "a folder is in its place; remove the folder or choose another name",
    errno.ENOTEMPTY: "a folder is in its place; remove the folder or choose another name",
    errno.ENOTDIR: "one of its folders is a file; choose another place",
    errno.EEXIST: "one of its folders is a file; choose another place",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.ELOOP: "its links lead in a circle; remove them",
    errno.ENOENT: MISSING,
    errno.ENXIO: "it is not a regular file",
}


@contextlib.contextmanager
def told(path: str | Path, what: str = "written", advice: str = "") -> Iterator[None]:
    """Turn the operating system's errors inside the block into a sentence about `path`.

    Args:
        path: the file or folder that the block is about.
        what: what cannot be done to it: "written", "read", "unpacked".
        advice: a clause after the reason, such as "choose another --cache".

    Raises:
        ForgetlessError: `path` cannot be a name in a file system, or the block raised an `OSError`.
    """
    try:
        if "\0" in os.fsdecode(os.fsencode(path)):
            raise ForgetlessError(f"{quoted(str(path))} cannot be {what}: a file name cannot hold a NUL.")
    except UnicodeError as error:
        raise ForgetlessError(
            f"{quoted(str(path))} cannot be {what}: the name has characters that no file name can have."
        ) from error
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or (error.strerror or brief(error)).rstrip(".")
        raise ForgetlessError(f"{path} cannot be {what}: {reason}{f'; {advice}' * bool(advice)}.") from error


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a pipe, a device or a folder is refused at once and never waited for.

    Raises:
        ForgetlessError: it is missing, no regular file, or reading it in the block fails.
    """
    with told(path, "read"):
        # Opening a pipe waits for its other end unless it is opened like this.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        kind = os.fstat(handle).st_mode
        if not stat.S_ISREG(kind):
            os.close(handle)
            what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
            raise ForgetlessError(f"{path} cannot be read: it is {what}, not a regular file.")
        with open(handle, "rb") as file:
            yield file


def read_bytes(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises:
        ForgetlessError: it cannot be read, or holds more than `most` bytes.
    """
    with opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise ForgetlessError(f"{path} cannot be read: it has {size} bytes, and {most} are the most here.")
        # Room for `most` would be asked of the system before each file is read. /proc says 0 of what it has.
        return file.read(min(size + (1 << 16), most))


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}", re.DOTALL)  # what `replacing` writes to


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any failure.

    The bytes are on the disk before the rename, so not even a power cut leaves half a file. Folders that are missing
    are made, and removed again on a failure. The file gets the permissions of any new file: the process-wide umask
    applies to it and is not touched.

    Raises:
        ForgetlessError: the system does not let it be written.
    """
    path = Path(path)
    with told(path):
        made = _made(path.parent)
        temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            os.close(handle)
            yield temporary
            os.chmod(temporary, mode)  # who wrote it may have put a file of its own there
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise


def tidied(folder: str | Path) -> None:
    """Remove what `replacing` has left in a folder and those inside it when its process was killed.

    Nobody else may write there meanwhile.

    Raises:
        ForgetlessError: the system does not let it be removed.
    """
    for path in Path(folder).rglob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with told(path):
                path.unlink(missing_ok=True)


def _made(folder: Path) -> list[Path]:
    """Make a folder and what is missing above it; gives those that were made."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return missing[::-1]


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all.

    Raises:
        ForgetlessError: the system does not let it be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class Inside:
    """The regular files inside a folder, also after every link is followed.

    Args:
        folder: the folder; where it is a link itself, what it leads to counts.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._root = os.path.realpath(folder)
        self._parents: dict[Path, str] = {}

    def complaint(self, path: Path) -> str | None:
        """What is wrong with the file at `path`, as a clause; None for a regular file inside the folder."""
        try:
            parent = self._parents.get(path.parent)
            if parent is None:
                parent = self._parents[path.parent] = os.path.realpath(path.parent)
            place = os.path.join(parent, path.name)
            found = os.lstat(place)
            if stat.S_ISLNK(found.st_mode) or path.name == "..":
                place = os.path.realpath(place)
                found = os.stat(place)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            return _REASONS.get(number or 0, brief(error)).partition(";")[0]
        if not self._holds(place):
            return f"it lies outside {self.folder}"
        return None if stat.S_ISREG(found.st_mode) else "it is not a regular file"

    def outside(self, folder: Path) -> str | None:
        """A clause where the folder, after every link is followed, lies outside; else None."""
        return None if self._holds(os.path.realpath(folder)) else f"it lies outside {self.folder}"

    def _holds(self, place: str) -> bool:
        return place == self._root or place.startswith(self._root.rstrip(os.sep) + os.sep)

    def file(self, path: Path) -> Path:
        """The same path.

        Raises:
            ForgetlessError: it is not a regular file inside the folder.
        """
        if wrong := self.complaint(path):
            raise ForgetlessError(f"{path} cannot be read: {wrong}.")
        return path
