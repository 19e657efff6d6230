"""A visitor of the web page without a browser: uploads, joins the queue and listens, as the page's script does."""

import http.client
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

PATIENCE = 300
"""Seconds for any one answer, on a machine that has much else to do."""
_MASK = re.compile(r'"path": ?"([^"]+_refined\.png)"')


class Busy(Exception):
    """The queue was full; the message is what the server says."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        mask: the refined mask's file, or None.
        text: all that the server sent.
        succeeded: whether it says so itself.
    """

    mask: bytes | None
    text: str
    succeeded: bool

    @property
    def fine(self) -> bool:
        return self.succeeded and self.mask is not None and "ddps-error" not in self.text


class Visitor:
    """One open page.

    Args:
        address: of the server.
    """

    def __init__(self, address: str):
        parts = urlsplit(address)
        assert parts.hostname is not None
        self._host, self._port, self.session = parts.hostname, parts.port, uuid.uuid4().hex
        config = json.loads(self._get("/config"))
        [button] = [part["id"] for part in config["components"] if part["props"].get("elem_id") == "ddps-refine"]
        [self._refine] = [call["id"] for call in config["dependencies"] if [button, "click"] in call["targets"]]

    def refine(self, photo: bytes, labels: bytes, seed: int = 0) -> Answer:
        """Uploads both and waits for the refined mask, in one pass of the network.

        Raises:
            Busy: too many others wait.
        """
        self.join(photo, labels, seed)
        return self.listen()

    def join(self, photo: bytes, labels: bytes, seed: int = 0) -> None:
        """Uploads both and queues up.

        Raises:
            Busy: as for `refine`.
        """
        paths = self._upload({"photo.png": photo, "labels.png": labels})
        files = [
            {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}} for name, path in paths.items()
        ]
        body = {
            "data": [*files, "labels", 255, "", 1, "single", seed],
            "fn_index": self._refine,
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        self._post("/gradio_api/queue/join", json.dumps(body).encode(), "application/json")

    def listen(self) -> Answer:
        """Waits for what `join` asked for."""
        heard, succeeded = [], False
        for line in self._stream(f"/gradio_api/queue/data?session_hash={self.session}"):
            heard.append(line)
            message = json.loads(line)
            if message["msg"] == "process_completed":
                succeeded = bool(message["success"])
            if message["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                break
        text = "\n".join(heard)
        found = _MASK.search(text)
        mask = None if found is None else self._get("/gradio_api/file=" + quote(json.loads(f'"{found[1]}"')))
        return Answer(mask, text, succeeded)

    def _upload(self, files: Mapping[str, bytes]) -> dict[str, str]:
        body = b""
        for name, content in files.items():
            body += f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'.encode()
            body += b"Content-Type: image/png\r\n\r\n" + content + b"\r\n"
        answer = self._post("/gradio_api/upload", body + b"--x--\r\n", "multipart/form-data; boundary=x")
        return dict(zip(files, json.loads(answer), strict=True))

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE)

    def _get(self, path: str) -> bytes:
        connection = self._connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, (path, answer.status, content[:500])
            return content
        finally:
            connection.close()

    def _post(self, path: str, body: bytes, kind: str) -> bytes:
        connection = self._connect()
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == 503:
                raise Busy(json.loads(content)["detail"])
            assert answer.status == 200, (path, answer.status, content[:500])
            return content
        finally:
            connection.close()

    def _stream(self, path: str) -> Iterator[str]:
        connection = self._connect()
        try:
            connection.request("GET", path, headers={"Accept": "text/event-stream"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            for line in answer:
                text = line.decode().strip()
                if text.startswith("data:"):
                    yield text.removeprefix("data:").strip()
        finally:
            connection.close()
