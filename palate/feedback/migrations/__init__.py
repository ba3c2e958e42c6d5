"""Alembic migrations of the feedback store; `store.open_store` runs them."""
