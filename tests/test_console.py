"""Promises of agent/console.py and agent/errors.py: messages arrive whole, and say what is wrong where."""

import io

import pytest
import torch

from agent import console
from agent.errors import NonFinite, UserError, check_finite, nearest


def test_check_finite_names_tensor_step_and_place():
    good = {"loss": torch.ones(3), "count": torch.tensor([1]), "mask": torch.tensor(True), "none": torch.empty(0)}
    check_finite(good, 1, "world model")
    bad = torch.zeros(2, 4)
    bad[0, 1], bad[1, 2], bad[1, 3] = float("nan"), float("inf"), -float("inf")
    with pytest.raises(NonFinite) as caught:
        check_finite(good | {"prediction": bad, "variance": torch.tensor(float("nan"))}, 123, "world model")
    text = str(caught.value)
    assert text.startswith("world model, step 123: not finite: ")
    assert "prediction (2, 4): 1 NaN and 2 infinite of 8" in text and "variance ()" in text and "loss" not in text
    assert isinstance(caught.value, UserError)


def test_nearest():
    assert nearest("wrold", ["world", "critic"]) == " (did you mean 'world'?)"
    assert nearest("xyz", ["world", "critic"]) == ""


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    return Clock()


@pytest.fixture(autouse=True)
def loud():
    yield
    console.set_quiet(False)


def test_progress_without_a_terminal_prints_few_lines(capsys, clock):
    with console.Progress(clock=clock) as progress:
        progress.start("world model", total=100, done=20)
        for n in range(21, 101):
            clock.now += 0.5
            progress.update(n, f"loss {n}")
        progress.start("prepare critic")
        clock.now += 7.0
        progress.start("critic", total=3, unit="games")
        clock.now += 1.0
        progress.update(2, "[red]markup stays text[/red]")
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "world model: 100 steps, resumed at 20",
        "world model: 80/100 (2 it/s, 10 s left)  loss 80",
        "world model: 100 steps in 40.0 s (2 it/s)  loss 100",
        "prepare critic: 7.0 s",
        "critic: 3 games",
        "critic: stopped at 2/3 in 1.0 s (2 it/s)  [red]markup stays text[/red]",
    ]


def test_quiet_sends_everything_to_standard_error(capsys):
    with console.Progress(quiet=True) as progress:
        progress.start("a", total=1)
    console.set_quiet(True)
    console.tell("message")
    console.table("title", [{"x": 1}])
    with console.Progress() as progress:
        progress.start("b", total=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert all(text in err for text in ("a: 1 steps", "message", "title", "b: 1 steps"))


def test_messages_are_neither_wrapped_nor_interpreted(capsys):
    long = "[bold] " + "word " * 60 + "end"
    console.tell(long)
    console.warn("careful")
    out, err = capsys.readouterr()
    assert out == long + "\n"
    assert err == "warning: careful\n"


def test_table_is_whole_and_aligned(capsys):
    console.table("Results", [{"name": "full" * 30, "success": 0.912345, "n": 50}, {"name": "[x]", "cost": 1.0}])
    title, header, first, second = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert title == "Results"
    assert header.split() == ["name", "success", "n", "cost"]
    assert first.split() == ["full" * 30, "0.9123", "50"]
    assert second.split() == ["[x]", "1"] and second.endswith("   1") and len(second) == len(header)


def test_progress_on_a_terminal_draws_a_bar(monkeypatch, clock):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "_console", lambda _: console.Console(file=screen, force_terminal=True, width=120))
    with console.Progress(clock=clock) as progress:
        progress.start("world model", total=10)
        for n in range(1, 11):
            clock.now += 0.01  # too fast to draw each one; the last is drawn anyway
            progress.update(n, f"loss {n}")
            console.tell("above the bar")
    text = screen.getvalue()
    assert all(part in text for part in ("world model", "10/10", "it/s", "loss 10", "above the bar"))
    assert "loss 5" not in text
