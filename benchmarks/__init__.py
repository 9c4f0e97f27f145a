"""Benchmarks, as programs: each measures midinet and its peers in one run and prints a table.

    python -m benchmarks            all of them, one after another

    python -m benchmarks.parser     bytes to messages and back
    python -m benchmarks.latency    round trips, one message at a time
    python -m benchmarks.sync       the blocking ports
    python -m benchmarks.fanout     one publisher, many subscribers, beside message brokers
    python -m benchmarks.jam        players who all hear each other
    python -m benchmarks.growth     what a relay costs as its clients become many
    python -m benchmarks.hardware   instruments behind bridges, beside JACK alone
    python -m benchmarks.session    hubs that a nats-server joins, and what one hop adds
    python -m benchmarks.sysex      long system exclusive messages and the notes beside them
    python -m benchmarks.promises   what is promised in numbers, and what is measured

Speeds of one machine say little about another, so what counts is the ratio to a peer measured in the same
run. Every program takes its contenders in turn for several rounds and reports the medians. `--help` says
what is measured and how, `--quick` makes a program so short that it only shows that it runs, and `--save`
writes every round's figures, the tables and plots (extra `bench`) of them to benchmarks/results/ too.
"""

PROGRAMS = (
    "parser",
    "latency",
    "sync",
    "fanout",
    "jam",
    "growth",
    "hardware",
    "session",
    "sysex",
    "promises",
)
