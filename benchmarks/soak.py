"""Hours of use at once: jobs, stops, kills, moves, reloads. Nothing may be lost, and nothing may grow.

    python -m benchmarks.soak [--minutes 120] [--seed 1] [--home DIR]

The app runs as its users run it, a process of its own with the tiny models of the tests; every few seconds
something happens to it, drawn from the seed. In the end all that was begun is finished, and each video is
read frame by frame. Writes `benchmarks/results/DATE-soak.json`; the exit status tells whether all went well.
"""

import argparse
import contextlib
import json
import platform
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from diffusers_helper.media.video import read_frames, write_mp4
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from tests.support.app import App
from tests.support.page_client import PageClient

RESULTS = Path(__file__).parent / "results"
OURS = {"X-Endframe-Ichi": "1"}
FINDINGS = (AssertionError, OSError, LookupError, TypeError, ValueError, RuntimeError)
FINDINGS += (AppError, httpx.HTTPError, subprocess.SubprocessError)
"""The errors with which something that is done to the app fails."""
PATIENCE = 600
SAMPLE_SECONDS = 60
KINDS: list[dict[str, Any]] = [
    *({}, {}, {"loop": True}, {"save_section_stills": True, "keep_section_videos": True}),
    {"keyframes": [{"section": 0, "prompt": "A cat runs."}], "guidance_scale": 2},
]
"""Settings of videos beside their length."""
SMALL = {"section_seconds": 0.5, "steps": 2, "resolution": 64, "teacache": True}


@dataclass
class Soak:
    """One app and what was done to it."""

    app: App
    picture: Path
    foreign: Path
    """A video of another program."""
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    wishes: dict[str, GenerationRequest] = field(default_factory=dict)
    """The requests by the ids of their jobs."""
    gone: set[str] = field(default_factory=set)
    """Jobs that were stopped before they had anything, removed or thrown away: on purpose."""
    videos: set[str] = field(default_factory=set)
    """The finished jobs, whose videos are there."""
    presets: dict[str, str] = field(default_factory=dict)
    moves: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    _client: Client | None = None

    # -- what happens --------------------------------------------------------------------------------------

    def add(self) -> None:
        """Queue a video of one to four sections, of any kind."""
        if len([job for job in self.jobs() if job["state"] == "waiting"]) > 5:
            return
        values = SMALL | {"seconds": self.dice.choice([0.5, 1, 2, 2.5]), "seed": self.dice.randrange(2**32)}
        values |= self.dice.choice(KINDS)
        known = {job["id"] for job in self.jobs()}
        settings = {key: value for key, value in values.items() if key != "seconds"}
        picture = handle_file(str(self.picture))
        end = picture if self.dice.random() < 0.2 else None
        self.client.submit(picture, "A cat.", values["seconds"], end, settings, api_name="/generate")
        new = self._wait(lambda: {job["id"] for job in self.jobs()} - known, "the new job is in the list")
        self.wishes[new.pop()] = GenerationRequest.from_dict(values | {"start_image": "cat.png"})

    def stop(self) -> None:
        for job in self._in_state("running"):
            self._post(job, "stop")
            if not job["sections_done"]:
                self.gone.add(job["id"])  # where a section is finished meanwhile, it comes back as unfinished

    def remove(self) -> None:
        for job in self._in_state("waiting")[-1:]:
            if self._post(job, "remove"):
                self.gone.add(job["id"])

    def finish(self) -> None:
        for job in self._unfinished()[:1]:
            self._post(job, "finish")

    def finish_short(self) -> None:
        for job in self._unfinished()[:1]:
            self._post(job, "short")

    def discard(self) -> None:
        for job in self._unfinished()[:1]:
            if self._post(job, "discard"):
                self.gone.add(job["id"])

    def reload(self) -> None:
        """Ten pages are opened, listen for a moment, and are closed."""
        for _ in range(10):
            with httpx.stream("GET", f"{self.app.url}ichi/events?lang=ja", timeout=PATIENCE) as stream:
                next(stream.iter_text())
            httpx.get(self.app.url, timeout=PATIENCE).raise_for_status()

    def use_page(self) -> None:
        """A page opens; fields and a preset are kept, our video and one of another program are dropped."""
        with PageClient(self.app.url) as page:
            page.open().set(seconds=self.dice.choice([1, 2, 3]))
            name, prompt = f"preset {self.dice.randrange(5)}", f"A dog. {self.dice.random()}"
            page.shown.update({"preset-name": name, "prompt": prompt})
            page.click("save-preset")
            self.presets[name] = prompt
            dropped = [*self.app.videos()[-1:], self.foreign]
            for path in dropped:
                page.choose("inbox", [page.upload(path)])
            if "was not made by this app" not in page.message and "このアプリが作った" not in page.message:
                self.troubles.append(f"a video of another program: {page.message[:300]}")

    def headless(self) -> None:
        """A video is made from a terminal in the same folder at the same time."""
        name = f"headless_{self.dice.randrange(10**9)}"
        request = self.picture.with_name(f"{name}.json")
        values = SMALL | {"start_image": str(self.picture), "prompt": "A cat.", "seed": 1}
        request.write_text(json.dumps(values), "utf-8")
        command = self.app.command("--headless", request, "--name", name)
        made = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False)
        if made.returncode or not (self.app.outputs / f"{name}.mp4").is_file():
            self.troubles.append(f"headless: {made.returncode}, {made.stderr[-500:]}")

    def move(self) -> None:
        """The app is ended, its folder gets another name, and it is started there."""
        self._look()
        self.app.stop()
        self.moves += 1
        moved = self.app.home.with_name(f"アプリ {self.moves}")
        self.app.home.rename(moved)
        self.app.settle_in(moved)
        self.restart()

    def kill(self) -> None:
        """The power fails, at any moment."""
        self._look()
        time.sleep(self.dice.random() * 3)
        self.app.kill()
        self._complain()
        self.restart()

    def end(self) -> None:
        """Ctrl-C, and another start."""
        self._look()
        self.app.stop()
        self.restart()

    def restart(self) -> None:
        self._client = None
        self.app.start()
        missing = self.wishes.keys() - {job["id"] for job in self.jobs()} - self.gone - self.videos
        for job in missing:
            if not self._video_of(job):
                self.troubles.append(f"{job} is lost after a start")
        places = ("settings/*", "presets/*", "cache/*", "temp/*", "temp/*jobs/**/*")
        if left := [path for place in places for path in self.app.home.glob(f"{place}.part")]:
            self.troubles.append(f"parts are left after a start: {left}")
        if self.presets:
            kept = json.loads((self.app.home / "presets" / "prompt_presets.json").read_text("utf-8"))
            found = {preset["name"]: preset["prompt"] for preset in kept["presets"]}
            if lost := {name for name, prompt in self.presets.items() if found.get(name) != prompt}:
                self.troubles.append(f"presets are lost after a start: {lost}")

    ACTIONS = (
        *("add",) * 8,
        *("finish",) * 4,
        "finish_short",
        "stop",
        "stop",
        "remove",
        "discard",
        "reload",
        "use_page",
        "headless",
        "kill",
        "end",
        "move",
    )

    # -- looking -------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        if self._client is None:
            patient = {"timeout": PATIENCE}  # the machine may have other things to do
            self._client = Client(self.app.url, verbose=False, download_files=False, httpx_kwargs=patient)
        return self._client

    def jobs(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self.client.predict(api_name="/queue")
        return jobs

    def _look(self) -> None:
        """Note which videos are there: the app lists only the newest."""
        for job in self.jobs():
            self._names[job["id"]] = job["name"]
            if job["state"] == "done":
                self.videos.add(job["id"])
            elif job["state"] == "failed":
                self.troubles.append(f"{job['name']} failed")

    _names: dict[str, str] = field(default_factory=dict)

    def _video_of(self, job: str) -> bool:
        video = self.app.outputs / f"{self._names.get(job, '?')}.mp4"
        if video.exists():
            self.videos.add(job)
        return video.exists()

    def _in_state(self, state: str) -> list[dict[str, Any]]:
        return [job for job in self.jobs() if job["state"] == state]

    def _unfinished(self) -> list[dict[str, Any]]:
        return [job for job in self.jobs() if job["can_finish"]]

    def _post(self, job: dict[str, Any], action: str) -> bool:
        answer = httpx.post(f"{self.app.url}ichi/jobs/{job['id']}/{action}", headers=OURS, timeout=PATIENCE)
        return bool(answer.raise_for_status().json()["done"])

    def _wait(self, is_so: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while not (answer := is_so()):
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE} s: {what}")
            time.sleep(0.2)
        return answer

    def _complain(self) -> None:
        if "Traceback" in self.app.said():
            self.troubles.append(f"the app said: {self.app.said()[-2000:]}")

    def sample(self, minutes: float) -> None:
        """Measure the app's memory and its files."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.app.pid}/status").read_text().splitlines()
        )
        temp = [path for path in (self.app.home / "temp").rglob("*") if path.is_file()]
        self.samples.append(
            {
                "minutes": round(minutes, 1),
                "memory_mib": int(status["RssAnon"].split()[0]) // 1024,
                "threads": int(status["Threads"]),
                "files_open": len(list(Path(f"/proc/{self.app.pid}/fd").iterdir())),
                "temp_mib": round(sum(path.stat().st_size for path in temp) / 2**20, 1),
                "videos": len(self.videos),
            }
        )

    # -- the whole -----------------------------------------------------------------------------------------

    def run(self, minutes: float) -> None:
        begin, sampled = time.monotonic(), 0.0
        while (now := time.monotonic() - begin) < minutes * 60:
            action = self.dice.choice(self.ACTIONS)
            try:
                getattr(self, action)()
                self._look()
            except FINDINGS as error:  # the rest of the time is not lost
                self.troubles.append(f"{action}: {type(error).__name__}: {error}")
            self.done[action] += 1
            if not self.app.is_running:
                self.restart()
            if now - sampled > SAMPLE_SECONDS:
                sampled = now
                with contextlib.suppress(OSError):
                    self.sample(now / 60)
            time.sleep(self.dice.random() * 3)
        self.settle()

    def settle(self) -> None:
        """Finish everything, then read all videos."""

        def is_idle() -> bool:
            self._look()
            for job in self._unfinished():
                self._post(job, "finish")
            return not any(job["can_finish"] or job["state"] in ("waiting", "running") for job in self.jobs())

        self._wait(is_idle, "everything is finished")
        for job, request in self.wishes.items():
            if job in self.videos or self._video_of(job):
                self._check_video(job, request)
            elif job not in self.gone:
                self.troubles.append(f"{job} has no video")
        self._complain()

    def _check_video(self, job: str, request: GenerationRequest) -> None:
        frames = len(list(read_frames(self.app.outputs / f"{self._names[job]}.mp4")))
        most = make_plan(request).pixel_frames
        may_be_shorter = self.done["finish_short"] or request.loop  # whose end fades to its beginning
        if not 0 < frames <= most or (frames < most and not may_be_shorter):
            self.troubles.append(f"{job} has {frames} of {most} frames")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="soak-")) if options.home is None else options.home.absolute()
    picture, foreign = home / "cat.png", home / "foreign.mp4"
    home.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((96, 64), 80).convert("RGB").save(picture)
    comment = json.dumps({"prompt": "a cat", "seed": 1, "video_length": 81, "model_type": "i2v"})
    write_mp4(foreign, [np.zeros((32, 32, 3), np.uint8)], crf=30, comment=comment)
    soak = Soak(App(home / "app", patience=PATIENCE), picture, foreign, random.Random(options.seed))
    begun = datetime.now().astimezone()
    soak.app.start()
    try:
        soak.run(options.minutes)
    finally:
        soak.app.stop()
        result = {
            "begun": begun.isoformat(timespec="seconds"),
            "minutes": round((datetime.now().astimezone() - begun).total_seconds() / 60, 1),
            "machine": f"{platform.machine()}, {platform.system()}, tiny models on a CPU",
            "seed": options.seed,
            "done": dict(soak.done),
            "asked": len(soak.wishes),
            "videos": len(soak.videos),
            "given_up_on_purpose": len(soak.gone - soak.videos),
            "troubles": soak.troubles,
            "samples": soak.samples,
        }
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{begun:%Y-%m-%d}-soak.json"
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=1))
    if options.home is None:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if soak.troubles else 0


if __name__ == "__main__":
    raise SystemExit(main())
