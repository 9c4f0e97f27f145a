"""`midinet ping`: how long an answer takes over the real connection, and what that means to a player.

It asks by PING asides, which no instrument hears, at regular times and without waiting for the answers: when
the way is blocked for a while, that shows in every ping that would have been under way, as it would in notes.

What the figures are measured by, as delays one way:

    10 ms   the most that an instrument may take to answer a gesture, and 1 ms by how much that may vary:
            Wessel and Wright, "Problems and Prospects for Intimate Musical Control of Computers", Computer
            Music Journal 26(3), 2002
    25 ms   where players begin to slow down: between 20 and 30 ms in Schuett, "The Effects of Latency on
            Ensemble Performance", Stanford 2002; from 11.5 ms on, though little at first, in Chafe, Gurevich,
            Leslie and Tyan, "Effect of Time Delay on Ensemble Accuracy", ISMA 2004
    78 ms   the most that was tried, by when rhythms had come apart: Chafe, Cáceres and Gurevich, "Effect of
            temporal separation on synchronization in rhythmic performance", Perception 39(7), 2010
"""

from __future__ import annotations

import asyncio
import itertools
import math
import shutil
import statistics
import sys
import textwrap
from array import array
from pathlib import Path
from typing import Annotated

import typer

from ..net.port import DEFAULT_PING_TIMEOUT, SocketPort
from .access import Target, connecting
from .common import Complaint, printable, run, talk, tell
from .picture import Bars, bars_of, histogram
from .status import StatusLine

# Five seconds in all, long enough for a wireless network to show what it does now and then.
_DEFAULT_COUNT = 100
_DEFAULT_INTERVAL_S = 0.05

# Seconds. More often than that would measure the asking; an hour is longer than anybody waits.
_LEAST_INTERVAL_S, _MOST_INTERVAL_S = 0.001, 3600.0

# Metres a second, in air of 20 °C.
_SPEED_OF_SOUND = 343.0

# Seconds one way, and what is to be said up to there: see above for where they come from.
_GESTURE_S = 0.010
_JUDGEMENTS = (
    (
        _GESTURE_S,
        "That is no hindrance: an instrument may take 10 ms to answer, and this leaves {left} for making the "
        "sound.",
    ),
    (
        0.025,
        "Players keep together at that: they begin to slow down at about 25 ms. Under one's own fingers more "
        "than 10 ms can be felt.",
    ),
    (
        0.078,
        "Players who hear each other so late slow down: that begins at about 25 ms. For listening and "
        "recording it is good enough.",
    ),
    (
        math.inf,
        "That is too late to play together by ear, which is good up to about 25 ms. For listening and "
        "recording it is good enough.",
    ),
)
_MOST_VARIATION_S = 0.001

_UNIT = "round trip, ms"

# Steps of the histogram, of which few fit on a screen.
_ROWS, _PICTURE_STEPS = 12, 60

# Milliseconds. The clock's own step is a thousandth of that, and what a loop turn takes some of them.
_FINEST_MS = 0.001

# Characters.
_MOST_WIDTH = 80

# A bar's last piece, in eighths of a character.
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FULL = "█"


@connecting("The server to ask, or midi://NAME.")
def ping_command(
    target: Target,
    count: Annotated[
        int,
        typer.Option("--count", "-c", metavar="COUNT", min=0, help="How often to ask; 0 is until Ctrl-C."),
    ] = _DEFAULT_COUNT,
    interval: Annotated[
        float,
        typer.Option("--interval", "-i", metavar="SECONDS", help="From one to the next, 0.001 at least."),
    ] = _DEFAULT_INTERVAL_S,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the histogram as a picture, too.")
    ] = None,
) -> None:
    """Measure how long an answer takes, and say what that means for playing together.

    It asks over a connection as any client has it, in a way that no instrument hears. Only midinet servers
    answer. The first answer is not counted: what it takes is the time of getting ready.

    The times shown are round trips; a note needs half of one, if both ways are alike. The 99th percentile is
    what 99 in 100 do not exceed. The jitter is the mean difference between one round trip and the next (the
    D of RFC 3550, section 6.4.1, here an even mean of all). A ping is lost if there is no answer within 2 s.

    Ctrl-C ends it and shows what there is so far.

    \b
    Examples:
      midinet ping localhost:8080
      midinet ping midi://studio --count 1200 --svg wlan.svg
    """
    if not _LEAST_INTERVAL_S <= interval <= _MOST_INTERVAL_S:
        raise Complaint(
            f"--interval has to be from {_LEAST_INTERVAL_S:g} to {_MOST_INTERVAL_S:g}, in seconds"
        )
    if svg is not None:
        from .record import check_writable

        check_writable(svg)
    raise typer.Exit(run(ping(target, count, interval, svg), until_stopped=count == 0))


class Answers:
    """How long the answers took."""

    def __init__(self) -> None:
        # Seconds, in the order in which they were asked for, which is that in which they came.
        self.seconds = array("d")
        self.least, self.most = math.inf, 0.0
        self.lost = 0

    def add(self, seconds: float) -> None:
        """Take notice of an answer."""
        self.seconds.append(seconds)
        self.least, self.most = min(self.least, seconds), max(self.most, seconds)

    @property
    def asked(self) -> int:
        """How many have been answered or given up."""
        return len(self.seconds) + self.lost

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def jitter(self) -> float:
        """The mean difference between one answer and the next, in seconds."""
        differences = [abs(after - before) for before, after in itertools.pairwise(self.seconds)]
        return statistics.fmean(differences) if differences else 0.0

    @property
    def percentile(self) -> float:
        """The 99th percentile, in seconds: the smallest that 99 % do not exceed."""
        return sorted(self.seconds)[math.ceil(0.99 * len(self.seconds)) - 1]


async def ping(target: Target, count: int, interval: float, svg: Path | None) -> None:
    """Ask a server, and show what came of it at the end, also when that comes early.

    Args:
        target: the server.
        count: how often; 0 is without end.
        interval: from one to the next, in seconds.
        svg: the file for a picture.

    Raises:
        Complaint: there are no answers, or the picture cannot be written.
        ConnectError: there is no server.
        PortClosed, ConnectionLost: the server went away.
    """
    answers = Answers()
    try:
        async with target.connect() as port:
            name = printable(port.name)
            with StatusLine(sys.stderr) as line:
                await talk(port, _ask(port, answers, line, count, interval))
    finally:
        if answers.seconds:
            print("\n".join(report(name, answers, interval)), flush=True)
            if svg is not None:
                _write_picture(svg, name, answers)
    if not answers.seconds:
        raise Complaint(f"{name} answered at first, and then no more", 1)


async def _ask(port: SocketPort, answers: Answers, line: StatusLine, count: int, interval: float) -> None:
    line.show(f"asking {port.name} ...")
    try:
        await port.ping()
    except TimeoutError:
        raise Complaint(
            f"{port.name} can be connected to, but does not answer pings: it is no midinet server (mido's "
            "are none), or too busy"
        ) from None
    clock = asyncio.get_running_loop().time
    start = clock()
    async with asyncio.TaskGroup() as group:
        for number in itertools.count() if count == 0 else range(count):
            await asyncio.sleep(start + number * interval - clock())
            group.create_task(_ask_once(port, answers), name="midinet ping")
            if answers.seconds:
                line.show(_progress(answers, count))


async def _ask_once(port: SocketPort, answers: Answers) -> None:
    try:
        answers.add(await port.ping())
    except TimeoutError:
        answers.lost += 1
    except OSError:
        pass  # The connection has ended, which whoever reads the port says.


def _progress(answers: Answers, count: int) -> str:
    of = f" of {count}" if count else ""
    lost = f", {answers.lost} lost" if answers.lost else ""
    return (
        f"{len(answers.seconds)}{of} answered{lost}: {_ms(answers.seconds[-1])} just now, "
        f"{_ms(answers.least)} to {_ms(answers.most)} so far"
    )


def report(name: str, answers: Answers, interval: float) -> list[str]:
    """Return the lines that show what came of it.

    Args:
        name: of the server.
        answers: at least one.
        interval: from one to the next, in seconds.
    """
    bars = bars_of([seconds * 1000 for seconds in answers.seconds], _ROWS, finest=_FINEST_MS)
    figures = _figures(answers)
    return [
        f"{answers.asked} pings to {name}, {interval * 1000:g} ms apart: "
        f"{len(answers.seconds)} answered, {answers.lost} lost",
        f"{_UNIT}   {'   '.join(f'{what:>8}' for what in figures)}",
        f"{'':{len(_UNIT)}}   {'   '.join(f'{ms:{max(8, len(what))}.3f}' for what, ms in figures.items())}",
        "",
        *rows(bars),
        "",
        *_wrapped(in_music(answers)),
    ]


def _figures(answers: Answers) -> dict[str, float]:
    """The figures by their names, in milliseconds."""
    return {
        "minimum": answers.least * 1000,
        "median": answers.median * 1000,
        "99th percentile": answers.percentile * 1000,
        "maximum": answers.most * 1000,
        "jitter": answers.jitter * 1000,
    }


def rows(bars: Bars) -> list[str]:
    """Return a histogram of milliseconds as lines, a step each."""
    steps = [bars.write(bars.low + number * bars.step) for number in range(len(bars.counts) + 1)]
    texts = [f"{low} - {high} ms" for low, high in itertools.pairwise(steps)]
    counts = list(bars.counts)
    if bars.above:
        texts.append(f"{steps[-1]} ms and more")
        counts.append(bars.above)
    texts_width = max(map(len, texts))
    counts_width = max(len(str(count)) for count in counts)
    width = _width() - texts_width - counts_width - 6
    return [
        f"  {text:>{texts_width}} {count:>{counts_width}} {_bar(count / max(counts) * width)}".rstrip()
        for text, count in zip(texts, counts, strict=True)
    ]


def _bar(length: float) -> str:
    """Return a bar of so many characters; what is more than nothing can be seen."""
    try:
        (_FULL + _EIGHTHS).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return "#" * math.ceil(length)
    eighths = math.ceil(length * 8)
    return _FULL * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _width() -> int:
    return min(shutil.get_terminal_size((_MOST_WIDTH, 24)).columns, _MOST_WIDTH)


def in_music(answers: Answers) -> str:
    """Return what the answers mean to somebody who plays, in some sentences."""
    usual, late = answers.median / 2, answers.percentile / 2
    judgement = next(text for most, text in _JUDGEMENTS if late <= most)
    text = (
        f"In music: a note takes half a round trip, {_ms(usual)}, and one in a hundred {_ms(late)} or more, "
        f"like the sound of a player {_distance(usual)} or {_distance(late)} away (2.9 ms a metre; 10 ms is "
        f"3.4 m of air). {judgement.format(left=_ms(_GESTURE_S - late))}"
    )
    if (variation := late - answers.least / 2) > _MOST_VARIATION_S:
        text += f" But that varies by {_ms(variation)}, and more than 1 ms makes playing uneven."
    if answers.lost:
        text += f" {answers.lost} of {answers.asked} took longer than {DEFAULT_PING_TIMEOUT:g} s."
    return text


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width())


def _ms(seconds: float) -> str:
    """Return a time in two or three digits."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.{2 if milliseconds < 9.995 else 1 if milliseconds < 99.95 else 0}f} ms"


def _distance(seconds: float) -> str:
    """Return how far sound goes in a time."""
    metres = seconds * _SPEED_OF_SOUND
    if metres < 0.995:
        return f"{metres * 100:.0f} cm"
    return f"{metres:.{1 if metres < 9.95 else 0}f} m"


def _write_picture(path: Path, name: str, answers: Answers) -> None:
    milliseconds = [seconds * 1000 for seconds in answers.seconds]
    figures = ", ".join(f"{what} {ms:.3f} ms" for what, ms in _figures(answers).items())
    picture = histogram(
        f"{len(milliseconds)} round trips to {name}",
        bars_of(milliseconds, _PICTURE_STEPS, finest=_FINEST_MS),
        "round trip, milliseconds",
        [(answers.median * 1000, "median"), (answers.percentile * 1000, "99th percentile")],
        [
            f"{figures}; {answers.lost} lost.",
            f"A note takes half a round trip: as from a player {_distance(answers.median / 2)} away, and one "
            f"in a hundred as from more than {_distance(answers.percentile / 2)}.",
        ],
    )
    try:
        path.write_text(picture, "utf-8")
    except OSError as error:
        raise Complaint(f"cannot write {path}: {error.strerror}") from None
    tell(f"histogram written to {path}")
