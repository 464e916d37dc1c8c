"""What several tests of run folders share."""

import json
from pathlib import Path

from agent.storage.run import Run

CONFIG = {"seed": 0, "world_model": {"latent": 128, "layers": [64, 64], "name": None}, "steps": 10}
COMMAND = ["run_agent.py", "train", "--out", "a folder"]


def silent(message: str) -> None:
    raise AssertionError(f"unexpected message: {message}")


def start(folder: Path, config: dict = CONFIG, notify=silent) -> Run:
    return Run.create_or_resume(folder, config, COMMAND, notify)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> list[tuple]:
    """(tag, step, value) of every scalar and picture, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0, "images": 0})
    reader.Reload()
    tags = reader.Tags()
    scalars = [(tag, e.step, e.value) for tag in tags["scalars"] for e in reader.Scalars(tag)]
    return scalars + [(tag, e.step, e.encoded_image_string) for tag in tags["images"] for e in reader.Images(tag)]
