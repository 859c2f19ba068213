"""Shipped recipes, the quick-start text and the script that rebuilds it."""
