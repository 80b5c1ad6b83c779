"""The page's files: what is served, with which headers, and that no path leads elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.toy_server import ToyServer

from tokenauction.server.app import AppSettings
from tokenauction.server.pages import MAX_FILE, POLICY, TYPES, Pages


@pytest.fixture
async def http(server: ToyServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        yield client


def folder_with(folder: Path, **files: bytes) -> Path:
    for name, body in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


async def test_client_module_is_served_as_a_module(http: httpx.AsyncClient) -> None:
    answer = await http.get("/client/tokenauction.js")
    assert answer.status_code == 200 and "export class Client" in answer.text
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_pages_may_do_nothing_but_talk_to_their_server(http: httpx.AsyncClient) -> None:
    policy = (await http.get("/client/example.html")).headers["content-security-policy"]
    assert policy == POLICY and "unsafe" not in policy and "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy and "require-trusted-types-for 'script'" in policy


async def test_file_that_has_not_changed_is_not_sent_again(http: httpx.AsyncClient) -> None:
    first = await http.get("/client/errors.js")
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}'):
        again = await http.get("/client/errors.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await http.get("/client/errors.js", headers={"If-None-Match": '"other"'})).content == first.content


async def test_head_says_how_long_a_file_is(http: httpx.AsyncClient) -> None:
    body = (await http.get("/client/errors.js")).content
    head = await http.head("/client/errors.js")
    assert (head.status_code, head.content, int(head.headers["content-length"])) == (200, b"", len(body))


async def test_files_of_a_page_do_not_count_as_requests(start: Callable[..., Any]) -> None:
    settings = AppSettings(requests_per_second=0.001, request_burst=1)
    async with start(settings=settings) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        for _ in range(5):
            assert (await http.get("/client/errors.js")).status_code == 200
        assert (await http.get("/v1/auctions")).status_code == 200
        assert (await http.get("/v1/auctions")).status_code == 429


@pytest.mark.parametrize(
    "path",
    [
        "/client/../app.py",
        "/client/%2e%2e/client.py",
        "/client/..%2fclient.py",
        "/client//tokenauction.js",
        "/client/",
        "/client/tokenauction.js/",
        "/client/tokenauction.js%00",
        "/page/../../pyproject.toml",
    ],
)
async def test_no_path_leads_out_of_the_folders(server: ToyServer, path: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]


async def test_files_are_read_and_not_written(http: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await http.request(method, "/client/errors.js")).status_code in (404, 405)


def test_index_is_the_root_and_unknown_types_stay_out(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, index_dot_html=b"<!doctype html>", deep__a_dot_css=b"p {}", secret_dot_py=b"x = 1")
    pages = Pages.of({"page": folder})
    for path, found in (("/", True), ("/page/deep/a.css", True), ("/page/secret.py", False), ("/page/deep", False)):
        answer = pages.answer({"path": path, "method": "GET", "headers": []})
        assert (answer is not None) == found, path


def test_file_beyond_the_limit_is_refused_when_the_server_starts(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, big_dot_js=b" " * (MAX_FILE + 1))
    with pytest.raises(ValueError, match="at most"):
        Pages.of({"page": folder})


def test_every_file_of_the_page_is_of_a_known_type_and_holds_nothing_inline() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [path for folder in ("server/web", "clients/web") for path in (root / folder).rglob("*") if path.is_file()]
    assert files and {path.suffix for path in files} <= {*TYPES, ".LICENSE"}
    for path in files:
        if path.suffix == ".html":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text), f"{path} has inline code"
