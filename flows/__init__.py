"""Recipes, the command line and the Prefect flows. Sees everything; nothing imports it."""
