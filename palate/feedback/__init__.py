"""People's work: demonstrations, prompts, responses and judgements. It outlives runs."""
