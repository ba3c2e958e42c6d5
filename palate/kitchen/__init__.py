"""The embedded world: a small kitchen whose truth is known, told as pages, asked about, answered, judged and ranked."""
