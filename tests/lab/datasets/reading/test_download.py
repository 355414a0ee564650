"""Downloads from a host in a thread of this process that cuts them off, cannot continue, or sends what is wrong."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import shutil
import socket
import threading
import types
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.download import _Redirects, download
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


def answering(*answers: bytes) -> Iterator[str]:
    """The address of a host that says what a test tells it to, an answer to each connection, and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        thread.join()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "cannot be had: "),
        (b"SSH-2.0\r\n", "cannot be had: SSH-2.0"),
        (b"HTTP/1.1 999999 what\r\n\r\n", "cannot be had: "),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "cannot be had: the host answers 204."),
        (b"HTTP/1.1 200 " + b"x" * 70_000, "cannot be had: got more than 65536 bytes when reading status line"),
        (OK + b"a: b\r\n" * 200 + b"\r\n", "cannot be had: got more than 100 headers"),
        (OK + b"Content-Length: many\r\n\r\n", "cannot be had: the host says that it has 'many' bytes."),
        (OK + b"Content-Length: -5\r\n\r\n", "cannot be had: the host says that it has '-5' bytes."),
        (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "cannot be had: the host says that it has '99999"),
        (OK + b"Content-Length: 999999999999999\r\n\r\n", "has 999999999999999 bytes: 68719476736 are the most"),
        (OK + b"Content-Encoding: gzip\r\n\r\n", "cannot be had: the host sends it encoded as 'gzip'."),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "was cut off after 0 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc", "was cut off after "),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc", "was cut off after "),
        (b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\n\r\n", "cannot be had: "),
        (b"HTTP/1.1 301 Moved\r\nLocation: ftp://host/a\r\n\r\n", "the host redirects to 'ftp://host/a'."),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://[\r\n\r\n", "cannot be had: "),
        (b"HTTP/1.1 301 Moved\r\n\r\n", "cannot be had: the host answers 301 Moved."),
        (b"HTTP/1.1 500 \x1b[31m" + b"x" * 500 + b"\r\n\r\n", "the host answers 500 \ufffd[31mxxx"),
    ],
)
def test_whatever_a_host_answers_is_one_sentence(answer: bytes, sentence: str, tmp_path: Path) -> None:
    for url in answering(answer):
        said = refusal(Source(url, "a"), tmp_path)
        assert said.startswith(f"{url} ")
        assert sentence in said
        assert len(said) < 500
        assert said.isprintable()
        assert not (tmp_path / "a").exists()


def test_a_host_that_redirects_in_a_circle(tmp_path: Path) -> None:
    for url in answering(*[b"HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n"] * 5):
        assert f"{url} cannot be had: the host answers 302 The HTTP server returned a redirect" in refusal(
            Source(url, "a"), tmp_path
        )


def test_a_redirect_never_leaves_https() -> None:
    answer = io.BytesIO()
    for scheme, url in (("https", "http://b/"), ("https", "ftp://b/"), ("http", "ftp://b/"), ("http", "file:///b")):
        request = urllib.request.Request(f"{scheme}://a/")
        with pytest.raises(ForgetlessError, match=f"redirects to '{url}'"):
            _Redirects().redirect_request(request, answer, 302, "Found", {}, url)
    kept = _Redirects().redirect_request(urllib.request.Request("http://a/"), answer, 302, "Found", {}, "https://b/")
    assert kept.full_url == "https://b/"


def test_a_host_that_always_answers_416_is_asked_twice(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"old")
    for url in answering(*[b"HTTP/1.1 416 Range\r\n\r\n"] * 2):
        assert refusal(Source(url, "a"), tmp_path) == f"{url} cannot be had: the host answers 416 Range."
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_holds_on_is_left_at_the_deadline(tmp_path: Path) -> None:
    """It sends the beginning and then nothing; each read would wait for a minute."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in (b"HT", OK + b"Content-Length: 9\r\n\r\nabc"):
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(answer)
                    while connection.recv(65536):
                        pass
            done.set()

        threading.Thread(target=serve, daemon=True).start()
        source = Source(f"http://127.0.0.1:{listening.getsockname()[1]}/a", "a")
        with pytest.raises(ForgetlessError) as caught:
            download(source, tmp_path, seconds=0.2)
        assert str(caught.value) == (
            f"{source.url} cannot be had: it took longer than 0.2 seconds; the same command goes on from there."
        )
        with pytest.raises(ForgetlessError) as caught:
            download(source, tmp_path, seconds=0.2)
        assert str(caught.value) == (
            f"{source.url} was cut off after 3 of 9 bytes, after 0.2 seconds; "
            f"the same command goes on from there ({tmp_path / 'a.part'})."
        )
        assert done.wait(10)
    assert (tmp_path / "a.part").read_bytes() == b"abc"


def test_what_is_in_the_way_is_told(tmp_path: Path, host: Host) -> None:
    os.mkfifo(tmp_path / "a.part")
    assert refusal(Source(f"{host.url}/a", "a"), tmp_path) == (
        f"{tmp_path / 'a.part'} is in the way: it is not a regular file; remove it."
    )
    os.mkfifo(tmp_path / "b")
    assert "it is a pipe or a device" in refusal(Source(f"{host.url}/a", "b"), tmp_path)
    (tmp_path / "c").write_text("")
    assert "one of its folders is a file" in refusal(Source(f"{host.url}/a", "c/d"), tmp_path)


def test_a_full_disk_is_told(tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    assert f"and 10 are free in {tmp_path}." in refusal(Source(f"{host.url}/a", "a"), tmp_path)
