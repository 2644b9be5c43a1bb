"""The pure core.  Rule 1: nothing in this package touches the world.

No I/O, no clock, no threads, no logging, no randomness: observations in, events out, and time is an
argument.  So a recorded session replays to the same events, byte for byte, in milliseconds
(`tests/test_architecture.py` holds the rule).
"""
