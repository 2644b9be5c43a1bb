"""learnpack-agent: concludes from files and processes what a student does in a LearnPack course.

    sensors → observations → inference → events → journal → telemetry.json

observation   a fact that a sensor saw: a file was written, a process started or exited
event         what the inference concluded: session_start, open_step, compile, test, complete_step,
              reset_step, ai_interaction, session_end, or gap ("here something may have been missed")
run           one compile or one test: what the student started once, however many processes it took
record        a journaled event with its number
document      .learn/telemetry.json, a fold of the records
evidence      why an event is believed: the observations behind it, in words and numbers
step          one exercise of the course; its position is its index
visit         from the opening of a step to the opening of another
session       from the start of LearnPack (or the first work) to its end (or half an hour of silence)
purpose       what a command line is for: it runs or tests files of the course, or it is no run
level         one way to see processes: connector, pidfd, polling
launcher      the direct child of the LearnPack server that brackets one run

`agent.core` is pure: no I/O, no clock, no threads.  `agent.sensors` turns the world into observations,
`agent.store` makes events durable, `agent.service` is the only loop, `agent.cli` the way in.
"""

__version__ = "0.4.0"
