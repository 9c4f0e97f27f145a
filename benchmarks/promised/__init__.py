"""The promises that have numbers, each with what measures it: see `benchmarks.promises`."""
