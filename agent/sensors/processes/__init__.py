"""The process sensor: what the student starts, and how it ends.

    level (proc connector, pidfd, scan) → tracking (which processes matter) → observations

What a test leaves behind for a moment only is read when it ends: `capture` has what LearnPack's tests printed,
`pytest_cache` which tests failed.

`sensor.ProcessSensor` is the one to use: it takes the best level that works here, falls back and comes back.
Looking to add a level?  One file that keeps the promises of `level.Level`, and one entry in `sensor.LEVELS`.
"""
