"""Front door: `speechtaxi serve MODEL...`."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from speechtaxi.errors import InputError

TOKEN = "SPEECHTAXI_TOKEN"
KEEP_ALIVE = 75
"""Seconds that a connection may idle: longer than clients keep theirs (httpx 5 s, as uvicorn itself
would), so that none asks just as the server hangs up."""
LOOPBACK = ("127.", "::1", "localhost")


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    p = argparse.ArgumentParser(
        prog="speechtaxi serve",
        description="Answer over HTTP what recordings are about, with a page for the browser.",
        epilog="SIGTERM or Ctrl-C: what was accepted is answered, then the server ends.",
    )
    p.add_argument("model", nargs="+", help="run folders or exported model folders")
    p.add_argument("--ensemble", action="store_true", help="answer also with the mean of all")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine only)")
    p.add_argument("--port", type=int, default=8000, help="0: any that is free (8000)")
    p.add_argument(
        "--token-file",
        "--token_file",
        type=Path,
        help=f"holds what clients must send as a bearer token (or the variable {TOKEN})",
    )
    p.add_argument("--max_megabytes", type=float, default=50.0, help="of an upload (50)")
    p.add_argument("--max_seconds", type=float, default=3600.0, help="of a recording (3600)")
    p.add_argument("--timeout", type=float, default=300.0, help="seconds until an answer (300)")
    p.add_argument("--queue", type=int, default=16, help="requests in hand; more get 429 (16)")
    p.add_argument("--threads", type=int, default=1, help="of the models (1)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    return p


def main(argv: list[str]) -> int:
    """Serve until a signal ends it."""
    args = parser().parse_args(argv)
    for name in ("max_megabytes", "max_seconds", "timeout", "queue", "threads"):
        if not 0 < getattr(args, name) < float("inf"):
            raise InputError(f"--{name} must be more than 0")
    token = read_token(args.token_file)
    try:
        import uvicorn

        from speechtaxi.serve.app import create_app
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed; install the extra: pip install 'speechtaxi[serve]'"
        ) from None
    from speechtaxi import checkpoint
    from speechtaxi.serve.models import open_models
    from speechtaxi.serve.upload import Limits
    from speechtaxi.serve.worker import STOP_SECONDS, Worker

    for model in args.model:
        checkpoint.weights_file(model)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: object) -> None:
            worker.stop()
            self.force_exit, self.should_exit = self.should_exit, True

        def give_up(self) -> None:
            self.should_exit = True

    worker = Worker(
        lambda private: open_models(args.model, private, args.device, args.threads, args.ensemble),
        args.queue,
        failed=lambda: server.give_up(),
    )
    limits = Limits(round(args.max_megabytes * 1e6), args.max_seconds, args.timeout)
    server = Server(
        uvicorn.Config(
            create_app(worker, limits, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=round(STOP_SECONDS) + 5,
        )
    )
    with listen(args.host, args.port) as listening:
        port = listening.getsockname()[1]
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"speechtaxi serve: http://{host}:{port}", file=sys.stderr, flush=True)
        if token is None and not args.host.startswith(LOOPBACK):
            print(
                "speechtaxi serve: open to the network without a token; see --token-file",
                file=sys.stderr,
                flush=True,
            )
        server.run(sockets=[listening])
    if worker.error is not None:
        raise worker.error
    return 0


def read_token(path: Path | None) -> str | None:
    """Return the token that a file or the environment holds.

    Raises:
        InputError: the file cannot be read, or the token is empty.
    """
    if path is None:
        token = os.environ.get(TOKEN)
        where = f"the variable {TOKEN}"
    else:
        where = str(path)
        try:
            token = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--token-file {path}: cannot be read ({error})") from None
    if token is None:
        return None
    if not token.strip():
        raise InputError(f"{where} holds no token; write one line, such as a random word of 32")
    return token.strip()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen at {host} port {port}: {error}") from None
    # Else the second half of each answer waits 40 ms for a delayed acknowledgement: asyncio sees to
    # it only where a socket names its protocol
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
