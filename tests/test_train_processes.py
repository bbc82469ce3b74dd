"""Training in several processes: the same result as in one, one voice, and an end for all when one ends.

Starting a process takes seconds, so one start does many jobs, and the tests look at what they left.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import launched
import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import assert_one_sentence
from PIL import Image
from torch import Tensor

from perceptual import checkpoints, cli
from perceptual.errors import ConfigError
from perceptual.networks import BatchNorm
from perceptual.train.processes import Processes

pytestmark = pytest.mark.usefixtures("one_thread")
slow = pytest.mark.slow

COMMON = ["--data", "photos", "--weights", "vgg16=vgg.safetensors", "--steps", "6", "--batch", "4", "--workers", "0"]
COMMON += ["--tick-every", "1", "--save-every", "2", "--precision", "float32", "--device", "cpu", "--preview-every"]
LAYERS = ["--content-layers", "vgg16:relu1_1", "--style-layers", "vgg16:relu1_2", "--style-size", "48", "--size", "48"]
ARCHITECTURE = "c3s1-4 d4 r4 U4 c3s1-3"
ONE_STYLE = ["train", "style", *COMMON, "3", *LAYERS, "--architecture", ARCHITECTURE, "--style", "one.png"]
TWO_STYLES = [*ONE_STYLE, "two.png", "--norm", "conditional_instance", "--temporal-weight", "1", "--noise", "0.06"]
TWO_STYLES += ["--ema", "0.9"]
ENLARGE = ["train", "upscale", *COMMON, "0", "--scale", "2", "--size", "32", "--degradation", "photo"]
JOBS = {
    "style": TWO_STYLES,
    "workers": [*TWO_STYLES, "--workers", "2"],
    "batch_norm": [*ONE_STYLE, "--norm", "batch", "--ema", "0.9"],
    "own": [*TWO_STYLES, "--from", "base.safetensors", "--style-steps", "2"],
    "upscale": [*ENLARGE, "--architecture", "c3s1-4 r4 s2-3", "--loss", "vgg16:relu1_2=1,l1=1"],
}
SEARCH = [*ONE_STYLE, "--steps", "1", "--out", "two/search.safetensors", "--search", "tv_weight=1e-6,1e-5"]
SEARCH += ["--held-out", "others", "--json", "--quiet"]
STOPPED = {"words": [*TWO_STYLES, "--out", "two/stopped.safetensors"], "spoil": "terminated"}
KILLED = {"words": [*TWO_STYLES, "--out", "two/killed.safetensors"], "spoil": "killed"}
FIRST_KILLED = {"words": [*TWO_STYLES, "--out", "two/first_killed.safetensors"], "spoil": "killed", "rank": 0}
BROKEN = {"words": [*TWO_STYLES, "--out", "two/broken.safetensors"], "spoil": "broken"}
ERRORS = {
    "unreadable": ("None of the 7 images in the data folder has more than one colour", {"spoil": "unreadable"}),
    "out_of_range": ("The output has values far outside", {"spoil": "out_of_range"}),
    "disk_full": ("the disk is full", {"spoil": "disk_full", "rank": 0}),
    "indivisible": ("give a multiple of 2, such as --batch 4", {"more": ["--batch", "3"]}),
    "diverged": ("The training diverged", {"more": ["--learning-rate", "1"]}),
    "no_photos": ("data folder nowhere is missing", {"more": ["--data", "nowhere"]}),
}


def run_alone(*words: str, resume: bool = False) -> int:
    return cli.main([*words, *(["--resume"] if resume else [])])


def start(jobs: list[dict[str, Any]], count: int = 2) -> list[tuple[int, list[str], str, str]]:
    """Run jobs in processes of their own. For each process: its exit code, those of its jobs, stdout and stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(count):
        where = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        env = {**os.environ, **where, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, launched.__file__, json.dumps(jobs)]
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    done = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        done.append((process.returncode, re.findall(r"\[code (\d+)\]", out), out, err))
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder: photos, one of them damaged, two paintings, and the first layers of a VGG-16."""
    place = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    for name in ("photos", "others"):
        (place / name).mkdir()
    for name in (*(f"photos/{k}.png" for k in range(6)), "others/6.png", "one.png", "two.png"):
        small = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
        small.resize((80, 70), Image.Resampling.BICUBIC).save(place / name)
    (place / "photos/broken.jpg").write_bytes(b"not a photo")
    generator, state = torch.Generator().manual_seed(0), {}
    for index, channels in ((0, 3), (2, 64)):
        state[f"features.{index}.weight"] = 0.1 * torch.randn(64, channels, 3, 3, generator=generator)
        state[f"features.{index}.bias"] = torch.zeros(64)
    safetensors.torch.save_file(state, place / "vgg.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


@pytest.fixture(scope="module")
def alone(folder: Path) -> None:
    """All jobs in one process, and a run that stopped after step 3."""
    assert run_alone(*TWO_STYLES, "--steps", "2", "--out", "base.safetensors") == 0
    for name, words in JOBS.items():
        assert run_alone(*words, "--out", f"one/{name}.safetensors") == 0
    with pytest.MonkeyPatch.context() as patch:
        launched.send(patch, signal.SIGTERM, after=2)
        assert run_alone(*TWO_STYLES, "--out", "one/stopped.safetensors") == 130


@pytest.fixture(scope="module")
def pair(alone: None) -> list[tuple[int, list[str], str, str]]:
    """The same jobs in two processes, then errors, a search, a stop, and at last process 1 is killed."""
    jobs: list[dict[str, Any]] = [
        {"words": [*words, "--out", f"two/{name}.safetensors"]} for name, words in JOBS.items()
    ]
    for name, (_, job) in ERRORS.items():
        jobs.append({"words": [*TWO_STYLES, "--out", f"two/{name}.safetensors", *job.get("more", [])], **job})
    return start([*jobs, {"words": SEARCH}, STOPPED, KILLED])


@pytest.fixture(scope="module")
def resumed(pair: object) -> list[tuple[int, list[str], str, str]]:
    """The killed run goes on in two processes. Then process 1 of another run meets a bug."""
    return start([{"words": [*KILLED["words"], "--resume"]}, BROKEN])


def log(path: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds_per_step"} for line in lines]


def assert_close_logs(one: str, two: str) -> None:
    for line, other in zip(log(one), log(two), strict=True):
        assert line == pytest.approx(other, rel=1e-3, abs=1e-4)


@torch.no_grad()
def result(path: str) -> Tensor:
    """What a trained network makes of an image. With batch norm, by the statistics of the image.

    Weights cannot be compared: where a norm follows a bias, its gradient is 0 but for rounding, and Adam makes steps of
    the usual size from that. They do not change the result.
    """
    network, card = checkpoints.load(Path(path))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    style = torch.tensor([[0.3, 0.7]]) if len(card.styles) == 2 else None
    output: Tensor = network.train()(image, style)
    return output


@slow
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_train_as_one_does(pair: object, name: str) -> None:
    one, two = f"one/{name}.safetensors", f"two/{name}.safetensors"
    assert_close_logs(f"one/{name}.jsonl", f"two/{name}.jsonl")
    assert checkpoints.read_card(Path(one)) == checkpoints.read_card(Path(two))
    assert sorted(path.name for path in Path("one").glob(f"{name}.*")) == sorted(
        path.name for path in Path("two").glob(f"{name}.*")
    )
    torch.testing.assert_close(result(two), result(one), rtol=0, atol=5e-4)


@slow
@pytest.mark.parametrize("name", [name for name in JOBS if name != "upscale"])
def test_previews_are_those_of_one_process(pair: object, name: str) -> None:
    for step in (3, 6):
        sheets = [np.asarray(Image.open(f"{n}/{name}.previews/{step:06d}.png"), np.int16) for n in ("one", "two")]
        if name == "batch_norm":  # running means keep the rounding of the biases
            assert abs(sheets[0] - sheets[1]).mean() < 2
        else:
            assert abs(sheets[0] - sheets[1]).max() <= 2


@slow
def test_gradients_and_references_are_those_of_one_process(pair: object) -> None:
    """Adam's first moments are sums of the gradients."""
    (mine, info), (theirs, other) = (checkpoints.load_state(f"{n}/stopped.state") for n in ("one", "two"))
    assert (info["step"], other["step"]) == (3, 3)
    assert info["references"] == other["references"]
    assert info["unreadable"] == other["unreadable"] == ["photos/broken.jpg"]
    assert info["identity"] == other["identity"]
    moments = [name for name in mine if name.endswith("exp_avg")]
    assert moments
    largest = max(float(mine[name].abs().max()) for name in moments)
    for name in moments:
        torch.testing.assert_close(theirs[name], mine[name], rtol=1e-3, atol=1e-4 * largest, msg=name)


@slow
def test_reading_ahead_changes_nothing(pair: object) -> None:
    assert log("two/workers.jsonl") == log("two/style.jsonl")


@slow
def test_only_the_first_process_prints(pair: list[tuple[int, list[str], str, str]]) -> None:
    (_, codes, out, err), (_, others, silent, nothing) = pair
    good = ["0"] * len(JOBS) + ["1"] * len(ERRORS) + ["0", "130"]
    assert others == good
    assert codes == [*good, "1"]
    assert re.sub(r"\[code \d+\]\n", "", silent + nothing) == ""
    assert json.loads(re.sub(r"\[code \d+\]\n", "", out))["output"] == "two/search.search.png"  # of --json
    assert "Traceback" not in err
    assert "Warning" not in err
    assert err.count("in 2 processes.") == len(JOBS) + 4 + 2  # two of the errors come before the start
    assert err.split("[code 0]")[0].count("Skipped photos") == 1


@slow
@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_one_process_is_one_sentence_and_ends_all(
    pair: list[tuple[int, list[str], str, str]], name: str
) -> None:
    text = pair[0][3].split("[code ")[len(JOBS) + list(ERRORS).index(name)]
    assert_one_sentence("\n".join(re.findall("^perceptual: .*", text, re.MULTILINE)), ERRORS[name][0])
    saved = {"unreadable": 2, "out_of_range": 1}
    if name in saved:
        assert checkpoints.read_card(Path(f"two/{name}.safetensors")).steps == saved[name]
    if name in ("indivisible", "no_photos"):
        assert not list(Path("two").glob(f"{name}*"))
    assert not list(Path("two").glob(".*"))


@slow
def test_a_search_in_two_processes_compares_once(pair: object) -> None:
    rows = Path("two/search.search.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["tv_weight", "1e-06", "1e-05"]
    assert not list(Path("two").glob("search*.state"))


@slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(pair: list[tuple[int, list[str], str, str]]) -> None:
    assert "Wrote two/stopped.safetensors after 3 steps" in pair[0][3]
    assert "Stopped early; the same command with --resume goes on from here." in pair[0][3]
    assert checkpoints.read_card(Path("two/stopped.safetensors")).steps == 3


@slow
def test_one_process_goes_on_where_two_stopped(pair: object) -> None:
    assert run_alone(*TWO_STYLES, "--out", "two/stopped.safetensors", resume=True) == 0
    assert_close_logs("one/style.jsonl", "two/stopped.jsonl")


@slow
def test_killing_a_process_ends_the_others_and_nothing_is_lost(
    pair: list[tuple[int, list[str], str, str]], resumed: list[tuple[int, list[str], str, str]]
) -> None:
    assert pair[1][0] == -signal.SIGKILL
    last = pair[0][3].split("[code 130]")[1]
    assert "Another process of this training ended, so it stopped after step 3: continue with --resume." in last
    assert [codes[0] for _, codes, _, _ in resumed] == ["0", "0"]
    assert log("two/killed.jsonl") == log("two/style.jsonl")
    whole, parts = (safetensors.torch.load_file(f"two/{name}.safetensors") for name in ("style", "killed"))
    assert [name for name, value in whole.items() if not torch.equal(value, parts[name])] == []


@slow
def test_if_the_first_process_is_killed_its_last_save_is_left(alone: None) -> None:
    (code, _, _, _), (_, codes, _, err) = start([FIRST_KILLED])
    assert (code, codes, err) == (-signal.SIGKILL, ["1"], "[code 1]\n")
    assert checkpoints.load_state("two/first_killed.state")[1]["step"] == 2  # --save-every is 2
    assert run_alone(*FIRST_KILLED["words"], resume=True) == 0
    assert_close_logs("one/style.jsonl", "two/first_killed.jsonl")


@slow
def test_a_bug_in_one_process_prints_its_traceback_and_ends_the_others(
    resumed: list[tuple[int, list[str], str, str]],
) -> None:
    (code, codes, _, err), (other, _, _, trace) = resumed
    assert (code, codes, other) == (0, ["0", "1"], 1)  # the second exit code is that of Python
    assert "RuntimeError: a bug" in trace
    assert "Traceback" not in err
    assert "stopped after step 1: continue with --resume." in err
    assert checkpoints.load_state("two/broken.state")[1]["step"] == 1


@slow
def test_the_groups_are_closed_before_python_ends(resumed: object) -> None:
    # with their threads still running, one process in about forty was aborted (SIGABRT) after its work was done
    assert [Path(f"ended{rank}.txt").read_text() for rank in range(2)] == ["groups: False", "groups: False"]


# --- the launchers


def launcher(module: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", module, *flags, "-m", "perceptual"]


@slow
def test_accelerate_launch_with_four_processes_trains_as_one_does(alone: None) -> None:
    flags = ["--multi_gpu", "--num_processes", "4", "--num_machines", "1", "--main_process_port", "0"]
    command = launcher("accelerate.commands.launch", *flags, "--mixed_precision", "no", "--dynamo_backend", "no")
    command += [*TWO_STYLES, "--out", "four.safetensors"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("in 4 processes.") == 1
    assert_close_logs("one/style.jsonl", "four.jsonl")


@slow
def test_ctrl_c_of_torchrun_stops_after_a_step_and_the_state_goes_on(alone: None) -> None:
    command = launcher("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command += [*TWO_STYLES, "--out", "ctrl_c.safetensors", "--steps", "2000", "--preview-every", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    lines = Path("ctrl_c.jsonl")
    while process.poll() is None and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count("Stopped early; the same command with --resume goes on from here.") == 1, err
    steps = checkpoints.read_card(Path("ctrl_c.safetensors")).steps
    assert 0 < steps == checkpoints.load_state("ctrl_c.state")[1]["step"] < 2000


# --- without other processes


def test_a_batch_is_shared_equally_or_refused() -> None:
    assert [Processes(n).share(12) for n in (1, 2, 3, 4)] == [12, 6, 4, 3]
    with pytest.raises(ConfigError, match=r"--batch is 6, which 4 processes cannot share.*such as --batch 8"):
        Processes(4).share(6)


def test_processes_with_other_photos_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "gather", lambda self, mine: [mine, mine, "another hash"])
    with pytest.raises(ConfigError, match="Process 2 has other settings, photos or paintings than process 0"):
        Processes(3).check_equal({"photographs": ["a.png"]})


def test_the_batch_norm_of_all_processes_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with the same images have the statistics, the running means and the gradients of one."""
    torch.manual_seed(0)
    pixels = torch.randn(3, 5, 7, 6)
    one, two = BatchNorm(5), BatchNorm(5)
    once, twice = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    monkeypatch.setattr("perceptual.networks.layers.distributed.all_reduce", lambda value: value.mul_(2))
    doubled = one(torch.cat([once, once]))
    shared = two._by_all(twice, 2)
    torch.testing.assert_close(shared, doubled[:3])
    doubled.square().sum().backward()
    (shared**3).sum().backward(retain_graph=True)
    for (name, value), other in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(other, value, msg=name)
    gradient = torch.autograd.grad((one(torch.cat([once, once])) ** 3).sum(), once)[0]
    twice.grad = None
    (two._by_all(twice, 2) ** 3).sum().backward()
    assert twice.grad is not None
    torch.testing.assert_close(2 * twice.grad, gradient, rtol=1e-4, atol=1e-5)
