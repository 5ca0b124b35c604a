"""The whole download, from a hub on this computer: what comes, and what happens when things break."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN, find_models
from tests.support.fake_hub import FakeHub, Trouble
from webui.eichi_utils.download import plan as download_plan
from webui.eichi_utils.download.download import Download, DownloadView, ModelFolders
from webui.eichi_utils.download.model_folders import take_inventory
from webui.eichi_utils.download_hub import Hub

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "tests" / "golden" / "models"
SOON = 30
"""Seconds that nothing here needs, unless it waits for ever."""
SHARD = "diffusion_pytorch_model-00001-of-00006.safetensors"
SHARD_BYTES = (MODELS / FRAMEPACK / SHARD).stat().st_size
ALL_BYTES = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())
QUICK = (0.0,) * 4
"""Pauses that take no time."""
CHILD = """
import sys
from pathlib import Path
from webui.eichi_utils.download.download import Download, ModelFolders
download = Download(ModelFolders(None, Path(sys.argv[1])))
download.start()
while download.view().is_running:
    download.wait(download.version, 1)
view = download.view()
sys.exit(f"{view.state} {view.failure}" if view.state != "done" else 0)
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(MODELS) as fake:
        yield fake


@pytest.fixture
def places(tmp_path) -> ModelFolders:
    return ModelFolders(None, tmp_path / "own", (tmp_path / "cache",))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def make(hub: FakeHub, places: ModelFolders, *, token: str | None = None, timeout: float = 20) -> Download:
    return Download(places, lambda: Hub(hub.url, lambda: token, timeout), QUICK)


def finish(download: Download) -> DownloadView:
    """Wait for its end."""
    end = time.monotonic() + SOON
    while download.view().is_running and time.monotonic() < end:
        download.wait(download.version, 1)
    assert not download.view().is_running
    return download.view()


def run(download: Download, *, check: bool = False) -> DownloadView:
    assert download.start(check=check)
    return finish(download)


def failure(view: DownloadView) -> tuple[str, dict[str, object]]:
    assert view.state == "failed"
    assert view.failure is not None
    return view.failure.code, view.failure.values


def files_below(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".download.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def changes(folder: Path) -> dict[Path, tuple[int, int]]:
    """What changes with a file's content, its names and its rights."""
    return {path: (path.stat().st_ctime_ns, path.stat().st_nlink) for path in folder.iterdir()}


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def hold(hub: FakeHub, after: int = 300_000) -> threading.Event:
    """The first request for the largest file stops in the middle until this is set."""
    go_on = threading.Event()
    hub.trouble[SHARD] = [Trouble(break_after=after, wait_for=go_on)]
    return go_on


def half_is_there(places: ModelFolders, after: int = 300_000) -> bool:
    """Whether all that the hub sent before it was held has arrived: what is on its way would come twice."""
    parts = (places.own / FRAMEPACK).glob(f"{SHARD}.*.part")
    return sum(path.stat().st_size for path in parts) == after


def child(hub: FakeHub, places: ModelFolders) -> subprocess.Popen:
    """A download in a process of its own."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(places.own)], cwd=ROOT, env=environment)


def test_it_can_be_imported_without_anything_that_is_slow():
    slow = "{'torch', 'gradio', 'huggingface_hub', 'transformers'}"
    script = f"import sys, webui.eichi_utils.download.command; sys.exit({slow} & set(sys.modules) != set())"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# -- all goes well ---------------------------------------------------------------------------------------


def test_all_that_is_needed_comes_and_can_be_used(hub, places):
    download = make(hub, places)
    assert download.plan().needed_bytes == ALL_BYTES
    view = run(download)
    assert view.state == "done"
    assert (view.done_bytes, view.total_bytes) == (ALL_BYTES, ALL_BYTES)
    assert files_below(places.own) == files_below(MODELS)
    assert find_models(places.own).transformer.folder == places.own / FRAMEPACK
    assert hub.sent == ALL_BYTES


def test_nothing_comes_that_is_not_needed(tmp_path, places):
    served = tmp_path / "served"
    shutil.copytree(MODELS, served)
    for name in ("README.md", "transformer/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"):
        path = served / HUNYUAN / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not needed")
    with FakeHub(served) as hub:
        assert run(make(hub, places)).state == "done"
    assert files_below(places.own) == files_below(MODELS)


def test_a_complete_set_asks_nobody(hub, places):
    shutil.copytree(MODELS, places.caches[0])
    assert run(make(hub, places)).state == "done"
    assert hub.asked == []
    assert files_below(places.own) == {}


def test_what_is_complete_elsewhere_stays_there_untouched(hub, places):
    folder = places.caches[0] / "hub" / f"models--{FRAMEPACK.replace('/', '--')}" / "snapshots" / "c0ffee"
    shutil.copytree(MODELS / FRAMEPACK, folder)
    before = changes(folder)
    assert run(make(hub, places)).state == "done"
    assert changes(folder) == before
    assert not (places.own / FRAMEPACK).exists()
    assert take_inventory(places).state == "complete"


def test_whole_files_of_a_half_cache_are_not_fetched_again(hub, places):
    folder = places.caches[0] / f"models--{FRAMEPACK.replace('/', '--')}" / "snapshots" / "c0ffee"
    shutil.copytree(MODELS / FRAMEPACK, folder)
    (folder / SHARD).unlink()
    view = run(make(hub, places))
    assert (view.state, view.done_bytes) == ("done", ALL_BYTES)
    assert {Path(asked.path).name for asked in hub.asked if FRAMEPACK in asked.path and asked.sent} == {SHARD}
    assert find_models(places.own)


def test_a_damaged_copy_elsewhere_is_fetched_instead(hub, places):
    folder = places.caches[0] / f"models--{FRAMEPACK.replace('/', '--')}" / "snapshots" / "c0ffee"
    shutil.copytree(MODELS / FRAMEPACK, folder)
    (folder / "config.json").unlink()
    damaged = (folder / SHARD).read_bytes()[:-1] + b"x"
    (folder / SHARD).write_bytes(damaged)
    view = run(make(hub, places))
    assert (view.state, view.done_bytes) == ("done", ALL_BYTES)
    assert files_below(places.own) == files_below(MODELS)
    assert (folder / SHARD).read_bytes() == damaged


def test_a_job_can_be_made_with_what_came(hub, places):
    from tests.support.tiny import make_loader, make_request
    from tests.support.tiny import run as make_video

    assert run(make(hub, places)).state == "done"
    request = make_request(seconds=0.5, section_seconds=0.5, width=64, height=64)
    list(make_video(request, places.own / "out", loader=make_loader(places.own)))
    assert (places.own / "out" / "a.mp4").stat().st_size > 0


def test_a_cache_that_huggingface_itself_wrote_is_used(hub, places):
    """And so the server of these tests speaks as the real one."""
    script = "import sys, huggingface_hub\n"
    script += "for name in sys.argv[2:]: huggingface_hub.hf_hub_download(sys.argv[1], name)"
    command = [sys.executable, "-c", script, FLUX_REDUX, *hub.files(FLUX_REDUX)]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(places.caches[0])}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run(command, env=environment, check=True)
    assert [asked.path for asked in hub.asked if asked.method == "HEAD"]
    assert {part.name for part in take_inventory(places).parts if part.state == "complete"} == {
        "image_encoder"
    }


# -- the line breaks -------------------------------------------------------------------------------------


def test_after_a_break_only_the_rest_is_fetched(hub, places):
    hub.trouble[SHARD] = [Trouble(break_after=100_000), Trouble(break_after=200_000)]
    assert run(make(hub, places)).state == "done"
    assert hub.ranges_of(SHARD) == [None, "bytes=100000-", "bytes=300000-"]
    assert hub.sent == ALL_BYTES


def test_a_line_that_falls_silent_is_begun_anew(hub, places):
    go_on = hold(hub)
    assert run(make(hub, places, timeout=0.3)).state == "done"
    go_on.set()
    assert hub.sent == ALL_BYTES


def test_a_server_without_ranges_sends_again_and_what_is_there_is_skipped(hub, places):
    hub.trouble[SHARD] = [Trouble(break_after=100_000), Trouble(whole=True)]
    view = run(make(hub, places))
    assert (view.state, view.done_bytes) == ("done", ALL_BYTES)
    assert hub.sent == ALL_BYTES + 100_000


def test_a_busy_server_is_waited_for(hub, places):
    hub.list_trouble = [Trouble(status=503), Trouble(status=429)]
    hub.trouble[SHARD] = [Trouble(status=503), Trouble(status=429, headers={"Retry-After": "0"})]
    assert run(make(hub, places)).state == "done"
    assert hub.sent == ALL_BYTES


def test_it_waits_at_least_as_long_as_the_server_asks(hub, places):
    hub.trouble[SHARD] = [Trouble(status=503, headers={"Retry-After": "60"})]
    download = make(hub, places)
    download.start()
    wait_for(lambda: download.view().state == "waiting")
    assert download.view().last_error == "HTTP 503 Service Unavailable"
    assert download.cancel()
    assert finish(download).state == "stopped"


def test_breaks_with_bytes_in_between_never_end_the_patience(hub, places):
    hub.trouble[SHARD] = [Trouble(break_after=10_000) for _ in range(3 * len(QUICK))]
    assert run(make(hub, places)).state == "done"


def test_a_line_that_stays_broken_is_told_and_can_be_gone_on_with(hub, places):
    hub.trouble[SHARD] = [Trouble(break_after=100_000)] + [Trouble(status=500)] * (len(QUICK) + 1)
    download = make(hub, places)
    code, values = failure(run(download))
    assert code == "download_no_connection"
    assert values == {"host": f"127.0.0.1:{hub.port}", "reason": "HTTP 500 Internal Server Error"}
    assert run(download).state == "done"
    assert hub.sent == ALL_BYTES


def test_a_plan_without_a_line_is_told(hub, places):
    hub.list_trouble = [Trouble(status=502)]
    with pytest.raises(MachineError, match="download_no_connection"):
        make(hub, places).plan()


def test_an_endpoint_that_is_no_address_is_told(places, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    download = Download(places)
    with pytest.raises(InputError, match="download_endpoint"):
        download.plan()
    assert failure(run(download))[0] == "download_endpoint"


def test_a_repository_that_refuses_is_told_and_comes_with_a_token(hub, places):
    hub.token = "hf_mine"
    code, values = failure(run(make(hub, places)))
    assert code == "download_refused"
    assert values == {"page": f"{hub.url}/{HUNYUAN}"}
    assert run(make(hub, places, token="hf_mine")).state == "done"


# -- what comes is wrong ---------------------------------------------------------------------------------


TOKENIZER = "tokenizer/tokenizer.json"


def wrong(path: Path = MODELS / FRAMEPACK / SHARD) -> bytes:
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(("repository", "name"), [(FRAMEPACK, SHARD), (HUNYUAN, TOKENIZER)])
def test_a_damaged_file_is_fetched_once_again(hub, places, repository, name):
    path = MODELS / repository / name
    hub.trouble[name] = [Trouble(content=wrong(path))]
    view = run(make(hub, places))
    assert (view.state, view.done_bytes) == ("done", ALL_BYTES)
    assert files_below(places.own) == files_below(MODELS)
    assert hub.sent == ALL_BYTES + path.stat().st_size


def test_a_file_that_comes_damaged_twice_is_named_and_deleted(hub, places):
    hub.trouble[SHARD] = [Trouble(content=wrong())] * 2
    download = make(hub, places)
    code, values = failure(run(download))
    assert code == "download_wrong_file"
    assert values == {"file": f"{FRAMEPACK}/{SHARD}", "host": f"127.0.0.1:{hub.port}"}
    assert not [name for name in files_below(places.own) if SHARD in name]
    assert download.view().done_bytes == ALL_BYTES - SHARD_BYTES
    assert run(download).state == "done"


def test_a_log_in_page_instead_of_a_file_is_told_and_spoils_nothing(hub, places):
    hub.trouble[SHARD] = [Trouble(break_after=100_000)] + [Trouble(content=b"<html>", whole=True)] * 2
    download = make(hub, places)
    code, values = failure(run(download))
    assert code == "download_wrong_size"
    assert (values["file"], values["size"], values["expected"]) == (f"{FRAMEPACK}/{SHARD}", 6, SHARD_BYTES)
    assert run(download).state == "done"
    assert hub.ranges_of(SHARD)[-1] == "bytes=100000-"


def test_a_repository_that_is_changed_meanwhile_does_not_mix(hub, places, tmp_path):
    hub.trouble[SHARD] = [Trouble(break_after=100_000)] + [Trouble(status=500)] * (len(QUICK) + 1)
    assert run(make(hub, places)).state == "failed"
    newer = tmp_path / "newer"
    shutil.copytree(MODELS, newer)
    (newer / FRAMEPACK / SHARD).write_bytes(wrong())
    with FakeHub(newer) as other:
        assert run(make(other, places)).state == "done"
        assert other.ranges_of(SHARD) == [None]
    assert files_below(places.own) == files_below(newer)


def test_what_came_before_can_be_checked_and_mended(hub, places):
    assert run(make(hub, places)).state == "done"
    path = places.own / FRAMEPACK / SHARD
    path.write_bytes(wrong())
    assert run(make(hub, places)).state == "done"
    assert path.read_bytes() == wrong()  # whole as far as its head tells
    view = run(make(hub, places), check=True)
    assert (view.state, view.done_bytes) == ("done", ALL_BYTES)
    assert files_below(places.own) == files_below(MODELS)
    assert hub.sent == ALL_BYTES + SHARD_BYTES


def test_a_file_that_is_as_long_as_it_should_be_but_cannot_be_used_is_mended(hub, places):
    assert run(make(hub, places)).state == "done"
    path = places.own / FRAMEPACK / "config.json"
    path.write_bytes(b"x" * path.stat().st_size)
    assert take_inventory(places).state == "partly"
    assert run(make(hub, places)).state == "done"
    assert files_below(places.own) == files_below(MODELS)


# -- the disk --------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_told_before_anything_comes(hub, places, monkeypatch):
    monkeypatch.setattr(download_plan, "free_bytes", lambda _: ALL_BYTES)
    assert failure(run(make(hub, places)))[0] == "download_disk_too_small"
    assert hub.sent == 0


def test_a_disk_that_gets_full_is_told_and_can_be_gone_on_with(hub, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        monkeypatch.setattr(download_plan, "free_bytes", lambda _: 10**12)
        download = make(hub, ModelFolders(disk, tmp_path / "own"))
        assert failure(run(download))[0] == "disk_full"
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        assert run(download).state == "done"
        assert files_below(disk) == files_below(MODELS)
        assert any(asked.range for asked in hub.asked)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_target_that_is_a_file_is_told(hub, places):
    places.own.write_bytes(b"")
    assert failure(run(make(hub, places)))[0] == "cannot_write"


# -- stopped, killed, twice at once ----------------------------------------------------------------------


def test_it_can_be_cancelled_and_gone_on_with(hub, places):
    go_on = hold(hub)
    download = make(hub, places)
    download.start()
    wait_for(lambda: half_is_there(places) and download.view().state == "fetching")
    assert not download.start()
    assert download.cancel()
    assert download.view().is_stopping
    go_on.set()
    view = finish(download)
    assert (view.state, view.is_stopping) == ("stopped", False)
    assert not download.cancel()
    assert run(download).state == "done"
    assert hub.sent == ALL_BYTES


def test_closing_ends_it(hub, places):
    go_on = hold(hub)
    download = make(hub, places)
    assert download.close(0)
    download.start()
    wait_for(lambda: hub.sent_of(SHARD))
    threading.Timer(0.1, go_on.set).start()
    assert download.close(SOON)
    assert download.view().state == "stopped"


def test_a_killed_download_is_gone_on_with_by_the_next_process(hub, places):
    go_on = hold(hub)
    killed = child(hub, places)
    wait_for(lambda: half_is_there(places))
    killed.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    killed.wait()
    go_on.set()
    sent = hub.sent
    assert child(hub, places).wait(SOON) == 0
    assert hub.ranges_of(SHARD) == [None, "bytes=300000-"]
    assert hub.sent - sent == ALL_BYTES - sent
    assert files_below(places.own) == files_below(MODELS)


def test_a_second_process_is_told_and_does_no_harm(hub, places):
    go_on = hold(hub)
    first = child(hub, places)
    wait_for(lambda: hub.sent_of(SHARD))
    code, values = failure(run(make(hub, places)))
    assert code == "download_runs_already"
    assert values == {"path": str(places.own)}
    go_on.set()
    assert first.wait(SOON) == 0
    assert hub.sent == ALL_BYTES
    assert run(make(hub, places)).state == "done"


def test_a_second_download_in_this_process_is_told_too(hub, places):
    go_on = hold(hub)
    first, second = make(hub, places), make(hub, places)
    first.start()
    wait_for(lambda: hub.sent_of(SHARD))
    assert failure(run(second))[0] == "download_runs_already"
    go_on.set()
    assert finish(first).state == "done"
    assert run(second).state == "done"
    assert hub.sent == ALL_BYTES
