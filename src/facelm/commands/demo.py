"""`facelm demo`: a local page to try a model on photographs, without a terminal."""

from __future__ import annotations

import argparse
import ipaddress
import time

from facelm.commands import NETWORK_HELP

EXAMPLES = """
The page lies on this machine and calls no other. Photographs that are given to it are kept in a temporary folder until
the command ends (Ctrl-C).

examples:
  facelm demo
  facelm demo --checkpoint outputs/demo/2025-01-31_12-00-00 --port 8000
  facelm demo --host 0.0.0.0             (whoever reaches this machine can open it, and sees no password)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--checkpoint", default="hrnetv2_w18", metavar="NAME_OR_FILE", help="shipped name, file, run folder or address")
    add("--network", metavar="CLASS", help=NETWORK_HELP)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--detector", default="dlib", metavar="NAME", help="dlib, or a YuNet .onnx file (default: dlib)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="who may open it (default: 127.0.0.1, this machine)")
    add("--port", type=int, metavar="N", help="of the page (default: the first free one from 7860 on)")
    add("--most-megabytes", type=int, default=30, metavar="N", help="of a photograph's file (default: 30)")
    add("--no-browser", action="store_true", help="say the address only, and open no browser")


def run(args: argparse.Namespace) -> int:
    """Opens the page, and keeps it open until Ctrl-C."""
    from facelm.models import own
    from facelm.predict.demo_page import opened
    from facelm.predict.detect import open_detector
    from facelm.predict.predictor import Predictor

    if args.most_megabytes < 1:
        raise ValueError(f"--most-megabytes is 1 or more, got {args.most_megabytes}")
    predictor = Predictor.load(
        args.checkpoint, args.device, network=own.named(args.network), detector=open_detector(args.detector)
    )
    options = {"host": args.host, "port": args.port, "most_megabytes": args.most_megabytes}
    with opened(predictor, **options, browser=not args.no_browser) as address:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if not _is_loopback(args.host):
            print(f"--host {args.host}: whoever reaches this machine can open the page", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
