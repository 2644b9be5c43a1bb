"""The world → observations.  Each sensor has a thread of its own, stamps the time, and puts what it saw on one queue.

Looking to add a sensor?  One file here with `start` and `stop`, and one line in `agent.service.Agent`.
"""
