"""Data-parallel training: two ranks learn what one learns from the same batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agent.storage.run import Run

ROOT = Path(__file__).resolve().parents[2]


def torchrun(ranks: int, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "run_agent.py", "train", "debug", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def losses(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["phase"] == "world_model"]
    return [{k: v for k, v in line.items() if k.startswith(("losses/", "health/"))} for line in kept]


@pytest.mark.parametrize("kind", ["vicreg", "sigreg"])
def test_two_ranks_have_the_loss_curve_of_one(tmp_path: Path, kind: str):
    steps = [f"--learn.{name}-steps=0" for name in ("critic", "policy", "decoder")]
    terms = ["--losses.temporal=1", "--losses.within-episode=1", f"--losses.anticollapse={kind}"]
    same = [*steps, *terms, "--learn.world-model-steps=40", "--threads=1"]
    for ranks in (1, 2):
        done = torchrun(ranks, *same, f"--out={tmp_path / str(ranks)}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("world model: 40 steps in") == 1, "one of them speaks"
    one, two = (losses(tmp_path / str(ranks)) for ranks in (1, 2))
    assert len(one) == len(two) >= 5
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
    weights = [Run.open(tmp_path / str(ranks)).load_checkpoint()[0] for ranks in (1, 2)]
    for name in weights[0]:
        if weights[0][name].is_floating_point():
            torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path):
    done = torchrun(2, "--learn.batch=5", f"--out={tmp_path / 'run'}")
    assert done.returncode != 0 and "give a multiple of 2" in done.stderr
    assert not (tmp_path / "run").exists()


def test_one_gpu_for_all_ranks_is_refused(tmp_path: Path):
    done = torchrun(2, "--device=cuda:0", f"--out={tmp_path / 'run'}")
    assert done.returncode != 0 and "one GPU" in done.stderr and not (tmp_path / "run").exists()
