"""Answers: sampling one token, decoding whole batches with a key-value cache, replies as text."""
