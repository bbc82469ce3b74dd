"""A Ray cluster of two machines, both on this one: one is lost in the middle; a run is stopped, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run

pytest.importorskip("ray", reason="pip install 'perceptual[ray]'")

# Ray runs in processes of their own, because it leaves threads and connections in the one that it was started from.
TWO_MACHINES = """
import json, os, sys, time
from functools import partial
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from perceptual import cluster
from perceptual.config import EngineConfig

def start(style, folder):
    from perceptual import Stylizer, images
    from perceptual.apply import Outcome
    stylizer, machine = Stylizer.load(style, device="cpu"), ray.get_runtime_context().get_node_id()
    def convert(source, target):
        (folder / machine).touch()
        for _ in range(600):  # until both machines have begun
            if len(list(folder.iterdir())) < 2:
                time.sleep(0.1)
        if "ends_its_process" in source.name:
            os._exit(1)
        time.sleep(0.05)
        images.write(target, images.Picture(stylizer.stylize(images.read(source, levels=True).pixels)))
        return Outcome(str(source), str(target), facts={"machine": machine})
    return convert

if __name__ == "__main__":
    source, target, style, begun = sys.argv[1:]
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    machines = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    second = machines.add_node(**small)
    ray.init(address=machines.address, log_to_driver=False)
    results, lost = [], None
    plan = cluster.plan([source], target, cluster.Naming())
    config = EngineConfig(engine="ray", address=machines.address)
    for result in filter(None, cluster.on_ray(plan.pairs, partial(start, style, Path(begun)), config, "cpu")):
        results.append(result)
        busy = [each.facts.get("machine") for each in results]
        if lost is None and min(map(busy.count, {*busy} - {None}), default=0) > 2 and len({*busy} - {None}) == 2:
            lost = len(results)
            machines.remove_node(second, allow_graceful=False)
    results = [[r.source, r.error, r.facts.get("machine")] for r in results]
    Path("told.json").write_text(json.dumps({"lost": lost, "results": results}))
    ray.shutdown()
    machines.shutdown()
"""

pytestmark = pytest.mark.slow
QUIET = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def processes_of_ray() -> set[int]:
    """The processes of Ray on this computer."""
    names = ("raylet", "gcs_server")
    return {each.pid for each in psutil.process_iter(["name"]) if (each.info["name"] or "").startswith(names)}


def all_gone(before: set[int]) -> bool:
    """Whether the processes of Ray that were not there before end within some seconds."""
    for _ in range(100):
        if processes_of_ray() <= before:
            return True
        time.sleep(0.1)
    return False


def fill(folder: Path, photograph: Image.Image, count: int) -> set[str]:
    folder.mkdir()
    for index in range(count):
        photograph.crop((index, 0, index + 64, 48)).save(folder / f"{index:03}.png")
    return {path.name for path in folder.iterdir()}


def test_each_picture_is_there_once_although_a_machine_was_lost(
    tmp_path: Path, photograph: Image.Image, tiny_style: Path
) -> None:
    before = processes_of_ray()
    names = fill(tmp_path / "in", photograph, 80)
    (tmp_path / "in" / "020_ends_its_process.png").write_bytes((tmp_path / "in" / "000.png").read_bytes())
    script = tmp_path / "two_machines.py"
    script.write_text(TWO_MACHINES)
    (tmp_path / "begun").mkdir()
    words = [sys.executable, str(script), *(str(tmp_path / name) for name in ("in", "out")), str(tiny_style)]
    done = subprocess.run(
        [*words, str(tmp_path / "begun")], cwd=tmp_path, capture_output=True, text=True, env=QUIET, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["lost"] is not None  # both machines had made pictures
    assert told["lost"] < 60
    assert sorted(Path(source).name for source, _, _ in told["results"]) == sorted({*names, "020_ends_its_process.png"})
    ((bad, reason),) = [(source, error) for source, error, _ in told["results"] if error]
    assert bad.endswith("020_ends_its_process.png")
    assert reason.startswith(f"{bad}: its process ended 3 times")
    assert {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."} == names
    for name in names:
        with Image.open(tmp_path / "out" / name) as picture:
            picture.load()  # whole
            assert picture.size == (64, 48)
    assert all_gone(before)


def test_a_run_that_is_stopped_goes_on(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    photograph: Image.Image,
    tiny_style: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = processes_of_ray()
    names = fill(tmp_path / "in", photograph, 1500)
    (tmp_path / "my.safetensors").write_bytes(tiny_style.read_bytes())  # workers get its whole path
    words = ["in", "-o", "out", "--style", "my.safetensors", "--device", "cpu", "--engine", "ray", "--workers", "1"]
    command = [sys.executable, "-m", "perceptual", "stylize", *words, "--json"]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out = tmp_path / "out"
    for _ in range(3000):
        if (out.is_dir() and len(list(out.glob("*.png"))) > 3) or running.poll() is not None:
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    text, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    first = json.loads(text)
    assert first["not_done"] > 0
    assert all_gone(before)
    made = {path.name for path in out.glob("*.png")}
    assert made < names
    for name in sorted(names - made)[20:]:
        (tmp_path / "in" / name).unlink()  # the rest would take a minute
    words = [*words[: words.index("--engine")], "--skip-existing", "--json"]  # the other engine knows the same names
    code, text, err = run(capsys, "stylize", *words)
    assert code == 0, err
    states = [each["state"] for each in json.loads(text)["files"]]
    assert (states.count("written"), states.count("skipped")) == (20, len(made))
    assert {path.name for path in out.glob("*.png")} == {path.name for path in (tmp_path / "in").iterdir()}


@pytest.mark.parametrize("address", ["127.0.0.1:9", "somewhere", "auto"])
def test_an_address_without_a_cluster_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photograph: Image.Image, address: str
) -> None:
    photograph.save(tmp_path / "a.jpg")
    words = ("stylize", tmp_path / "a.jpg", "-o", tmp_path / "b.jpg", "--engine", "ray", "--address", address)
    code, _, err = run(capsys, *words)
    assert code == 1
    assert_one_sentence(err, "There is no usable Ray cluster at " + address, "`ray start`")
