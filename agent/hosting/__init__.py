"""How the agent lives under a service manager."""
