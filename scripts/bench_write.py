#!/usr/bin/env python3
"""Measures writing, stock Git and moving HEAD in a mount; run by bench.sh, which explains the arguments.

The groups of bench.py and bench_hydrate.py are here too. The baseline is a clone, or a plain directory, on the file
system that LARDER_HOME is on, in the same run; rounds alternate between the two, and what earlier rounds left to be
written is synced before each. File operations are made by a C program: an interpreter costs more than a call.
"""
import json, os, pathlib, random, shutil, statistics

import bench
from bench import human, say
from bench_hydrate import LONG_ROUNDS, RTT_MS, HydrateBench

FILES = 10_000
LARGE_MIB = 1024
REWRITES = 50_000
MODIFIED = 100
FILES_C = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char buffer[1 << 20];
static void must(int ok, const char *what) { if (!ok) { perror(what); exit(1); } }
int main(int argc, char **argv) { /* WHAT PATH COUNT: create, unlink (files in PATH); fill (MiB of PATH), rewrite, rewrite-sync (4 KiB pieces of it) */
  must(argc == 4, "usage");
  const char *what = argv[1]; long count = atol(argv[3]); int fd = -1; char name[32];
  memset(buffer, 'x', sizeof buffer);
  if (!strcmp(what, "create") || !strcmp(what, "unlink")) {
    must(!chdir(argv[2]), "chdir");
    for (long i = 0; i < count; i++) {
      sprintf(name, "file%06ld", i);
      if (*what == 'u') { must(!unlink(name), "unlink"); continue; }
      must((fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644)) >= 0, "create");
      must(write(fd, buffer, 4096) == 4096 && !close(fd), "write");
    }
    return 0;
  }
  must((fd = open(argv[2], O_CREAT | O_RDWR, 0644)) >= 0, "open");
  if (!strcmp(what, "fill")) {
    must(!ftruncate(fd, 0), "ftruncate");
    for (long i = 0; i < count; i++) must(write(fd, buffer, sizeof buffer) == sizeof buffer, "write");
  } else {
    long pieces = lseek(fd, 0, SEEK_END) / 4096; unsigned long state = 88172645463325252UL;
    must(pieces > 0, "nothing to rewrite");
    for (long i = 0; i < count; i++) {
      state ^= state << 13; state ^= state >> 7; state ^= state << 17;
      buffer[0] = (char)i;
      must(pwrite(fd, buffer, 4096, (long)(state % pieces) * 4096) == 4096, "pwrite");
    }
  }
  must(!strcmp(what, "rewrite") || !fsync(fd), "fsync");
  must(!close(fd), "close");
  return 0;
}
"""


class WriteBench(HydrateBench):
    # -- helpers

    def files_program(self):
        source, program = self.work / "files.c", self.work / "files-program"
        if not program.exists():
            source.write_text(FILES_C)
            self.run("cc", "-O2", "-o", program, source)
            kind = self.run("df", "--output=fstype", self.work).decode().split()[-1]
            self.row("baseline of writing: the file system of LARDER_HOME", "–", kind, "", None)
        return program

    def versus(self, what, limit, action, plain, mount, before=None, rounds=bench.ROUNDS):
        """Rounds of `action` on both, alternating; `before` runs unmeasured. Judged where there is a limit."""
        times = {plain: [], mount: []}
        for _ in range(rounds):
            for place, seen in times.items():
                if before:
                    before(place)
                os.sync()
                seen.append(self.timed(lambda: action(place))[0])
        ours, theirs = statistics.median(times[mount]), statistics.median(times[plain])
        if limit:
            self.at_most(what, limit, ours, theirs, "ext4")
        else:
            self.row(what, "–", f"{human(ours)} / {human(theirs)}", f"{ours / theirs:.3g} x", None)

    def git(self, place, *args):
        return self.run("git", *args, cwd=place).decode()

    def clean(self, place):
        return not self.git(place, "status", "--porcelain")

    def status_document(self, home, mount):
        return json.loads(self.larder(home, "status", mount, "--json"))

    def commit_id(self, rev):
        return self.git(self.opt.corpus, "--git-dir", "linux.git", "rev-parse", f"{rev}^{{commit}}").strip()

    # -- git: status and commit

    def group_git(self):
        self.files_program()
        plain = self.ext4()
        with self.fresh(self.url()) as (home, mount):
            self.at_rest(home)
            status = lambda place: self.git(place, "status", "--porcelain")
            for place in (plain, mount):
                for _ in range(2):
                    if status(place):
                        raise RuntimeError(f"{place} is not clean")
            self.versus("`git status`, clean, later ones", 1.0, status, plain, mount)
            names = random.Random(2).sample(self.git(plain, "ls-files", "*.c", "*.h", "*.rst").split("\n")[:-1], MODIFIED + bench.ROUNDS)
            modified, committed = names[:MODIFIED], names[MODIFIED:]
            for place in (plain, mount):
                for name in modified:
                    with open(place / name, "a") as file:
                        file.write("/* changed */\n")
                for _ in range(2):
                    if (count := len(status(place).splitlines())) != MODIFIED:
                        raise RuntimeError(f"{place}: {count} changes instead of {MODIFIED}")
            self.versus(f"`git status`, {MODIFIED} modified files", 1.2, status, plain, mount)
            for place in (plain, mount):
                self.git(place, "checkout", "-q", ".")
                if not self.clean(place):
                    raise RuntimeError(f"{place} is not clean after checkout")
            left = {place: list(committed) for place in (plain, mount)}

            def change(place):
                with open(place / left[place].pop(), "a") as file:
                    file.write("/* committed */\n")

            def commit(place):
                self.git(place, "commit", "-q", "-a", "-m", "one file")
                while not self.clean(place):
                    pass

            self.versus("`git commit -a` of one file, until status is clean", 1.5, commit, plain, mount, before=change)
            if self.git(plain, "rev-parse", "HEAD^{tree}") != self.git(mount, "rev-parse", "HEAD^{tree}"):
                raise RuntimeError("the two have not committed the same")
            self.git(plain, "reset", "-q", "--hard", self.commit_id("main"))

    # -- write: files, large and small

    def group_write(self):
        program = self.files_program()
        plain = self.work / "plain"
        plain.mkdir()
        with self.fresh(self.url()) as (home, mount):
            self.at_rest(home)
            self.small_files(program, plain, mount)
            self.large_file(program, plain, mount)
            self.kernel_tree(plain, mount)
        shutil.rmtree(plain)

    def small_files(self, program, plain, mount):
        again = lambda place: (shutil.rmtree(place / "files", ignore_errors=True), (place / "files").mkdir())
        create = lambda place: self.run(program, "create", place / "files", FILES)
        filled = lambda place: (again(place), create(place))
        self.versus(f"create, write 4 KiB, close: {FILES:,} files", 4, create, plain, mount, before=again)
        self.versus(f"unlink {FILES:,} files", 3, lambda place: self.run(program, "unlink", place / "files", FILES), plain, mount, before=filled)
        for place in (plain, mount):
            (place / "files").rmdir()

    def large_file(self, program, plain, mount):
        run = lambda what, count: lambda place: self.run(program, what, place / "large", count)
        gone = lambda place: (place / "large").unlink(missing_ok=True)
        self.versus(f"write {LARGE_MIB} MiB sequentially, with fsync", 1.2, run("fill", LARGE_MIB), plain, mount, before=gone)
        self.versus(f"rewrite {REWRITES:,} random 4 KiB of it, with fsync", 2, run("rewrite-sync", REWRITES), plain, mount)
        self.versus("the same without fsync", None, run("rewrite", REWRITES), plain, mount)
        for place in (plain, mount):
            if (size := (place / "large").stat().st_size) != LARGE_MIB << 20:
                raise RuntimeError(f"{place}/large has {size} bytes")
            gone(place)

    def kernel_tree(self, plain, mount):
        archive = self.work / "linux.tar"
        self.run("git", "--git-dir", f"{self.opt.corpus}/linux.git", "archive", "-o", archive, "main")
        gone = lambda place: shutil.rmtree(place / "kernel-tree", ignore_errors=True)
        again = lambda place: (gone(place), (place / "kernel-tree").mkdir())
        extract = lambda place: self.run("tar", "xf", archive, "-C", place / "kernel-tree")
        remove = lambda place: self.run("rm", "-rf", place / "kernel-tree")
        self.versus("`tar x` of the kernel tree", 4, extract, plain, mount, before=again)
        # The trees of the last round are there already; later rounds make them again, unmeasured.
        there = lambda place: None if (place / "kernel-tree").exists() else (again(place), extract(place))
        self.versus("`rm -rf` of it", 4, remove, plain, mount, before=there)
        archive.unlink()

    # -- build: this project, from vendored sources

    def group_build(self):
        top, served = pathlib.Path(__file__).resolve().parent.parent, self.work / "projects"
        source, plain = served / "project", self.work / "project"
        source.mkdir(parents=True)
        self.sh(f"git -C {top} -c safe.directory='*' archive HEAD | tar x", source)
        tools = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO_TARGET", "RUSTC_WRAPPER"))}
        say("vendoring the sources of all dependencies")
        vendored = self.run("cargo", "vendor", "--quiet", "--locked", "vendor", cwd=source, env=tools)
        (source / ".cargo").mkdir(exist_ok=True)
        (source / ".cargo/config.toml").write_bytes(vendored)
        for args in (["init", "-q", "-b", "main"], ["config", "uploadpack.allowFilter", "true"], ["config", "uploadpack.allowAnySHA1InWant", "true"]):
            self.git(source, *args)
        # The checksums are of the bytes as they are.
        (source / ".git/info/attributes").write_text("* -text\n")
        self.git(source, "add", "-A", "-f", ".")
        self.git(source, "commit", "-q", "-m", "project")
        url = f"git://127.0.0.1:{self.serve(served)}/project"
        self.run("git", "clone", "-q", url, plain)
        with self.fresh(url) as (home, mount):
            self.warm(home, mount)
            build = lambda place: self.run("cargo", "build", "--quiet", "--offline", "--locked", cwd=place, env=tools)
            again = lambda place: shutil.rmtree(place / "target", ignore_errors=True)
            say(f"building the project {2 * LONG_ROUNDS} times: minutes")
            self.versus(f"`cargo build` of this project, vendored, everything hydrated (median of {LONG_ROUNDS})", 1.15, build, plain, mount,
                        before=again, rounds=LONG_ROUNDS)
            if not self.clean(mount):
                raise RuntimeError(f"the build left changes: {self.git(mount, 'status', '--porcelain')[:300]}")
            again(mount)
        for tree in (served, plain):
            shutil.rmtree(tree)

    # -- switch: moving HEAD, by larder and by git

    def group_switch(self):
        self.larder_switch()
        self.stock_checkout()

    def larder_switch(self):
        times, blobs, requests, overlay = [], [], [], []
        for _ in range(bench.ROUNDS):
            with self.fresh(self.url()) as (home, mount):
                self.clean(mount)
                self.at_rest(home)
                before, asked = self.status_document(home, mount), self.asked(home)
                times.append(self.timed(lambda: self.larder(home, "switch", mount, "next"))[0])
                after = self.status_document(home, mount)
                blobs.append(after["hydrated_objects"] - before["hydrated_objects"])
                requests.append(self.asked(home) - asked)
                overlay.append(after["overlay_entries"])
                self.is_at(mount, "next")
        seconds = statistics.median(times)
        self.row("`larder switch` to next, cold cache", "0.3 s, 0 blobs, 0 files",
                 f"{human(seconds)}, {max(blobs)} blobs, {max(overlay)} overlay entries, {statistics.median(requests):.0f} requests", "",
                 seconds <= 0.3 and not max(blobs) and not max(overlay))

    def is_at(self, place, rev):
        if self.git(place, "rev-parse", "HEAD").strip() != self.commit_id(rev) or not self.clean(place):
            raise RuntimeError(f"{place} is not at {rev}, clean")

    def stock_checkout(self):
        """`git checkout next`: cold through the proxy and again when everything is there, against a clone that has everything."""
        clone = self.work / "blobless"
        self.run("git", "clone", "-q", "--filter=blob:none", self.url(), clone)
        go = lambda place, rev: self.timed(lambda: self.git(place, "checkout", "-q", rev))[0]
        for rev in ("next", "main"):
            go(clone, rev)
        plain, cold, cached, trips, objects = [], [], [], [], []
        with self.through(RTT_MS) as (proxy, port):
            for _ in range(bench.ROUNDS):
                with self.fresh(self.url(port)) as (home, mount):
                    # A mount fetches one branch, so Git knows no other; fetching its commit and trees is not the checkout.
                    self.git(mount, "remote", "set-branches", "--add", "origin", "next")
                    self.git(mount, "fetch", "-q", "origin")
                    self.clean(mount)
                    self.at_rest(home)
                    before, held = self.seen(proxy)["round_trips"], self.status_document(home, mount)["hydrated_objects"]
                    cold.append(go(mount, "next"))
                    trips.append(self.seen(proxy)["round_trips"] - before)
                    objects.append(self.status_document(home, mount)["hydrated_objects"] - held)
                    self.is_at(mount, "next")
                    go(mount, "main")
                    cached.append(go(mount, "next"))
                    self.is_at(mount, "next")
                go(clone, "main")
                plain.append(go(clone, "next"))
        self.is_at(clone, "next")
        shutil.rmtree(clone)
        theirs = statistics.median(plain)
        self.row(f"`git checkout next`, cold, {RTT_MS} ms: round trips", "20", f"{statistics.median(trips):.0f}, {statistics.median(objects):.0f} blobs", "",
                 statistics.median(trips) <= 20)
        self.at_most("the same: time, against a blobless clone with everything cached", 1.5, statistics.median(cold), theirs, "clone")
        self.row("the same again, everything cached", "–", f"{human(statistics.median(cached))} / {human(theirs)}",
                 f"{statistics.median(cached) / theirs:.3g} x", None)


if __name__ == "__main__":
    bench.main(WriteBench)
