"""MIDI files: bytes of a file to a time line, and what was heard to a file."""
