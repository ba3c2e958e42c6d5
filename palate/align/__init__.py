"""What the methods that change how the assistant answers have in common: the networks, the prompts, the rollout, the
look at the answers on the way, the limit. Each method's loop and equation are in its own stage."""
