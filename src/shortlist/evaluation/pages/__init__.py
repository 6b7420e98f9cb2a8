"""Evaluations and leaderboards as text tables, plots and HTML pages."""
