#!/usr/bin/env python3
"""Runs a command. If it prints nothing for LIMIT seconds, shows what its processes wait for and kills the test program.

usage: watched.py LIMIT COMMAND...

A test that waits for ever would otherwise end a run without a word about which test it was and why.
"""
import os
import selectors
import subprocess
import sys
import time


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError as e:
        return f"({e.strerror})"


def descendants(pid):
    """All processes below a process, parents first."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task") if os.path.exists(f"/proc/{pid}/task") else []:
        for child in read(f"/proc/{pid}/task/{task}/children").split():
            if child.isdigit():
                found.append(int(child))
                found.extend(descendants(int(child)))
    return found


def show(pid):
    print(f"== process {pid}: {read(f'/proc/{pid}/cmdline')[:300]}", file=sys.stderr)
    tasks = os.listdir(f"/proc/{pid}/task") if os.path.exists(f"/proc/{pid}/task") else []
    for task in tasks:
        at = f"/proc/{pid}/task/{task}"
        calls = " < ".join(line.split("]")[-1].split("+")[0].strip() for line in read(f"{at}/stack").splitlines()[:8])
        state = (read(f"{at}/stat").rsplit(")")[-1].split() or ["?"])[0]
        print(f"   {read(at + '/comm')} ({state}): {calls}", file=sys.stderr)


def test_program(pids):
    """The test program that cargo started: it lies in a directory `deps`."""
    for pid in pids:
        try:
            if "/deps/" in os.readlink(f"/proc/{pid}/exe"):
                return pid
        except OSError:
            pass  # It has ended.
    return None


def main():
    limit, command = int(sys.argv[1]), sys.argv[2:]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait = selectors.DefaultSelector()
    wait.register(child.stdout, selectors.EVENT_READ)
    heard = time.monotonic()
    while True:
        if wait.select(timeout=5):
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                return child.wait()
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            heard = time.monotonic()
        elif time.monotonic() - heard > limit:
            print(f"nothing was printed for {limit} s; these processes run:", file=sys.stderr)
            below = descendants(child.pid)
            for pid in below:
                show(pid)
            program = test_program(below)
            if program is None:
                child.kill()
            else:
                print(f"killing process {program}, the test program", file=sys.stderr)
                os.kill(program, 9)
            heard = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
