"""A server on this machine that answers as the Hugging Face Hub does, for models in folders."""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What the server has, and what it was asked for.

    Attributes:
        url: of it.
        folder: with OWNER/NAME/COMMIT/FILE.
        revisions: which commit is meant by each revision of each model.
        gated: models whose files nobody may have.
        status: what it answers to everything, if that is not 0.
        requests: the methods and paths, in order.
    """

    url: str
    folder: Path
    revisions: dict[str, dict[str, str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    status: int = 0
    requests: list[str] = field(default_factory=list)

    def publish(self, name, revision="main"):
        """The folder of a new revision of a model, for its files."""
        known = self.revisions.setdefault(name, {})
        commit = hashlib.sha1(f"{name} {revision} {len(known)}".encode()).hexdigest()
        known |= {revision: commit, commit: commit}
        folder = self.folder / name / commit
        folder.mkdir(parents=True)
        return folder

    def downloaded(self):
        """The names of the files that were asked for."""
        gets = [r for r in self.requests if r.startswith("GET") and "/resolve/" in r]
        return sorted(request.rsplit("/", 1)[-1] for request in gets)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path).strip("/")
        hub.requests.append(f"{self.command} /{path}")
        if hub.status:
            return self._send(hub.status, b"")
        if path.count("/") < 3:
            return self._send(404, b"")
        is_api = path.startswith("api/models/")
        owner, name, kind, revision, *rest = path.removeprefix("api/models/").split("/", 4)
        model = f"{owner}/{name}"
        if model not in hub.revisions:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        commit = hub.revisions[model].get(revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        folder = hub.folder / model / commit
        if is_api and kind == "revision":
            return self._send(200, json.dumps({"id": model, "sha": commit}).encode())
        if is_api and kind == "tree":
            return self._send(
                200, json.dumps([_entry(f) for f in sorted(folder.iterdir())]).encode()
            )
        if model in hub.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        content = (folder / rest[0]).read_bytes()
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self._send(200, content, {"X-Repo-Commit": commit, "ETag": etag})

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(file):
    oid = hashlib.sha1(file.read_bytes()).hexdigest()
    return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": oid}


@contextmanager
def running_hub(folder):
    """The server, until the end of the context."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.hub = Hub(f"http://127.0.0.1:{running.server_port}", folder)
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield running.hub
        finally:
            running.shutdown()
            thread.join()
