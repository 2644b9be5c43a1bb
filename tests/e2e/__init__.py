"""The agent as a process beside a stand-in for LearnPack and a scripted student, scored against the truth."""
