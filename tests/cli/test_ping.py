"""midinet ping: figures, a histogram, a picture, and what they mean; and who does not answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import mido
import mido.sockets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.cli.picture import bars_of, histogram
from midinet.cli.ping import Answers, in_music, report, rows
from midinet.wire.aside import pong

SVG = "{http://www.w3.org/2000/svg}"
IDS = re.compile(rb"Id: (\d+)")


def answers_of(milliseconds: list[float]) -> Answers:
    answers = Answers()
    for one in milliseconds:
        answers.add(one / 1000)
    return answers


def figure(out: str, name: str) -> float:
    _, names, numbers, *_ = out.splitlines()
    return float(dict(zip(re.split(" {2,}", names)[1:], numbers.split(), strict=True))[name])


def counts(out: str) -> list[int]:
    """What the rows of the histogram say."""
    return [int(count) for count in re.findall(r"^ +[0-9.]+ (?:- [0-9.]+ ms|ms and more) +(\d+)", out, re.M)]


class Server:
    """A server by hand that answers so many pings, and then lets them go by."""

    def __init__(self, answered: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.heard = b""
        self._answered = answered
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while data := connection.recv(65536):
                self.heard += data
                for number in IDS.findall(data):
                    if self._answered:
                        self._answered -= 1
                        connection.sendall(pong(number.decode()))

    def close(self) -> None:
        """Wait for the client's end, and close."""
        self._thread.join(20)
        self._listener.close()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal of 80 columns: (what stands in for the person, what the program has)."""
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    termios = pytest.importorskip("termios")
    ends = pty.openpty()
    termios.tcsetwinsize(ends[1], (24, 80))
    yield ends
    for end in ends:
        os.close(end)


def read_until(master: int, text: str) -> str:
    shown = ""
    while text not in shown:
        shown += os.read(master, 65536).decode()
    return shown


# Over a connection.


def test_shows_figures_and_a_histogram_of_all_the_answers(quiet_hub, run):
    status, out, err = run("ping", quiet_hub.address, "--count", "40", "--interval", "0.001")
    assert (status, err) == (0, "")
    assert f"40 pings to {quiet_hub.address}, 1 ms apart: 40 answered, 0 lost" in out
    in_order = [figure(out, name) for name in ("minimum", "median", "99th percentile", "maximum")]
    assert in_order[0] > 0
    assert in_order == sorted(in_order)
    assert 0 < figure(out, "jitter") <= in_order[-1] - in_order[0]
    assert sum(counts(out)) == 40
    assert "█" in out
    assert "10 ms is 3.4 m of air" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_nothing_that_sounds_is_sent(run):
    server = Server(answered=6)
    try:
        status, out, _ = run("ping", server.address, "-c", "5", "-i", "0.001")
        assert status == 0
        assert "5 answered" in out
    finally:
        server.close()
    assert mido.Parser().feed(server.heard) is None
    parser = mido.Parser()
    parser.feed(server.heard)
    assert list(parser) == []


def test_other_clients_hear_nothing_of_it(hub, run):
    with socket.create_connection(("127.0.0.1", hub.portno), 20) as listener:
        hub.wait_for("connected")
        assert run("ping", hub.address, "-c", "5", "-i", "0.001")[0] == 0
        note = mido.Message("note_on", note=60).bin()
        with socket.create_connection(("127.0.0.1", hub.portno)) as player:
            player.sendall(note)
            assert listener.recv(100)[:3] == note


def test_what_others_play_meanwhile_does_no_harm(quiet_hub, run):
    over = threading.Event()

    def play() -> None:
        with mido.sockets.connect("127.0.0.1", quiet_hub.portno) as player:
            while not over.is_set():
                player.send(mido.Message("note_on", note=60))

    thread = threading.Thread(target=play)
    thread.start()
    try:
        status, out, err = run("ping", quiet_hub.address, "-c", "30", "-i", "0.002")
    finally:
        over.set()
        thread.join()
    assert (status, err) == (0, "")
    assert "30 answered, 0 lost" in out


def test_a_port_of_mido_is_one_line_that_says_what_it_is_not(run):
    with mido.sockets.PortServer("127.0.0.1", 0) as server:
        portno = server._socket.getsockname()[1]
        status, out, err = run("ping", f"127.0.0.1:{portno}")
    assert (status, out) == (2, "")
    assert err.startswith(f"midinet: 127.0.0.1:{portno} can be connected to, but does not answer pings")
    assert "no midinet server" in err
    assert err.count("\n") == 1


def test_what_is_not_answered_is_lost(run):
    server = Server(answered=3)
    try:
        status, out, err = run("ping", server.address, "-c", "5", "-i", "0.001")
    finally:
        server.close()
    assert (status, err) == (0, "")
    assert "2 answered, 3 lost" in out
    assert "3 of 5 took longer than 2 s." in " ".join(out.split())


def test_no_answer_after_the_first_is_status_1(run):
    server = Server(answered=1)
    try:
        status, out, err = run("ping", server.address, "-c", "3", "-i", "0.001")
    finally:
        server.close()
    assert (status, out) == (1, "")
    assert err == f"midinet: {server.address} answered at first, and then no more\n"


def test_in_a_terminal_it_shows_how_far_it_is_and_ctrl_c_shows_what_there_is(quiet_hub, start, terminal):
    master, slave = terminal
    ping = start("ping", quiet_hub.address, "-c", "0", "-i", "0.005", stderr=slave)
    shown = read_until(master, " so far")
    assert re.search(r"\d+ answered: [0-9.]+ ms just now, [0-9.]+ ms to [0-9.]+ ms so far", shown)
    ping.interrupt()
    assert ping.wait() == 130
    assert sum(counts(ping.out)) == int(re.search(r"(\d+) answered, 0 lost", ping.out)[1]) > 0
    assert "In music: " in ping.out
    # The line is taken away again.
    assert read_until(master, "\r\x1b[K").endswith("\r\x1b[K")


def test_without_a_count_sigterm_ends_it_in_order(quiet_hub, start, terminal):
    master, slave = terminal
    ping = start("ping", quiet_hub.address, "-c", "0", "-i", "0.005", stderr=slave)
    read_until(master, " so far")
    ping.process.send_signal(signal.SIGTERM)
    assert ping.wait() == 0
    assert "In music: " in ping.out


def test_a_server_that_goes_away_is_status_1_after_the_figures(quiet_hub, start, terminal):
    master, slave = terminal
    ping = start("ping", quiet_hub.address, "-c", "0", "-i", "0.005", stderr=slave)
    read_until(master, " so far")
    quiet_hub.process.terminate()
    assert ping.wait() == 1
    assert "In music: " in ping.out
    assert f"midinet: the port to {quiet_hub.address} is closed by the peer" in read_until(master, "\n")


def test_the_picture_has_the_figures_and_a_bar_for_every_answer(quiet_hub, run, tmp_path):
    path = tmp_path / "ping.svg"
    status, out, err = run("ping", quiet_hub.address, "-c", "30", "-i", "0.001", "--svg", str(path))
    assert (status, err) == (0, f"histogram written to {path}\n")
    root = ElementTree.parse(path).getroot()
    texts = " ".join(text for element in root.iter(f"{SVG}text") if (text := element.text))
    assert f"30 round trips to {quiet_hub.address}" in texts
    assert "milliseconds" in texts
    assert f"median {figure(out, 'median'):.3f} ms" in texts
    assert sum(bar_counts(root)) == 30
    assert "prefers-color-scheme: dark" in path.read_text()


def test_a_picture_that_cannot_be_written_is_said_before_anything_is_asked(quiet_hub, run, tmp_path):
    status, out, err = run("ping", quiet_hub.address, "--svg", str(tmp_path / "none" / "ping.svg"))
    assert (status, out) == (2, "")
    assert "No such file" in err
    assert err.count("\n") == 1


def bar_counts(root: ElementTree.Element) -> list[int]:
    return [int(title.text or "") for title in root.iter(f"{SVG}title")]


# The figures.


def test_the_figures_are_what_they_are_called():
    milliseconds = [float(number) for number in range(1, 101)]
    answers = answers_of(milliseconds)
    assert answers.median * 1000 == pytest.approx(50.5)
    # 99 of the 100 do not exceed it.
    assert answers.percentile * 1000 == pytest.approx(99)
    assert (answers.least, answers.most) == pytest.approx((0.001, 0.1))
    assert answers.jitter * 1000 == pytest.approx(1)


def test_the_jitter_is_the_mean_of_the_differences_between_neighbours():
    assert answers_of([1, 3, 2, 2]).jitter * 1000 == pytest.approx(statistics.fmean([2, 1, 0]))
    assert answers_of([5]).jitter == 0


@pytest.mark.parametrize(
    ("milliseconds", "what"),
    [
        # A round trip, of which a note needs half.
        (0.4, "no hindrance: an instrument may take 10 ms to answer, and this leaves 9.8"),
        (19.9, "no hindrance"),
        (20.1, "Players keep together at that"),
        (49.9, "Players keep together at that"),
        (50.1, "slow down: that begins at about 25 ms"),
        (155, "slow down: that begins at about 25 ms"),
        (157, "too late to play together by ear"),
        (4000, "too late to play together by ear"),
    ],
)
def test_the_judgement_is_by_how_late_one_note_in_a_hundred_is(milliseconds, what):
    assert what in in_music(answers_of([milliseconds] * 100))
    # One in a hundred may be as late as it likes, and not two.
    assert what in in_music(answers_of([0.1] * 98 + [milliseconds] * 2))
    assert "no hindrance" in in_music(answers_of([0.1] * 99 + [milliseconds]))


def test_half_a_round_trip_is_told_as_air():
    text = in_music(answers_of([20.0] * 10))
    assert "a note takes half a round trip, 10.0 ms" in text
    assert "a player 3.4 m or 3.4 m away (2.9 ms a metre; 10 ms is 3.4 m of air)" in text
    assert "34 cm" in in_music(answers_of([2.0] * 10))
    assert "343 m" in in_music(answers_of([2000.0] * 10))


def test_what_varies_by_more_than_a_millisecond_is_said():
    assert "uneven" not in in_music(answers_of([4.0, 5.9] * 100))
    assert "that varies by 1.05 ms, and more than 1 ms" in in_music(answers_of([4.0, 6.1] * 100))


def test_a_name_cannot_command_the_terminal():
    from midinet.cli.common import printable

    lines = report(printable("midi://\x1b]0;evil\x07\u202e"), answers_of([1.0]), 0.05)
    assert "midi://?]0;evil??" in lines[0]
    assert all(line.isprintable() for line in lines)


# The histogram.


@given(
    st.lists(st.floats(min_value=0.0005, max_value=5000), min_size=1, max_size=300),
    st.integers(min_value=2, max_value=60),
)
def test_every_value_is_in_its_step_and_few_are_above_them(values, most):
    bars = bars_of(values, most, finest=0.001)
    assert sum(bars.counts) + bars.above == len(values)
    assert bars.above <= len(values) / 100
    assert 1 <= len(bars.counts) <= most
    assert bars.counts[0] > 0
    assert bars.counts[-1] > 0
    tolerance = bars.step * 1e-6
    for number, count in enumerate(bars.counts):
        low = bars.low + number * bars.step
        within = [one for one in values if low + tolerance < one < low + bars.step - tolerance]
        around = [one for one in values if low - tolerance <= one <= low + bars.step + tolerance]
        assert len(within) <= count <= len(around)
    ElementTree.fromstring(histogram("a < b & c", bars, "ms", [(bars.low, "x")], ["foot"]))


def test_the_edges_are_round_numbers():
    bars = bars_of([0.21, 0.22, 0.26, 0.31], 12, finest=0.001)
    assert (bars.write(bars.low), bars.step, bars.counts) == ("0.21", 0.01, [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1])


def test_the_longest_bar_fills_the_line_and_the_shortest_is_seen():
    lines = rows(bars_of([1.0] * 10_000 + [2.0], 12, finest=0.001))
    assert len(lines[0]) > 70
    assert lines[-1].endswith(" 1 ▏")
    assert max(map(len, lines)) <= 80


def test_without_block_characters_the_bars_are_of_number_signs(quiet_hub, run):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    status, out, err = run("ping", quiet_hub.address, "-c", "5", "-i", "0.001", env=environment)
    assert (status, err) == (0, "")
    assert "#" in out
    assert out.isascii()


def test_a_picture_of_one_answer_can_be_drawn(tmp_path: Path):
    root = ElementTree.fromstring(histogram("one", bars_of([0.2], 60, finest=0.001), "ms", [(0.2, "it")], []))
    assert bar_counts(root) == [1]
