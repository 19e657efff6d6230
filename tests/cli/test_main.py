import argparse
import subprocess
import sys
from importlib import import_module

import pytest

from ddps.cli import info
from ddps.cli.main import COMMANDS, make_parser
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
    for command in COMMANDS:
        assert f"    {command}" in outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    outcome = run(command, "--help")
    assert outcome.code == 0 and f"ddps {command}" in outcome.out and len(outcome.out.splitlines()) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_the_same_of_itself(command):
    commands = argparse.ArgumentParser().add_subparsers()
    import_module(f"ddps.cli.{command}").add_parser(commands)
    [own] = commands._get_subactions()
    assert (own.dest, own.help) == (command, COMMANDS[command])


@pytest.mark.parametrize("arguments", [["--help"], [], ["nonsense"]])
def test_what_runs_no_command_imports_no_torch(arguments):
    code = f"""
import sys
from ddps.cli.main import main
try:
    main({arguments!r})
except SystemExit:
    pass
print(*sorted({{"torch", "numpy", "PIL", "transformers", "huggingface_hub"}} & set(sys.modules)), file=sys.stderr)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0
    assert process.stderr.splitlines()[-1] == ""


def test_only_the_chosen_commands_options_are_known():
    with pytest.raises(SystemExit):
        make_parser(None).parse_args(["info", "--json"])
    assert make_parser("info").parse_args(["info", "--json"]).json


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
