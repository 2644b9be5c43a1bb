"""The file sensor: what changes in the course, on watchdog with its holes closed.

    source (inotify, observer, none) → notices → tree (compares the disk with its picture) → sensor → observations

A source only says where to look (`watches`); what happened is decided by comparing, so that the final state is
always seen.  `sensor.FileSensor` is the one to use.
"""
