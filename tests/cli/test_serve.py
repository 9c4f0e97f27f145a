"""midinet serve: relays, shows what happens, and is held up by nobody."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading

import mido
import mido.sockets
import pytest

NOTE = mido.Message("note_on", channel=3, note=60, velocity=90)


def connect(hub):
    return socket.create_connection(("127.0.0.1", hub.portno), timeout=20)


def name(client):
    return "{}:{}".format(*client.getsockname())


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_says_where_it_listens_when_the_system_chose(hub):
    assert hub.portno > 0
    hub.wait_for("\n", count=2)
    assert hub.out == (
        f"midinet listens on {hub.address}\n"
        f"only this machine can connect; to let others in: midinet serve :{hub.portno}\n"
    )


def test_the_first_line_says_where_it_listens_whatever_else_there_is_to_say(start):
    hub = start("serve", ":0", "--quiet")
    hub.wait_for("is open to everybody")
    lines = hub.out.splitlines()
    assert re.fullmatch(r"midinet listens on :\d+", lines[0])
    # A machine without a network has no address for others.
    assert all(line.startswith(("others connect to ", ":", "only this machine")) for line in lines[1:])


def test_what_a_client_sends_the_others_get_and_is_shown(hub):
    with connect(hub) as player, mido.sockets.connect("127.0.0.1", hub.portno) as listener:
        hub.wait_for("connected", count=2)
        player.sendall(NOTE.bin())
        assert listener.receive() == NOTE
        hub.wait_for(f"{name(player)} {NOTE}\n")


def test_shows_who_comes_and_goes(hub):
    with connect(hub) as client:
        hub.wait_for(f"{name(client)} connected\n")
        who = name(client)
    hub.wait_for(f"{who} disconnected: closed by the peer\n")


def test_quiet_relays_and_shows_nothing(quiet_hub):
    with connect(quiet_hub) as player, connect(quiet_hub) as listener:
        listener.settimeout(0.05)
        heard = b""
        while not heard:
            # The listener may not be there yet, and a quiet hub does not say.
            player.sendall(NOTE.bin())
            try:
                heard = listener.recv(3)
            except TimeoutError:
                pass
    assert heard == bytes(NOTE.bin())
    assert quiet_hub.out == f"midinet listens on {quiet_hub.address}\n"


@pytest.mark.parametrize("which", ["hub", "quiet_hub"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_and_its_clients_in_order(request, which, number, status):
    hub = request.getfixturevalue(which)
    with connect(hub) as client:
        hub.process.send_signal(number)
        assert client.recv(100) == b""
    assert (hub.wait(), hub.err) == (status, "")


def test_an_interrupt_counts_where_a_script_had_it_ignored(start_hub):
    hub = start_hub(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    hub.interrupt()
    assert hub.wait() == 130


def test_output_that_nobody_takes_holds_up_neither_the_relay_nor_the_end(start, pipe):
    reader, writer = pipe
    serve = start("serve", "127.0.0.1:0", stdout=writer)
    portno = int(os.read(reader, 1000).split()[-1].rpartition(b":")[2])
    with (
        socket.create_connection(("127.0.0.1", portno), timeout=20) as player,
        socket.create_connection(("127.0.0.1", portno), timeout=20) as listener,
    ):
        seen = b""
        while seen.count(b" connected") < 2:
            seen += os.read(reader, 1000)
        # From here on nobody reads the pipe; it holds two thousand lines or so, and as many wait.
        flood(player, listener, 30_000)
        serve.interrupt()
        assert serve.wait() == 130


def test_what_is_not_shown_is_counted(start, pipe):
    count = 30_000
    reader, writer = pipe
    serve = start("serve", "127.0.0.1:0", stdout=writer)
    portno = int(os.read(reader, 1000).split()[-1].rpartition(b":")[2])
    seen = b""
    with (
        socket.create_connection(("127.0.0.1", portno), timeout=20) as player,
        socket.create_connection(("127.0.0.1", portno), timeout=20) as listener,
    ):
        while seen.count(b" connected") < 2:
            seen += os.read(reader, 1000)
        # Meanwhile nobody reads the pipe; it holds two thousand lines or so, and as many wait.
        flood(player, listener, count)
    shown = missed = 0
    while shown + missed < count:
        assert select.select([reader], [], [], 20)[0], f"{shown} are shown, and {missed} not"
        seen += os.read(reader, 65536)
        lines = seen.decode().split("\n")[:-1]
        shown = sum(str(SHORT_SYSEX) in line for line in lines)
        missed = sum(int(line.split()[1]) for line in lines if line.endswith(" messages not shown"))
    assert missed > 0
    assert shown + missed == count
    serve.interrupt()
    assert serve.wait() == 130


def test_it_goes_on_when_nobody_reads_its_output_any_more(start):
    reader, writer = os.pipe()
    serve = start("serve", "127.0.0.1:0", stdout=writer)
    os.close(writer)
    portno = int(os.read(reader, 1000).split()[-1].rpartition(b":")[2])
    os.close(reader)
    with (
        socket.create_connection(("127.0.0.1", portno), timeout=20) as player,
        mido.sockets.connect("127.0.0.1", portno) as listener,
    ):
        for _ in range(2):
            # The second after the first was shown in vain.
            while listener.poll() is None:
                player.sendall(NOTE.bin())
    serve.interrupt()
    assert (serve.wait(), serve.err) == (130, "")


def test_json_says_by_which_addresses_others_can_reach_it(start):
    hub = start("serve", ":0", "--json")
    hub.wait_for('"event": "listening"')
    listening = next(
        event for line in hub.out.splitlines() if (event := json.loads(line))["event"] == "listening"
    )
    found = {address.rpartition(":")[2] for address in listening["reachable"]}
    assert found <= {str(listening["port"])}
    assert not any(
        address.startswith(("127.", "[::1]", "0.0.0.0", "[::]")) for address in listening["reachable"]
    )


def test_a_name_is_no_address_to_listen_on(run):
    status, out, err = run("serve", "midi://stage")
    assert (status, out) == (2, "")
    assert err == "midinet: serve listens on an address, as in :8080; --announce stage gives it a name\n"


def test_the_name_by_which_it_is_announced_is_shown(start, monkeypatch):
    pytest.importorskip("zeroconf")
    monkeypatch.setenv("MIDINET_INTERFACES", "127.0.0.1")
    hub = start("serve", ":0", "--announce", "test_serve")
    hub.wait_for("announced as test_serve")


def test_uvloop_runs_it_too(start_hub):
    pytest.importorskip("uvloop")
    hub = start_hub("--uvloop")
    with connect(hub) as client:
        hub.wait_for(f"{name(client)} connected\n")
        hub.interrupt()
        assert client.recv(100) == b""
    assert (hub.wait(), hub.err) == (130, "")


def test_uvloop_that_is_missing_is_one_line_that_names_the_extra():
    code = "import sys; sys.modules['uvloop'] = None; from midinet.__main__ import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code, "serve", "--uvloop"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == "midinet: --uvloop needs an extra: pip install 'midinet[uvloop]'\n"


# As long as a note, but of those nothing is left out on the way, however late, and nothing sounds on.
SHORT_SYSEX = mido.Message("sysex", data=(1,))


def flood(player, listener, count):
    """Send many messages through a hub and read them all at the other end."""
    sender = threading.Thread(target=player.sendall, args=(bytes(SHORT_SYSEX.bin()) * count,))
    sender.start()
    heard = 0
    while heard < count * 3:
        data = listener.recv(65536)
        assert data, "the hub closed the connection"
        heard += len(data)
    sender.join()
