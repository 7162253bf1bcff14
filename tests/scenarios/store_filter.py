#!/usr/bin/env python3
"""A filter driver as LFS is one: the repository holds a pointer, a directory the content. store_filter.py DIRECTORY

Git's long-running process protocol, version 2: clean keeps the content and answers with a pointer to it, smudge
follows the pointer. What is no pointer is passed through, as LFS does.
"""
import hashlib, os, pathlib, sys, tempfile

store = pathlib.Path(sys.argv[1])
store.mkdir(parents=True, exist_ok=True)
incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
MAGIC = b"pointer to sha256 "


def packet():
    """One packet; None for a flush."""
    head = incoming.read(4)
    if len(head) < 4:
        sys.exit(0)
    length = int(head, 16)
    return incoming.read(length - 4) if length else None


def section():
    packets = []
    while (data := packet()) is not None:
        packets.append(data)
    return packets


def send(*packets):
    for data in packets:
        outgoing.write(b"%04x" % (len(data) + 4) + data)
    outgoing.write(b"0000")
    outgoing.flush()


def clean(content):
    name = hashlib.sha256(content).hexdigest()
    # Two sides may keep the same content at once.
    with tempfile.NamedTemporaryFile(dir=store, delete=False) as file:
        file.write(content)
    os.rename(file.name, store / name)
    return MAGIC + name.encode() + b"\n"


def smudge(content):
    return (store / content[len(MAGIC) :].decode().strip()).read_bytes() if content.startswith(MAGIC) else content


section()
send(b"git-filter-server\n", b"version=2\n")
section()
send(b"capability=clean\n", b"capability=smudge\n")
while True:
    header = dict(line.decode().rstrip("\n").split("=", 1) for line in section())
    content = b"".join(section())
    result = {"clean": clean, "smudge": smudge}[header["command"]](content)
    send(b"status=success\n")
    send(*(result[at : at + 65516] for at in range(0, len(result), 65516)))
    send()
