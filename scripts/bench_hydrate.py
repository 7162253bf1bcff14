#!/usr/bin/env python3
"""Measures hydration: warming, prefetch and their bounds; run by bench.sh, which explains the arguments.

The groups of bench.py are here too. A figure is the median of its rounds; where a round takes minutes there are fewer,
and the row says how many. Requests are those that the daemon counts, round trips those that the proxy saw.
"""
import contextlib, json, os, pathlib, random, shutil, signal, statistics, threading, time

import bench
from bench import Bench, human, median_of, say

LONG_ROUNDS = 3
RTT_MS = 40
MBIT = 50
SAMPLES = 300
SAMPLE_PERIOD = 0.1
SAMPLE_BYTES = 64 << 10
mib = lambda n: f"{n / (1 << 20):.0f} MiB"


class HydrateBench(Bench):
    # -- helpers

    @contextlib.contextmanager
    def fresh(self, url):
        """A mount in an empty home, and its end."""
        home = self.home()
        try:
            yield home, self.mount(home, url)
        finally:
            self.leave(home)

    @contextlib.contextmanager
    def through(self, rtt_ms, mbit=0, target=None):
        """(process, port) of a proxy, and its end."""
        child, port = self.proxy(rtt_ms, mbit, target)
        try:
            yield child, port
        finally:
            self.end(child)

    def seen(self, proxy):
        """What the proxy counted."""
        os.kill(proxy.pid, signal.SIGUSR1)
        return json.loads(proxy.stdout.readline())

    def timed(self, action):
        start = time.perf_counter()
        out = action()
        return time.perf_counter() - start, out

    def asked(self, home):
        return self.metric(home, "larder_remote_requests_total")

    def warm(self, home, mount, *more):
        """Seconds, and the command's report."""
        seconds, out = self.timed(lambda: self.larder(home, "warm", mount, "--json", *more))
        return seconds, json.loads(out)

    def daemon(self, home):
        (pid,) = self.daemons(home)
        return pid

    def at_rest(self, home, limit=120):
        """Waits for prefetch that goes on by itself."""
        until = time.monotonic() + limit
        while self.metric(home, "larder_queue_depth") + self.metric(home, "larder_inflight_objects"):
            if time.monotonic() > until:
                raise RuntimeError(f"not at rest after {limit} s")
            time.sleep(0.1)

    @contextlib.contextmanager
    def settings(self, text):
        """Settings of the daemons that start meanwhile."""
        file = self.work / ".config/larder/config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        try:
            yield
        finally:
            file.unlink()

    # -- hydrate: warming against git

    def group_hydrate(self):
        self.warm_against_clone("", self.url(), 0.8)
        with self.through(RTT_MS) as (_, port):
            self.warm_against_clone(f", {RTT_MS} ms", self.url(port), 0.9)
        self.warm_again()
        self.warm_subtree()
        self.find_sizes("without", None, {})
        # The repository's own configuration is not touched.
        self.find_sizes("with", 2, dict(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="transfer.advertiseObjectInfo", GIT_CONFIG_VALUE_0="true"))

    def warm_against_clone(self, how, url, limit):
        warms, whole, objects, requests = [], [], 0, 0
        # Once, and kept to the end: making it takes half a minute, and removing it while its files are still being
        # written takes longer and would be measured along with what comes next.
        clone = self.timed(lambda: self.run("git", "clone", "-q", "--depth", "1", url, self.work / f"clone-{limit}"))[0]
        for _ in range(LONG_ROUNDS):
            start = time.perf_counter()
            with self.fresh(url) as (home, mount):
                seconds, report = self.warm(home, mount)
                whole.append(time.perf_counter() - start)
                warms.append(seconds)
                objects, requests = report["objects_fetched"], report["requests"]
            say(f"warm {human(seconds)}, {objects} objects in {requests} requests; clone {human(clone)}")
        warm = statistics.median(warms)
        self.at_most(f"warm of {objects:,} objects{how} (median of {LONG_ROUNDS}; the clone once)", limit, warm, clone, "clone")
        self.row(f"the same with the mount before it{how}", "–", f"{human(statistics.median(whole))}, {requests} requests",
                 f"{statistics.median(whole) / clone:.2f} x", None)

    def warm_again(self):
        with self.fresh(self.url()) as (home, mount):
            self.warm(home, mount)
            before = self.asked(home)
            again = statistics.median(self.warm(home, mount)[0] for _ in range(bench.ROUNDS))
            asked = self.asked(home) - before
            self.row("warm again, everything cached", "50 ms, 0 requests", f"{human(again)}, {asked:.0f} requests", "", again <= 0.05 and not asked)
            part = statistics.median(self.warm(home, mount, f"dr{'?' * n}*")[0] for n in range(bench.ROUNDS))
            self.row("the same with pathspecs not seen before", "–", human(part), "", None)
            times, asked = [], 0
            for _ in range(bench.ROUNDS):
                self.larder(home, "shutdown")
                self.larder(home, "daemon")
                self.run("ls", mount)
                before = self.asked(home)
                seconds, report = self.warm(home, mount)
                times.append(seconds)
                asked = max(asked, self.asked(home) - before)
                if report["objects_already_cached"] != report["objects_wanted"]:
                    raise RuntimeError(f"not everything was cached: {report}")
            again = statistics.median(times)
            self.row("the same, first after a restart of the daemon", "50 ms, 0 requests", f"{human(again)}, {asked:.0f} requests", "", again <= 0.05 and not asked)

    def warm_subtree(self):
        times, requests, trips, connections, objects = [], [], [], [], 0
        with self.through(RTT_MS) as (proxy, port):
            for _ in range(bench.ROUNDS):
                with self.fresh(self.url(port)) as (home, mount):
                    before, asked = self.seen(proxy), self.asked(home)
                    seconds, report = self.warm(home, mount, "kernel/")
                    after = self.seen(proxy)
                    times.append(seconds)
                    requests.append(self.asked(home) - asked)
                    trips.append(after["round_trips"] - before["round_trips"])
                    connections.append(after["connections"] - before["connections"])
                    objects = report["objects_fetched"]
        seconds, asked = statistics.median(times), statistics.median(requests)
        self.row(f"`warm kernel/`, {objects} objects, {RTT_MS} ms", "0.5 s, 4 requests",
                 f"{human(seconds)}, {asked:.0f} requests, {statistics.median(trips):.0f} round trips, {statistics.median(connections):.0f} new connections",
                 "", seconds <= 0.5 and max(requests) <= 4)

    def find_sizes(self, how, most, env):
        """`find -printf %s` over cold files, with and without a server that tells sizes."""
        times, requests, trips, files, directories = [], [], [], 0, 0
        port = self.serve(self.opt.corpus, **env) if env else self.server()
        with self.through(RTT_MS, target=port) as (proxy, there):
            for _ in range(bench.ROUNDS):
                with self.fresh(self.url(there)) as (home, mount):
                    before, asked = self.seen(proxy), self.asked(home)
                    seconds, out = self.timed(lambda: self.run("find", bench.SUBTREE, "-type", "f", "-printf", "%s\\n", cwd=mount))
                    times.append(seconds)
                    requests.append(self.asked(home) - asked)
                    trips.append(self.seen(proxy)["round_trips"] - before["round_trips"])
                    files, directories = len(out.split()), int(self.sh(f"find {bench.SUBTREE} -type d | wc -l", mount))
        if env:
            self.end(self.children[-1])
        seconds, asked = statistics.median(times), max(requests)
        limit, most = (1, most) if most else (10, 2 * directories)
        self.row(f"`find {bench.SUBTREE} -printf %s`, {files:,} cold files, {directories} directories, {RTT_MS} ms, {how} object-info",
                 f"{limit} s, {most} requests", f"{human(seconds)}, {asked:.0f} requests, {statistics.median(trips):.0f} round trips",
                 f"{asked / directories:.2f} a directory", seconds <= limit and asked <= most)

    # -- prefetch: the three settings at real tasks

    def group_prefetch(self):
        def grep(mount):
            return self.timed(lambda: self.run("grep", "-r", "no such words anywhere", "drivers/net/ethernet/intel", cwd=mount, check=False))[0]

        def build(mount):
            start = time.perf_counter()
            for part in ("api", "subcmd"):
                out = self.work / "out" / part
                out.mkdir(parents=True)
                self.run("make", "-s", "-C", mount / "tools/lib" / part, f"O={out}/")
            seconds = time.perf_counter() - start
            shutil.rmtree(self.work / "out")
            return seconds

        def edit(mount):
            waited = self.timed(lambda: self.run("git", "status", "--porcelain", cwd=mount))[0]
            for name in ("kernel/sched/core.c", "mm/slub.c", "fs/ext4/inode.c", "net/ipv4/tcp.c", "block/blk-mq.c", "drivers/net/tun.c",
                         "include/linux/sched.h", "lib/rbtree.c", "Documentation/process/coding-style.rst", "arch/x86/kernel/traps.c"):
                parts = name.split("/")
                for depth in range(len(parts)):
                    waited += self.timed(lambda: self.run("ls", "-a", os.path.join(".", *parts[:depth]), cwd=mount))[0]
                    time.sleep(0.3)  # a person looks for the next name
                waited += self.timed(lambda: self.run("cat", name, cwd=mount))[0]
            return waited + self.timed(lambda: self.run("git", "status", "--porcelain", cwd=mount))[0]

        tasks = [("`grep -r` over drivers/net/ethernet/intel", grep), ("`make` of tools/lib/api and subcmd", build), ("an editor opens ten files", edit)]
        with self.through(RTT_MS, MBIT) as (_, port):
            for what, task in tasks:
                for setting in ("off", "on-read", "on-list"):
                    self.prefetch(what, task, setting, self.url(port))

    def prefetch(self, what, task, setting, url):
        figures = []
        names = ("requests_total", "objects_total", "bytes_total")
        with self.settings(f'[hydrate]\nprefetch = "{setting}"\n'):
            for _ in range(LONG_ROUNDS):
                with self.fresh(url) as (home, mount):
                    before = [self.metric(home, f"larder_remote_{name}") for name in names]
                    seconds = task(mount)
                    self.at_rest(home)
                    figures.append([seconds] + [self.metric(home, f"larder_remote_{name}") - b for name, b in zip(names, before)])
        seconds, requests, objects, size = (statistics.median(column) for column in zip(*figures))
        self.row(f"{what}, {RTT_MS} ms, {MBIT} Mbit/s, {setting}", "–", human(seconds), f"{objects:.0f} objects, {size / 1e6:.1f} MB, {requests:.0f} requests", None)

    # -- limits: what a warm may cost others

    def group_limits(self):
        self.reads_during_a_warm(f"{RTT_MS} ms, {MBIT} Mbit/s a connection", RTT_MS, MBIT)
        self.reads_during_a_warm("loopback", 0, 0)
        self.memory_of_a_warm()

    def cold_files(self):
        """One small file of each directory, in the order of the tree."""
        chosen = {}
        for line in self.run("git", "--git-dir", f"{self.opt.corpus}/linux.git", "ls-tree", "-rlz", "main").split(b"\0")[:-1]:
            about, name = line.split(b"\t", 1)
            mode, _, oid, size = about.split()
            if mode == b"100644" and 0 < int(size) < SAMPLE_BYTES:
                chosen.setdefault(os.path.dirname(name), (name.decode(), oid))
        # A content that two directories have would be warm the second time.
        return [name for name, _ in {oid: (name, oid) for name, oid in chosen.values()}.values()]

    def sample(self, mount, names, most, running=lambda: True):
        """Seconds that reading each takes, one every SAMPLE_PERIOD; files that are here already are passed over."""
        times, due = [], time.perf_counter()
        while names and len(times) < most and running():
            path = mount / names.pop()
            if os.getxattr(path, "user.larder.hydrated") == b"1":
                continue
            time.sleep(max(0, due - time.perf_counter()))
            due = max(due + SAMPLE_PERIOD, time.perf_counter())
            start = time.perf_counter()
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 17):
                    pass
            if running():
                times.append(time.perf_counter() - start)
        return times

    def reads_during_a_warm(self, how, rtt_ms, mbit):
        idle, busy, rounds, warmed = [], [], 0, []
        with self.through(rtt_ms, mbit) if rtt_ms else contextlib.nullcontext((None, None)) as (_, port):
            while len(busy) < SAMPLES and rounds < 20:
                with self.fresh(self.url(port)) as (home, mount):
                    names = self.cold_files()
                    # The end of the tree is what a warm comes to last; both kinds of reads come from there, at random.
                    names = names[-min(len(names), 1500):]
                    random.Random(rounds).shuffle(names)
                    if len(idle) < SAMPLES:
                        idle += self.sample(mount, names, SAMPLES if mbit else 100)
                    done, failed = threading.Event(), []

                    def run_warm():
                        try:
                            warmed.append(self.warm(home, mount)[0])
                        except Exception as error:
                            failed.append(error)
                        done.set()

                    thread = threading.Thread(target=run_warm)
                    thread.start()
                    time.sleep(0.5)
                    busy += self.sample(mount, names, SAMPLES, lambda: not done.is_set())
                    thread.join()
                    if failed:
                        raise failed[0]
                rounds += 1
        p = lambda times, share: sorted(times)[min(len(times) - 1, int(len(times) * share))]
        self.row(f"reading one cold file, {how}: p50", "–", f"{human(p(idle, 0.5))} idle, {human(p(busy, 0.5))} during a full warm",
                 f"{p(busy, 0.5) / p(idle, 0.5):.1f} x", None)
        self.row(f"the same, p99 ({len(idle)} and {len(busy)} files, {rounds} warms of {human(statistics.median(warmed))})", "3 x idle",
                 f"{human(p(idle, 0.99))} idle, {human(p(busy, 0.99))} during a full warm, longest {human(max(busy))}",
                 f"{p(busy, 0.99) / p(idle, 0.99):.1f} x", p(busy, 0.99) <= 3 * p(idle, 0.99))

    def memory_of_a_warm(self):
        name = "synth-1000000.git"
        if not os.path.isdir(f"{self.opt.corpus}/{name}"):
            return self.row("warm of 1,000,000 files: daemon's memory", "256 MiB", f"no {self.opt.corpus}/{name}: corpus.sh synth DIR 1000000", "", None)
        self.server()
        with self.fresh(f"git://127.0.0.1:{self.port}/{name}") as (home, mount):
            pid = self.daemon(home)
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
            seconds, report = self.warm(home, mount)
            resident, most = self.resident(home)
        self.row(f"warm of {report['objects_fetched']:,} objects: daemon's memory, at most", "256 MiB", f"{mib(most)} (then {mib(resident)}), {human(seconds)}, {report['requests']} requests",
                 "", most <= 256 << 20)


if __name__ == "__main__":
    bench.main(HydrateBench)
