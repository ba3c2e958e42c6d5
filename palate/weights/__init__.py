"""Model folders: the network on disk with Hugging Face's names and files."""
