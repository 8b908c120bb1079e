"""What can be done with recorded runs: resume, retry, roll back, abort, reconcile, prune."""
