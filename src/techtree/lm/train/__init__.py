"""Training: the optimizers, the schedule, the loop that a kill cannot hurt."""
