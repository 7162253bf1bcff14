"""A filter driver for tests: `filter.py process LOG STORE` or `filter.py smudge LOG STORE PATH`.

Content that starts with `pointer NAME` becomes the file NAME of STORE, as Git LFS would have it; other content is
turned to upper case. A path whose name starts with `fails` fails, `hangs` never answers, `dies` ends the process. LOG
gets a line for each start and each file, with the process's id and what it was told.
"""

import os
import sys
import time


def read_packet():
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        sys.exit(0)
    size = int(head, 16)
    return None if size == 0 else sys.stdin.buffer.read(size - 4)


def read_list():
    lines = []
    while (packet := read_packet()) is not None:
        lines.append(packet)
    return lines


def write_list(*packets):
    for packet in packets:
        sys.stdout.buffer.write(b"%04x%s" % (len(packet) + 4, packet))
    sys.stdout.buffer.write(b"0000")
    sys.stdout.buffer.flush()


def log(line):
    with open(sys.argv[2], "a") as file:
        file.write(f"{os.getpid()} {line}\n")


def convert(content):
    if content.startswith(b"pointer "):
        name = content.split()[1].decode()
        with open(os.path.join(sys.argv[3], name), "rb") as file:
            return file.read()
    return content.upper()


def behave(path):
    name = os.path.basename(path)
    if name.startswith("hangs"):
        time.sleep(3600)
    if name.startswith("dies"):
        sys.exit(3)
    return not name.startswith("fails")


def process():
    read_list()
    write_list(b"git-filter-server\n", b"version=2\n")
    read_list()
    write_list(b"capability=smudge\n")
    while True:
        told = dict(line.rstrip(b"\n").split(b"=", 1) for line in read_list())
        content = b"".join(read_list())
        path = told[b"pathname"].decode()
        log(f"{told[b'command'].decode()} {path} treeish={told[b'treeish'].decode()} blob={told[b'blob'].decode()}")
        if not behave(path):
            write_list(b"status=error\n")
            continue
        write_list(b"status=success\n")
        out = convert(content)
        write_list(*[out[at : at + 65516] for at in range(0, len(out), 65516)])
        write_list()


mode = sys.argv[1]
log(f"start {mode} {os.environ.get('GIT_DIR')} {os.getcwd()}")
if mode == "process":
    process()
else:
    if not behave(sys.argv[4]):
        print("this file is refused", file=sys.stderr)
        sys.exit(1)
    sys.stdout.buffer.write(convert(sys.stdin.buffer.read()))
