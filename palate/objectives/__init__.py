"""Losses and estimators as pure functions on tensors. Losses return (sum, weight); one paper and equation each."""
