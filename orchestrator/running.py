"""One live run: the lease, its heartbeat, the executor, the rollout, and how it is closed."""
