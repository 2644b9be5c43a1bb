"""Where records may go: one file for each kind of destination, and what they share.

`http` talks to a server and trusts nothing that it answers · `secrets` finds keys, tokens and passwords in texts.
Importing one of them costs the memory of `requests` (19 MB): `agent.courier` does so when there is something to send.
"""
