#!/usr/bin/env python3
"""Compares two builds of the server: python3 scripts/compare-builds.py OLD NEW [ROUNDS], as root.

OLD and NEW are directories with `hoody-state-http` and `hoody-state-fuse`. Both servers run at the same time, each on a loop image of its own with one
running container. Each round asks both for the same change, and every second round asks them in the other order. Printed are the medians of whole HTTP
calls over the UNIX socket, in ms, and their ratio.
"""

import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Server:
    def __init__(self, name, programs, above):
        self.name = name
        self.program = os.path.join(os.path.abspath(programs), "hoody-state-http")
        self.data, self.run = os.path.join(above, name, "data"), os.path.join(above, name, "run")
        os.makedirs(self.data)
        env = dict(os.environ, PATH=os.path.dirname(self.program) + ":" + os.environ["PATH"])
        command = [self.program, "serve", "--data", self.data, "--run", self.run, "--listen", "127.0.0.1:0", "--pool-size", "4GiB"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        if not self.process.stdout.readline():
            raise SystemExit(f"{self.program} does not start")
        self.connection = UnixConnection(os.path.join(self.run, "api.sock"))

    def call(self, method, path, body=None, kind="application/json"):
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
        self.connection.request(method, "/api/v1" + path, data, {"content-type": kind, "prefer": "wait=60"})
        response = self.connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise SystemExit(f"{self.name}: {method} {path} was answered with {response.status}: {text[:400]}")
        return json.loads(text)["data"] if text else None

    def prepare(self):
        image = subprocess.run([self.program, "demo-image"], stdout=subprocess.PIPE, check=True).stdout
        self.call("PUT", "/images/busybox", image, "application/x-tar")
        project = self.call("POST", "/projects", {"alias": "bench"})["id"]
        self.container = "/containers/" + self.call("POST", f"/projects/{project}/containers", {"name": "dev"})["id"]
        self.call("POST", self.container + "/snapshots", {"alias": "base"})

    def end(self):
        self.process.terminate()
        self.process.wait()
        subprocess.run([self.program, "unmount", "--data", self.data, "--run", self.run], stderr=subprocess.DEVNULL, check=False)


def pause_and_resume(server, _):
    server.call("POST", server.container + "/pause")
    server.call("POST", server.container + "/resume")


CHANGES = {
    "snapshot": lambda s, n: s.call("POST", s.container + "/snapshots", {"alias": f"s{n}"}),
    "restore": lambda s, _: s.call("PUT", s.container + "/snapshots/base", {}),
    "delete a snapshot": lambda s, n: s.call("DELETE", s.container + f"/snapshots/s{n}"),
    "pause and resume": pause_and_resume,
}


def main():
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    above = tempfile.mkdtemp(prefix="hoody-compare-", dir="/tmp")
    os.chmod(above, 0o711)  # the containers reach their volumes through it
    servers = []
    times = {change: {"old": [], "new": []} for change in CHANGES}
    try:
        for name, programs in (("old", sys.argv[1]), ("new", sys.argv[2])):
            servers.append(Server(name, programs, above))
            servers[-1].prepare()
        for n in range(rounds):
            for change, act in CHANGES.items():
                for server in servers if n % 2 == 0 else servers[::-1]:
                    began = time.perf_counter()
                    act(server, n)
                    times[change][server.name].append((time.perf_counter() - began) * 1000)
    finally:
        for server in servers:
            server.end()
        shutil.rmtree(above, ignore_errors=True)
    for change, by in times.items():
        old, new = statistics.median(by["old"]), statistics.median(by["new"])
        print(f"{change:18} old {old:7.2f} ms   new {new:7.2f} ms   new/old {new / old:.2f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main()
