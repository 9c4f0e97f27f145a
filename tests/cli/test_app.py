"""Wrong use, help, versions, completion, and a missing extra: one line and the right status."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import mido
import pytest

import midinet
from midinet.cli.app import VERBS
from tests.harness.needs import need_program


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "text.mid").write_text("this is no MIDI file, whatever its name says")
    (tmp_path / "empty.mid").touch()
    tune = mido.MidiFile(tracks=[mido.MidiTrack([mido.Message("note_on", time=10)])])
    tune.save(tmp_path / "good.mid")
    whole = (tmp_path / "good.mid").read_bytes()
    (tmp_path / "header.mid").write_bytes(whole[:14])
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("serve nowhere", "'nowhere' is no address"),
        ("serve localhost:99999", "between 1 and 65535"),
        ("serve 203.0.113.1:8080", "does not have that address"),
        ("serve {taken}", "the port is in use"),
        ("monitor localhost", "(a server would be HOST:PORT, with a port from 1 to 65535, or midi://NAME)"),
        ("monitor localhost:0", "(a server would be HOST:PORT, with a port from 1 to 65535"),
        ("monitor {free}", "nobody listens on"),
        ("send {free} clock", "nobody listens on"),
        ("send {taken} note_on note=200", "'note_on note=200' is no message"),
        ("send {taken} note_on note=60 bogus", "'bogus' is no message"),
        ("send {taken} note_on note=x", "is no message"),
        ("send {taken} note_on note=60.5", "is no message"),
        ("send {taken} note_on colour=3", "is no message"),
        ("send {taken} note=60", "'note=60' begins no message"),
        ("send {taken} note_on 60 90", "values have names, as in note_on note=60"),
        ("send {taken} end_of_track", "is no message"),
        ("send {taken} sysex data=(1,2,34", "data is written as data=(1,2,3)"),
        ("send {taken} sysex data=(128)", "is no message"),
        ("play {free} {files}/good.mid", "nobody listens on"),
        ("play {free} {files}/none.mid", "No such file"),
        ("play {free} {files}", "Is a directory"),
        ("play {free} {files}/text.mid", "is no MIDI file"),
        ("play {free} {files}/empty.mid", "is no MIDI file"),
        ("play {free} {files}/good.mid {files}/good.mid --loop", "--loop is for one file"),
        ("play {free} {files}/header.mid", "is no MIDI file"),
        ("record {free} {files}/new.mid", "nobody listens on"),
        ("record {free} {files}/none/new.mid", "No such file"),
        ("record {free} {files}", "no regular file"),
        ("record {free} {files}/new.mid --seconds 0", "more than 0"),
        ("record {free} {files}/new.mid --seconds soon", "--seconds"),
        ("ping nowhere", "'nowhere' is no address"),
        ("ping {free}", "nobody listens on"),
        ("ping {taken} --count -1", "--count"),
        ("ping {taken} --interval 0", "--interval has to be from 0.001 to 3600, in seconds"),
        ("ping {taken} --interval nan", "--interval has to be from 0.001 to 3600, in seconds"),
        ("ping {taken} --svg {files}", "no regular file"),
        ("ports now", "unexpected extra argument"),
        ("ports --seconds -1", "--seconds has to be from 0 to 3600"),
        ("ports --seconds nan", "--seconds has to be from 0 to 3600"),
        ("ports --seconds 1 --api flute", "no MIDI system 'flute'"),
        ("bridge", "Missing argument"),
        ("bridge nowhere --input x", "'nowhere' is no address"),
        ("bridge {taken}", "give --input NAME, --output NAME or --virtual NAME"),
        ("bridge {taken} --input x --api flute", "no MIDI system 'flute'"),
        ("bridge --list --api flute", "no MIDI system 'flute'"),
        ("monitor", "Missing argument"),
        ("send {free} --loud", "--loud"),
        ("dance", "dance"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments, what, files, run):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as other:
        # Bound, so that nobody else gets it, and not listening.
        other.bind(("127.0.0.1", 0))
        names = {
            "taken": f"127.0.0.1:{taken.getsockname()[1]}",
            "free": f"127.0.0.1:{other.getsockname()[1]}",
            "files": files,
        }
        before = sorted(files.iterdir())
        status, out, err = run(*(word.format(**names) for word in arguments.split()))
    assert (status, out) == (2, "")
    assert err.startswith("midinet: ")
    assert err.count("\n") == 1
    assert what in err
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_an_example(verb, run):
    status, out, err = run(verb, "--help", env={**os.environ, "PATH": "", "COLUMNS": "80"})
    assert (status, err) == (0, "")
    assert f"  midinet {verb}" in out[out.index("Example") :]
    assert max(map(len, out.splitlines())) <= 80
    for title in ("Options:", "Exit status:", "See also: midinet "):
        assert f"\n{title}" in out or f"\n  {title}" in out
    # What an option takes is a unit or a kind of thing, and not a type of Python's.
    assert not re.search(r"INTEGER|FLOAT|TEXT|PATH|<int|<float|<str|<path|<list", out)
    assert "{" not in out.splitlines()[0]


def test_the_help_names_every_verb_in_a_line(run):
    status, out, err = run("--help", env={**os.environ, "PATH": "", "COLUMNS": "80"})
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    for verb, page in VERBS.items():
        assert any(re.fullmatch(rf"  {verb} +{re.escape(page.summary)}", line) for line in lines), verb
        assert set(page.see_also) <= set(VERBS) - {verb}


def test_the_help_says_what_the_environment_and_the_exit_statuses_mean(run):
    out = run("--help")[1]
    assert all(
        f"\n    {word} " in out for word in ("MIDINET_TOKEN", "MIDINET_INTERFACES", "0", "1", "2", "130")
    )


def test_no_verb_at_all_is_wrong_use(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "Commands:" in err


def test_the_version_is_shown_with_those_that_a_report_of_a_fault_needs(run):
    status, out, err = run("--version")
    assert (status, err) == (0, "")
    first, second, third = out.splitlines()
    assert first == f"midinet {midinet.__version__}"
    assert second.startswith(f"Python {platform.python_version()} (")
    assert f"mido {version('mido')}, typer {version('typer')}, " in third


def test_a_package_that_is_missing_has_no_version(monkeypatch, capsys):
    from midinet.cli import app

    monkeypatch.setattr(app, "_PACKAGES", ("mido", "no-such-package"))
    assert app.run_app(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"mido {version('mido')}, no-such-package none\n")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_a_missing_package_is_one_line_that_names_the_extra(package):
    code = f"import sys; sys.modules[{package!r}] = None; from midinet.__main__ import main; sys.exit(main())"
    ended = python(code)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert "pip install 'midinet[cli]'" in ended.stderr


def test_a_missing_module_of_our_own_is_a_fault_and_looks_like_one():
    ended = python(
        "import sys; sys.modules['midinet.cli.play'] = None; sys.argv[1:] = ['play']; "
        "import midinet.__main__ as m; m.main()"
    )
    assert ended.returncode == 1
    assert "ModuleNotFoundError" in ended.stderr


def test_importing_midinet_imports_no_part_of_the_command_line():
    ended = python(
        "import sys, midinet, midinet.sync; print({'typer', 'rich', 'midinet.cli'} & set(sys.modules))"
    )
    assert ended.stdout == "set()\n"


def test_midinet_is_a_command_of_its_own():
    script = Path(sys.executable).with_name("midinet")
    if not script.exists():
        pytest.skip("midinet is not installed here")
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, f"midinet {midinet.__version__}")


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_no_verb_and_no_extra_is_imported_before_it_is_used(argument):
    ended = python(
        f"import sys; from midinet.cli.app import VERBS, run_app; run_app([{argument!r}]); "
        "names = {'rtmidi', 'zeroconf', 'ifaddr', 'rich', *(f'midinet.cli.{verb}' for verb in VERBS)}; "
        "print(names & set(sys.modules), file=sys.stderr)"
    )
    assert ended.stderr == "set()\n"


# Completion.


@pytest.fixture
def bash(tmp_path: Path):
    """Run a script in bash, with a home of its own and `midinet` as a command."""
    program = need_program("bash", "Debian: apt-get install bash")
    command = tmp_path / "bin" / "midinet"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m midinet "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"HOME": str(tmp_path), "PATH": f"{command.parent}:{os.environ['PATH']}"}

    def bash(script: str) -> str:
        ended = subprocess.run(
            [program, "--norc", "-c", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    return bash


def completed(bash, *words: str) -> list[str]:
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
        eval "$(midinet --show-completion)"
        COMP_WORDS=(midinet {quoted}) COMP_CWORD={len(words)}
        _midinet_completion midinet
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return bash(script).splitlines()


def test_bash_completes_verbs(bash):
    assert completed(bash, "") == list(VERBS)
    assert completed(bash, "p") == [verb for verb in VERBS if verb.startswith("p")]


def test_bash_completes_options_also_after_an_address_that_it_breaks_in_three(bash):
    assert completed(bash, "--v") == ["--version"]
    assert completed(bash, "ping", "localhost", ":", "8080", "--in") == ["--interval", "--insecure-token"]
    assert "--virtual" in completed(bash, "bridge", "--")


def test_completion_is_installed_where_bash_finds_it(bash):
    assert "bash completion installed" in bash("midinet --install-completion; :")
    assert "_midinet_completion midinet" in bash("source ~/.bashrc; complete -p midinet")
