"""Archives: the contents of good ones, and nothing at all of any other."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import archive, download
from forgetless.lab.datasets.reading.archive import Limits, unpack
from forgetless.lab.datasets.reading.entry import Source

GOOD = {"Images/a.jpg": b"picture", "Images/b/c.jpg": os.urandom(100_000), "list.txt": b""}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda content: content,
    "tar.gz": lambda content: gzip.compress(content),
    "tar.bz2": lambda content: bz2.compress(content),
    "tar.xz": lambda content: lzma.compress(content),
}


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, errors="surrogateescape") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(*members: tuple[Any, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refusal(packed: bytes, root: Path, limits: Limits | None = None) -> str:
    """What is said of an archive; nothing of it may be left, inside or outside."""
    (root / "a").write_bytes(packed)
    before = sorted(root.rglob("*"))
    with pytest.raises(ForgetlessError) as caught:
        unpack(root / "a", root / "in", limits)
    assert sorted(root.rglob("*")) == before
    said = str(caught.value)
    assert said.startswith(f"{root / 'a'} cannot be unpacked into {root / 'in'}: ")
    assert said.isprintable()
    return said


@pytest.mark.parametrize("kind", PACKED)
def test_tar_archives(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(PACKED[kind](tar(special("Images/", tarfile.DIRTYPE), *GOOD.items())))
    unpack(tmp_path / "a", tmp_path / "in")
    assert content(tmp_path / "in") == GOOD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "in"]
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["Images", "list.txt"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zip_archives(method: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(zipped(("Images/", b""), *GOOD.items(), method=method))
    unpack(tmp_path / "a", tmp_path / "in")
    assert content(tmp_path / "in") == GOOD


def test_unpacking_again_replaces_files_and_keeps_others(tmp_path: Path) -> None:
    (tmp_path / "in" / "Images").mkdir(parents=True)
    (tmp_path / "in" / "Images" / "a.jpg").write_bytes(b"old")
    (tmp_path / "in" / "Images" / "mine.jpg").write_bytes(b"mine")
    (tmp_path / "a").write_bytes(tar(*GOOD.items()))
    assert download.unpack(Source("https://host/a", "a", unpack="in"), tmp_path) == tmp_path / "in"
    assert content(tmp_path / "in") == {**GOOD, "Images/mine.jpg": b"mine"}
    assert download.unpack(Source("https://host/a", "a"), tmp_path) is None


def test_modes_and_owners_of_an_archive_do_not_count(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.mode, info.uid = 0o6777, 12345
    (tmp_path / "a").write_bytes(tar(info))
    unpack(tmp_path / "a", tmp_path / "in")
    found = (tmp_path / "in" / "a").stat()
    assert (stat.S_IMODE(found.st_mode) & 0o7111, found.st_uid) == (0, os.getuid())


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("../outside", b"no"), "'../outside' would lie outside of its folder"),
        (("a/../../outside", b"no"), "would lie outside of its folder"),
        (("/tmp/outside", b"no"), "would lie outside of its folder"),
        (("a\\..\\b", b"no"), "would lie outside of its folder"),
        (("C:outside", b"no"), "would lie outside of its folder"),
        (("x" * 256, b"no"), "has a name that is too long"),
        (("x/" * 600 + "a", b"no"), "has a name that is too long"),
        (("x/" * 40 + "a", b"no"), "has a name that is too long"),
        (("a\nb", b"no"), "has a name with control characters"),
        (("a\u202eb", b"no"), "has a name with control characters"),
        ((".", b"no"), "'.' is not the name of a file"),
        (special("a", tarfile.SYMTYPE, "b"), "'a' is a link, a device or of an unknown kind"),
        (special("a", tarfile.LNKTYPE, "b"), "'a' is a link, a device or of an unknown kind"),
        (special("a", tarfile.FIFOTYPE), "'a' is a link, a device or of an unknown kind"),
        (special("a", tarfile.CHRTYPE), "'a' is a link, a device or of an unknown kind"),
        (special("a", tarfile.BLKTYPE), "'a' is a link, a device or of an unknown kind"),
        (special("a", tarfile.GNUTYPE_SPARSE), "'a' is a link, a device or of an unknown kind"),
        (special("a", b"Z"), "'a' is a link, a device or of an unknown kind"),
    ],
)
def test_tar_members_that_are_refused(member: Any, said: str, tmp_path: Path) -> None:
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert said in refusal(tar(("first", b"1"), member, ("last", b"2"), format=format), tmp_path)


def test_a_link_and_then_a_file_through_it(tmp_path: Path) -> None:
    """The classic escape, and the one by links that resolve only when the path is too long to be resolved."""
    outside = special("out", tarfile.SYMTYPE, "..")
    assert "'out' is a link" in refusal(tar(outside, ("out/new", b"no")), tmp_path)
    assert "'twice' is there twice" in refusal(tar(("twice", b"1"), ("twice", b"2")), tmp_path)
    assert "'./twice' is there twice" in refusal(tar(("twice", b"1"), ("./twice", b"2")), tmp_path)
    assert "'a/b' is there twice" in refusal(tar(("a", b"1"), ("a/b", b"2")), tmp_path)
    assert "'a' is there twice" in refusal(tar(("a/b", b"1"), ("a", b"2")), tmp_path)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        refusal(tar(("caf\udce9", b"no"), format=format), tmp_path)
    refusal(zipped(("ä", b"no")).replace("ä".encode(), b"\xff\xff"), tmp_path)


@pytest.mark.parametrize("kind", PACKED)
def test_any_damage_is_noticed(kind: str, tmp_path: Path) -> None:
    """Compressed data carry a checksum at their end; in a plain tar only the headers do."""
    packed = PACKED[kind](tar(*GOOD.items()))
    for place in (len(packed) // 2, len(packed) - 12, 3):
        if kind == "tar":
            place = 512 * 2  # the second header
        damaged = bytearray(packed)
        damaged[place : place + 8] = bytes(255 - byte for byte in damaged[place : place + 8])
        assert "it is damaged or no archive: " in refusal(bytes(damaged), tmp_path)
    for length in (0, 1, 100, len(packed) // 2, len(packed) - (20_000 if kind == "tar" else 1)):
        refusal(packed[:length], tmp_path)
    refusal(packed + b"more", tmp_path)


def test_a_tar_archive_without_its_end_or_with_something_behind_it(tmp_path: Path) -> None:
    whole = tar(("a", b"1"), ("b", b"2"))
    assert "a header is missing or damaged" in refusal(whole[:1024], tmp_path)
    assert "more data follow its end" in refusal(whole + tar(("c", b"3")), tmp_path)
    assert "more data follow its end" in refusal(whole[:1024] + bytes(512) + whole[1024:], tmp_path)


def test_damaged_zip_archives(tmp_path: Path) -> None:
    packed = zipped(*GOOD.items(), method=zipfile.ZIP_STORED)
    place = packed.index(b"picture")
    assert "Bad CRC-32" in refusal(packed[:place] + b"Picture" + packed[place + 7 :], tmp_path)
    for length in (4, 30, len(packed) - 1, len(packed) - 30):
        refusal(packed[:length], tmp_path)


def test_zip_members_that_are_refused(tmp_path: Path) -> None:
    refusal(zipped(("../outside", b"no")), tmp_path)
    refusal(zipped(("a", b"1"), ("./a", b"2")), tmp_path)
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "'link' is a link" in refusal(zipped((link, b"/etc/passwd")), tmp_path)
    assert "compressed in a way that is not read here" in refusal(
        zipped(("a", b"1"), method=zipfile.ZIP_LZMA), tmp_path
    )
    encrypted = bytearray(zipped(("a", b"1"), method=zipfile.ZIP_STORED))
    for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        encrypted[encrypted.index(signature) + flags] |= 1
    assert "'a' is encrypted" in refusal(bytes(encrypted), tmp_path)
    unknown = bytearray(zipped(("a", b"1")))
    for signature, method in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        unknown[unknown.index(signature) + method] = 99
    assert "compressed in a way that is not read here" in refusal(bytes(unknown), tmp_path)


@pytest.mark.parametrize("pack", [*PACKED.values(), lambda content: zipped(("zeros", content))])
def test_archives_without_end(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    bomb = tar(("zeros", bytes(3 << 20)))
    limits = Limits(members=10, size=2 << 20, ratio=10**6)
    assert "it unpacks to more than 2097152 bytes" in refusal(pack(bomb), tmp_path, limits)
    if pack is not PACKED["tar"]:
        assert "it unpacks to more than " in refusal(pack(bomb), tmp_path, Limits(ratio=2, slack=1 << 20))
    many = tar(*((str(number), b"") for number in range(11)))
    if pack in PACKED.values():
        assert "it has more than 10 members" in refusal(pack(many), tmp_path, Limits(members=10))


def test_headers_that_would_fill_the_memory(tmp_path: Path) -> None:
    info = special("a", tarfile.XHDTYPE)
    info.size = 2 << 20
    header = info.tobuf(tarfile.USTAR_FORMAT)
    assert "bytes of headers" in refusal(header + bytes(3 << 20), tmp_path)
    negative = tarfile.TarInfo("a")
    negative.size = -512
    assert "has a negative size" in refusal(negative.tobuf(tarfile.GNU_FORMAT) + bytes(2048), tmp_path)


def test_an_xz_stream_that_asks_for_much_memory(tmp_path: Path) -> None:
    small = lzma.compress(tar(("a", b"1")))
    end = 12 + 4 * small[12]  # the block's header: its length, flags, filter, properties (the dictionary's size), CRC
    place = small.index(bytes([0x21, 0x01])) + 2
    header = small[12:place] + bytes([38]) + small[place + 1 : end]  # 3 GiB
    crc = zlib.crc32(header).to_bytes(4, "little")
    assert "Memory usage limit exceeded" in refusal(small[:12] + header + crc + small[end + 4 :], tmp_path)


@pytest.mark.parametrize("kind", PACKED)
def test_padding_and_several_streams(kind: str, tmp_path: Path) -> None:
    if kind == "tar":
        whole = tar(*GOOD.items()) + bytes(2_000_000)
    else:
        plain = tar(*GOOD.items())
        whole = PACKED[kind](plain[:5000]) + PACKED[kind](plain[5000:]) + bytes(2_000_000)
    (tmp_path / "a").write_bytes(whole)
    unpack(tmp_path / "a", tmp_path / "in")
    assert content(tmp_path / "in") == GOOD


def test_what_is_there_and_of_another_kind_stays(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Images").write_bytes(b"mine")
    assert "Images is there and is not a folder" in refusal(tar(*GOOD.items()), tmp_path)
    (tmp_path / "in" / "Images").unlink()
    (tmp_path / "in" / "Images").symlink_to(tmp_path)
    assert "Images is there and is not a folder" in refusal(tar(*GOOD.items()), tmp_path)
    (tmp_path / "in" / "list.txt").mkdir()
    assert "list.txt is there and is a folder" in refusal(tar(("list.txt", b"")), tmp_path)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(tar(*GOOD.items()))
    before = sorted(tmp_path.rglob("*"))
    for step in ("mkdir", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, full)
            with pytest.raises(ForgetlessError, match="in cannot be filled: the disk is full"):
                unpack(tmp_path / "a", tmp_path / "in")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_an_interrupted_attempt_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(tar(*GOOD.items()))
    left = tmp_path / "in" / ".a.unpacking"
    left.mkdir(parents=True)
    (left / "old").write_text("")

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archive, "_move", stop)
        with pytest.raises(KeyboardInterrupt):
            unpack(tmp_path / "a", tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []
    unpack(tmp_path / "a", tmp_path / "in")
    assert content(tmp_path / "in") == GOOD
