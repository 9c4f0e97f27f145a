"""A keyboard in a window: its keys play, and light up with what the others play.

python tkinter_keys.py [host:port]

A window must never wait. Sending hands over and returns; what has arrived is taken by iter_pending(), which
does not wait either, a hundred times a second, and never more at once than a moment's worth.
"""

import signal
import sys
import tkinter
from itertools import islice

from mido import Message

from midinet.sync import SocketPort, connect, parse_address

NOTES = {60: "C", 62: "D", 64: "E", 65: "F", 67: "G", 69: "A", 71: "B", 72: "C"}
LOOK_MS = 10
MOST_AT_ONCE = 500


class Keyboard(tkinter.Tk):
    def __init__(self, port: SocketPort) -> None:
        super().__init__()
        self.title(f"midinet: {port.name}")
        self.port = port
        self.labels = {note: self.make_key(note, name) for note, name in NOTES.items()}
        # Ctrl-C in the terminal is taken when Python has its turn, at the next look.
        signal.signal(signal.SIGINT, lambda number, frame: self.quit())
        self.look()

    def make_key(self, note: int, name: str) -> tkinter.Label:
        key = tkinter.Label(self, text=name, width=5, height=9, anchor="s", relief="raised", bd=2, bg="white")
        key.bind("<ButtonPress-1>", lambda event: self.play(Message("note_on", note=note)))
        key.bind("<ButtonRelease-1>", lambda event: self.play(Message("note_off", note=note)))
        key.pack(side="left")
        return key

    def play(self, message: Message) -> None:
        if not self.port.closed:
            self.port.send(message)
            self.show(message)

    def show(self, message: Message) -> None:
        if message.type in ("note_on", "note_off") and message.note in self.labels:
            sounds = message.type == "note_on" and message.velocity > 0
            self.labels[message.note]["bg"] = "orange" if sounds else "white"

    def look(self) -> None:
        for message in islice(self.port.iter_pending(), MOST_AT_ONCE):
            self.show(message)
        if self.port.closed:
            self.quit()
        else:
            self.after(LOOK_MS, self.look)


with connect(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")) as port:
    Keyboard(port).mainloop()
