"""The whole download, from a hub on this computer: what comes, and what happens when things break."""

import errno
import os
import shutil
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.files.exclusive_lock import exclusive_lock
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN, find_models
from tests.support import fake_hub
from tests.support.fake_hub import ALL_BYTES, SHARD, SHARD_BYTES, Trouble, files_below
from tests.support.small_disks import small_disk
from tests.support.tiny import MODELS, VAE_FILE
from webui.eichi_utils.download import fetch, model_folders
from webui.eichi_utils.download.download import DownloadView
from webui.eichi_utils.download.fetch import LOCK, REPORT_SECONDS, Progress, download
from webui.eichi_utils.download.hub import Hub
from webui.eichi_utils.download.model_folders import RESERVE, ModelFolders, RemoteFile, take_inventory

QUICK = (0.0,) * 4
"""Seconds between tries that take no time."""
TOKENIZER = "tokenizer/tokenizer.json"
VAE_BYTES = (MODELS / VAE_FILE).stat().st_size


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(fetch, "PAUSES", QUICK)


def bring(folders: ModelFolders, *, check: bool = False) -> DownloadView:
    """Download to the end; returns the last view."""
    views: list[DownloadView] = []
    download(folders, views.append, check)
    return views[-1]


def bring_all(folders: ModelFolders, *, check: bool = False) -> None:
    """Download to the end, and compare all with what the hub has."""
    view = bring(folders, check=check)
    assert (view.state, view.done_bytes, view.failure) == ("done", ALL_BYTES, None)
    assert files_below(folders.target) == files_below(MODELS)


def fail(folders: ModelFolders) -> tuple[str, dict[str, object]]:
    view = bring(folders)
    assert view.failure is not None
    assert view.state == "failed"
    return view.failure.code, view.failure.values


def cache_of(folders: ModelFolders) -> Path:
    """FramePack's repository as in Hugging Face's cache; the largest file is a link, as all are there."""
    base = folders.caches[0] / "hub" / f"models--{FRAMEPACK.replace('/', '--')}"
    folder = Path(shutil.copytree(MODELS / FRAMEPACK, base / "snapshots" / "c0ffee"))
    (folder / SHARD).rename(base / "blob")
    (folder / SHARD).symlink_to(base / "blob")
    return folder


def damaged(path: Path) -> bytes:
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


# -- all goes well ---------------------------------------------------------------------------------------


def test_all_that_is_needed_comes_and_can_be_used(hub, folders, tmp_path):
    hub.folder = Path(shutil.copytree(MODELS, tmp_path / "served"))
    for name in ("README.md", "transformer/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"):
        path = hub.folder / HUNYUAN / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not needed")
    view = bring(folders)
    assert (view.done_bytes, view.total_bytes, view.needed_bytes) == (ALL_BYTES,) * 3
    assert files_below(folders.own) == files_below(MODELS)
    assert find_models(folders.own).transformer.folder == folders.own / FRAMEPACK
    sent = [asked.sent for asked in hub.asked if asked.sent]
    assert sent == sorted(sent)  # small files come first
    assert sum(sent) == ALL_BYTES


def test_a_part_that_is_complete_elsewhere_stays_there_untouched(hub, folders):
    cached = cache_of(folders)
    before = {path: (path.stat().st_ctime_ns, path.stat().st_nlink) for path in cached.iterdir()}
    bring(folders)
    assert {path: (path.stat().st_ctime_ns, path.stat().st_nlink) for path in cached.iterdir()} == before
    assert not (folders.own / FRAMEPACK).exists()
    assert take_inventory(folders).state == "complete"
    asked = len(hub.asked)
    bring(folders)
    assert len(hub.asked) == asked


@pytest.mark.usefixtures("hub")
def test_weights_that_comfyui_has_are_used_there_and_not_fetched(folders):
    single = folders.own / "models" / "vae" / "hunyuan_video_vae_bf16.safetensors"
    single.parent.mkdir(parents=True)
    shutil.copy(MODELS / VAE_FILE, single)
    vae = next(part for part in take_inventory(folders).parts if part.name == "vae")
    assert (vae.state, vae.num_bytes) == ("partly", VAE_BYTES)
    assert bring(folders).needed_bytes == ALL_BYTES - VAE_BYTES
    assert find_models(folders.own).vae.checkpoint.signatures.keys() == {single}
    assert bring(folders, check=True).needed_bytes == 0
    assert not (folders.own / VAE_FILE).exists()
    single.unlink()
    assert bring(folders).needed_bytes == VAE_BYTES


@pytest.mark.parametrize(("is_damaged", "can_link"), [(False, True), (True, True), (False, False)])
def test_files_of_a_partial_cache_are_used_unless_damaged(hub, folders, monkeypatch, is_damaged, can_link):
    if not can_link:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(errno.EPERM, "no links here")))
    cached = cache_of(folders)
    (cached / "config.json").unlink()
    if is_damaged:
        (cached / SHARD).write_bytes(damaged(cached / SHARD))
    before = files_below(cached)
    bring_all(folders)
    assert files_below(cached) == before
    fetched = {Path(asked.path).name for asked in hub.asked if FRAMEPACK in asked.path and asked.sent}
    assert fetched == ({"config.json", SHARD} if is_damaged else {"config.json"})
    path = folders.own / FRAMEPACK / SHARD
    assert not path.is_symlink()
    assert path.samefile(cached / SHARD) == (can_link and not is_damaged)


def test_files_without_checksums_are_continued_and_taken(hub, folders, monkeypatch):
    monkeypatch.setattr(
        fake_hub, "describe", lambda path, name: {"rfilename": name, "size": path.stat().st_size}
    )
    hub.trouble[SHARD] = [Trouble(break_after=1000)]
    bring_all(folders)
    assert hub.ranges_of(SHARD) == [None, "bytes=1000-"]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("check", "left"), [(False, VAE_BYTES), (False, 5000), (True, VAE_BYTES)])
def test_what_is_there_counts_and_a_check_adds_the_apps_own_files(folders, check, left):
    shutil.copytree(MODELS, folders.caches[0])
    shutil.rmtree(folders.caches[0] / HUNYUAN)
    shutil.copytree(MODELS / HUNYUAN, folders.own / HUNYUAN)
    vae = next(file for file in Hub().list_files(HUNYUAN) if file.name == VAE_FILE)
    if left < VAE_BYTES:
        os.truncate((folders.own / vae.name).rename(folders.own / vae.part_name), left)
    views: list[DownloadView] = []
    files = Progress(views.append).plan(folders, Hub().list_files, check)
    assert (views[-1].total_bytes, views[-1].needed_bytes) == (ALL_BYTES, VAE_BYTES - left)
    assert (vae in files) == (check or left < VAE_BYTES)
    assert not any(file.repository == FRAMEPACK for file in files)


# -- the connection is lost ------------------------------------------------------------------------------


def test_only_the_rest_is_fetched_after_each_break(hub, folders):
    breaks = [100_000] + [10_000] * 3 * len(QUICK)  # bytes in between renew the patience
    for repository in (HUNYUAN, FLUX_REDUX, FRAMEPACK):
        hub.trouble[repository] = [Trouble(status=503), Trouble(status=429)]
    hub.trouble[SHARD] = [Trouble(break_after=num_bytes) for num_bytes in breaks]
    hub.trouble[SHARD] += [Trouble(status=503), Trouble(status=429, headers={"Retry-After": "0"})]
    bring_all(folders)
    assert hub.ranges_of(SHARD)[:3] == [None, "bytes=100000-", "bytes=110000-"]
    assert hub.sent == ALL_BYTES


@pytest.mark.parametrize("end", [HUNYUAN, SHARD])
def test_a_server_that_stays_away_is_reported_and_resumed_later(hub, folders, end):
    begin = [Trouble(break_after=100_000)] if end == SHARD else []
    hub.trouble[end] = [*begin, *[Trouble(status=500)] * (len(QUICK) + 1)]
    expected = {"host": hub.host, "reason": "HTTP 500 Internal Server Error"}
    assert fail(folders) == ("download_no_connection", expected)
    bring_all(folders)
    assert hub.sent == ALL_BYTES


def test_waits_grow_and_servers_can_lengthen_them(hub, folders, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    answers = {503: {}, 429: {"Retry-After": "7"}, 500: {}}
    hub.trouble[HUNYUAN] = [Trouble(status, headers) for status, headers in answers.items()]
    monkeypatch.setattr(fetch, "PAUSES", (1.0, 2.0))
    assert fail(folders)[1]["reason"] == "HTTP 500 Internal Server Error"
    assert waits == [1.0, 7.0]


# -- what comes is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("repository", "name"), [(FRAMEPACK, SHARD), (HUNYUAN, TOKENIZER)])
def test_a_damaged_file_is_fetched_again(hub, folders, repository, name):
    path = MODELS / repository / name
    hub.trouble[name] = [Trouble(content=damaged(path))]
    bring_all(folders)
    assert hub.sent == ALL_BYTES + path.stat().st_size


def test_a_file_that_comes_damaged_twice_is_named_and_deleted(hub, folders):
    hub.trouble[SHARD] = [Trouble(content=damaged(MODELS / FRAMEPACK / SHARD))] * 2
    view = bring(folders)
    assert (view.failure.code, view.done_bytes) == ("download_wrong_file", ALL_BYTES - SHARD_BYTES)
    assert view.failure.values == {"file": f"{FRAMEPACK}/{SHARD}", "host": hub.host}
    assert not [name for name in files_below(folders.own) if SHARD in name]


@pytest.mark.parametrize("is_newer", [False, True])
def test_a_log_in_page_spoils_nothing_and_versions_do_not_mix(hub, folders, tmp_path, is_newer):
    log_in = Trouble(content=b"<html>", whole=True)
    hub.trouble[SHARD] = [Trouble(break_after=100_000), log_in, log_in]
    name = f"{FRAMEPACK}/{SHARD}"
    expected = {"file": name, "host": hub.host, "size": 6, "expected": SHARD_BYTES}
    assert fail(folders) == ("download_wrong_size", expected)
    of_another_file = folders.own / FRAMEPACK / f"{SHARD}.index.json.0123456789ab.part"
    of_another_file.write_bytes(b"{")
    hub.trouble[SHARD] = [log_in]
    if is_newer:
        hub.folder = Path(shutil.copytree(MODELS, tmp_path / "newer"))
        (hub.folder / name).write_bytes(damaged(hub.folder / name))
    bring(folders)
    assert hub.ranges_of(SHARD)[-1] == (None if is_newer else "bytes=100000-")
    assert (folders.own / name).read_bytes() == (hub.folder / name).read_bytes()
    assert list(folders.own.rglob("*.part")) == [of_another_file]


def test_damage_that_heads_do_not_show_is_mended_by_a_check_and_other_damage_always(hub, folders):
    shutil.copytree(MODELS, folders.own)
    path, config = folders.own / FRAMEPACK / SHARD, folders.own / FRAMEPACK / "config.json"
    wrong = damaged(path)
    path.write_bytes(wrong)
    bring(folders)
    assert (path.read_bytes(), hub.sent) == (wrong, 0)
    bring_all(folders, check=True)
    assert hub.sent == SHARD_BYTES
    config.write_bytes(b"x" * config.stat().st_size)
    bring_all(folders)


# -- the disk and other processes ------------------------------------------------------------------------


def test_the_disk_needs_room_and_some_to_spare(hub, folders, monkeypatch):
    needed = ALL_BYTES + RESERVE
    sizes = dict.fromkeys(("needed", "free"), f"{needed / 1e9:.1f}")
    monkeypatch.setattr(model_folders, "free_bytes", lambda _: needed - 1)
    assert fail(folders) == ("download_disk_too_small", sizes | {"path": str(folders.own)})
    assert hub.sent == 0
    for free in (needed, 0):  # the second time, nothing is written
        monkeypatch.setattr(model_folders, "free_bytes", lambda _, free=free: free)
        bring_all(folders)


def test_copies_from_another_disk_need_room_but_are_not_fetched(hub, tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", 9000) as disk:
        shutil.copytree(MODELS, disk.folder, dirs_exist_ok=True)
        (disk.folder / FRAMEPACK / "config.json").unlink()
        folders = ModelFolders(None, tmp_path / "own", (disk.folder,))
        with monkeypatch.context() as small:
            small.setattr(model_folders, "free_bytes", lambda _: RESERVE + SHARD_BYTES)
            assert fail(folders)[0] == "download_disk_too_small"
        view = bring(folders)
    assert (view.state, view.needed_bytes) == ("done", hub.sent)
    assert hub.sent < SHARD_BYTES


def test_a_download_continues_when_a_full_disk_has_room_again(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(model_folders, "free_bytes", lambda _: 10**12)
    with small_disk(tmp_path / "disk", 5000) as disk:
        folders = ModelFolders(disk.folder, tmp_path / "own")
        assert fail(folders)[0] == "disk_full"
        disk.change("size=9m")
        bring_all(folders)
        assert any(asked.range for asked in hub.asked)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("in_the_way", "ending"), [(".", "own"), ("lllyasviel", ".part")])
def test_what_cannot_be_written_is_named(folders, in_the_way, ending):
    path = folders.own / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    code, values = fail(folders)
    named = str(values["path"])
    assert (code, named.startswith(os.fspath(path)), named.endswith(ending)) == ("cannot_write", True, True)


def test_one_download_at_a_time_writes_to_a_folder(hub, folders):
    with exclusive_lock(folders.own / LOCK, InputError("closing")):
        assert fail(folders) == ("download_runs_already", {"path": str(folders.own)})
    assert hub.asked == []


# -- progress --------------------------------------------------------------------------------------------

COUNTED = RemoteFile("a/b", "c", 100_000)


class Recorder:
    """A progress with a clock that is set by hand; 1,000 bytes and 100 of the file are there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.views: list[DownloadView] = []
        self.progress = Progress(self.views.append)
        self.progress._present[COUNTED] = 100
        self.progress._change(total_bytes=101_000, done_bytes=1100)

    def count(self, num_bytes: int, now: float) -> DownloadView:
        self.now = now
        self.progress.count(COUNTED, num_bytes)
        return self.views[-1]


recorder = pytest.fixture(lambda monkeypatch: Recorder(monkeypatch))


def test_bytes_are_counted_with_those_that_were_there_and_their_speed_is_known_after_a_while(recorder):
    view = recorder.count(200, 1.0)
    assert (view.done_bytes, view.total_bytes, view.speed) == (1200, 101_000, None)
    assert (view.state, view.file) == ("fetching", "a/b/c")
    view = recorder.count(500, 4.0)
    assert view.speed == pytest.approx(100)
    assert view.seconds_left == pytest.approx((101_000 - 1500) / 100)
    assert recorder.count(50, 5.0).done_bytes == 1050


def test_bytes_alone_are_reported_at_intervals(recorder):
    before = len(recorder.views)
    for moment in range(100):
        recorder.count(101 + moment, 1.0 + moment * REPORT_SECONDS / 20)
    assert 5 <= len(recorder.views) - before <= 7
    recorder.progress.enter("checking", "d")
    assert recorder.views[-1].done_bytes == 1200


def test_a_pause_has_its_reason_and_does_not_count_as_slowness(recorder):
    recorder.count(100, 0.0)
    recorder.count(1100, 5.0)
    recorder.progress.enter("waiting", "a/b/c", last_error="HTTP 503")
    view = recorder.views[-1]
    assert (view.state, view.last_error, view.speed) == ("waiting", "HTTP 503", None)
    view = recorder.count(1100, 60.0)
    assert (view.last_error, view.speed) == (None, None)
    assert recorder.count(2100, 65.0).speed == pytest.approx(200)
    recorder.progress.enter("checking", "a/b/c")
    assert recorder.count(2300, 66.0).speed == pytest.approx(200)  # a short pause changes nothing


def test_the_speed_is_that_of_the_last_seconds(recorder):
    for second in range(101):
        recorder.count(10 * second if second <= 50 else 500 + 1000 * (second - 50), float(second))
    assert recorder.views[-1].speed == pytest.approx(1000)
