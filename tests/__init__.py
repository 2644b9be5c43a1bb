"""The tests of learnpack-agent.  This file must stay empty of code: the stand-in's processes import it."""
