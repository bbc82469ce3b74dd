"""benchmarks/gpu.py, which a GPU runs: it works from end to end on a CPU with tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be measured")
def test_without_a_gpu_one_sentence_says_what_to_do() -> None:
    done = run()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "--device cpu --quick" in done.stderr


@pytest.mark.slow
def test_all_rows_are_printed_on_a_cpu() -> None:
    done = run("--device", "cpu", "--quick")
    assert done.returncode == 0, done.stderr
    table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert {len(row) for row in table} == {4}
    text = done.stdout
    for what in (
        "gallery, 64 px",
        "full, 64 px",
        "96 x 64, end to end",
        "training, paper",
        "training, gallery",
        "lbfgs",
    ):
        assert what in text
