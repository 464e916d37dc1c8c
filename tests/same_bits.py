"""Shows that two checkouts compute the same bits: weights of tiny trainings, task lists, metrics of evaluations.

    python tests/same_bits.py [CHECKOUT ...]

Each checkout (this one by default) trains two tiny agents through its command line, evaluates and imagines with them.
Hashed are the weights (without memory and constants such as scales), task lists, outcomes and recorded decisions of
evaluations, and errors of the imagination. Prints one JSON object per checkout; the exit code is 1 when two of them
differ. Tensors are hashed by value, without their names, so that a renamed module does not count as a change.
Bits depend on the processor and on the versions of the packages: compare checkouts on one machine, side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load

TINY = (
    "--collect.episodes 16 --collect.length 4 --learn.world-model-steps 20 --learn.critic-steps 15 "
    "--learn.policy-steps 15 --learn.decoder-steps 10 --learn.batch 8 --learn.plan-episodes 4 --threads 1"
).split()
TRAININGS = {"debug": TINY, "point_maze": [*TINY, "--configurator.samples", "16"]}
EVALUATIONS: dict[str, list[str]] = {
    "CEM": [],
    "MPPI": ["--planner", "mppi"],
    "gradient": ["--planner", "gradient"],
    "Mode-1": ["--mode", "1"],
    "oracle dynamics": ["--dynamics", "oracle"],
}
METRICS = ("success", "success_final", "ci_low", "ci_high", "n_tasks", "steps_median", "steps_p95", "task_steps")


def run(checkout: Path, *arguments: str) -> dict[str, Any]:
    """One command of a checkout; the JSON object that it prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    command = [sys.executable, "run_agent.py", *arguments, "--json"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def digest(value: Any) -> str:
    """SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def weights(run_folder: Path) -> str:
    """SHA-256 over the newest checkpoint's weights, by value, without memory and constants."""
    newest = max((run_folder / "checkpoints").glob("**/*.safetensors"))
    constant = re.compile(r"^memory\.|(offset|scale|index|trained)$")
    kept = [v for k, v in load(newest.read_bytes()).items() if not constant.search(k)]
    return digest(sorted(hashlib.sha256(f"{v.dtype}{v.shape}".encode() + v.tobytes()).hexdigest() for v in kept))


def recorded(run_folder: Path) -> list[Any]:
    """Positions and energies in the newest recording of decisions, in order: they feel every bit of a plan."""
    newest = max([*run_folder.glob("thoughts-*.json"), *run_folder.glob("recording-*.json")], key=os.path.getmtime)
    found: list[Any] = []

    def walk(value: Any) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key in ("at", "energy"):
                found.append(inner)
            elif isinstance(inner, dict | list):
                walk(inner)

    walk(json.loads(newest.read_text())["episodes"])
    return found


def bits(checkout: Path) -> dict[str, str]:
    """What a checkout computes, by name."""
    out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for preset, flags in TRAININGS.items():
            folder = Path(scratch) / preset
            run(checkout, "train", preset, "--seed", "3", "--out", str(folder), *flags)
            out[f"{preset}: weights"] = weights(folder)
            for name, how in EVALUATIONS.items():
                result = run(
                    checkout, "evaluate", str(folder), "--tasks", "12", "--budget", "12", "--record", "2", *how
                )
                reference = result.get("reference", result.get("floors", {}))
                kept = {k: result[k] for k in METRICS} | {"reference": sorted(reference.values())}
                kept["decisions"] = recorded(folder)
                out[f"{preset}: task list"] = result["task_list_sha256"]
                out[f"{preset}: {name}"] = digest(kept)
            shown = run(checkout, "imagine", str(folder), "--horizon", "6")
            out[f"{preset}: imagination"] = digest([shown[k] for k in ("latent_mse", "position_error", "plans")])
    return out


def main() -> int:
    """Compare the checkouts."""
    checkouts = [Path(a).resolve() for a in sys.argv[1:]] or [Path(__file__).resolve().parents[1]]
    found = [bits(checkout) for checkout in checkouts]
    for checkout, one in zip(checkouts, found, strict=True):
        print(json.dumps({"checkout": checkout.name, **one}, indent=1))
    different = sorted({name for one in found for name in one if one[name] != found[0].get(name)})
    if different:
        print("different:", ", ".join(different))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
