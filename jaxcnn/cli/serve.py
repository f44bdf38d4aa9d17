"""`jaxcnn serve WHAT`: serves predictions over HTTP, with a page to try them."""

from __future__ import annotations

import argparse

_SECONDS_TO_END = 10  # for requests in progress when the server is stopped
_CONNECTIONS = 200  # besides those in progress; others get status 503


def register(subparsers) -> None:
    """Adds `jaxcnn serve` to the commands."""
    parser = subparsers.add_parser(
        "serve",
        help="serve predictions over HTTP",
        description="Serves the network of a run's checkpoint or of weights: a page that takes "
        "photos; POST /predict and POST /explain, which take an image file (as the body, "
        'in a form, or in JSON as {"image": "base64"}); GET /healthz and GET /metrics. Requests '
        "that arrive together are predicted in one batch. Anyone who can reach the port can use "
        "the server. It needs an extra: pip install 'jaxcnn[serve]'.",
        epilog="example: jaxcnn serve runs/r56, then curl -F file=@cat.jpg "
        "http://127.0.0.1:8000/predict",
    )
    parser.add_argument(
        "what",
        metavar="WHAT",
        help="a run's directory, a .safetensors, .npz or .pth file, or published weights",
    )
    parser.add_argument(
        "--id", metavar="MODEL", help="network of a weights file that does not name it"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "newest"),
        default="best",
        help="checkpoint of a run (default: best)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port; 0 for any free one (default: 8000)"
    )
    parser.add_argument(
        "--batch-size",
        dest="batch",
        type=int,
        default=16,
        metavar="N",
        help="maximum batch size (default: 16)",
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=64,
        metavar="N",
        help="maximum number of requests in progress; more get status 429 (default: 64)",
    )
    parser.add_argument(
        "--max-mb",
        type=int,
        default=20,
        metavar="N",
        help="maximum size of an image file in megabytes (default: 20)",
    )


def run(args: argparse.Namespace) -> None:
    """Serves predictions until it is stopped."""
    import socket

    from jaxcnn._checks import optional_package, require
    from jaxcnn.cli import common

    uvicorn = optional_package("uvicorn", "serve")
    from jaxcnn.deploy import server
    from jaxcnn.evaluation import evaluate

    common.quiet()
    try:
        args.host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"--host is {args.host!r}, which cannot be a host: {error}") from error
    require(1 <= args.max_mb <= 1000, "--max-mb", args.max_mb, "1 to 1,000")
    most = server.MOST["batch"]
    require(1 <= args.batch <= most, "--batch-size", args.batch, f"1 to {most:,}")
    server.check_limits(args.batch, args.queue, args.max_mb * 1_000_000)
    entry = evaluate.open_entry(args.what, args.checkpoint, model=args.id)
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    try:
        bound = socket.create_server((args.host, args.port), family=family)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen on {args.host}, port {args.port}: {error}") from error
    with bound:
        app = server.make_app(
            entry, batch=args.batch, queue=args.queue, max_bytes=args.max_mb * 1_000_000
        )
        host = f"[{args.host}]" if ":" in args.host else args.host
        address = f"http://{host}:{bound.getsockname()[1]}"
        print(f"serving {entry.model} on {address} (press Ctrl-C to stop)", flush=True)
        options = {
            **{"log_level": "warning", "access_log": False, "server_header": False},
            "timeout_graceful_shutdown": _SECONDS_TO_END,
            "limit_concurrency": args.queue + _CONNECTIONS,
        }
        uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[bound])
