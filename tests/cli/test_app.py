"""Wrong use, help, versions, and a missing extra: one line and the right status."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import mido
import pytest

import midinet

VERBS = ("serve", "monitor", "send", "play", "record", "demo")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "text.mid").write_text("this is no MIDI file, whatever its name says")
    (tmp_path / "empty.mid").touch()
    tune = mido.MidiFile(tracks=[mido.MidiTrack([mido.Message("note_on", time=10)])])
    tune.save(tmp_path / "good.mid")
    whole = (tmp_path / "good.mid").read_bytes()
    (tmp_path / "cut.mid").write_bytes(whole[:-3])
    (tmp_path / "key.mid").write_bytes(whole.replace(b"\xff\x2f\x00", b"\xff\x59\x02\x50\x50"))
    (tmp_path / "undivided.mid").write_bytes(whole[:12] + b"\0\0" + whole[14:])
    mido.MidiFile(type=2, tracks=tune.tracks).save(tmp_path / "type2.mid")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("serve nowhere", "'nowhere' is no address"),
        ("serve localhost:99999", "between 1 and 65535"),
        ("serve 203.0.113.1:8080", "does not have that address"),
        ("serve {taken}", "the port is in use"),
        ("monitor localhost", "'localhost' is no address"),
        ("monitor localhost:0", "between 1 and 65535"),
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
        ("play {free} {files}/cut.mid", "is no MIDI file"),
        ("play {free} {files}/key.mid", "is no MIDI file"),
        ("play {free} {files}/undivided.mid", "is no MIDI file"),
        ("play {free} {files}/type2.mid", "is of type 2"),
        ("record {free} {files}/new.mid", "nobody listens on"),
        ("record {free} {files}/none/new.mid", "No such file"),
        ("record {free} {files}", "no regular file"),
        ("record {free} {files}/new.mid --seconds 0", "more than 0"),
        ("record {free} {files}/new.mid --seconds soon", "--seconds"),
        ("monitor", "Missing argument"),
        ("send {free} --loud", "--loud"),
        ("dance", "dance"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments, what, files, run):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        names = {
            "taken": f"127.0.0.1:{taken.getsockname()[1]}",
            "free": f"127.0.0.1:{other.getsockname()[1]}",
            "files": files,
        }
        other.close()
        before = sorted(files.iterdir())
        status, out, err = run(*(word.format(**names) for word in arguments.split()))
    assert (status, out) == (2, "")
    assert err.startswith("midinet: ")
    assert err.count("\n") == 1
    assert what in err
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_an_example(verb, run):
    status, out, err = run(verb, "--help", env={"PATH": "", "COLUMNS": "80"})
    assert (status, err) == (0, "")
    assert f"  midinet {verb}" in out[out.index("Example") :]
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_names_every_verb(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(f"\n  {verb} " in out for verb in VERBS)


def test_no_verb_at_all_is_wrong_use(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "Commands:" in err


def test_the_version_is_shown(run):
    assert run("--version") == (0, f"midinet {midinet.__version__}\n", "")


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
        "import sys; sys.modules['midinet.cli.play'] = None; import midinet.__main__ as m; m.main()"
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
    assert (ended.returncode, ended.stdout) == (0, f"midinet {midinet.__version__}\n")
