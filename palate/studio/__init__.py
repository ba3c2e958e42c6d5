"""The web app: people write demonstrations, rank answers, chat, and see what it changed."""
