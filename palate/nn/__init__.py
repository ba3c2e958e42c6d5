"""The network: one decoder of the LLaMA family and its heads. No files, no optimizer, no training here."""
