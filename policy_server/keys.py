"""`cadence-keys`: makes the key pairs that let a server and robots talk over a network; needs only the base install."""

import argparse
import sys
from pathlib import Path

from policy_server.security import write_pair
from vla.api import InputError

DONE, WRONG_USAGE = 0, 2
ADVICE = """
Give away only .key files. A server named `server` that `robot` may use:
    on the server:  cadence-serve keys=server.key_secret clients=<folder with robot.key> endpoint=tcp://*:5555
    on the robot:   RemotePolicy("tcp://<server>:5555", keys=client_keys("robot.key_secret", "server.key"))
"""


def main(arguments: list[str] | None = None) -> None:
    """Write one key pair for each name; exit status 2 if a file exists already."""
    parser = argparse.ArgumentParser(
        prog="cadence-keys", description=__doc__, epilog=ADVICE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a server or a robot; its files are called so")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for the files (default: here)")
    options = parser.parse_args(arguments)
    try:
        for name in options.names:
            public, secret = write_pair(options.out, name)
            sys.stdout.write(f"{public}  give this to the other side\n{secret}  keep this secret\n")
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(WRONG_USAGE)
    sys.exit(DONE)
