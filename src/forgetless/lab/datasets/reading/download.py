"""Downloading a file so that it can be cut off at any moment: it goes on where it was, and is checked in the end."""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.entry import Source

_PIECE = 1 << 18
_WAIT = 60.0  # seconds without an answer


def download(source: Source, root: Path, on_bytes: Callable[[int, int | None], None] = lambda done, all: None) -> str:
    """Download to a `.part` beside the file, check it, and only then give it its name. A file that is there is checked.

    A `.part` of an earlier attempt is continued with an HTTP Range, if the host can and the file there has not changed
    its length; else it starts over.

    Args:
        source: what to download.
        root: the root of all sets; the file goes to `root / source.path`.
        on_bytes: called with how many bytes are there, and how many there will be (None if the host does not say).

    Returns:
        The file's SHA-256.

    Raises:
        ForgetlessError: the host does not answer or have it, the connection is cut (the `.part` stays), or the
            checksum is another (the `.part` is removed; a file that is there stays).
    """
    path = root / source.path
    if path.is_file():
        return _checked(path, source)
    part = path.with_name(f"{path.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _fill(source.url, part, on_bytes)
        found = _checked(part, source, remove=True)
        part.replace(path)
    except OSError as error:
        raise ForgetlessError(f"{path} cannot be written: {error.strerror}.") from error
    return found


def _fill(url: str, part: Path, on_bytes: Callable[[int, int | None], None]) -> None:
    """Get what `part` lacks."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_WAIT)
    except urllib.error.HTTPError as error:
        error.close()  # it is an answer too, and holds its connection
        if error.code == 416 and error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return  # all of it is there
        if error.code == 416:
            part.unlink()
            return _fill(url, part, on_bytes)
        raise ForgetlessError(f"{url} cannot be had: the host answers {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise ForgetlessError(f"{url} cannot be had: {_reason(error)}; try again when there is a network.") from error
    with answer:
        if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ForgetlessError(f"{url} answers with another part than was asked for; remove {part} and try again.")
        have = have if answer.status == 206 else 0  # a host that cannot continue sends all of it
        length = answer.headers.get("Content-Length")
        whole = None if length is None else have + int(length)
        _copy(answer, part, have, whole, url, on_bytes)


def _copy(
    answer: http.client.HTTPResponse,
    part: Path,
    have: int,
    whole: int | None,
    url: str,
    on_bytes: Callable[[int, int | None], None],
) -> None:
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        cut = False  # an answer that does not say how long it is can still be cut
        while True:
            try:
                piece = answer.read(_PIECE)
            except http.client.IncompleteRead as error:
                piece, cut = error.partial, True
            except OSError as error:
                raise ForgetlessError(_cut(url, part, have, whole)) from error
            if not piece:
                break
            file.write(piece)
            have += len(piece)
            on_bytes(have, whole)
    if cut or (whole is not None and have < whole):
        raise ForgetlessError(_cut(url, part, have, whole))


def _cut(url: str, part: Path, have: int, whole: int | None) -> str:
    so_far = f"{have} bytes" if whole is None else f"{have} of {whole} bytes"
    return f"{url} was cut off after {so_far}; the same command goes on from there ({part})."


def _checked(path: Path, source: Source, *, remove: bool = False) -> str:
    """The SHA-256 of a file whose published checksum is right."""
    kind, _, expected = (source.checksum or "sha256:").partition(":")
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in {kind, "sha256"}}
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            for digest in digests.values():
                digest.update(piece)
    found = digests[kind].hexdigest()
    if expected and found != expected:
        what = "it was removed; try again" if remove else "remove it to download it again"
        if remove:
            path.unlink()
        raise ForgetlessError(
            f"{path} is not the file that was published: its {kind.upper()} is {found} and not {expected}; {what}."
        )
    return digests["sha256"].hexdigest()


def unpack(source: Source, root: Path) -> Path | None:
    """Unpack an archive that was downloaded into its folder; gives the folder, or None for what is no archive.

    Raises:
        ForgetlessError: it is no archive, is damaged, or has members that point outside the folder.
    """
    if source.unpack is None:
        return None
    path, folder = root / source.path, root / source.unpack
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _refuse_outside(archive, folder)
                archive.extractall(folder)
        else:
            with tarfile.open(path) as tar:
                tar.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ForgetlessError(f"{path} cannot be unpacked into {folder}: {error}.") from error
    return folder


def _refuse_outside(archive: zipfile.ZipFile, folder: Path) -> None:
    """`extractall` would put such a member elsewhere, silently."""
    for name in archive.namelist():
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise zipfile.BadZipFile(f"{name!r} would be extracted outside of it")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
