"""Downloads: had once, checked, and kept in the cache folder; UniProt's FASTA files among them.

A download that breaks off goes on where it stopped, in this run or a later one, unless the file has
changed on the server meanwhile. Only a file of the announced length that passes a check gets its
final name; the default check is that it unpacks as gzip.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, IncompleteRead
from urllib3.util import Retry

from ..system.cache import cache_errors, cache_folder
from ..system.console import progress, say
from ..system.errors import DataError

URL_VARIABLE = "MLX_ESM_KERNELS_UNIPROT_URL"
UNIPROT_URL = "https://ftp.uniprot.org/pub/databases/uniprot/current_release"
UNIPARC_PARTITIONS = range(1, 201)
_SWISSPROT = "knowledgebase/complete/uniprot_sprot.fasta.gz"
_UNIREF50 = "uniref/uniref50/uniref50.fasta.gz"
_UNIPARC = "uniparc/fasta/active/uniparc_active_p{}.fasta.gz"

# Attempts in a row that bring no new byte before a download is given up.
ATTEMPTS = 5
# Seconds before the second attempt; twice as many before each further one.
BACKOFF_SECONDS = 1.0
_TIMEOUTS = (15.0, 60.0)  # seconds to connect, and without a byte
_CHUNK = 1 << 18


class DownloadError(DataError):
    """A download did not succeed; the message is a sentence that says why and what to do."""


def swissprot() -> Path:
    """Swiss-Prot, UniProt's reviewed proteins: about 90 MB, 570,000 proteins.

    Returns:
        The gzip FASTA file in the cache folder, downloaded if it is not there yet.

    Raises:
        DownloadError: it cannot be had.
    """
    return _uniprot(_SWISSPROT)


def uniref50() -> Path:
    """UniRef50, UniProt's clusters at 50 % identity, one protein of each: 60 million or more.

    Returns:
        The gzip FASTA file in the cache folder, about 10 GB, downloaded if it is not there yet.

    Raises:
        DownloadError: it cannot be had.
    """
    return _uniprot(_UNIREF50)


def uniparc(partitions: Sequence[int]) -> list[Path]:
    """Partitions of UniParc, UniProt's archive of all protein sequences known.

    Args:
        partitions: numbers from 1 to 200; one that is named twice counts once.

    Returns:
        The gzip FASTA files in the cache folder, downloaded if they are not there yet.

    Raises:
        DownloadError: there is no such partition, or one cannot be had.
    """
    first, last = UNIPARC_PARTITIONS[0], UNIPARC_PARTITIONS[-1]
    for number in partitions:
        if number not in UNIPARC_PARTITIONS:
            raise DownloadError(
                f"UniParc has partitions {first} to {last}; there is no partition {number!r}."
            )
    return [_uniprot(_UNIPARC.format(number)) for number in dict.fromkeys(partitions)]


def missing_downloads(names: Collection[str], partitions: Sequence[int]) -> list[str]:
    """Which of "swissprot", "uniref50" and some partitions of UniParc are not here yet.

    Nothing is downloaded. Other names are passed over.
    """
    paths = {"swissprot": _SWISSPROT, "uniref50": _UNIREF50}
    wanted = {name: path for name, path in paths.items() if name in names}
    wanted |= {f"partition {number} of UniParc": _UNIPARC.format(number) for number in partitions}
    return [name for name, path in wanted.items() if not _kept(path).exists()]


def download(url: str, path: Path, damage: Callable[[Path, str], str] | None = None) -> Path:
    """Download a file, unless it is there already.

    Two processes may ask for the same file: the second one waits for the first.

    Args:
        url: http or https.
        path: where to put it; `path.partial` and others beside it are used meanwhile.
        damage: says what is wrong with the file at a path, shown under a name; "" if nothing is.
            Default: the check of a gzip file.

    Returns:
        `path`.

    Raises:
        DownloadError: the server does not give the file, gives a damaged one twice, or the disk
            does not take it. What has arrived is kept, and the next call goes on from there.
    """
    if path.exists():
        return path
    with cache_errors(), _lock(path.with_name(path.name + ".lock")):
        if path.exists():  # while we waited
            return path
        partial = _Partial(path)
        found = ""
        for _ in range(2):
            _transfer(url, partial)
            found = (damage or _gzip_damage)(partial.path, path.name)
            if not found:
                partial.finish()
                return path
            partial.discard()
    raise DownloadError(
        f"{url} arrived damaged, twice ({found}). The server's copy may be broken, or something "
        "between you and it (a proxy, a sign-in page) gives another answer; try again later."
    )


def _uniprot(path: str) -> Path:
    base = (os.environ.get(URL_VARIABLE) or UNIPROT_URL).rstrip("/")
    kept = _kept(path)
    with cache_errors():
        kept.parent.mkdir(exist_ok=True)
    return download(f"{base}/{path}", kept)


def _kept(path: str) -> Path:
    """Where a file of UniProt's is once it has been downloaded."""
    return cache_folder() / "downloads" / path.rsplit("/", 1)[-1]


class _Partial:
    """What has arrived so far, and what is known about the whole, beside the final path."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(final.name + ".partial")
        self._about_path = final.with_name(final.name + ".partial.json")
        self.validator = ""  # ETag or Last-Modified: tells whether the server's file is the same
        self.total: int | None = None  # bytes of the whole
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            about = json.loads(self._about_path.read_text("utf-8"))
            self.validator, self.total = str(about["validator"]), about["total"]

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def restart(self, validator: str, total: int | None) -> None:
        """Forget what has arrived; a file of this kind begins."""
        self.path.write_bytes(b"")
        self.validator, self.total = validator, total
        about = json.dumps({"validator": validator, "total": total})
        self._about_path.write_text(about, encoding="utf-8")

    def discard(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self._about_path.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def finish(self) -> None:
        """Give the file its final name, safely on the disk."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, self.final)
        self._about_path.unlink(missing_ok=True)


def _transfer(url: str, partial: _Partial) -> None:
    """Bring all bytes into `partial`, over as many requests as it takes."""
    failures, most = 0, partial.size
    with requests.Session() as session:
        # Busy servers are asked again here; connections and bodies that break are our own affair.
        retry = Retry(
            total=None,
            connect=0,
            read=0,
            status=ATTEMPTS - 1,
            backoff_factor=BACKOFF_SECONDS,
            status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=False,  # it may be hours
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        while True:
            try:
                problem = _request(session, url, partial)
            except (requests.RequestException, HTTPError) as error:
                problem = _reason(error)
            if not problem:
                return
            failures = 1 if partial.size > most else failures + 1
            most = max(most, partial.size)
            if failures == ATTEMPTS:
                kept = (
                    f"The {partial.size:,} bytes that have arrived are kept; run the command again "
                    "to go on from there."
                    if partial.size
                    else "Check the connection and run the command again."
                )
                raise DownloadError(f"{url} could not be downloaded: {problem}. {kept}")
            time.sleep(BACKOFF_SECONDS * 2 ** (failures - 1))


def _request(session: requests.Session, url: str, partial: _Partial) -> str:
    """One request: ask for what is missing and write what comes. Returns what went wrong."""
    # Identity: the bytes of the file as it is stored, so that lengths and ranges mean those.
    headers = {"Accept-Encoding": "identity"}
    if partial.size and partial.validator:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.validator}
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS) as response:
        status = response.status_code
        if status == 416 and partial.size == partial.total:
            return ""  # all had arrived before
        if status == 416 or (status == 206 and not _continues(response.headers, partial)):
            problem = f"the server does not go on after {partial.size:,} of {partial.total} bytes"
            partial.discard()
            return problem
        if status == 200:
            partial.restart(_validator(response.headers), _content_length(response.headers))
        elif status != 206:
            raise DownloadError(
                f"{url} cannot be downloaded: the server answers {status} {response.reason}."
            )
        _require_space(partial)
        _receive(response, url, partial)
    if partial.total is not None and partial.size != partial.total:
        return f"{partial.size:,} of {partial.total:,} bytes came"
    return ""


def _receive(response: requests.Response, url: str, partial: _Partial) -> None:
    """Append the body of an answer to what has arrived, under a bar."""
    size = f" ({partial.total / 1e6:,.1f} MB)" if partial.total else ""
    say(f"📥 {'going on with' if partial.size else 'downloading'} {url}{size}")
    with (
        partial.path.open("ab") as file,
        progress(
            total=partial.total,
            initial=partial.size,
            desc=f"📥 {partial.final.name}",
            unit="B",
        ) as bar,
    ):
        # Not iter_content: it would unpack what a server labels Content-Encoding: gzip.
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            file.write(chunk)
            bar.update(len(chunk))


def _continues(headers: Mapping[str, str], partial: _Partial) -> bool:
    """Whether an answer 206 goes on exactly where `partial` ends, in a file of the same length."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
    if not match or int(match[1]) != partial.size:
        return False
    return match[3] == "*" or partial.total is None or int(match[3]) == partial.total


def _validator(headers: Mapping[str, str]) -> str:
    """What If-Range may hold for this answer: a strong ETag, else Last-Modified, else nothing."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _content_length(headers: Mapping[str, str]) -> int | None:
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _require_space(partial: _Partial) -> None:
    """Refuse at the start what the disk cannot hold in the end."""
    missing = (partial.total or 0) - partial.size
    free = shutil.disk_usage(partial.path.parent).free
    if missing > free:
        raise DownloadError(
            f"{partial.final.name} needs {missing / 1e9:.1f} GB more in {partial.path.parent}, "
            f"where {free / 1e9:.1f} GB are free. Make space, or set MLX_ESM_KERNELS_CACHE to "
            "another folder."
        )


def _gzip_damage(path: Path, name: str) -> str:
    """What is wrong with a gzip file, from unpacking all of it; "" if nothing is."""
    try:
        with (
            path.open("rb") as file,
            gzip.GzipFile(fileobj=file) as unpacked,
            progress(total=path.stat().st_size, desc=f"🔍 checking {name}", unit="B") as bar,
        ):
            start = unpacked.read(1)
            while unpacked.read(_CHUNK):
                bar.update(file.tell() - bar.n)
    except (EOFError, OSError, zlib.error) as error:
        return f"{error}".rstrip(".")
    return "" if start else "it is empty"


def _reason(error: Exception) -> str:
    """The innermost cause of a failed request: requests and urllib3 wrap it several times."""
    while True:
        if isinstance(error, IncompleteRead):
            return "the connection broke off"
        inner = next((a for a in error.args if isinstance(a, Exception)), None)
        inner = inner or getattr(error, "reason", None)
        if not isinstance(inner, Exception):
            return f"{error}".rstrip(".")
        error = inner


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it; it ends with the process at the latest."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"📥 waiting for another process that downloads {path.stem}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
