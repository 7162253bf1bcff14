#!/usr/bin/env python3
"""Measures larder against an ext4 checkout and git; run by bench.sh, which explains the arguments.

Each group makes what it needs and can be run alone. A figure is the median of ROUNDS; where one round is
minutes of baseline (git fetching blobs one by one), it is taken once and says so. Baselines come from the
same run. `lstat` of all files is a C loop over a list of paths, since any interpreter costs more than the call.
"""
import argparse, hashlib, json, os, pathlib, random, shutil, signal, socket, stat, statistics, subprocess, sys, tempfile, time

ROUNDS = 5
SUBTREE = "drivers/net"
LSTAT_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) { /* LIST DIR: lstat of every NUL-terminated path in LIST, below DIR */
  FILE *list = fopen(argv[1], "rb"); struct stat st; long bad = 0, all = 0;
  if (argc != 3 || !list || chdir(argv[2])) return 2;
  fseek(list, 0, SEEK_END); long size = ftell(list); rewind(list);
  char *paths = malloc(size); if (fread(paths, 1, size, list) != (size_t)size) return 2;
  for (char *p = paths; p < paths + size; p += strlen(p) + 1) { all++; bad += lstat(p, &st) != 0; }
  return bad || !all;
}
"""


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def median_of(action, rounds=ROUNDS, before=None):
    """Median seconds of `action`; `before` runs unmeasured ahead of each round."""
    times = []
    for _ in range(rounds):
        if before:
            before()
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def human(seconds):
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def daemons(larder, home):
    """Processes of the program `larder` that serve `home`."""
    wanted, program, found = f"LARDER_HOME={home}".encode(), os.path.realpath(larder), []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "exe") == program and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


class Bench:
    def __init__(self, opt):
        self.opt, self.rows, self.children = opt, [], []
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="larder-bench.", dir=opt.work))
        drop = lambda name: name.upper().startswith(("GIT_", "LARDER_", "XDG_")) or name.upper().endswith("_PROXY")
        self.env = {k: v for k, v in os.environ.items() if not drop(k)}
        self.env |= dict(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0", LC_ALL="C",
                         HOME=str(self.work), GIT_AUTHOR_NAME="b", GIT_AUTHOR_EMAIL="b@e", GIT_COMMITTER_NAME="b", GIT_COMMITTER_EMAIL="b@e")
        self.port, self.homes, self.checkout, self.clone_seconds, self.count = None, [], None, None, 0
        self.hydrated = None

    # -- running things

    def run(self, *args, cwd=None, env=None, check=True, limit=1800):
        done = subprocess.run([str(a) for a in args], cwd=cwd, env=env or self.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, args))}: {done.returncode}: {done.stderr.decode(errors='replace').strip()[-400:]}")
        return done.stdout

    def sh(self, script, cwd, **more):
        return self.run("bash", "-c", f"set -o pipefail; {script}", cwd=cwd, **more)

    def spawn(self, *args, ready_port, **env):
        child = subprocess.Popen([str(a) for a in args], env=self.env | env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, start_new_session=True)
        self.children.append(child)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", ready_port), 1).close()
                return child
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"{args[0]} does not listen")

    def end(self, child):
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        self.children.remove(child)

    def serve(self, base, **env):
        port = free_port()
        # Not through `git`, which would stay between the daemon and whoever waits for its end.
        program = os.path.join(self.run("git", "--exec-path").decode().strip(), "git-daemon")
        self.spawn(program, "--listen=127.0.0.1", f"--port={port}", f"--base-path={base}", "--export-all",
                   "--reuseaddr", "--log-destination=none", base, ready_port=port, **env)
        return port

    def server(self):
        self.port = self.port or self.serve(self.opt.corpus)
        return self.port

    def url(self, port=None):
        return f"git://127.0.0.1:{port or self.server()}/linux.git"

    def proxy(self, rtt_ms, mbit=0, target=None):
        if not os.path.exists(self.opt.netproxy):
            raise RuntimeError(f"{self.opt.netproxy} is missing")
        target, port = target or self.server(), free_port()
        child = self.spawn(sys.executable, self.opt.netproxy, "--listen", port, "--target", target, "--rtt-ms", rtt_ms, "--mbit", mbit, ready_port=port)
        return child, port

    def home(self):
        self.count += 1
        home = self.work / f"home{self.count}"
        self.homes.append(home)
        return home

    def larder(self, home, *args, **more):
        return self.run(self.opt.larder, *args, env=self.env | {"LARDER_HOME": str(home)}, **more)

    def mount(self, home, url, name=None):
        self.count += 1
        path = self.work / (name or f"mount{self.count}")
        self.larder(home, "mount", url, path)
        return path

    def remount(self, home, url, path):
        self.larder(home, "unmount", path)
        self.larder(home, "mount", url, path)

    def leave(self, home):
        """Ends a home's daemon and removes the home."""
        self.larder(home, "shutdown", check=False, limit=60)
        for pid in self.daemons(home):
            os.kill(pid, signal.SIGKILL)
        self.detach(home)
        if home in self.homes:
            self.homes.remove(home)

    def detach(self, home):
        # Innermost first; only what is under this bench's own directory.
        table = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        stale = [line.split()[4] for line in table if line.split()[4].startswith(f"{self.work}/")]
        if not self.homes or self.homes == [home]:
            for path in reversed(stale):
                subprocess.run(["umount" if os.geteuid() == 0 else "fusermount3", "-l" if os.geteuid() == 0 else "-uz", path], capture_output=True)
        shutil.rmtree(home, ignore_errors=True)

    def daemons(self, home):
        return daemons(self.opt.larder, home)

    def resident(self, home):
        (pid,) = self.daemons(home)
        fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024

    def metric(self, home, name):
        lines = self.larder(home, "metrics").decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))

    # -- rows

    def row(self, what, target, measured, ratio, passed):
        verdict = "–" if passed is None else "pass" if passed else "**miss**"
        self.rows.append((what, target, measured, ratio, verdict))
        say(f"{what}: {measured} {ratio} {verdict}")

    def at_most(self, what, limit, seconds, baseline, against):
        ratio = seconds / baseline
        self.row(what, f"{limit} x {against}", f"{human(seconds)} / {human(baseline)}", f"{ratio:.3g} x", ratio <= limit)

    # -- shared preparations, each made once

    def ext4(self):
        """The checkout that everything is compared with, and the median time of making one."""
        if self.checkout:
            return self.checkout
        path = self.work / "checkout"
        whole = not self.opt.only or set(self.opt.only) & {"mount", "clone"}
        say(f"git clone --depth 1, {'five times' if whole else 'once'}")
        clone = lambda: self.run("git", "clone", "-q", "--depth", "1", self.url(), path)
        self.clone_seconds = median_of(clone, ROUNDS if whole else 1, before=lambda: shutil.rmtree(path, ignore_errors=True))
        kind = self.run("df", "--output=fstype", path).decode().split()[-1]
        self.row(f"baseline: `git clone --depth 1` on {kind}", "–", human(self.clone_seconds), "", None)
        self.checkout = path
        self.files = self.work / "files"
        self.files.write_bytes(self.sh("find . -path ./.git -prune -o -type f -print0", path))
        self.everything = self.work / "everything"
        self.everything.write_bytes(self.sh("find . -path ./.git -prune -o -print0", path))
        self.subtree = self.work / "subtree"
        self.subtree.write_bytes(self.sh(f"find {SUBTREE} -type f -print0", path))
        source, self.lstat = self.work / "lstat.c", self.work / "lstat"
        source.write_text(LSTAT_C)
        self.run("cc", "-O2", "-o", self.lstat, source)
        return path

    def operations(self):
        prune = "-path ./.git -prune -o"
        return [
            ("find -type f", 0.9, 5, lambda d: self.sh(f"find . {prune} -type f -print >/dev/null", d)),
            ("find -printf %s", 0.9, 3, lambda d: self.sh(f"find . {prune} -printf '%s\\n' >/dev/null", d)),
            ("lstat of all", 1.0, 8, lambda d: self.run(self.lstat, self.everything, d)),
            (f"cat of {SUBTREE}", 1.2, 7, lambda d: self.sh(f"xargs -0 cat <{self.subtree} >/dev/null", d)),
        ]

    def full(self):
        """A home with everything read, its mount, and what that took."""
        if self.hydrated:
            return self.hydrated
        self.ext4()
        home = self.home()
        mount = self.mount(home, self.url(), "full")
        self.run("ls", mount)
        self.run("git", "status", "--porcelain", cwd=mount)
        time.sleep(5)
        self.idle = self.resident(home)[0]
        say("reading all 78k files through the mount")
        self.read_all = median_of(lambda: self.sh(f"xargs -0 -n 500 -P 2 cat <{self.files} >/dev/null", mount), 1)
        self.after = self.resident(home)
        self.hydrated = home, mount
        return self.hydrated

    # -- groups

    def group_mount(self):
        self.ext4()
        times = []
        for _ in range(ROUNDS):
            home = self.home()
            times.append(median_of(lambda: self.run("ls", self.mount(home, self.url())), 1))
            self.leave(home)
        empty = statistics.median(times)
        self.at_most("mount and `ls`, empty cache", 0.03, empty, self.clone_seconds, "clone")
        self.row("the same, absolute", "0.5 s", human(empty), "", empty <= 0.5)
        home = self.home()
        self.mount(home, self.url())
        cached = median_of(lambda: self.run("ls", self.mount(home, self.url())))
        self.at_most("mount and `ls`, trees cached", 0.01, cached, self.clone_seconds, "clone")
        self.leave(home)

    def group_status(self):
        checkout, first, later = self.ext4(), [], []
        status = lambda d: self.run("git", "status", "--porcelain", cwd=d)
        status(checkout)
        ext4 = median_of(lambda: status(checkout))
        for _ in range(ROUNDS):
            home = self.home()
            mount = self.mount(home, self.url())
            out = []
            first.append(median_of(lambda: out.append(status(mount)), 1))
            if out[0]:
                raise RuntimeError(f"status is not clean: {out[0][:300]}")
            later.append(median_of(lambda: status(mount)))
            self.leave(home)
        self.at_most("first `git status` after mount", 1.0, statistics.median(first), ext4, "ext4 warm")
        self.at_most("later `git status`", 0.5, statistics.median(later), ext4, "ext4 warm")

    def group_warm(self):
        checkout, (_, mount) = self.ext4(), self.full()
        for what, limit, _, action in self.operations():
            for place in (checkout, mount):
                action(place)
                action(place)
            # Alternating, so that a busy moment of the machine meets both.
            times = {checkout: [], mount: []}
            for _ in range(ROUNDS):
                for place, seen in times.items():
                    seen.append(median_of(lambda: action(place), 1))
            self.at_most(f"warm {what}", limit, statistics.median(times[mount]), statistics.median(times[checkout]), "ext4 warm")

    def group_cold(self):
        checkout, (home, mount) = self.ext4(), self.full()
        for what, _, limit, action in self.operations():
            action(checkout)
            warm = median_of(lambda: action(checkout))
            cold = median_of(lambda: action(mount), before=lambda: self.remount(home, self.url(), mount))
            self.at_most(f"hydrated, cold kernel: {what}", limit, cold, warm, "ext4 warm")

    def group_latency(self):
        proxy, port = self.proxy(40)
        home = self.home()
        mount = self.mount(home, self.url(port))
        names = self.sh("find . -path ./.git -prune -o -mindepth 3 -maxdepth 3 -type f -name '*.c' -print", mount).decode().split()
        by_directory = {os.path.dirname(name): name for name in names}
        picked = random.Random(1).sample(sorted(by_directory.values()), ROUNDS + 1)
        self.run("cat", picked.pop(), cwd=mount)
        cold = statistics.median(median_of(lambda: self.run("cat", name, cwd=mount), 1) for name in picked)
        self.row("`cat` of one cold file, 40 ms round trip", "60 ms", human(cold), "", cold <= 0.060)
        self.leave(home)
        self.end(proxy)

    def group_grep(self):
        proxy, port = self.proxy(40)
        times, asked = [], []
        for _ in range(ROUNDS):
            home = self.home()
            start = time.perf_counter()
            mount = self.mount(home, self.url(port))
            mounted = time.perf_counter() - start
            before = self.metric(home, "larder_remote_requests_total")
            start = time.perf_counter()
            self.run("grep", "-r", "no such words anywhere", "kernel", cwd=mount, check=False)
            times.append((mounted, time.perf_counter() - start))
            asked.append(self.metric(home, "larder_remote_requests_total") - before)
            directories = int(self.sh("find kernel -type d | wc -l", mount))
            self.leave(home)
        requests, grep = statistics.median(asked), statistics.median(t for _, t in times)
        whole = statistics.median(sum(pair) for pair in times)
        self.row("`grep -r` over kernel/ cold, 40 ms: requests", "2 a directory", f"{requests:.0f} for {directories} directories",
                 f"{requests / directories:.2f}", requests <= 2 * directories)
        clone = self.work / "blobless"
        say("git clone --filter=blob:none, then git cat-file over kernel/: minutes, taken once")
        start = time.perf_counter()
        self.run("git", "clone", "-q", "--depth", "1", "--filter=blob:none", "--no-checkout", self.url(port), clone)
        self.sh("git ls-tree -r HEAD kernel | awk '{print $3}' | git cat-file --batch >/dev/null", clone)
        baseline = time.perf_counter() - start
        shutil.rmtree(clone)
        self.row("mount and `grep -r` against blobless clone and `cat-file` (once)", "10 x faster",
                 f"{human(whole)} (grep {human(grep)}) / {human(baseline)}", f"{baseline / whole:.1f} x", baseline >= 10 * whole)
        self.end(proxy)

    def group_large(self):
        served, size = self.work / "large", 1 << 30
        tree = served / "big"
        tree.mkdir(parents=True)
        say("making a repository with a file of 1 GiB, half of it incompressible")
        noise, plain = random.Random(1), tree / "big.bin"
        with open(plain, "wb") as out:
            for number in range(size >> 16):
                out.write(noise.randbytes(1 << 15))
                out.write((b"block %010d " % number * 2048)[: 1 << 15])
        for args in (["init", "-q", "-b", "main"], ["config", "core.compression", "1"], ["config", "core.bigFileThreshold", "2g"],
                     ["config", "uploadpack.allowFilter", "true"], ["config", "uploadpack.allowAnySHA1InWant", "true"],
                     ["add", "."], ["commit", "-q", "-m", "big"]):
            self.run("git", *args, cwd=tree)
        port = self.serve(served)
        home, url = self.home(), f"git://127.0.0.1:{port}/big"
        mount = self.mount(home, url)
        read = lambda path: self.run("dd", f"if={path}", "of=/dev/null", "bs=1M")
        say("hydrating it")
        fetch = median_of(lambda: read(mount / "big.bin"), 1)
        read(plain)
        ext4 = median_of(lambda: read(plain))
        remount = lambda: self.remount(home, url, mount)
        first = median_of(lambda: read(mount / "big.bin"), before=remount)
        again = median_of(lambda: read(mount / "big.bin"))

        def middle():
            fd = os.open(mount / "big.bin", os.O_RDONLY)
            piece = os.pread(fd, 4096, size // 2 + 12345)
            os.close(fd)
            with open(plain, "rb") as wanted:
                wanted.seek(size // 2 + 12345)
                if wanted.read(4096) != piece:
                    raise RuntimeError("wrong bytes in the middle of 1 GiB")

        four = median_of(middle, before=remount)
        rate = lambda seconds: f"{size / seconds / 1e9:.2f} GB/s"
        for what, seconds, least in (("first time", first, 0.2), ("again", again, 0.6)):
            self.row(f"1 GiB sequential, hydrated, {what}", f"at least {least} x ext4 warm", f"{rate(seconds)} / {rate(ext4)}",
                     f"{ext4 / seconds:.2f} x", ext4 / seconds >= least)
        self.row("4 KiB in its middle, first time", "5 ms", human(four), "", four <= 0.005)
        self.row("1 GiB fetched and read, cold", "–", f"{human(fetch)}, {rate(fetch)}", "", None)
        self.leave(home)
        shutil.rmtree(served)

    def group_memory(self):
        self.full()
        mib = lambda n: f"{n / (1 << 20):.0f} MiB"
        self.row("daemon resident, idle, 78k workspace", "64 MiB", mib(self.idle), "", self.idle <= 64 << 20)
        self.row("the same after reading everything", "256 MiB", f"{mib(self.after[0])} (peak {mib(self.after[1])})", "", self.after[0] <= 256 << 20)

    def group_store(self):
        home, mount = self.full()
        status = json.loads(self.larder(home, "status", mount, "--json"))
        status = status["rows"][0] if "rows" in status else status
        raw = status["hydrated_bytes"]
        if not raw:
            raise RuntimeError("nothing is hydrated")
        files = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
        store = [path for path in files if path.suffix == ".redb"] or [max(files, key=lambda path: path.stat().st_size)]
        on_disk = sum(path.stat().st_blocks * 512 for path in store)
        everything = sum(path.stat().st_blocks * 512 for path in files)
        self.row("store after reading everything", "0.25 x raw", f"{on_disk / 1e6:.0f} MB / {raw / 1e6:.0f} MB", f"{on_disk / raw:.3f} x", on_disk <= 0.25 * raw)
        self.row("all of LARDER_HOME, gitdir and logs included", "–", f"{everything / 1e6:.0f} MB", "", None)
        self.row("reading all files through an empty cache", "–", human(self.read_all), f"{self.read_all / self.clone_seconds:.2f} x clone", None)

    def group_compare(self):
        checkout, (_, mount) = self.ext4(), self.full()
        differing, count, size = [], 0, 0
        say("comparing every path, mode, size, link target and byte")
        paths = set(self.sh("find . -path ./.git -prune -o -print0", mount).split(b"\0")) ^ set(self.everything.read_bytes().split(b"\0"))
        differing += sorted(paths)
        for path in self.everything.read_bytes().split(b"\0")[:-1]:
            here, there = os.path.join(os.fsencode(mount), path), os.path.join(os.fsencode(checkout), path)
            if path in paths:
                continue
            a, b = os.lstat(here), os.lstat(there)
            same = a.st_mode == b.st_mode or path == b"."
            if stat.S_ISREG(b.st_mode):
                same = same and a.st_size == b.st_size and digest(here) == digest(there)
                size += b.st_size
            elif stat.S_ISLNK(b.st_mode):
                same = same and a.st_size == b.st_size and os.readlink(here) == os.readlink(there)
            count += 1
            if not same:
                differing.append(path)
        for path in differing[:10]:
            say(f"differs: {path!r}")
        self.row("paths, modes, sizes, link targets, bytes equal to the clone", "all", f"{count:,} paths, {size / 1e9:.2f} GB",
                 f"{len(differing)} differ", not differing and count > 0)

    def group_criterion(self):
        """Store inserts and publishing a generation have no command: criterion measures them in the library."""
        top = pathlib.Path(__file__).resolve().parent.parent
        self.run("cargo", "bench", "--locked", cwd=top, env=dict(os.environ), limit=7200)
        for estimates in sorted((top / "target/criterion").rglob("new/estimates.json")):
            about = json.loads((estimates.parent / "benchmark.json").read_text())
            seconds = json.loads(estimates.read_text())["median"]["point_estimate"] / 1e9
            name, elements = about["full_id"], (about.get("throughput") or {}).get("Elements")
            measured = f"{human(seconds)}" + (f", {elements / seconds:,.0f}/s" if elements else "")
            target, passed = "–", None
            if "insert" in name and "durable" in name and elements:
                target, passed = "50,000/s", elements / seconds >= 50_000
            elif "publish" in name:
                limit = 0.040 if "second" in name else 0.060
                target, passed = human(limit), seconds <= limit
            self.row(f"criterion: {name}", target, measured, "", passed)

    # -- the end

    def table(self):
        print("| what | target | measured | ratio | |\n|---|---|---|---|---|")
        for row in self.rows:
            print("| " + " | ".join(row) + " |")

    def close(self):
        for home in list(self.homes):
            try:
                self.leave(home)
            except Exception as error:  # the rest must be cleaned up whatever one home does
                say(f"{home}: {error}")
        for child in list(self.children):
            self.end(child)
        if not any(f" {self.work}/" in line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()):
            shutil.rmtree(self.work, ignore_errors=True)
        else:
            say(f"something is still mounted under {self.work}: left as it is")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def main(kind):
    """Runs the groups of `kind`, those of the classes below it first."""
    groups = [name.removeprefix("group_") for base in reversed(kind.__mro__) for name in vars(base) if name.startswith("group_")]
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--corpus", default="/tmp/corpus", type=os.path.abspath)
    ap.add_argument("--larder", required=True, type=os.path.abspath)
    ap.add_argument("--netproxy", default="../shared/bench/netproxy.py", type=os.path.abspath)
    ap.add_argument("--work", default=None, help="where to put checkouts and caches (default: the temporary directory)")
    ap.add_argument("--only", nargs="*", default=[], metavar="NAME", help=f"of: {' '.join(groups)}")
    opt = ap.parse_args()
    if opt.only == ["list"]:
        return print("\n".join(groups))
    if wrong := set(opt.only) - set(groups):
        ap.error(f"no such group: {' '.join(sorted(wrong))}; there are: {' '.join(groups)}")
    bench = kind(opt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    failed = False
    try:
        # Read order matters to nobody but the reader: each group prepares what it needs.
        for name in opt.only or groups:
            say(f"== {name}")
            try:
                getattr(bench, f"group_{name}")()
            except Exception as error:
                failed = True
                bench.row(name, "", f"failed: {str(error)[:200]}", "", False)
    except KeyboardInterrupt:
        failed = True
    finally:
        bench.table()
        bench.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(Bench)
