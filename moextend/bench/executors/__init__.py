"""Where runs are executed: on this machine, by a scheduler, on a cluster, or by an executor of another package."""
