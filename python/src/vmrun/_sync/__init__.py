# Made by python/generate from _async/__init__.py: change that, then run `make python`.
"""The asyncio API."""
