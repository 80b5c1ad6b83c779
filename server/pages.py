"""The files of the page: read once, named by their paths, sent with headers that let a page do no more than ours does.

    /               index.html of the folder `page`
    /page/…         its files            /client/…       the JavaScript client's

Nothing is read from disk when somebody asks, so no path leads anywhere else. It must not know what is in a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.responses import Response

INDEX = "/page/index.html"
MAX_FILE = 4 * 2**20  # bytes

TYPES = MappingProxyType(  # what may be in a folder, by how its name ends
    {
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".json": "application/json",
        ".ts": "text/plain; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
        ".svg": "image/svg+xml",
        ".png": "image/png",
        ".ico": "image/x-icon",
        ".woff2": "font/woff2",
    }
)
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # and no policy that could make one: text stays text
        "trusted-types 'none'",
    )
)
HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",  # kept, but asked about every time: the ETag says whether it has changed
    }
)


@dataclass(frozen=True)
class _File:
    body: bytes
    kind: str
    etag: str


class Pages:
    """Every file that is served as it is."""

    def __init__(self, files: Mapping[str, _File] = MappingProxyType({})) -> None:
        self._files = files

    @classmethod
    def of(cls, folders: Mapping[str, Path]) -> Pages:
        """Every file of a known type below each folder, as /NAME/…; what is larger than the limit raises ValueError."""
        files: dict[str, _File] = {}
        for name, folder in folders.items():
            for path in sorted(folder.rglob("*")):
                if path.suffix not in TYPES or not path.is_file():
                    continue
                body = path.read_bytes()
                if len(body) > MAX_FILE:
                    raise ValueError(f"{path} has {len(body)} bytes; a page's file has at most {MAX_FILE}")
                etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
                files[f"/{name}/{path.relative_to(folder).as_posix()}"] = _File(body, TYPES[path.suffix], etag)
        if INDEX in files:
            files["/"] = files[INDEX]
        return cls(files)

    def has(self, path: str) -> bool:
        """Whether it is one of the files, which cost next to nothing to send."""
        return path in self._files

    def answer(self, scope: Mapping[str, Any]) -> Response | None:
        """The answer to a GET or HEAD for one of the files; None where it is for something else."""
        file = self._files.get(scope["path"])
        if file is None or scope["method"] not in ("GET", "HEAD"):
            return None
        headers = {**HEADERS, "ETag": file.etag}
        known = b", ".join(value for name, value in scope["headers"] if name == b"if-none-match").decode("latin-1")
        if file.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=headers)
        response = Response(file.body, headers=headers, media_type=file.kind)
        if scope["method"] == "HEAD":
            response.body = b""  # its length stays that of the file
        return response
