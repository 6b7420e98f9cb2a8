"""IDS -> VECTORS."""

from shortlist.backend import choose_backend

choose_backend()
