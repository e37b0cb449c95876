"""Census checkpoints come whole or not at all, over real HTTP; and the command line."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anndata
import numpy as np
import pooch
import pytest
from scvi.model import SCVI

from splicedvae.census import fetch, read, releases
from splicedvae.census.__main__ import main
from splicedvae.census.checkpoints import BASE_URL, DEFAULT_RELEASE


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A checkpoint's bytes."""
    adata = anndata.AnnData(np.random.default_rng(0).poisson(2, (50, 40)).astype(np.float32))
    adata.var_names = [f"ENSMUSG{i:011d}" for i in range(40)]
    SCVI.setup_anndata(adata)
    folder = tmp_path_factory.mktemp("saved") / "model"
    SCVI(adata, n_hidden=8).save(folder)
    return (folder / "model.pt").read_bytes()


class Bucket(BaseHTTPRequestHandler):
    """Serves `content` in the manner that the server's `manner` names."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        body = server.content
        if server.manner == "missing":
            return self.send_error(404)
        if server.manner == "stalled":
            return server.release.wait(10)
        self.send_response(200)
        if server.manner == "page":
            body = b"<html>Please log in</html>"
        elif server.manner == "damaged":
            place = len(body) // 2
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        length = {"long": len(body) + 1000, "short": len(body) - 1000}.get(server.manner, len(body))
        if server.manner != "unannounced cut":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if server.manner in ("cut", "unannounced cut"):
            body = body[: len(body) // 2]
        self.wfile.write(body[:length])

    def log_message(self, *_):
        pass


@pytest.fixture
def bucket(content, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.content, server.manner, server.asked = content, "whole", []
    server.release = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/scvi"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("SPLICEDVAE_CENSUS", server.url)
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


def files(folder):
    return sorted(f.name for f in folder.rglob("*") if f.is_file())


def test_it_is_fetched_once_and_its_hash_kept(bucket, content, tmp_path, capfd):
    target = fetch("mus_musculus", cache_dir=tmp_path)
    assert "100%" in capfd.readouterr().err  # the progress bar
    assert target == tmp_path / DEFAULT_RELEASE / "mus_musculus" / "model.pt"
    assert target.read_bytes() == content
    assert bucket.asked == [f"/scvi/{DEFAULT_RELEASE}/mus_musculus/model.pt"]
    record = target.with_name("model.pt.sha256")
    assert record.read_text().split() == [pooch.file_hash(str(target))]
    bucket.manner = "missing"
    assert fetch("mus_musculus", cache_dir=tmp_path, progress=False) == target
    assert len(bucket.asked) == 1  # from the cache
    assert read(target).path == read(target.parent).path == target
    assert capfd.readouterr().err == ""


def test_a_mirror_can_be_named(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLICEDVAE_CENSUS", "http://127.0.0.1:9/nothing")
    fetch("homo_sapiens", "2024-07-01", cache_dir=tmp_path, base_url=bucket.url + "/")
    assert bucket.asked == ["/scvi/2024-07-01/homo_sapiens/model.pt"]


@pytest.mark.parametrize(
    "manner",
    ["cut", "unannounced cut", "long", "short", "page", "damaged", "missing", "stalled"],
)
def test_what_is_not_whole_is_not_kept(bucket, content, tmp_path, manner):
    bucket.manner = manner
    with pytest.raises(ConnectionError, match=r"/mus_musculus/model\.pt can't be had") as caught:
        fetch("mus_musculus", cache_dir=tmp_path, progress=False, timeout=0.3)
    assert bucket.url in str(caught.value)
    assert "save it as" in str(caught.value)  # how to do without the network
    assert files(tmp_path) == []
    bucket.manner = "whole"
    target = fetch("mus_musculus", cache_dir=tmp_path, progress=False)
    assert target.read_bytes() == content


def test_no_server(bucket, tmp_path):
    bucket.shutdown()
    bucket.server_close()
    with pytest.raises(ConnectionError, match=bucket.url):
        fetch("mus_musculus", cache_dir=tmp_path, progress=False)
    assert files(tmp_path) == []


def test_a_file_that_changed_is_neither_used_nor_replaced(bucket, content, tmp_path):
    target = fetch("mus_musculus", cache_dir=tmp_path, progress=False)
    changed = content[:-1] + b"x"
    target.write_bytes(changed)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"not used.*Remove it to fetch it again"):
            fetch("mus_musculus", cache_dir=tmp_path, progress=False)
    assert target.read_bytes() == changed
    assert len(bucket.asked) == 1
    target.unlink()  # as the message says
    assert fetch("mus_musculus", cache_dir=tmp_path, progress=False).read_bytes() == content


def test_another_file_under_the_same_address_is_noticed(bucket, content, tmp_path):
    target = fetch("mus_musculus", cache_dir=tmp_path, progress=False)
    target.unlink()
    end = content.rindex(b"PK\x05\x06")  # a comment at its end: another whole archive
    bucket.content = content[: end + 20] + b"\x01\x00!"
    with pytest.raises(ValueError, match=r"itself is new, remove model\.pt\.sha256"):
        fetch("mus_musculus", cache_dir=tmp_path, progress=False)


def test_a_file_given_by_hand_is_taken(bucket, content, tmp_path):
    target = tmp_path / DEFAULT_RELEASE / "mus_musculus" / "model.pt"
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    assert fetch("mus_musculus", cache_dir=tmp_path) == target
    assert bucket.asked == []
    assert files(tmp_path) == ["model.pt", "model.pt.sha256"]


def test_a_cache_that_can_not_be_written(bucket, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file.*can't be used.*cache_dir="):
        fetch("mus_musculus", cache_dir=tmp_path / "file" / "cache", progress=False)


def test_unknown_release_and_organism(tmp_path):
    with pytest.raises(ValueError, match=r"2023-12-15.*2024-02-12.*2025-11-08"):
        fetch("mus_musculus", "2023-12-15", cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"danio_rerio.*homo_sapiens.*mus_musculus"):
        fetch("danio_rerio", cache_dir=tmp_path)


def test_releases(bucket, tmp_path, monkeypatch):
    fetch("homo_sapiens", "2024-02-12", cache_dir=tmp_path, progress=False)
    monkeypatch.delenv("SPLICEDVAE_CENSUS")
    table = releases(cache_dir=tmp_path)
    assert list(table) == ["release", "organism", "url", "cached"]
    assert set(table["organism"]) == {"homo_sapiens", "mus_musculus"}
    assert list(table.loc[table["cached"], "release"]) == ["2024-02-12"]
    assert table["url"].iloc[-1] == f"{BASE_URL}/2025-11-08/mus_musculus/model.pt"


def test_command_line(bucket, tmp_path, capsys):
    main(["fetch", "mus_musculus", "--cache", str(tmp_path)])
    target = capsys.readouterr().out.strip()
    main(["list", "--cache", str(tmp_path)])
    assert capsys.readouterr().out.count("True") == 1
    main(["check", target])
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["n_hidden"] == "8"
    assert told["organism"] == "mus_musculus"
    assert told["genes"].startswith("40 (ENSMUSG00000000000, ")
    assert told["sha256"] == pooch.file_hash(target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "mus_musculus", "--release", "yesterday"], "ValueError.*yesterday"),
        (["fetch", "mus_musculus"], "ConnectionError.*can't be had"),
        (["check", "nowhere.pt"], "FileNotFoundError.*nowhere.pt"),
    ],
)
def test_command_line_says_what_is_wrong(bucket, tmp_path, arguments, message):
    bucket.manner = "missing"
    cache = ["--cache", str(tmp_path)] if arguments[0] == "fetch" else []
    with pytest.raises(SystemExit, match=message):
        main([*arguments, *cache])


@pytest.mark.slow
def test_command_line_as_a_process(tmp_path):
    command = [sys.executable, "-m", "splicedvae.census", "list", "--cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("model.pt") == 6
