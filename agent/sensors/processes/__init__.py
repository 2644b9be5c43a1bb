"""The process sensor: what the student starts, and how it ends.

    level (proc connector, pidfd, scan) → tracking (which processes matter) → observations

`sensor.ProcessSensor` is the one to use: it takes the best level that works here, falls back and comes back.
Looking to add a level?  One file that keeps the promises of `level.Level`, and one entry in `sensor.LEVELS`.
"""
