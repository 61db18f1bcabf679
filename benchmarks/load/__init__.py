"""Light load generators for REST and gRPC, each run in a process of its own (see client.py)."""
