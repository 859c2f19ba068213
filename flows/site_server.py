"""`python -m flows.site_server start --host HOST --port PORT`: a site's Prefect server behind its guard.

`prefect server start` takes no middleware, so its few lines around uvicorn are here. Settings, the authentication
string among them, come from the site's profile.
"""

import argparse
import os

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from flows.site_guard import Door, Guard
from flows.site_port import server_sockets


def main() -> None:
    """Serve until a signal."""
    os.umask(0o077)  # the database holds secrets; SQLite makes its journals with the same rights
    parser = argparse.ArgumentParser(prog="python -m flows.site_server")
    parser.add_argument("command", choices=["start"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--origin", action="append", default=[])
    options = parser.parse_args()
    server = get_current_settings().server
    if server.api.auth_string is None:
        raise SystemExit("expected an authentication string in the site's profile, got none")
    guard = Guard(
        create_app(final=True),
        Door(options.host, options.origin),
        server.api.auth_string.get_secret_value(),
        "/v2/dashboard",
    )
    config = uvicorn.Config(
        guard,
        log_level=server.logging_level.lower(),
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        server_header=False,
    )
    uvicorn.Server(config).run(server_sockets(options.host, options.port))


if __name__ == "__main__":
    main()
