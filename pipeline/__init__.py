"""Raw text in, token shards out. Imports neither torch nor prefect."""
