"""How much of ``predict`` a service keeps, and what many clients get: on loopback, with the videos of a folder.

    python benchmarks/serve.py ../shared/data/ucf101_6class --model models/demo --out benchmarks/results/serve.json

Throughput is measured in turns (predict, service, predict, ...), so that both meet the same company on the machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from uniformerv2.core.devices import processor_name
from uniformerv2.data.named_videos import named_files
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.timelines.timeline import find_actions


class Service:
    """``uniformerv2 serve`` in a process of its own."""

    def __init__(self, model: str, folder: Path, *words: str) -> None:
        self._log = folder / "log.txt"
        command = [sys.executable, "-m", "uniformerv2", "serve", model, "--port", "0", *words]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, "--temp-folder", str(folder / "uploads")], stderr=log)
        while (found := re.search(r'"ready".*?"port": (\d+)', self._log.read_text())) is None:
            if self._process.poll() is not None:
                sys.exit(self._log.read_text())
            time.sleep(0.1)
        self.port = int(found[1])

    def predict(self, video: bytes, *, address: str = "/v1/predict") -> tuple[int, float]:
        """Status and seconds of one request."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", address, video)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, time.perf_counter() - begin

    def rss_bytes(self) -> int:
        """Memory of the process that holds the network."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def stop(self) -> int:
        """End it; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)


def in_parallel(service: Service, videos: list[bytes], *, clients: int) -> list[tuple[int, float]]:
    """Statuses and seconds, with so many clients that each send one video after the other."""
    found: list[tuple[int, float]] = []
    waiting = list(videos)

    def client() -> None:
        while waiting:
            try:
                video = waiting.pop()
            except IndexError:
                return
            found.append(service.predict(video))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def throughput(service: Service, model: str, paths: list[Path], *, turns: int) -> dict[str, Any]:
    """Videos per second of ``Predictor.stream`` here and of the service, in turns."""
    predictor = Predictor(model)
    videos = [path.read_bytes() for path in paths]
    list(predictor.stream(paths[:2]))
    in_parallel(service, videos[:2], clients=2)
    rates: dict[str, list[float]] = {"predict": [], "service": []}
    for _ in range(turns):
        begin = time.perf_counter()
        list(predictor.stream(paths))
        rates["predict"].append(len(paths) / (time.perf_counter() - begin))
        begin = time.perf_counter()
        found = in_parallel(service, videos, clients=2)
        rates["service"].append(len(paths) / (time.perf_counter() - begin))
        if {status for status, _ in found} != {200}:
            sys.exit(f"Not all videos were served: {found}")
    ratios = [service / predict for predict, service in zip(rates["predict"], rates["service"], strict=True)]
    return {"videos": len(paths), "videos_per_second": rates, "ratios": ratios, "median_ratio": median(ratios)}


def timelines(service: Service, model: str, video: Path, *, turns: int) -> dict[str, Any]:
    """Seconds of ``find_actions`` here and of the service for one long video, in turns."""
    predictor, content = Predictor(model), video.read_bytes()
    seconds: dict[str, list[float]] = {"find_actions": [], "service": []}
    for _ in range(turns):
        begin = time.perf_counter()
        find_actions(video, predictor)
        seconds["find_actions"].append(time.perf_counter() - begin)
        status, spent = service.predict(content, address="/v1/timeline")
        if status != 200:
            sys.exit(f"The timeline was refused: {status}")
        seconds["service"].append(spent)
    ratios = [here / there for here, there in zip(seconds["find_actions"], seconds["service"], strict=True)]
    return {"video": video.name, "seconds": seconds, "ratios": ratios, "median_ratio": median(ratios)}


def load(service: Service, video: bytes, *, clients: int, requests: int) -> dict[str, Any]:
    """What many clients at once get."""
    found = in_parallel(service, [video] * requests, clients=clients)
    counts = {str(status): sum(one == status for one, _ in found) for status in {status for status, _ in found}}
    seconds = sorted(seconds for status, seconds in found if status == 200)
    return {
        "clients": clients,
        "requests": requests,
        "lost": requests - len(found),
        "statuses": counts,
        "median_seconds": median(seconds),
        "p99_seconds": quantiles(seconds, n=100, method="inclusive")[98] if len(seconds) > 1 else seconds[0],
    }


def memory(service: Service, videos: list[bytes], *, seconds: float) -> dict[str, Any]:
    """Whether memory grows while videos come one after the other."""
    samples, begin, count = [], time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        service.predict(videos[count % len(videos)])
        count += 1
        if count >= 20 and count % 10 == 0:
            samples.append(service.rss_bytes())
    tenth = max(1, len(samples) // 10)
    growth = median(samples[-tenth:]) / median(samples[:tenth]) - 1
    return {"seconds": seconds, "requests": count, "growth": growth, "bytes": samples[-1]}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="models/demo")
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--long", type=Path, metavar="VIDEO", help="also the timeline of this one")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    paths = named_files([str(options.data)])[0]
    paths = paths[:: max(1, len(paths) // options.videos)][: options.videos]
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }
    with tempfile.TemporaryDirectory() as folder:
        service = Service(options.model, Path(folder), "--queue-size", "16")
        report["throughput"] = throughput(service, options.model, paths, turns=options.turns)
        if options.long is not None:
            report["timeline"] = timelines(service, options.model, options.long, turns=options.turns)
        report["load"] = load(service, paths[0].read_bytes(), clients=64, requests=options.requests)
        if options.minutes:
            videos = [path.read_bytes() for path in paths]
            report["memory"] = memory(service, videos, seconds=60 * options.minutes)
        report["exit_code"] = service.stop()
    report["load_average_at_the_end"] = os.getloadavg()
    text = json.dumps(report, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
