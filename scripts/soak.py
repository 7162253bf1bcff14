#!/usr/bin/env python3
"""A soak: random readers, warms, cancels and network faults; run by soak.sh, which explains the arguments.

One daemon serves phase after phase, each with a repository of its own, so that there is always something to fetch. While a fault is active
a read may fail, but never give wrong bytes, and never hang. After each phase the network is healed and everything
stopped: then nobody may wait, no task, thread or child be left over, and each mount must equal git's tree. What the daemon keeps
in memory may be no more in the last phase than in the second.
"""
import argparse, asyncio, errno, hashlib, json, os, pathlib, random, re, shutil, signal, socket, stat, statistics, subprocess, sys, tempfile, threading, time

import bench

# A read: five attempts of network.timeout and the pauses between them, behind a request that does the same.
WAIT_BOUND = 60
# A fault ends in the proxy before the daemon has seen the last of it. Longer would excuse what has other causes: moods of
# the network last seconds.
AFTERMATH = 2
# From healing the network to nobody waiting.
REST_BOUND = 20
# From ^C or SIGKILL to the end of the process.
CANCEL_BOUND = 10
# Idle threads that a daemon may keep for a while: connections, and the runtime's pool for blocking calls.
THREADS_SPARE = 16
FILES_SPARE = 24
RSS_SPARE = 8 << 20
NETWORK_ERRNOS = {errno.EIO, errno.ENETUNREACH, errno.ETIMEDOUT}
GONE_ERRNOS = NETWORK_ERRNOS | {errno.ENOENT, errno.ENOTCONN, errno.ESTALE, errno.EBADF, errno.ENODEV, errno.ECONNABORTED}


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Network:
    """A loopback proxy that behaves like a bad network, in a thread of its own."""

    def __init__(self, target):
        self.target, self.rtt, self.mbit, self.fault = target, 0.0, 0.0, None
        self.connections, self.bytes_down, self.live = 0, 0, set()
        self.windows, self.counts = [], {}
        self.loop, started = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self.main, args=(started,), daemon=True)
        self.thread.start()
        started.wait(10)

    def main(self, started):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def set(self, fault=None, rtt=0.0, mbit=0.0):
        def change():
            now = time.monotonic()
            if self.windows and self.windows[-1][1] is None:
                self.windows[-1][1] = now
            if fault:
                self.windows.append([now, None, fault])
                self.counts[fault] = self.counts.get(fault, 0) + 1
            self.fault, self.rtt, self.mbit = fault, rtt, mbit
            for end in list(self.live) if fault == "offline" else []:
                end.transport.abort()
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (change(), done.set()))
        done.wait(10)

    def faulty(self, since, until, kind=None):
        """Whether a fault (of `kind`) was active, or just over, at some time between."""
        return any(begin <= until and (end is None or since <= end + AFTERMATH) and kind in (None, fault)
                   for begin, end, fault in list(self.windows))

    async def serve(self, reader, writer):
        if self.fault == "offline":
            return writer.transport.abort()
        self.connections += 1
        await asyncio.sleep(self.rtt)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.transport.abort()
        self.live |= {writer, far_writer}
        try:
            await asyncio.gather(self.carry(reader, far_writer, False), self.carry(far_reader, writer, True))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.live -= {writer, far_writer}
            writer.close(), far_writer.close()

    async def carry(self, reader, writer, down):
        pieces = asyncio.Queue(64)
        deliver = asyncio.create_task(self.deliver(pieces, writer, down))
        try:
            while data := await reader.read(1 << 14):
                await pieces.put((time.monotonic() + self.rtt / 2, data))
                if deliver.done():
                    break
        except ConnectionError:
            pass
        if not deliver.done():
            await pieces.put((time.monotonic() + self.rtt / 2, b""))
        await deliver

    async def deliver(self, pieces, writer, down):
        try:
            # Where this connection breaks when a fault strikes.
            left = random.randrange(1 << random.randrange(6, 22))
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(max(0, due - time.monotonic()))
                if down and self.mbit:
                    await asyncio.sleep(len(data) * 8 / (self.mbit * 1e6))
                while self.fault == "stall":
                    await asyncio.sleep(0.05)
                if not data:
                    return writer.write_eof()
                if down:
                    self.bytes_down += len(data)
                    left -= len(data)
                if left < 0 and self.fault in ("cut", "flip"):
                    if self.fault == "cut":
                        return writer.transport.abort()
                    data = bytearray(data)
                    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
                    left = 1 << random.randrange(12, 22)
                writer.write(bytes(data))
                await writer.drain()
        except OSError:
            pass
        finally:
            # Whoever fills the queue must not wait for one who left.
            while not pieces.empty():
                pieces.get_nowait()


def read_files(mount, reference, seed, names_file):
    """A reader process: reads random files and compares; one line before and one after each."""
    choice = random.Random(seed)
    names = pathlib.Path(names_file).read_text().split("\0")[:-1]
    kind = choice.choice(["any", "any", "hot", "directory"])
    if kind == "hot":  # few files, so that readers meet
        names = names[:: max(1, len(names) // 40)]
    if kind == "directory":
        parent = os.path.dirname(choice.choice(names))
        names = [name for name in names if os.path.dirname(name) == parent]
    for _ in range(choice.randrange(1, 120)):
        name = choice.choice(names)
        print("b", name, sep="\0", flush=True)
        begun, size, wrong, number = time.monotonic(), 0, "", 0
        try:
            with open(os.path.join(reference, name), "rb") as file:
                wanted = file.read()
            if os.lstat(os.path.join(mount, name)).st_size != len(wanted) and choice.random() < 0.3:
                wrong = "size"
            with open(os.path.join(mount, name), "rb", buffering=0) as file:
                if choice.random() < 0.5:
                    got = file.readall()
                    size, wrong = len(got), wrong or ("" if got == wanted else "whole")
                else:
                    for _ in range(choice.randrange(1, 6)):
                        at, most = choice.randrange(len(wanted) + 1), choice.choice([1, 100, 4096, 70_000, 1 << 20])
                        got = os.pread(file.fileno(), most, at)
                        size += len(got)
                        if got != wanted[at : at + most]:
                            wrong = wrong or f"{most} bytes at {at}"
        except OSError as error:
            number = error.errno
        print("e", f"{begun}", f"{time.monotonic()}", size, number, wrong, name, sep="\0", flush=True)
        if choice.random() < 0.2:
            time.sleep(choice.random() * 0.3)


class Mount:
    """A mount, and when it was not there or about to go."""

    def __init__(self, path, rev, reference):
        self.path, self.rev, self.reference = path, rev, reference
        self.lock, self.windows, self.background = threading.Lock(), [], False

    def unstable(self, since, until):
        return any(begin <= until and (end is None or since <= end + 0.5) for begin, end in list(self.windows))


class Soak:
    def __init__(self, opt):
        self.opt, self.children, self.guard = opt, set(), threading.Lock()
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="larder-soak."))
        drop = lambda name: name.upper().startswith(("GIT_", "LARDER_", "XDG_")) or name.upper().endswith("_PROXY")
        self.env = {k: v for k, v in os.environ.items() if not drop(k)}
        self.env |= dict(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0", LC_ALL="C", HOME=str(self.work),
                         XDG_CONFIG_HOME=str(self.work / "config"), GIT_AUTHOR_NAME="s", GIT_AUTHOR_EMAIL="s@e", GIT_COMMITTER_NAME="s",
                         GIT_COMMITTER_EMAIL="s@e")
        # A server that searches deltas may by default be silent for five seconds: longer than the time-out here.
        settings = [("safe.directory", "*"), ("uploadpack.keepAlive", "1")]
        self.env["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (key, value) in enumerate(settings):
            self.env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        (self.work / "config/larder").mkdir(parents=True)
        (self.work / "config/larder/config.toml").write_text('[network]\ntimeout = "3s"\n')
        self.network, self.home, self.pid, self.mounts, self.first = None, None, None, [], None
        self.stop, self.violations, self.rss = threading.Event(), [], []
        self.counts = dict.fromkeys("reads bytes warms warms_cancelled readers_killed listings statuses remounts".split(), 0)
        self.failures, self.longest, self.evidence = {}, {}, None

    # -- running things

    def popen(self, *args, **more):
        child = subprocess.Popen([str(a) for a in args], env=self.env, stdin=subprocess.DEVNULL, start_new_session=True, **more)
        with self.guard:
            self.children.add(child)
        return child

    def kill(self, child, number=signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass

    def reap(self, child):
        """Ends `child` if it has not ended; False: it could not be killed."""
        self.kill(child)
        try:
            child.wait(CANCEL_BOUND)
        except subprocess.TimeoutExpired:
            return False
        with self.guard:
            self.children.discard(child)
        return True

    def run(self, *args, cwd=None, limit=WAIT_BOUND, cancel_after=None, number=signal.SIGKILL):
        """(exit code, stdout, stderr, seconds); exit code None: it took longer than `limit`."""
        begun = time.monotonic()
        child = self.popen(*args, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = child.communicate(timeout=cancel_after or limit)
            return child.returncode, out, err, time.monotonic() - begun
        except subprocess.TimeoutExpired:
            self.kill(child, number if cancel_after else signal.SIGKILL)
            cancelled = time.monotonic()
            try:
                out, err = child.communicate(timeout=CANCEL_BOUND)
            except subprocess.TimeoutExpired:
                self.violate("not cancelled", f"{' '.join(map(str, args))} lives {CANCEL_BOUND} s after signal {number}")
                self.kill(child)
                out, err = child.communicate(timeout=CANCEL_BOUND)
            self.longer("cancel", time.monotonic() - cancelled)
            return child.returncode if cancel_after else None, out, err, time.monotonic() - begun
        finally:
            if not self.reap(child):
                self.violate("unkillable", f"process {child.pid}: {' '.join(map(str, args))}")

    def larder(self, *args, **more):
        return self.run(self.opt.larder, *args, **more)

    def must(self, *args, **more):
        code, out, err, _ = self.run(*args, **more)
        if code != 0:
            raise RuntimeError(f"{' '.join(map(str, args))}: {code}: {err.decode(errors='replace').strip()[-600:]}")
        return out

    def count(self, what, number=1):
        with self.guard:
            self.counts[what] += number

    def fail(self, kind):
        with self.guard:
            self.failures[kind] = self.failures.get(kind, 0) + 1

    def longer(self, what, seconds):
        with self.guard:
            self.longest[what] = max(self.longest.get(what, 0), seconds)

    def violate(self, kind, text):
        say(f"VIOLATION {kind}: {text}")
        with self.guard:
            self.violations.append((kind, text[:2000]))
            first = sum(k == kind for k, _ in self.violations) == 1
        if first:
            self.witness(kind)

    def witness(self, kind):
        """Writes down what the daemon says of itself, while it still can."""
        if not self.home or not self.home.exists():
            return
        self.evidence = self.evidence or pathlib.Path(tempfile.mkdtemp(prefix="larder-soak-evidence."))
        into = self.evidence / re.sub(r"\W+", "-", f"{kind}-{len(self.violations)}")
        into.mkdir(exist_ok=True)
        log = self.home / "daemon.log"
        if log.exists():
            shutil.copy(log, into / "daemon.log")
        for command in (["waits", "--json"], ["metrics"], ["status"]):
            try:
                done = subprocess.run([self.opt.larder, *command], env=self.env, capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
                (into / command[0]).write_bytes(done.stdout + done.stderr)
            except (subprocess.TimeoutExpired, OSError) as error:
                (into / command[0]).write_text(str(error))
        for name in ("stack", "status"):
            for task in pathlib.Path(f"/proc/{self.pid}/task").glob(f"*/{name}"):
                try:
                    with open(into / f"threads-{name}", "ab") as file:
                        file.write(f"== {task}\n".encode() + task.read_bytes())
                except OSError:
                    pass

    # -- what is served, and what it should look like

    def prepare(self):
        port, base = free_port(), self.work / "served"
        base.mkdir()
        # Not through `git`, which would stay between the daemon and whoever waits for its end.
        program = os.path.join(self.must("git", "--exec-path").decode().strip(), "git-daemon")
        self.popen(program, "--listen=127.0.0.1", f"--port={port}", f"--base-path={base}", "--export-all", "--reuseaddr",
                   "--log-destination=none", base, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.01)
        self.network = Network(port)
        self.home = self.work / "home"
        self.env["LARDER_HOME"] = str(self.home)

    def make_repository(self):
        """A repository that shares no object with those of other phases: there is always something to fetch."""
        tree, choice = self.work / f"served/made{self.phase}", random.Random(self.phase)
        tree.mkdir()
        words = [bytes(choice.choices(b"abcdefghijklmnopqrstuvwxyz", k=choice.randrange(2, 12))) for _ in range(3000)]
        for number in range(3000):
            path = tree / f"top{number % 7}/mid{number % 41}/file{number}.{choice.choice(['c', 'h', 'txt', 'bin', 'py'])}"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = 0 if number == 5 else 3 << 20 if number % 997 == 1 else int(choice.expovariate(1 / 15_000))
            if path.suffix == ".bin":
                path.write_bytes(choice.randbytes(size))
            else:
                path.write_bytes((b" ".join(choice.choices(words, k=size // 7)) + b"\n").replace(b"ab ", b"\n"))
        (tree / "top0/übergrößen name.txt").write_text(f"ü {self.phase}\n")
        (tree / "top0/run.sh").write_text(f"#!/bin/sh\n# {self.phase}\n")
        (tree / "top0/run.sh").chmod(0o755)
        (tree / "top1/link").symlink_to("../top0/run.sh")
        for args in (["init", "-q", "-b", "main"], ["config", "uploadpack.allowFilter", "true"],
                     ["config", "uploadpack.allowAnySHA1InWant", "true"], ["add", "."], ["commit", "-qm", "one"], ["checkout", "-qb", "next"]):
            self.must("git", *args, cwd=tree)
        for path in sorted(tree.glob("top*/mid*/*"))[::10]:
            path.write_bytes(path.read_bytes() + b"next\n")
        shutil.rmtree(tree / "top3/mid3", ignore_errors=True)
        self.must("git", "commit", "-qam", "two", cwd=tree)
        self.must("git", "checkout", "-q", "main", cwd=tree)
        self.must("git", "repack", "-adq", cwd=tree, limit=300)
        return str(tree)

    def reference(self, corpus, rev):
        """Git's own files of `rev`: (directory, {name: (mode, object id)}, file with the names of plain files)."""
        git = ["git", f"--git-dir={corpus if corpus.endswith('.git') else corpus + '/.git'}"]
        tree = self.work / f"tree{self.phase}-{rev}"
        tree.mkdir()
        self.must("bash", "-c", 'set -o pipefail; "$@" | tar x -C "$0"', tree, *git, "archive", rev, limit=300)
        entries, names = {}, []
        for line in self.must(*git, "ls-tree", "-rz", "--full-tree", rev).split(b"\0")[:-1]:
            (mode, _, oid), name = line.split(b"\t")[0].split(), os.fsdecode(line.split(b"\t", 1)[1])
            entries[name] = (mode.decode(), oid.decode())
            if mode.startswith(b"100") and blob_id(tree / name) == oid.decode():  # attributes may change an archive
                names.append(name)
        listed = self.work / f"names{self.phase}-{rev}"
        listed.write_text("".join(name + "\0" for name in names))
        return tree, entries, listed

    # -- actors

    def act(self, number, actions, pause, until):
        choice = random.Random(f"{self.opt.seed}/{self.phase}/{number}")
        while time.monotonic() < until and not self.stop.is_set():
            try:
                choice.choices([action for action, _ in actions], [weight for _, weight in actions])[0](choice)
            except Exception as error:  # an actor that ends would weaken the load in silence
                self.violate("actor", f"{type(error).__name__}: {error}")
            time.sleep(choice.random() * pause)

    def actor_read(self, choice):
        mount = choice.choice(self.mounts)
        tree, _, names = self.trees[mount.rev]
        child = self.popen(sys.executable, __file__, "--reader", mount.path, tree, choice.randrange(1 << 60), names, stdout=subprocess.PIPE, text=True,
                           errors="surrogateescape")
        if choice.random() < 0.3:
            killer = threading.Timer(choice.uniform(0.1, 8), lambda: (self.count("readers_killed"), self.kill(child)))
        else:
            killer = threading.Timer(WAIT_BOUND * 3, lambda: None)
        killer.start()
        state = dict(open=None, since=0.0)
        watcher = threading.Thread(target=self.watch_reader, args=(child, state))
        watcher.start()
        for line in child.stdout:
            fields = line.rstrip("\n").split("\0")
            if fields[0] == "b" and len(fields) == 2:
                state.update(open=fields[1], since=time.monotonic())
            elif fields[0] == "e" and len(fields) == 7:
                state.update(open=None)
                self.judge(mount, *fields[1:])
        if state["open"]:  # killed in the middle
            self.longer("read", time.monotonic() - state["since"])
        killer.cancel()
        child.stdout.close()
        if not self.reap(child):
            self.violate("unkillable", f"reader {child.pid} of {state['open']}")
        watcher.join()

    def watch_reader(self, child, state):
        told = False
        while child.poll() is None:
            time.sleep(0.2)
            waited = time.monotonic() - state["since"]
            if state["open"] and waited > WAIT_BOUND and not told:
                told = True
                self.violate("hang", f"a reader waits {waited:.0f} s for {state['open']}")
            if told or self.stop.is_set():
                self.kill(child)

    def judge(self, mount, begun, ended, size, number, wrong, name):
        begun, ended, number = float(begun), float(ended), int(number)
        self.count("reads")
        self.count("bytes", int(size))
        self.longer("read", ended - begun)
        if wrong:
            self.violate("wrong bytes", f"{mount.path}/{name}: {wrong}")
        if not number:
            return
        self.fail(errno.errorcode.get(number, str(number)))
        gone = mount.unstable(begun, ended) and number in GONE_ERRNOS
        # Only damaged data is EIO; a network that is gone is ENETUNREACH.
        if not gone and not (number in NETWORK_ERRNOS and self.network.faulty(begun, ended, "flip" if number == errno.EIO else None)):
            self.violate("error without a fault", f"{mount.path}/{name}: {os.strerror(number)} after {ended - begun:.2f} s")

    def actor_warm(self, choice):
        mount = choice.choice(self.mounts)
        _, entries, _ = self.trees[mount.rev]
        directories = sorted({os.path.dirname(name) for name in entries} - {""})
        specs = choice.choices([[], choice.sample(directories, min(len(directories), choice.randrange(1, 6))), ["*.h"], [choice.choice(directories).split("/")[0], ":!*.c"]],
                               [1, 30, 1, 2])[0]
        args = ["warm", mount.path, "--json", *specs]
        if choice.random() < 0.4:
            args += ["--limit", choice.choice(["0", "2KiB", "20KiB", "1MiB"])]
        if choice.random() < 0.2:
            args += ["--rev", choice.choice(["main", "next"])]
        background = choice.random() < 0.2
        if background:
            args.append("--background")
            mount.background = True
        begun = time.monotonic()
        cancel = choice.uniform(0.05, 6) if choice.random() < 0.5 else None
        code, out, err, seconds = self.larder(*args, cancel_after=cancel, number=signal.SIGINT, limit=WAIT_BOUND * 3)
        self.count("warms")
        if background:
            self.longer("warm --background", seconds)
        if code == 0:
            report = json.loads(out)
            if not background and report["objects_wanted"] != report["objects_fetched"] + report["objects_already_cached"] + report["objects_left_out"]:
                self.violate("warm report", out.decode())
            return
        text = err.decode(errors="replace") + out.decode(errors="replace")
        if code is None:
            return self.violate("warm hangs", f"{args} after {seconds:.0f} s: {text[-500:]}")
        if cancel and code in (130, -signal.SIGINT):
            return self.count("warms_cancelled")
        self.fail(f"warm: {code}")
        unstable = mount.unstable(begun, time.monotonic()) and code in (1, 3, 4, 6)
        if not unstable and not (code in (4, 5) and self.network.faulty(begun, time.monotonic())):
            self.violate("warm", f"{args}: {code}: {text[-500:]}")

    def actor_list(self, choice):
        mount = choice.choice(self.mounts)
        tree, entries, _ = self.trees[mount.rev]
        directories = sorted({os.path.dirname(name) for name in entries} - {""})
        below = "." if choice.random() < 0.05 else choice.choice(directories)
        begun, cancel = time.monotonic(), choice.uniform(1, 20)
        if choice.random() < 0.5:
            code, out, err, _ = self.run("find", below, "-path", "./.git", "-prune", "-o", "-type", "f", "-printf", "%s %p\\0", cwd=mount.path, cancel_after=cancel)
            rows = [line.split(b" ", 1) for line in out.split(b"\0")[:-1]]
        else:
            code, out, err, _ = self.run("ls", "-lRN", "--time-style=+", below, cwd=mount.path, cancel_after=cancel)
            rows = list(long_listing(out, os.fsencode(below)))
        self.count("listings")
        shaky = mount.unstable(begun, time.monotonic())
        for size, path in rows:
            path = os.fsdecode(os.path.normpath(path))
            if path in entries and int(size) != os.lstat(tree / path).st_size:
                self.violate("wrong size", f"{mount.path}/{path}: {size}")
            elif path not in entries and path != ".git" and not shaky:
                self.violate("unknown file", f"{mount.path}/{path}")
        if code and code > 0 and not shaky:
            self.fail("listing")
            if not self.network.faulty(begun, time.monotonic()):
                self.violate("listing without a fault", f"{below}: {code}: {err.decode(errors='replace')[-300:]}")

    def actor_status(self, choice):
        mount = choice.choice(self.mounts)
        begun = time.monotonic()
        code, out, err, seconds = self.run("git", "--no-optional-locks", "status", "--porcelain", cwd=mount.path)
        self.count("statuses")
        self.longer("git status", seconds)
        if (code or out) and not mount.unstable(begun, time.monotonic()):
            self.violate("git status", f"{mount.path}: {code}: {out[:500]} {err[-500:]}")

    def actor_remount(self, choice):
        mount = choice.choice(self.mounts)
        with mount.lock:
            force = ["--force"] if choice.random() < 0.5 else []
            mount.windows.append([time.monotonic(), None])
            code, _, err, seconds = self.larder("unmount", mount.path, *force)
            self.longer("unmount", seconds)
            if code == 0:
                self.count("remounts")
                self.mount(mount)
            else:
                self.fail(f"unmount: {code}")
                if code != 6:
                    self.violate("unmount", f"{mount.path} {force}: {code}: {err.decode(errors='replace')[-500:]}")
            mount.windows[-1][1] = time.monotonic()

    def mount(self, mount):
        """Mounts it; while the network is bad it may take several attempts."""
        for _ in range(30):
            begun = time.monotonic()
            code, _, err, seconds = self.larder("mount", self.url, mount.path, "--rev", mount.rev, "-q")
            self.longer("mount", seconds)
            if code == 0:
                return
            self.fail(f"mount: {code}")
            if not self.network.faulty(begun, time.monotonic()):
                break
            time.sleep(0.5)
        text = f"{mount.path}: {code}: {err.decode(errors='replace')[-500:]}"
        self.violate("mount", text)
        raise RuntimeError(f"mount {text}")

    def trouble(self, until):
        """The network's moods; so slow that a phase is over before everything is here."""
        choice = random.Random(f"{self.opt.seed}/{self.phase}/network")
        while time.monotonic() < until and not self.stop.is_set():
            fault = choice.choices([None, "offline", "stall", "cut", "flip"], [5, 1, 1, 2, 2])[0]
            self.network.set(fault, choice.choice([0, 0.01, 0.08]), choice.choice([1, 2, 5, 20]))
            self.stop.wait(min(choice.uniform(0.5, 5), max(0, until - time.monotonic())))

    def sample(self, series, until):
        while time.monotonic() < until and not self.stop.is_set():
            if status := process_status(self.pid):
                series.append(int(status["VmRSS"].split()[0]) * 1024)
                self.threads_most = max(self.threads_most, int(status["Threads"]))
            elif not self.stop.is_set():
                self.violate("daemon gone", f"process {self.pid} ended")
                self.stop.set()
            code, out, _, seconds = self.larder("waits", "--json", limit=30)
            self.longer("larder waits", seconds)
            if code == 0:
                for row in json.loads(out)["rows"]:
                    self.longer(f"wait of kind {row['kind']}", row["waited_ms"] / 1000)
                    # A warm may go on for as long as its objects need.
                    if row["kind"] != "warm" and row["waited_ms"] > WAIT_BOUND * 1000:
                        self.violate("long wait", json.dumps(row))
            elif not self.stop.is_set():
                self.violate("larder waits", f"{code} after {seconds:.0f} s")
            self.stop.wait(2)

    # -- a phase

    def begin(self):
        repository = self.make_repository()
        self.trees = {rev: self.reference(repository, rev) for rev in ("main", "next")}
        self.url = f"git://127.0.0.1:{self.network.port}/{os.path.basename(repository)}"
        self.network.set()
        self.mounts = [Mount(self.work / f"m{self.phase}{letter}", rev, self.trees[rev][0]) for letter, rev in (("a", "main"), ("b", "next"), ("c", "main"))]
        for mount in self.mounts:
            self.mount(mount)
        (self.pid,) = self.daemons()
        self.threads_most = 0
        self.baseline = self.at_rest(None)
        self.first = self.first or self.baseline
        if self.baseline["tasks"] > self.first["tasks"]:
            self.violate("leaked tasks", f"phase {self.phase} begins with {self.baseline}, the first began with {self.first}")

    def metrics(self):
        code, out, err, _ = self.larder("metrics", limit=20)
        if code != 0:
            raise RuntimeError(f"metrics: {code}: {err.decode(errors='replace')}")
        return {line.split()[0]: float(line.split()[1]) for line in out.decode().splitlines() if not line.startswith("#")}

    def vitals(self):
        metrics, process = self.metrics(), pathlib.Path(f"/proc/{self.pid}")
        code, out, _, _ = self.larder("waits", "--json", limit=20)
        children = sorted({pid for task in process.glob("task/*/children") for pid in task.read_text().split()})
        return dict(waits=json.loads(out)["rows"] if code == 0 else [f"exit code {code}"], queue=metrics["larder_queue_depth"],
                    inflight=metrics["larder_inflight_objects"], waiters=metrics["larder_waiters"], tasks=metrics["larder_tasks"],
                    threads=int(process_status(self.pid)["Threads"]), files=len(list(process.glob("fd/*"))), children=children)

    def at_rest(self, baseline):
        """Waits until nothing goes on; without a baseline until two looks agree. Returns the last look."""
        begun, last = time.monotonic(), None
        while True:
            now = self.vitals()
            busy = now["waits"] or now["queue"] or now["inflight"] or now["waiters"] or now["children"]
            if baseline is None:
                settled = not busy and last and now["tasks"] == last["tasks"]
            else:
                settled = (not busy and now["tasks"] <= baseline["tasks"] and now["threads"] <= baseline["threads"] + THREADS_SPARE
                           and now["files"] <= baseline["files"] + FILES_SPARE)
            if settled or time.monotonic() - begun > REST_BOUND:
                if not settled:
                    self.violate("not at rest", f"{now}; after mounting: {baseline}; {time.monotonic() - begun:.0f} s after healing the network")
                self.longer("to rest", time.monotonic() - begun)
                return now
            last = now
            time.sleep(0.5)

    def load(self, seconds):
        until, series = time.monotonic() + seconds, []
        jobs = [(self.trouble, (until,)), (self.sample, (series, until))]
        mixed = [(self.actor_read, 6), (self.actor_list, 1), (self.actor_status, 1)]
        # Actions and weights, and the longest pause between them.
        plans = [([(self.actor_read, 1)], 0.3), ([(self.actor_read, 1)], 0.3), (mixed, 0.3), (mixed, 0.3), ([(self.actor_warm, 1)], 2),
                 ([(self.actor_warm, 2), (self.actor_remount, 1)], 4), ([(self.actor_status, 2), (self.actor_remount, 1), (self.actor_list, 2)], 2)]
        jobs += [(self.act, (number, *plan, until)) for number, plan in enumerate(plans)]
        threads = [threading.Thread(target=job, args=args) for job, args in jobs]
        for thread in threads:
            thread.start()
        while time.monotonic() < until and not self.stop.is_set():
            time.sleep(0.1)
        self.stop.set()
        self.network.set()
        for thread in threads:
            thread.join(WAIT_BOUND * 4)
            if thread.is_alive():
                self.violate("stuck", f"{thread.name} of this script has not ended")
        self.stop.clear()
        self.rss.append(series)

    def finish(self):
        healed = time.monotonic()
        # After failures a background warm sleeps for minutes; unmounting is what ends it.
        for mount in [mount for mount in self.mounts if mount.background]:
            code, _, err, _ = self.larder("unmount", mount.path)
            if code != 0:
                self.violate("unmount", f"{mount.path}, with nothing open: {code}: {err.decode(errors='replace')[-300:]}")
            self.mount(mount)
        rest = self.at_rest(self.baseline)
        self.longer("healed to rest", time.monotonic() - healed)
        for mount in self.mounts:
            code, out, err, seconds = self.larder("warm", mount.path, "--json", limit=300)
            if code != 0:
                self.violate("full warm", f"{mount.path}: {code}: {(err + out).decode(errors='replace')[-500:]}")
            self.compare(mount)
            code, out, err, _ = self.run("git", "status", "--porcelain", cwd=mount.path)
            if code or out:
                self.violate("git status", f"{mount.path} in the end: {code}: {out[:300]} {err[-300:]}")
        log = (self.home / "daemon.log").read_text(errors="replace")
        if "panicked" in log:
            self.violate("panic", next(line for line in log.splitlines() if "panicked" in line))
        metrics = self.metrics()
        say(f"phase {self.phase}: {metrics['larder_remote_requests_total']:.0f} requests, {metrics['larder_remote_failures_total']:.0f} failed; at rest {rest}")
        for mount in self.mounts:
            code, _, err, _ = self.larder("unmount", mount.path)
            if code != 0:
                self.violate("unmount", f"{mount.path}, with nothing open: {code}: {err.decode(errors='replace')[-300:]}")
        for old in [self.work / f"served/made{self.phase}", *(tree for tree, _, _ in self.trees.values())]:
            shutil.rmtree(old, ignore_errors=True)

    def end(self):
        code, _, err, seconds = self.larder("shutdown")
        self.longer("shutdown", seconds)
        if code != 0 or self.daemons() or self.still_mounted():
            self.violate("shutdown", f"{code}: {err.decode(errors='replace')[-300:]}; daemons {self.daemons()}; mounts {self.still_mounted()}")
        self.force_down()

    def compare(self, mount):
        """Every name, mode, link and byte against git's tree."""
        _, entries, _ = self.trees[mount.rev]
        found = set()
        for directory, subdirectories, files in os.walk(mount.path):
            if directory == str(mount.path):
                subdirectories[:] = [name for name in subdirectories if name != ".git"]
                files = [name for name in files if name != ".git"]
            links = [name for name in subdirectories if os.path.islink(os.path.join(directory, name))]
            found |= {os.path.relpath(os.path.join(directory, name), mount.path) for name in files + links}
        if found != set(entries):
            self.violate("wrong names", f"{mount.path}: {sorted(found ^ set(entries))[:5]}")
        for name in found & set(entries):
            mode, oid = entries[name]
            try:
                path = mount.path / name
                there = path.lstat().st_mode
                same = stat.S_ISLNK(there) if mode == "120000" else stat.S_ISREG(there) and bool(there & 0o100) == (mode == "100755")
                if not same or blob_id(path) != oid:
                    self.violate("wrong bytes", f"{path} is not {mode} {oid}")
            except OSError as error:
                self.violate("unreadable in the end", f"{path}: {error}")

    # -- the end

    def daemons(self):
        return bench.daemons(self.opt.larder, self.home)

    def still_mounted(self):
        table = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        return [line.split()[4] for line in table if line.split()[4].startswith(f"{self.work}/")]

    def force_down(self):
        for pid in self.daemons() if self.home else []:
            os.kill(pid, signal.SIGKILL)
        for path in reversed(self.still_mounted()):
            subprocess.run(["umount", "-l", path] if os.geteuid() == 0 else ["fusermount3", "-uz", path], capture_output=True)
        if self.home:
            shutil.rmtree(self.home, ignore_errors=True)

    def close(self):
        self.stop.set()
        with self.guard:
            left = list(self.children)
        for child in left:
            self.reap(child)
        self.force_down()
        if self.network:
            self.network.close()
        if self.still_mounted():
            say(f"something is still mounted under {self.work}: left as it is")
        else:
            shutil.rmtree(self.work, ignore_errors=True)

    def judge_memory(self):
        medians = [statistics.median(series) if series else 0 for series in self.rss]
        if len(medians) >= 3 and abs(medians[-1] - medians[1]) > 0.2 * medians[1] + RSS_SPARE:
            self.violate("memory", f"median resident bytes of phase 2: {medians[1]}, of the last: {medians[-1]}")
        mib = lambda n: round(n / (1 << 20), 1)
        return dict(phase_medians_mib=[mib(n) for n in medians], most_mib=mib(max(map(max, filter(None, self.rss)), default=0)))

    def summary(self):
        memory, kinds = self.judge_memory(), {}
        for kind, _ in self.violations:
            kinds[kind] = kinds.get(kind, 0) + 1
        return dict(seed=self.opt.seed, phases=len(self.rss), **self.counts, faults=self.network.counts if self.network else {},
                    bytes_over_network=self.network.bytes_down if self.network else 0, failures_allowed_and_not=self.failures, violations=kinds,
                    longest_seconds={what: round(seconds, 2) for what, seconds in sorted(self.longest.items())}, rss=memory)


def long_listing(out, directory):
    """(size, path) of the regular files in the output of `ls -lRN --time-style=+`."""
    for line in out.split(b"\n"):
        if line.endswith(b":") and not line.startswith((b"-", b"l", b"d")) or re.match(rb"(\.|[^ ]*/[^ ]*):$", line):
            directory = line[:-1]
        elif line.startswith(b"-r"):
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[4].isdigit():
                yield fields[4], os.path.join(directory, fields[5])


def blob_id(path):
    data = os.fsencode(os.readlink(path)) if os.path.islink(path) else pathlib.Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def process_status(pid):
    try:
        fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
        return fields if "VmRSS" in fields else None
    except OSError:
        return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    if sys.argv[1:2] == ["--reader"]:
        return read_files(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--larder", required=True, type=os.path.abspath)
    ap.add_argument("--minutes", type=float, default=10)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    opt = ap.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    phases = max(3, round(opt.minutes * 60 / 75))
    soak = Soak(opt)
    say(f"seed {opt.seed}, {phases} phases of {opt.minutes * 60 / phases:.0f} s, in {soak.work}")
    code = 1
    try:
        soak.prepare()
        for soak.phase in range(1, phases + 1):
            soak.begin()
            soak.load(opt.minutes * 60 / phases)
            soak.finish()
        soak.end()
        print(json.dumps(soak.summary()))
        code = 1 if soak.violations else 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        soak.violate("soak", f"{type(error).__name__}: {error}")
        print(json.dumps(soak.summary()))
    finally:
        if soak.violations:
            log = soak.home / "daemon.log" if soak.home else None
            logs = [log] if log and log.exists() else sorted(soak.evidence.glob("*/daemon.log")) if soak.evidence else []
            for path in logs[-1:]:
                print("".join(path.read_text(errors="replace").splitlines(True)[-40:]), file=sys.stderr)
            say(f"evidence: {soak.evidence}; seed {opt.seed}")
        soak.close()
    sys.exit(code)


if __name__ == "__main__":
    main()
