"""TLS, tokens, names and addresses on the command line: what they become, and what is said when they fail."""

from __future__ import annotations

import contextlib
import os
import socket

import mido
import pytest

from midinet import PortServer, UsageError
from midinet.cli import serve as serve_module
from midinet.cli.access import in_options, is_address, read_tokens
from midinet.cli.app import run_app
from midinet.cli.common import Complaint
from midinet.net.tls import tls_server_context
from midinet.sync import PortServer as SyncPortServer
from tests.harness.certificates import certificates
from tests.harness.waiting import PATIENCE_S, wait_until

TOKEN, WRONG = "c2VjcmV0", "d3Jvbmc"

NOTE = mido.Message("note_on", channel=3, note=60, velocity=90)
PROGRAM = mido.Message("program_change", channel=3, program=60)


@pytest.fixture(autouse=True)
def no_token_in_the_environment(monkeypatch):
    monkeypatch.delenv("MIDINET_TOKEN", raising=False)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "empty").write_text("\n# no token\n")
    (tmp_path / "one").write_text(f"# for the stage\n\n  {TOKEN}  \n")
    (tmp_path / "two").write_text(f"{WRONG}\n{TOKEN}\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    return tmp_path


@pytest.fixture
def server():
    """Start a server in this process, with options of PortServer."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(SyncPortServer("127.0.0.1", 0, **options))


@pytest.fixture
def verb(capfd):
    """Run a verb in this process: (exit status, standard output, standard error)."""

    def verb(*words):
        status = run_app([str(word) for word in words])
        return status, *capfd.readouterr()

    return verb


def address(server):
    return f"127.0.0.1:{server.addresses[0][1]}"


def tls_of_server(**options):
    made = certificates()
    return tls_server_context(made.server_cert, made.server_key, **options)


# Wrong use.


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("serve :0 --key {server_key}", "--key is of no use without --cert"),
        ("serve :0 --client-ca {ca}", "--client-ca is of no use without --cert"),
        ("serve :0 --cert {files}/none.pem", "cannot read {files}/none.pem: No such file or directory"),
        ("serve :0 --cert {files}", "cannot read {files}: Is a directory"),
        ("serve :0 --cert {ca}", "{ca} holds no private key"),
        ("serve :0 --cert {server_cert} --key {client_key}", "do not fit"),
        ("serve :0 --cert {server_cert} --key {server_key} --client-ca {files}/one", "holds no certificate"),
        ("serve :0 --token a,b", "a token has characters that cannot be sent"),
        ("serve :0 --token=", "a token must not be empty"),
        ("serve :0 --token-file {files}/none", "cannot read {files}/none: No such file or directory"),
        ("serve :0 --token-file {files}/empty", "{files}/empty holds no token"),
        ("serve :0 --token-file {files}/binary", "a token has characters that cannot be sent"),
        ("serve :0 --insecure-token", "--insecure-token is given, and no token"),
        ("serve 0.0.0.0:0 --token abc", "give --cert, listen on localhost, or say --insecure-token"),
        ("serve :0 --allow 10.0.0.0/33", "'10.0.0.0/33' in allow is neither an address nor a network"),
        ("serve :0 --allow 10.0.0.7/24", "10.0.0.0/24 is the network"),
        ("serve :0 --allow localhost", "'localhost' in allow is neither an address nor a network"),
        ("serve :0 --sysex loud", "--sysex: 'loud' is no manufacturer ID"),
        ("serve :0 --sysex 41,", "--sysex: '' is no manufacturer ID"),
        ("serve :0 --sysex 80", "--sysex: '80' is no manufacturer ID"),
        ("serve :0 --sysex 00", "--sysex: '00' is no manufacturer ID"),
        ("serve :0 --sysex 412029", "--sysex: '412029' is no manufacturer ID"),
        ("serve :0 --slow maybe", "--slow"),
        ("serve :0 --snapshot all", "--snapshot"),
        ("serve :0 --max-clients 0", "--max-clients"),
        ("serve :0 --stats-every 0", "--stats-every"),
        ("serve :0 --json=1", "see midinet serve --help"),
        ("monitor localhost:1 --key {client_key}", "--key is of no use without --cert"),
        ("monitor localhost:1 --ca {files}/none.pem", "cannot read {files}/none.pem: No such file"),
        ("monitor localhost:1 --cert {ca}", "{ca} holds no private key"),
        ("send localhost:1 --token a,b clock", "a token has characters that cannot be sent"),
        ("send localhost:1 --token-file {files}/two clock", "2 tokens are given, and one can be shown"),
        ("send localhost:1 --token-file {files}/one --token a clock", "2 tokens are given"),
        ("send localhost:1 --insecure-token clock", "--insecure-token is given, and no token"),
        ("send 203.0.113.1:1 --token abc clock", "give --tls, or say --insecure-token"),
        ("record localhost:1 {files}/take.mid --name {long}", "say less in it"),
        ("monitor localhost:1 --cert", "see midinet monitor --help"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments, what, files, verb):
    names = {**vars(certificates()), "files": files, "long": "n" * 2000}
    status, out, err = verb(*(word.format(**names) for word in arguments.split()))
    assert (status, out) == (2, "")
    assert err.startswith("midinet: ")
    assert err.count("\n") == 1
    assert what.format(**names) in err


# Servers and devices.


@pytest.mark.parametrize(
    "text",
    [
        "localhost:8080",
        "[::1]:8080",
        "studio.local:8080",
        ":8080",
        "10.0.0.7:5004",
        "midi://stage",
        "midi://",
    ],
)
def test_what_reads_as_an_address_is_a_server(text):
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        *("Midi Through:Midi Through Port-0 14:0", "USB MIDI 20:1", "system:midi_capture_1", "synth:out_1"),
        *("Keystation", "a2j:Keystation [20] (capture): [1]", "IAC Driver Bus 1", "loopMIDI Port 2", "USB 2"),
        *("localhost", "localhost:", "localhost:0", "localhost:http", "::1", "14:0", "", "midi:stage"),
    ],
)
def test_what_does_not_is_a_port_of_this_machine(text):
    assert not is_address(text)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (["--tls"], "--tls"),
        (["--ca", "ca.pem"], "--ca"),
        (["--cert", "none.pem"], "--cert"),
        (["--key", "none.pem"], "--key"),
        (["--token", "abc"], "--token"),
        (["--token", ""], "--token"),
        (["--token-file", "none"], "--token-file"),
        (["--insecure-token"], "--insecure-token"),
        (["--name", "me"], "--name"),
    ],
)
@pytest.mark.parametrize("target", [["Keystation 20:0"], ["localhost:8080", "--api", "jack"]])
def test_options_of_a_connection_are_of_no_use_with_a_device(target, options, option, verb, files):
    status, out, err = verb("record", *target, files / "take.mid", *options)
    assert (status, out) == (2, "")
    assert err == (
        f"midinet: {option} is for servers, and {target[0]!r} is taken for a port of this "
        "machine: a server is written as HOST:PORT or midi://NAME\n"
    )


# Tokens.


def test_tokens_come_from_options_and_files_or_else_from_the_environment(files, monkeypatch):
    assert read_tokens([], None, insecure=False) is None
    monkeypatch.setenv("MIDINET_TOKEN", f" {WRONG} {TOKEN}\n")
    assert read_tokens([], None, insecure=False) == [WRONG, TOKEN]
    assert read_tokens(["abc"], None, insecure=False) == ["abc"]
    assert read_tokens(["abc"], files / "two", insecure=True) == ["abc", WRONG, TOKEN]
    assert read_tokens([], files / "one", insecure=False) == [TOKEN]


@pytest.mark.parametrize("value", ["", "  \n"])
def test_an_empty_variable_does_not_open_the_door(value, monkeypatch):
    monkeypatch.setenv("MIDINET_TOKEN", value)
    with pytest.raises(Complaint, match="MIDINET_TOKEN is empty"):
        read_tokens([], None, insecure=False)


@pytest.mark.parametrize("way", ["option", "file", "environment"])
def test_a_token_lets_a_verb_in_from_wherever_it_comes(way, files, server, verb, monkeypatch):
    hub = server(tokens=[TOKEN])
    options = {"option": ["--token", TOKEN], "file": ["--token-file", files / "one"], "environment": []}
    if way == "environment":
        monkeypatch.setenv("MIDINET_TOKEN", TOKEN)
    assert verb("send", address(hub), *options[way], str(PROGRAM)) == (0, "", "")
    assert hub.receive() == PROGRAM


@pytest.mark.parametrize("words", ["monitor", "send", "play {tune}", "record {take}"])
def test_a_wrong_token_is_one_line_without_it_and_status_2(words, tmp_path, server, verb):
    hub = server(tokens=[TOKEN])
    mido.MidiFile(tracks=[mido.MidiTrack([NOTE])]).save(tmp_path / "tune.mid")
    name, *more = words.format(tune=tmp_path / "tune.mid", take=tmp_path / "take.mid").split()
    more += ["clock"] if name == "send" else []
    assert verb(name, address(hub), *more, "--token", WRONG) == (
        2,
        "",
        f"midinet: {address(hub)} does not accept the token\n",
    )
    assert not (tmp_path / "take.mid").exists()


def test_who_says_a_name_is_told_that_a_token_is_wanted(server, verb):
    hub = server(tokens=[TOKEN])
    assert verb("send", address(hub), "--name", "stage left", "clock") == (
        2,
        "",
        f"midinet: {address(hub)} asks for a token\n",
    )


def test_a_name_is_what_the_server_calls_it(server, verb):
    hub = server(yield_ports=True)
    assert verb("send", address(hub), "--name", "stage left", str(PROGRAM)) == (0, "", "")
    port, message = hub.receive()
    assert (port.name, message) == ("stage left", PROGRAM)


# What each verb that connects is given behind the address.
VERBS = {
    "monitor": [],
    "send": ["note_on", "note=60"],
    "play": ["{files}/tune.mid"],
    "record": ["{files}/take.mid"],
    "ping": ["--count", "2"],
}


@pytest.fixture
def refused(verb, files):
    """Run a verb with a server that does not let it in, and return the one line that it says."""
    mido.MidiFile(tracks=[mido.MidiTrack([NOTE])]).save(files / "tune.mid")

    def run(name, where):
        status, out, err = verb(name, where, *(word.format(files=files) for word in VERBS[name]))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert not (files / "take.mid").exists()
        return err

    return run


@pytest.mark.parametrize("name", VERBS)
def test_a_server_that_asks_for_a_token_is_one_line_and_status_2(name, server, refused):
    hub = server(tokens=[TOKEN])
    assert refused(name, address(hub)) == f"midinet: {address(hub)} asks for a token\n"


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("why", ["tls", "address"])
def test_a_server_that_closes_at_once_is_one_line_and_status_2(name, why, server, refused):
    hub = server(ssl=tls_of_server()) if why == "tls" else server(allow=["203.0.113.0/24"])
    assert refused(name, address(hub)) == (
        f"midinet: {address(hub)} closed the connection at once: it may expect TLS (--tls) or a certificate, "
        "not allow this address, be full, or be no MIDI server\n"
    )


@pytest.mark.parametrize("name", VERBS)
def test_a_server_that_is_full_says_so_to_each_verb(name, server, refused):
    hub = server(max_clients=1)
    with socket.create_connection(("127.0.0.1", hub.addresses[0][1])) as first:
        first.sendall(NOTE.bin())
        assert hub.receive() == NOTE
        assert refused(name, address(hub)) == f"midinet: {address(hub)} has as many clients as it takes\n"


def test_a_server_that_is_full_is_one_line_and_status_2(server, verb):
    hub = server(max_clients=1)
    with socket.create_connection(("127.0.0.1", hub.addresses[0][1])) as first:
        first.sendall(NOTE.bin())
        assert hub.receive() == NOTE
        assert verb("send", address(hub), "--name", "second", "clock") == (
            2,
            "",
            f"midinet: {address(hub)} has as many clients as it takes\n",
        )


# TLS.


def test_a_server_with_tls_hears_who_trusts_it(server, verb):
    hub = server(ssl=tls_of_server())
    assert verb("send", address(hub), "--tls", "--ca", certificates().ca, str(PROGRAM)) == (0, "", "")
    assert hub.receive() == PROGRAM


@pytest.mark.parametrize(
    "shown", [["--cert", "{client_pem}"], ["--cert", "{client_cert}", "--key", "{client_key}"]]
)
def test_a_client_certificate_lets_in(shown, server, verb):
    made = certificates()
    hub = server(ssl=tls_of_server(client_ca=made.ca))
    words = (word.format(**vars(made)) for word in shown)
    assert verb("send", address(hub), "--ca", made.ca, *words, str(PROGRAM)) == (0, "", "")
    assert hub.receive() == PROGRAM


@pytest.mark.parametrize("trust", [["--tls"], ["--ca", "{wrong_ca}"]])
def test_a_server_that_is_not_trusted_is_one_line_and_status_2(trust, server, verb):
    hub = server(ssl=tls_of_server())
    status, out, err = verb("monitor", address(hub), *(word.format(**vars(certificates())) for word in trust))
    assert (status, out) == (2, "")
    assert err.startswith(f"midinet: no TLS with {address(hub)}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("shown", [[], ["--cert", "{wrong_client_cert}", "--key", "{wrong_client_key}"]])
def test_a_client_certificate_that_is_not_accepted_is_one_line(shown, server, verb):
    made = certificates()
    hub = server(ssl=tls_of_server(client_ca=made.ca))
    status, out, err = verb(
        *("monitor", address(hub), "--ca", made.ca), *(word.format(**vars(made)) for word in shown)
    )
    # With TLS 1.3 the refusal comes after the handshake.
    assert (status, out) == (2, "")
    assert err.startswith("midinet: ")
    assert err.count("\n") == 1


def test_tls_with_a_server_that_has_none_is_one_line_and_status_2(server, verb):
    status, out, err = verb("monitor", address(server()), "--tls")
    assert (status, out) == (2, "")
    assert err.startswith("midinet: ")
    assert err.count("\n") == 1


# The hub.


@pytest.fixture
def settings(monkeypatch):
    """The settings that `serve` would start a server with."""
    seen = {}

    async def serve(host, portno, settings, **more):
        seen.update(settings, **more)

    monkeypatch.setattr(serve_module, "serve", serve)
    return seen


def test_a_hub_has_a_snapshot_and_is_open_unless_told_otherwise(settings, verb):
    assert verb("serve") == (0, "", "")
    del settings["config"]
    assert settings == {
        "announce": None,
        "snapshot": True,
        "slow": "thin",
        "sysex": None,
        "max_clients": 256,
        "allow": None,
        "ssl": None,
        "tokens": None,
        "insecure_token": False,
        "shown": serve_module.Shown.LINES,
        "only": None,
        "stats_every": None,
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--snapshot notes", {"snapshot": "notes"}),
        ("--snapshot none", {"snapshot": False}),
        ("--slow disconnect", {"slow": "disconnect"}),
        ("--sysex all", {"sysex": True}),
        ("--sysex none", {"sysex": False}),
        ("--sysex auto", {"sysex": None}),
        ("--sysex 41,7e,002029", {"sysex": [0x41, 0x7E, b"\x00\x20\x29"]}),
        ("--max-clients 3", {"max_clients": 3}),
        ("--allow 10.0.0.0/8 --allow ::1", {"allow": ["10.0.0.0/8", "::1"]}),
        ("--token a --token b", {"tokens": ["a", "b"]}),
        ("--token a --insecure-token", {"tokens": ["a"], "insecure_token": True}),
        ("--stats-every 10 --json -q", {"stats_every": 10.0, "shown": serve_module.Shown.JSON}),
    ],
)
def test_each_option_of_a_hub_becomes_its_setting(words, expected, settings, verb):
    assert verb("serve", "localhost:0", *words.split()) == (0, "", "")
    assert {name: settings[name] for name in expected} == expected


def test_a_hub_with_tls_certificates_and_tokens_lets_in_who_has_them(start_hub, start, files):
    made = certificates()
    hub = start_hub(
        *("--cert", str(made.server_cert), "--key", str(made.server_key), "--client-ca", str(made.ca)),
        *("--token-file", str(files / "two")),
    )
    shown = ("--ca", str(made.ca), "--cert", str(made.client_pem))
    monitor = start("monitor", hub.address, *shown, "--token-file", str(files / "one"), "--name", "stage")
    hub.wait_for("stage connected\n")
    send = start(
        *("send", hub.address, *shown, "--name", "left", str(NOTE)),
        env={**os.environ, "MIDINET_TOKEN": WRONG},
    )
    assert (send.wait(), send.err) == (0, "")
    monitor.wait_for(f"{NOTE}\n")
    hub.wait_for("left disconnected")
    hub.interrupt()
    assert (hub.wait(), hub.err) == (130, "")
    assert (monitor.wait(), monitor.err) == (0, "")
    for secret in (TOKEN, WRONG):
        assert secret not in hub.out + monitor.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["program_change channel=0 program=5 time=0"]),
        (["--snapshot", "notes"], ["program_change channel=0 program=5 time=0", str(NOTE)]),
        (["--snapshot", "none"], []),
    ],
)
def test_who_comes_late_is_brought_up_to_date(options, expected, start_hub, start):
    hub = start_hub(*options)
    with socket.create_connection(("127.0.0.1", hub.portno), timeout=PATIENCE_S) as player:
        player.sendall(mido.Message("program_change", program=5).bin() + NOTE.bin())
        hub.wait_for("note_on")
        monitor = start("monitor", hub.address)
        hub.wait_for(" connected", count=2)
        player.sendall(mido.Message("clock").bin())
        monitor.wait_for("clock")
        assert monitor.out.splitlines() == [*expected, "clock time=0"]


@pytest.mark.parametrize("options", [[], ["--quiet"], ["--json"]])
def test_a_hub_that_is_open_to_everybody_says_so_in_words_of_the_command_line(options, start):
    hub = start("serve", "0.0.0.0:0", *options)
    hub.wait_for("is open to everybody who can reach it: --allow, --cert and --token-file change that")
    hub.process.terminate()
    assert (hub.wait(), hub.err) == (0, "")


async def test_the_words_of_the_library_are_those_that_are_replaced():
    with pytest.raises(UsageError) as raised:
        await PortServer("0.0.0.0", 0, tokens=[TOKEN])
    text = in_options(str(raised.value), of_server=True)
    assert "=" in str(raised.value)
    assert "=" not in text


# A monitor that follows.


def test_a_monitor_follows_a_server_across_restarts(start):
    first = SyncPortServer("127.0.0.1", 0, relay=True)
    portno = first.addresses[0][1]
    monitor = start("monitor", address(first), "--reconnect", "--name", "stage left")
    wait_until(lambda: first.ports, "the monitor")
    first.send(NOTE)
    monitor.wait_for(f"{NOTE}\n")
    first.close()
    monitor.wait_for("\n", where="err")
    with SyncPortServer("127.0.0.1", portno, relay=True) as second:
        monitor.wait_for("again\n", where="err")
        wait_until(lambda: second.ports, "the monitor")
        second.send(NOTE)
        monitor.wait_for(f"{NOTE}\n", count=2)
        monitor.interrupt()
        assert monitor.wait() == 130
    assert monitor.err.splitlines() == [
        f"127.0.0.1:{portno} is gone; trying to connect again",
        f"connected to 127.0.0.1:{portno} again",
    ]
    # What sounded when it went away was let go.
    kinds = [line.split()[0] for line in monitor.out.splitlines()]
    assert kinds == ["note_on", "note_off", "note_on"]


def test_ctrl_c_ends_a_monitor_that_tries_to_connect_again(start):
    with SyncPortServer("127.0.0.1", 0, relay=True) as first:
        monitor = start("monitor", address(first), "--reconnect")
        wait_until(lambda: first.ports, "the monitor")
    monitor.wait_for("trying to connect again\n", where="err")
    monitor.interrupt()
    assert monitor.wait() == 130
    assert monitor.err.count("\n") == 1
