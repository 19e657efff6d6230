import subprocess
import sys

import pytest

from ddps.cli import info
from ddps.errors import InputError


def test_without_a_command_the_error_is_one_line(run):
    outcome = run()
    assert outcome.is_bad_input()
    assert "ddps --help" in outcome.err


@pytest.mark.parametrize("arguments", [["refine"], ["refine", "a", "b", "-o", "c", "--steps", "0"], ["nonsense"]])
def test_bad_arguments_are_bad_input(run, arguments):
    assert run(*arguments).is_bad_input()


def test_help_names_every_command(run):
    outcome = run("--help")
    assert outcome.code == 0
    for command in ("refine", "evaluate", "benchmark", "train", "convert", "demo", "info"):
        assert f"    {command}" in outcome.out


@pytest.mark.parametrize("command", ["refine", "evaluate", "benchmark", "train", "convert", "demo", "info"])
def test_every_command_has_help(run, command):
    assert run(command, "--help").code == 0


@pytest.mark.parametrize("error", [InputError("this", "that\nover two lines", "these"), OSError("disk; try another")])
def test_errors_end_in_one_line(run, monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(info, "describe", fail)
    assert run("info", "model").is_bad_input()


def test_an_interrupt_ends_quietly(run, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "describe", interrupt)
    outcome = run("info", "model")
    assert outcome.code == 130 and "Traceback" not in outcome.err


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "ddps.cli.main", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0 and error == b""
