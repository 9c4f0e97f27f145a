"""Whether everybody in a jam heard everybody else, in order, and when.

Every message of a jam is known by its 3 bytes, so what a player was sent tells who played what. Nobody may
hear itself, of each other player nothing may be missing, doubled or out of order, and nothing else may come.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from itertools import accumulate

from .players import Heard, Jam, note
from .protocols import Protocol


@dataclass
class Account:
    """What came of a jam, in messages."""

    deliveries: int = 0
    """Messages that reached another player."""
    lost: int = 0
    """Those that did not, or not within the load's patience."""
    wrong: int = 0
    """Those that came twice or out of order, and 3 bytes of what nobody played."""
    own: int = 0
    """Those that reached who had played them."""
    latencies: array[float] = field(default_factory=lambda: array("d"))
    """Seconds from a player's write to another's read, for every delivery."""


def settle(jam: Jam) -> Account:
    """Look at all that was heard."""
    account = Account()
    count = len(jam.heard)
    numbers = {note(number % count, number // count): number for number in range(len(jam.sent_at))}
    for listener, heard in enumerate(jam.heard):
        _listen(account, jam, numbers, listener, heard)
    return account


def _listen(account: Account, jam: Jam, numbers: dict[bytes, int], listener: int, heard: Heard) -> None:
    count = len(jam.heard)
    sent_at = jam.sent_at
    # By player, the number of the message that is to come next.
    due = list(range(count))
    stream = b"".join(heard.pieces)
    ends = list(accumulate(map(len, heard.pieces)))
    piece = understood = 0
    for delivered in _deliveries(jam.protocol).finditer(stream):
        understood += len(delivered[0])
        number = numbers.get(delivered[1], -1)
        player = number % count
        if number < 0 or (number < due[player] and player != listener):
            account.wrong += 1
            continue
        if player == listener:
            account.own += 1
            continue
        end = delivered.end()
        while ends[piece] < end:
            piece += 1
        account.latencies.append(heard.times[piece] - sent_at[number])
        account.deliveries += 1
        account.lost += (number - due[player]) // count
        due[player] = number + count
    if jam.protocol.aside:
        understood += stream.count(jam.protocol.aside) * len(jam.protocol.aside)
    account.wrong += -(-(len(stream) - understood) // 3)
    total = len(sent_at)
    for player, number in enumerate(due):
        if player != listener:
            account.lost += len(range(number, total, count))


def _deliveries(protocol: Protocol) -> re.Pattern[bytes]:
    """Return what finds deliveries, with the message as its group."""
    sample = note(0, 0)
    before, after = map(re.escape, protocol.delivery(sample).split(sample))
    # MIDI as it is has nothing around a message, but its first byte is the only one above 7F.
    return re.compile(before + rb"([\x80-\xff][\x00-\x7f]{2})" + after)
