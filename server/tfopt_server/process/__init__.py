"""How the server lives: sockets, arbiter, worker, drain, exit code."""
