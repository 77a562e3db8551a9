"""Downloads from a server on this machine that does everything a server can do wrong."""

import gzip
import http.server
import random
import threading
from dataclasses import dataclass, field

import pytest

from mlx_esm_kernels.data import download as module
from mlx_esm_kernels.data.download import (
    DownloadError,
    download,
    missing_downloads,
    swissprot,
    uniparc,
    uniref50,
)
from mlx_esm_kernels.system.errors import DataError

SWISSPROT = "/knowledgebase/complete/uniprot_sprot.fasta.gz"
# Hardly compressible, so that half of the file is half of its bytes.
FASTA = b">a\n" + bytes(random.Random(0).choices(b"ACDEFGHIKLMNPQRSTVWY", k=40_000)) + b"\n"
FILE = gzip.compress(FASTA)
HALF = len(FILE) // 2
OTHER_FILE = gzip.compress(FASTA[::-1])


@dataclass
class Answer:
    """How the server answers one request; the last one given goes on for all further ones."""

    body: bytes = FILE
    status: int = 0  # 0: 200 or 206, as it should be
    etag: str | None = '"v1"'
    modified: str | None = None
    cut_after: int | None = None  # bytes, then the connection ends
    announced: int | None = None  # Content-Length, where it is not the truth
    ranges: bool = True
    chunked: bool = False
    encoding: str | None = None
    content_range: str | None = None
    hang: float = 0.0


@dataclass
class Server:
    url: str
    answers: list[Answer] = field(default_factory=lambda: [Answer()])
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    validators: list[str | None] = field(default_factory=list)  # If-Range

    def will(self, *answers):
        self.answers[:] = answers


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server.story
        server.requests.append((self.path, self.headers["Range"]))
        server.validators.append(self.headers["If-Range"])
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        start = 0
        if self.headers["Range"] and answer.ranges:
            is_same = self.headers["If-Range"] in (answer.etag, answer.modified)
            start = int(self.headers["Range"][6:-1]) if is_same else 0
        body = answer.body[start:]
        status = answer.status or (206 if start else 200)
        if start and not body:
            status = 416
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in {
            "ETag": answer.etag,
            "Last-Modified": answer.modified,
            "Content-Encoding": answer.encoding,
        }.items():
            if value:
                self.send_header(name, value)
        if status == 206:
            whole = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
            self.send_header("Content-Range", answer.content_range or whole)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(body) if answer.announced is None else answer.announced - start
            self.send_header("Content-Length", str(length))
        self.end_headers()
        body = body[: answer.cut_after]
        threading.Event().wait(answer.hang)
        if answer.chunked:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            self.wfile.write(b"" if answer.cut_after else b"0\r\n\r\n")
        else:
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.story = Server(f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("MLX_ESM_KERNELS_UNIPROT_URL", running.story.url + "/")
        monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.0)
        # Polling often, so that the server also stops at once.
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running.story
        running.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "uniprot.fasta.gz"


def ranges(server):
    return [asked for _, asked in server.requests]


def beside(path):
    """What lies about in the folder of a download, the lock file left aside."""
    return sorted(p.name for p in path.parent.iterdir() if p.is_file() and p.suffix != ".lock")


def test_swissprot_is_downloaded_once(server, tmp_path, capsys):
    path = swissprot()
    assert path == tmp_path / "cache" / "downloads" / "uniprot_sprot.fasta.gz"
    assert path.read_bytes() == FILE
    assert beside(path) == ["uniprot_sprot.fasta.gz"]
    assert swissprot() == path
    assert [asked for asked, _ in server.requests] == [SWISSPROT]
    printed = capsys.readouterr()
    assert printed.out == f"📥 downloading {server.url}{SWISSPROT} (0.0 MB)\n"
    assert printed.err == ""


def test_uniref50_is_downloaded_once_and_gone_on_with(server, tmp_path):
    server.will(Answer(cut_after=HALF), Answer())
    path = uniref50()
    assert path == tmp_path / "cache" / "downloads" / "uniref50.fasta.gz"
    assert path.read_bytes() == FILE
    assert uniref50() == path
    where = "/uniref/uniref50/uniref50.fasta.gz"
    assert server.requests == [(where, None), (where, f"bytes={HALF}-")]


def test_what_is_here_already_is_known_without_asking(server, tmp_path):
    missing = ["swissprot", "partition 7 of UniParc"]
    assert missing_downloads(["swissprot", "mine.fasta"], [7]) == missing
    swissprot()
    asked = len(server.requests)
    assert missing_downloads(["swissprot", "mine.fasta"], [7]) == missing[1:]
    assert len(server.requests) == asked


def test_uniref50_that_cannot_be_had_is_a_sentence(server):
    server.will(Answer(status=404))
    with pytest.raises(DownloadError, match=r"uniref50.fasta.gz cannot be downloaded: .* 404 "):
        uniref50()


def test_uniparc_partitions_are_downloaded_in_order_and_once(server):
    paths = uniparc([3, 200, 3])
    assert [p.name for p in paths] == ["uniparc_active_p3.fasta.gz", "uniparc_active_p200.fasta.gz"]
    assert [asked for asked, _ in server.requests] == [
        "/uniparc/fasta/active/uniparc_active_p3.fasta.gz",
        "/uniparc/fasta/active/uniparc_active_p200.fasta.gz",
    ]


@pytest.mark.parametrize("number", [0, 201, -1, "x"])
def test_there_are_200_partitions(server, number):
    with pytest.raises(
        DownloadError, match=rf"^UniParc has partitions 1 to 200; there is no partition {number!r}"
    ):
        uniparc([1, number])
    assert server.requests == []


def test_a_cut_connection_is_gone_on_with(server, path):
    server.will(Answer(cut_after=HALF), Answer(cut_after=100), Answer())
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={HALF}-", f"bytes={HALF + 100}-"]
    assert beside(path) == [path.name]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, path):
    server.will(Answer(cut_after=HALF), Answer(cut_after=0))
    with pytest.raises(DownloadError) as caught:
        download(server.url, path)
    assert str(caught.value) == (
        f"{server.url} could not be downloaded: the connection broke off. The {HALF:,} bytes that "
        "have arrived are kept; run the command again to go on from there."
    )
    assert not path.exists()
    server.requests.clear()
    server.will(Answer())
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [f"bytes={HALF}-"]


def test_last_modified_serves_where_there_is_no_strong_etag(server, path):
    date = "Sun, 22 Nov 2026 21:07:00 GMT"
    known = {"etag": 'W/"v1"', "modified": date}
    server.will(Answer(cut_after=HALF, **known), Answer(**known))
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert server.validators == [None, date]


def test_without_a_validator_it_begins_again(server, path):
    server.will(Answer(cut_after=HALF, etag=None), Answer(etag=None))
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, None]


def test_a_server_without_ranges_begins_again(server, path):
    server.will(Answer(cut_after=HALF, ranges=False), Answer(ranges=False))
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={HALF}-"]


def test_a_file_that_changed_meanwhile_begins_again(server, path):
    server.will(Answer(cut_after=HALF), Answer(body=OTHER_FILE, etag='"v2"'))
    assert download(server.url, path).read_bytes() == OTHER_FILE
    assert ranges(server) == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize(
    "content_range",
    [f"bytes 0-{len(FILE) - 1}/{len(FILE)}", f"bytes {HALF}-9/{len(FILE) + 1}", "nonsense"],
)
def test_a_range_that_does_not_fit_begins_again(server, path, content_range):
    server.will(Answer(cut_after=HALF), Answer(content_range=content_range), Answer())
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={HALF}-", None]


def test_all_bytes_of_an_earlier_run_need_no_more(server, path):
    server.will(Answer())
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(FILE)
    path.with_name(path.name + ".partial.json").write_text(
        f'{{"validator": "\\"v1\\"", "total": {len(FILE)}}}'
    )
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [f"bytes={len(FILE)}-"]


def test_a_note_about_an_earlier_run_that_cannot_be_read_is_no_obstacle(server, path):
    path.with_name(path.name + ".partial").write_bytes(FILE[:HALF])
    path.with_name(path.name + ".partial.json").write_text('{"vali')
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None]


def test_more_bytes_announced_than_there_are(server, path):
    server.will(Answer(announced=len(FILE) + 1000))
    with pytest.raises(DownloadError, match=rf"^{server.url} could not be downloaded: "):
        download(server.url, path)
    assert not path.exists()
    assert len(server.requests) <= 2 * module.ATTEMPTS


def test_fewer_bytes_announced_than_there_are(server, path):
    server.will(Answer(announced=len(FILE) - 1000))
    with pytest.raises(DownloadError, match=r"arrived damaged, twice \(Compressed file ended"):
        download(server.url, path)
    assert beside(path) == []


@pytest.mark.parametrize(
    "body",
    [
        FILE[:HALF],
        FILE[:HALF] + bytes([FILE[HALF] ^ 1]) + FILE[HALF + 1 :],
        FILE + b"junk",
        b"<!DOCTYPE html><title>Sign in</title>",
        gzip.compress(b""),
        b"",
    ],
)
def test_a_bad_gzip_file_is_fetched_once_more_then_refused(server, path, body):
    server.will(Answer(body=body))
    with pytest.raises(DownloadError, match=rf"^{server.url} arrived damaged, twice \(.+\)\. The"):
        download(server.url, path)
    assert beside(path) == []
    assert ranges(server) == [None, None]


def test_a_file_damaged_once_is_fetched_again(server, path):
    server.will(Answer(body=FILE[:-8] + bytes(8)), Answer())
    assert download(server.url, path).read_bytes() == FILE


def test_a_damaged_first_half_does_not_survive(server, path):
    server.will(Answer(body=bytes(HALF) + FILE[HALF:], cut_after=HALF), Answer())
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={HALF}-", None]


def test_a_length_that_is_not_announced(server, path):
    server.will(Answer(chunked=True))
    assert download(server.url, path).read_bytes() == FILE


def test_a_cut_connection_of_unknown_length(server, path):
    server.will(Answer(chunked=True, cut_after=HALF), Answer())
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={HALF}-"]


def test_a_file_labelled_as_gzip_encoding_is_kept_packed(server, path):
    server.will(Answer(encoding="gzip"))
    assert download(server.url, path).read_bytes() == FILE


def test_a_busy_server_is_asked_again(server, path):
    server.will(Answer(status=503), Answer(status=429), Answer())
    assert download(server.url, path).read_bytes() == FILE


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, module.ATTEMPTS)])
def test_a_refusal_names_the_address_and_the_answer(server, path, status, requests):
    server.will(Answer(status=status))
    with pytest.raises(DownloadError, match=rf"^{server.url} cannot be downloaded: .* {status} "):
        download(server.url, path)
    assert len(server.requests) == requests


def test_no_server_at_all(server, path):
    with pytest.raises(
        DownloadError, match=r"could not be downloaded: .*refused.* Check the connection"
    ):
        download("http://127.0.0.1:9", path)


def test_a_silent_server_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUTS", (0.1, 0.1))
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    server.will(Answer(hang=0.5))
    with pytest.raises(DownloadError, match=r"could not be downloaded: .*timed out"):
        download(server.url, path)


def test_a_disk_that_is_too_small_is_noticed_at_the_start(server, path):
    server.will(Answer(announced=10**18))
    with pytest.raises(DownloadError, match=r"^uniprot.fasta.gz needs 1000000000.0 GB more in "):
        download(server.url, path)


def test_a_disk_that_fails_is_a_sentence(server, path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", fail)
    with pytest.raises(DataError, match="cache folder cannot be used: No space left on device"):
        download(server.url, path)


def test_ctrl_c_keeps_what_has_arrived(server, path, monkeypatch):
    server.will(Answer(cut_after=HALF), Answer())

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download(server.url, path)
    assert download(server.url, path).read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={HALF}-"]


def test_two_that_want_the_same_file_share_one_download(server, path):
    server.will(Answer(hang=0.3))
    threads = [threading.Thread(target=download, args=(server.url, path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == FILE
    assert len(server.requests) == 1
