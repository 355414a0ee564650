"""Downloads from a host in a thread of this process that cuts them off, cannot continue, or sends what is wrong."""

from __future__ import annotations

import gc
import hashlib
import io
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.download import download, unpack
from forgetless.lab.datasets.reading.entry import Source
from host import CONTENT, MD5, SHA256, Host


@pytest.fixture
def host() -> Iterator[Host]:
    serving = Host()
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


def refusal(source: Source, root: Path) -> str:
    with pytest.raises(ForgetlessError) as caught:
        download(source, root)
    return str(caught.value)


@pytest.mark.parametrize("checksum", [f"sha256:{SHA256}", f"md5:{MD5}", None])
def test_a_file_arrives(tmp_path: Path, host: Host, checksum: str | None) -> None:
    source = Source(f"{host.url}/a", "b/a.tgz", checksum)
    told = []
    assert download(source, tmp_path, lambda done, whole: told.append((done, whole))) == SHA256
    assert (tmp_path / "b" / "a.tgz").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["a.tgz"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert download(source, tmp_path) == SHA256  # there already
    assert host.asked == [None]


def test_a_download_that_was_cut_off_goes_on(tmp_path: Path, host: Host) -> None:
    source = Source(f"{host.url}/a", "a.tgz", f"sha256:{SHA256}")
    for cut in (300_001, 700_002):
        host.cut = cut
        part = tmp_path / "a.tgz.part"
        assert refusal(source, tmp_path) == (
            f"{host.url}/a was cut off after {cut} of {len(CONTENT)} bytes; "
            f"the same command goes on from there ({part})."
        )
        assert part.read_bytes() == CONTENT[:cut]
        assert not (tmp_path / "a.tgz").exists()
    host.cut = None
    download(source, tmp_path)
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT
    assert host.asked == [None, "bytes=300001-", "bytes=700002-"]


def test_an_answer_without_a_length_that_was_cut_off_is_not_taken_for_whole(tmp_path: Path, host: Host) -> None:
    source = Source(f"{host.url}/a", "a.tgz")
    host.chunked, host.cut = True, 300_001
    part = tmp_path / "a.tgz.part"
    said = refusal(source, tmp_path)
    have = part.stat().st_size  # what came in whole pieces
    assert said == f"{host.url}/a was cut off after {have} bytes; the same command goes on from there ({part})."
    assert part.read_bytes() == CONTENT[:have]
    assert not (tmp_path / "a.tgz").exists()
    host.cut = None
    download(source, tmp_path)
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT


def test_a_host_that_cannot_continue_sends_all_of_it_again(tmp_path: Path, host: Host) -> None:
    (tmp_path / "a.part").write_bytes(b"x" * 2_000_000)  # longer than the file
    host.ranges = False
    download(Source(f"{host.url}/a", "a", f"md5:{MD5}"), tmp_path)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_part_that_is_whole_or_too_long(tmp_path: Path, host: Host) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT)
    download(Source(f"{host.url}/a", "a", f"md5:{MD5}"), tmp_path)
    assert host.asked == [f"bytes={len(CONTENT)}-"]
    (tmp_path / "b.part").write_bytes(CONTENT + b"x")
    download(Source(f"{host.url}/a", "b", f"md5:{MD5}"), tmp_path)
    assert host.asked[1:] == [f"bytes={len(CONTENT) + 1}-", None]


def test_another_checksum_removes_the_part(tmp_path: Path, host: Host) -> None:
    host.content = CONTENT[:-1] + b"x"
    found = hashlib.md5(host.content).hexdigest()
    source = Source(f"{host.url}/a", "a", f"md5:{MD5}")
    assert refusal(source, tmp_path) == (
        f"{tmp_path}/a.part is not the file that was published: its MD5 is {found} and not {MD5}; "
        "it was removed; try again."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_but_another_stays(tmp_path: Path, host: Host) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    said = refusal(Source(f"{host.url}/a", "a", f"sha256:{SHA256}"), tmp_path)
    assert said.endswith(f"and not {SHA256}; remove it to download it again.")
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert host.asked == []


def test_a_part_that_does_not_fit_is_never_joined(tmp_path: Path, host: Host) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    host.shifted = True
    assert refusal(Source(f"{host.url}/a", "a"), tmp_path) == (
        f"{host.url}/a answers with another part than was asked for; remove {tmp_path}/a.part and try again."
    )
    host.shifted = False
    (tmp_path / "a.part").write_bytes(b"another file's beginning")
    assert "is not the file that was published" in refusal(Source(f"{host.url}/a", "a", f"md5:{MD5}"), tmp_path)
    assert not (tmp_path / "a.part").exists()


def test_hosts_that_do_not_have_it_or_do_not_answer(tmp_path: Path, host: Host) -> None:
    assert refusal(Source(f"{host.url}/missing", "a"), tmp_path) == (
        f"{host.url}/missing cannot be had: the host answers 404 Not Found."
    )
    url = "http://127.0.0.1:9/a"
    assert refusal(Source(url, "a"), tmp_path) == (
        f"{url} cannot be had: Connection refused; try again when there is a network."
    )
    assert list(tmp_path.iterdir()) == []


def test_no_connection_stays_open(tmp_path: Path, host: Host) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT)
    (tmp_path / "b.part").write_bytes(CONTENT + b"x")
    gc.collect()  # what earlier tests left is not told here
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("a", "b", "c"):
            download(Source(f"{host.url}/{name}", name), tmp_path)
        refusal(Source(f"{host.url}/missing", "d"), tmp_path)
        host.cut = 5
        refusal(Source(f"{host.url}/e", "e"), tmp_path)
        gc.collect()
    assert [str(each.message) for each in caught] == []


def archive(path: Path, *members: tuple[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def test_archives_are_unpacked_and_hostile_ones_are_not(tmp_path: Path) -> None:
    source = Source("http://host/a.tgz", "a.tgz", unpack="set")
    archive(tmp_path / "a.tgz", ("Images/a.jpg", b"picture"))
    assert unpack(source, tmp_path) == tmp_path / "set"
    assert (tmp_path / "set" / "Images" / "a.jpg").read_bytes() == b"picture"
    archive(tmp_path / "a.tgz", ("../outside", b"no"))
    with pytest.raises(ForgetlessError, match=r"cannot be unpacked into .*outside"):
        unpack(source, tmp_path)
    assert not (tmp_path / "outside").exists()
    for damaged in (b"no archive", (tmp_path / "a.tgz").read_bytes()[:40]):
        (tmp_path / "a.tgz").write_bytes(damaged)
        with pytest.raises(ForgetlessError, match=r"a\.tgz cannot be unpacked into "):
            unpack(source, tmp_path)
    assert unpack(Source("http://host/a.txt", "a.txt"), tmp_path) is None


def test_zip_archives_too(tmp_path: Path) -> None:
    source = Source("http://host/a.zip", "a.zip", unpack="set")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("Images/a.jpg", b"picture")
    assert unpack(source, tmp_path) == tmp_path / "set"
    assert (tmp_path / "set" / "Images" / "a.jpg").read_bytes() == b"picture"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("../outside", b"no")
    with pytest.raises(ForgetlessError, match=r"cannot be unpacked into .*outside"):
        unpack(source, tmp_path)
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "set" / "outside").exists()
