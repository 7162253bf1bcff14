#!/usr/bin/env python3
"""git http-backend behind a small HTTP/1.1 server on a free port of loopback; prints the port.

A request for another host's absolute address is served as if this were that host's proxy.
"""
import argparse, base64, http.server, os, ssl, subprocess, threading, urllib.parse

ap = argparse.ArgumentParser(description=__doc__)
ap.add_argument("--base", required=True)
ap.add_argument("--log", required=True)
ap.add_argument("--user")
ap.add_argument("--password")
ap.add_argument("--header", nargs=2)
ap.add_argument("--fail-first", type=int, default=0)
ap.add_argument("--certificate")
ap.add_argument("--key")
opt = ap.parse_args()
lock = threading.Lock()
to_fail = opt.fail_first
wanted = opt.user and "Basic " + base64.b64encode(f"{opt.user}:{opt.password}".encode()).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass
        return b"".join(parts)

    def note(self, status):
        known = "authorized" if self.headers.get("Authorization") else "anonymous"
        with lock, open(opt.log, "a") as log:
            log.write(f"{self.command} {self.path} {status} {known}\n")

    def refuse(self, status, headers=()):
        self.note(status)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def serve(self):
        global to_fail
        body = self.body()
        with lock:
            failing, to_fail = to_fail > 0, max(0, to_fail - 1)
        if failing:
            return self.refuse(503)
        if wanted and self.headers.get("Authorization") != wanted:
            return self.refuse(401, [("WWW-Authenticate", 'Basic realm="larder test"')])
        if opt.header and self.headers.get(opt.header[0]) != opt.header[1]:
            return self.refuse(403)
        self.backend(body)

    def backend(self, body):
        path = self.path
        if path.startswith("http://"):
            path = "/" + path.split("/", 3)[3]
        path, _, query = path.partition("?")
        env = dict(os.environ, GIT_PROJECT_ROOT=opt.base, GIT_HTTP_EXPORT_ALL="1", REQUEST_METHOD=self.command,
                   PATH_INFO=urllib.parse.unquote(path), QUERY_STRING=query, CONTENT_LENGTH=str(len(body)),
                   CONTENT_TYPE=self.headers.get("Content-Type", ""), REMOTE_ADDR="127.0.0.1", REMOTE_USER=opt.user or "",
                   HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
                   GIT_PROTOCOL=self.headers.get("Git-Protocol", ""), GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null")
        child = subprocess.Popen(["git", "http-backend"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def feed():
            try:
                child.stdin.write(body)
                child.stdin.close()
            except BrokenPipeError:
                pass

        threading.Thread(target=feed, daemon=True).start()
        status, headers = 200, []
        while (line := child.stdout.readline().strip()):
            name, _, value = line.decode().partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value.strip()))
        self.note(status)
        self.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := child.stdout.read1(1 << 16):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
        child.wait()

    do_GET = do_POST = serve

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if opt.certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(opt.certificate, opt.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
