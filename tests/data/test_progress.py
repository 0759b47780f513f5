import io
import sys

import pytest

from etegrec_hf.data import progress as module
from etegrec_hf.data.progress import WorkProgress


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which pass when the test says so."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def advance(progress, clock, task, seconds: float) -> None:
    clock.now += seconds
    progress.work_done(task)


def made(clock, *args) -> WorkProgress:
    progress = WorkProgress(*args)
    progress.get_time = lambda: clock.now
    return progress


def test_lines_now_and_then_where_there_is_no_terminal(clock, capsys):
    with made(clock) as progress:
        task = progress.begin("decoding", 100, "users", samples=50)
        for _ in range(5):
            advance(progress, clock, task, 10)
        assert capsys.readouterr().err == "decoding 4/100, 5 users/s, 0:16:00 left\n"
        for _ in range(95):
            advance(progress, clock, task, 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "decoding 100/100, 37 users/s"  # 99 steps of 50 in the 135 seconds after the first
    assert len(err.splitlines()) == 4, "one each 30 seconds, and the end"


def test_an_interrupted_task_tells_how_far_it_came_once(clock, capsys):
    def interrupted():
        with made(clock) as progress:
            progress.work_done(progress.begin("[b]decoding", 4, "users", completed=1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err == "[b]decoding 2/4\n"
    with made(clock) as progress:
        progress.tell(progress.begin("decoding", 4, "users"), "a note")
    assert capsys.readouterr().err == "decoding 0/4, a note\n"


def test_other_processes_show_nothing(clock, capsys):
    with made(clock, False) as progress:
        task = progress.begin("decoding", 4, "users")
        advance(progress, clock, task, 1000)
        progress.tell(task, "a note")
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_on_stderr_alone(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with WorkProgress() as progress:
        task = progress.begin("decoding", 2, "users", samples=50)
        print("a result")
        for _ in range(2):
            progress.work_done(task)
        progress.tell(task, "a note")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert "━" in err
    assert "2/2" in err
    assert "users/s" in err
    assert "a note" in err


def test_a_file_for_stdout_gets_what_is_printed(monkeypatch, capsys):
    """The file also gets it while a bar is shown."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    with WorkProgress() as progress:
        progress.begin("decoding", 2, "users")
        print("a result")
    assert file.getvalue() == "a result\n"
