"""Unpacking an archive that may be hostile: regular files and folders only, inside, once each, and not without end.

The contents are written to a temporary folder beside their place and moved there when all of them have been read and
every checksum of the archive was right. An archive that is refused leaves nothing.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted

_PIECE = 1 << 20
_DEEPEST = 32


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        members: how many files and folders.
        size: how many bytes, all together.
        ratio: how many times the bytes of the archive, above `slack`.
        slack: bytes that the ratio does not count.
    """

    members: int = 2_000_000
    size: int = 200 << 30
    ratio: int = 50
    slack: int = 64 << 20


def unpack(path: Path, folder: Path, limits: Limits | None = None) -> None:
    """Unpack the archive `path` (tar, also gzipped, bzipped or xz; zip) into `folder`, all of it or nothing.

    Files that are there already are replaced, others stay.

    Raises:
        ForgetlessError: it is no archive, damaged anywhere, encrypted or compressed in an unknown way; a member is not
            a regular file or folder, lies outside, is there twice or has a name that is too long or not UTF-8; it is
            larger than the limits; or the system does not let it be written.
    """
    temporary = folder / f".{path.name[:40]}.unpacking"
    with files.told(folder, "filled"):
        there = folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _clear(temporary)
            temporary.mkdir()
            with files.opened(path) as file, files.told(folder, "filled"), _told(path, folder):
                _written(file, temporary, limits or Limits())
                _refuse_other_kinds(temporary, folder)
            _move(temporary, folder)
        finally:
            _clear(temporary)
            if not there:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # where it is still empty


class _Refused(Exception):
    """An archive holds what must not be unpacked."""


@contextlib.contextmanager
def _told(path: Path, folder: Path) -> Iterator[None]:
    """One sentence for whatever the archive libraries raise; the system's own errors are told elsewhere."""
    try:
        yield
    except ForgetlessError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        damaged = "" if isinstance(error, _Refused) else "it is damaged or no archive: "
        raise ForgetlessError(f"{path} cannot be unpacked into {folder}: {damaged}{brief(error)}.") from error


def _clear(folder: Path) -> None:
    """Remove what an attempt left."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _refuse_other_kinds(source: Path, target: Path) -> None:
    """Refuse to put a folder where a file or a link is, or a file where a folder is."""
    for each in source.iterdir():
        place = target / each.name
        if each.is_dir() and (place.is_symlink() or place.is_file()):
            raise _Refused(f"{place} is there and is not a folder")
        if not each.is_dir() and place.is_dir():
            raise _Refused(f"{place} is there and is a folder")
        if each.is_dir() and place.is_dir():
            _refuse_other_kinds(each, place)


def _move(source: Path, target: Path) -> None:
    """Move what is in a folder to another; folders that are there are filled."""
    for each in list(source.iterdir()):
        place = target / each.name
        if each.is_dir() and place.is_dir():
            _move(each, place)
        else:
            each.replace(place)


class _Budget:
    """Counts what comes out of an archive, and ends it at the limits."""

    def __init__(self, packed: int, limits: Limits) -> None:
        self._limits = limits
        self._most = min(limits.size, limits.ratio * packed + limits.slack)
        self._bytes = self._members = 0

    def take(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._most:
            raise _Refused(f"it unpacks to more than {self._most} bytes")

    def member(self) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise _Refused(f"it has more than {self._limits.members} members")


class _Counted(io.RawIOBase):
    """A stream whose bytes are counted."""

    def __init__(self, stream: Any, budget: _Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int = -1) -> bytes:
        piece: bytes = self._stream.read(_PIECE if size < 0 else size)
        self._budget.take(len(piece))
        return piece


class _Decoded(io.RawIOBase):
    """A bzip2 or xz stream to its last byte; Python's own files bound no memory and ignore what follows."""

    def __init__(self, file: BinaryIO, decoder: Callable[[], Any]) -> None:
        self._file, self._new, self._decoder = file, decoder, decoder()

    def read(self, size: int = -1) -> bytes:
        while True:
            more = b""
            if self._decoder.eof:
                more = self._decoder.unused_data.lstrip(b"\0")
                while not more and (piece := self._file.read(_PIECE)):
                    more = piece.lstrip(b"\0")  # padding
                if not more:
                    return b""
                self._decoder = self._new()
            elif self._decoder.needs_input:
                more = self._file.read(_PIECE)
                if not more:
                    raise EOFError("it ends in the middle of compressed data")
            found: bytes = self._decoder.decompress(more, size)
            if found:
                return found


class _Header(tarfile.TarInfo):
    """A header of a tar archive; a damaged one is an error, where `tarfile` would silently take it for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is missing or damaged: {error}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise _Refused(f"{quoted(header.name)} has a negative size")
        if header.type not in (*_FILES, tarfile.DIRTYPE) and header.size > _PIECE:
            raise _Refused(f"{quoted(header.name)} has {header.size} bytes of headers")
        return header


_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


def _written(file: BinaryIO, folder: Path, limits: Limits) -> None:
    """Write the members of an archive into an empty folder, and read the archive to its end."""
    budget = _Budget(os.fstat(file.fileno()).st_size, limits)
    names = _Names(folder, budget)
    start = file.read(6)
    file.seek(0)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        _unzipped(file, names, budget)
    elif start.startswith(b"\x1f\x8b"):
        _untarred(gzip.GzipFile(fileobj=file), names, budget)
    elif start.startswith(b"BZh"):
        _untarred(_Decoded(file, bz2.BZ2Decompressor), names, budget)
    elif start.startswith(b"\xfd7zXZ\0"):
        _untarred(_Decoded(file, lambda: lzma.LZMADecompressor(memlimit=256 << 20)), names, budget)
    else:
        _untarred(file, names, budget)


def _untarred(stream: Any, names: _Names, budget: _Budget) -> None:
    counted = _Counted(stream, budget)
    with tarfile.open(fileobj=counted, mode="r|", encoding="utf-8", errors="strict", tarinfo=_Header) as tar:
        while (member := tar.next()) is not None:
            if member.isdir():
                names.folder(member.name)
            elif member.type in _FILES and not member.issparse():
                content = tar.extractfile(member)
                assert content is not None
                names.write(member.name, content, member.size)
            else:
                raise _Refused(f"{quoted(member.name)} is a link, a device or of an unknown kind")
            tar.members = []  # type: ignore[attr-defined]  # or all of them would be kept
        # To the end of the stream, where its checksum stands.
        while rest := tar.fileobj.read(_PIECE):
            if rest.strip(b"\0"):
                raise _Refused("more data follow its end")


def _unzipped(file: BinaryIO, names: _Names, budget: _Budget) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.flag_bits & 0x1:
                raise _Refused(f"{quoted(member.filename)} is encrypted")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"{quoted(member.filename)} is a link, a device or of an unknown kind")
            if member.is_dir():
                names.folder(member.filename)
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
                raise _Refused(f"{quoted(member.filename)} is compressed in a way that is not read here")
            else:
                with archive.open(member) as content:
                    names.write(member.filename, _Counted(content, budget), member.file_size)


class _Names:
    """Where members go: below an empty folder, each a place of its own."""

    def __init__(self, folder: Path, budget: _Budget) -> None:
        self._folder, self._budget = folder, budget

    def folder(self, name: str) -> None:
        self._budget.member()
        if parts := _parts(name):
            self._folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: Any, size: int) -> None:
        """Write a member, which must have the size that it says."""
        self._budget.member()
        parts = _parts(name)
        if not parts or name.endswith("/"):
            raise _Refused(f"{quoted(name)} is not the name of a file")
        place = self._folder.joinpath(*parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except (FileExistsError, NotADirectoryError):
            raise _Refused(f"{quoted(name)} is there twice") from None
        with open(handle, "wb") as file:
            while piece := content.read(_PIECE):
                file.write(piece)
            if file.tell() != size:
                raise _Refused(f"{quoted(name)} has {file.tell()} bytes and not {size}")


def _parts(name: str) -> list[str]:
    """The folders and the name of a member, none of which leads elsewhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    wrong = None
    try:
        long = len(name.encode("utf-8")) > 1024 or any(len(part.encode("utf-8")) > 255 for part in parts)
    except UnicodeEncodeError:
        raise _Refused(f"the name {quoted(name)} is not UTF-8") from None
    if name.startswith("/") or "\\" in name or ".." in parts or (len(name) > 1 and name[1] == ":"):
        wrong = "would lie outside of its folder"
    elif long or len(parts) > _DEEPEST:
        wrong = "has a name that is too long"
    elif any(unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp") for each in name):
        wrong = "has a name with control characters"
    if wrong:
        raise _Refused(f"{quoted(name)} {wrong}")
    return parts
