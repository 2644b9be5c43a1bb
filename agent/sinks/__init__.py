"""Where records may go: one file for each kind of destination, and what they share.

`http` talks to a server and trusts nothing that it answers · `addresses` says what may be reached · `secrets` finds
keys, tokens and passwords in texts · `posting` is what all kinds share that post.  Importing one of them costs the
memory of `requests` (19 MB), so it is done when there is something to send (`agent.destinations`).
"""
