"""The verbs inside a training loop, each written once: optimizer, schedule, update, ticks, resume."""
