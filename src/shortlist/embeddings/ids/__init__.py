"""Ids and weights in any container, as arrays that a lookup takes."""
