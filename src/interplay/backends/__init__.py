"""What answers the requests of agents: a model in this process, or a server."""
