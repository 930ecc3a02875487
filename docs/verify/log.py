#!/usr/bin/env python3
"""Watches a transparency log: reads every entry anew, and checks that the log only ever grew (docs/verify.md).

    log.py URL --vkey KEY [--witness KEY]... [--quorum N] [--state FILE]

URL is the log's, such as https://attest.example/log; KEY its verifier key, from a source you trust. FILE keeps the head
that was seen last. Of the witnesses N must have signed the head, or all that are named. Exit status: 0 the log is what it signed, and what it was; 1 it is not; 2 it could not be read."""
import argparse, json, sys, time, urllib.error, urllib.request
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from verify import b64, need, read_json, sha256, signed_by

MOST_BYTES = 256 * (2 + 65535)


def fetch(url):
    for tries in range(4):
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                body = reply.read(MOST_BYTES + 1)
            break
        except urllib.error.HTTPError as error:
            if error.code != 429 or tries == 3:
                raise
            time.sleep(20)  # so many a minute from one address
    need(len(body) <= MOST_BYTES, f"{url} is too long")
    return body


def checkpoint(note, vkey, witnesses=(), quorum=None):
    """Size and root of a head that this key signed, and how many of these witnesses."""
    body, _, lines = note.partition("\n\n")
    body += "\n"
    origin, size, root = body.split("\n")[:3]
    signatures = [(name, b64(text)) for dash, name, text in (line.split(" ") for line in lines.splitlines()) if dash == "—"]
    need(origin == vkey.split("+")[0] and signed_by(vkey, 1, signatures, body), "the head is not signed by this log")
    need(str(int(size)) == size, "a size that is no number")
    count = len({witness.split("+")[0] for witness in witnesses if signed_by(witness, 4, signatures, body)})
    need(count >= (len(witnesses) if quorum is None else quorum), f"{count} of {len(witnesses)} witnesses saw the head")
    return int(size), b64(root, 32), count


def path(number):
    groups = [f"{number % 1000:03}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03}")
    return "/".join(groups)


def entries(url, size):
    """Every entry, from the tiles of entries."""
    for number in range((size + 255) // 256):
        width = min(256, size - 256 * number)
        tile = fetch(f"{url}/tile/entries/{path(number)}" + (f".p/{width}" if width < 256 else ""))
        for _ in range(width):
            length = int.from_bytes(tile[:2], "big")
            need(len(tile) >= 2 + length, "a tile of entries that is not whole")
            yield tile[2:2 + length]
            tile = tile[2 + length:]
        need(not tile, "a tile of entries that has more than it should")


def root(leaves):
    """RFC 9162 section 2.1.1, as it is written."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\1", root(leaves[:half]), root(leaves[half:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--vkey", required=True)
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--quorum", type=int)
    parser.add_argument("--state", type=Path)
    args = parser.parse_args()
    try:
        note = fetch(f"{args.url}/checkpoint").decode()
        size, top, seen = checkpoint(note, args.vkey, args.witness, args.quorum)
        every = list(entries(args.url, size))
        leaves = [sha256(b"\0", entry) for entry in every]
        need(root(leaves) == top, "the entries do not give the root that was signed")
        former = args.state.read_text() if args.state and args.state.exists() else None
        if former:
            was, before, _ = checkpoint(former, args.vkey)
            need(was <= size and root(leaves[:was]) == before, f"the log is not the one that had {was} entries")
        kinds = [read_json(entry)["type"] for entry in every]
        if args.state:
            args.state.write_text(note)
        print(json.dumps({"verdict": "verified", "size": size, "grew_from": was if former else None, "witnesses": seen,
                          "entries": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}, indent=2))
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(print(json.dumps({"verdict": "unreadable", "detail": str(error)})) or 2)
    except (ValueError, KeyError, TypeError, InvalidSignature) as error:
        why = f"{type(error).__name__}: {error}".removeprefix("ValueError: ")
        sys.exit(print(json.dumps({"verdict": "refused", "detail": why})) or 1)


if __name__ == "__main__":
    main()
