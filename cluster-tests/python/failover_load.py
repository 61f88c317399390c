"""Writes through redis.cluster.RedisCluster with default arguments until told to stop.

Usage: failover_load.py HOST:PORT [--shared] < control > events

Four threads do SET with unique values and INCR. Every 100 ms a line with the number of commands
done is printed. A line on standard input, or its end, stops the threads; then one line of JSON
is printed:

  acknowledged_sets   {key: value} of every SET that returned
  in_doubt_sets       {key: value} of every SET that ended in INDOUBT
  acknowledged_incrs  number of INCR that returned
  sent_incrs          number of INCR that were sent to a node, retries of the client included
  in_doubt_incrs      number of INCR that ended in INDOUBT
  errors              every other exception
"""

import json
import sys
import threading
import time

import redis
from redis.cluster import RedisCluster
from redis.connection import AbstractConnection

THREADS = 4
COUNTER = "py:counter"

stop = threading.Event()
lock = threading.Lock()
sent_incrs = 0
done = [0] * THREADS


def count_sent_incrs():
    """Counts below the client's own retries, where commands go to the socket. incr() sends INCRBY."""
    original = AbstractConnection.send_command

    def send_command(self, *args, **kwargs):
        global sent_incrs
        if args and args[0] in ("INCR", "INCRBY"):
            with lock:
                sent_incrs += 1
        return original(self, *args, **kwargs)

    AbstractConnection.send_command = send_command


class Writer(threading.Thread):
    def __init__(self, index, client):
        super().__init__(daemon=True)
        self.index = index
        self.client = client
        self.acknowledged_sets = {}
        self.in_doubt_sets = {}
        self.acknowledged_incrs = 0
        self.in_doubt_incrs = 0
        self.errors = []

    def run(self):
        number = 0
        while not stop.is_set():
            number += 1
            key, value = f"py:{self.index}:{number}", f"value {self.index} {number}"
            outcome = self.attempt(lambda: self.client.set(key, value))
            if outcome == "done":
                self.acknowledged_sets[key] = value
            elif outcome == "in doubt":
                self.in_doubt_sets[key] = value
            outcome = self.attempt(lambda: self.client.incr(COUNTER))
            self.acknowledged_incrs += outcome == "done"
            self.in_doubt_incrs += outcome == "in doubt"
            done[self.index] += 2

    def attempt(self, command):
        try:
            command()
            return "done"
        except redis.ResponseError as error:
            if str(error).startswith("INDOUBT"):
                return "in doubt"
            self.note(error)
        except Exception as error:
            self.note(error)
        return "failed"

    def note(self, error):
        self.errors.append(f"{time.monotonic():.3f} {type(error).__name__}: {error}")
        if len(self.errors) > 100:
            stop.set()


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    count_sent_incrs()
    shared = RedisCluster(host=host, port=int(port)) if "--shared" in sys.argv else None
    writers = [
        Writer(index, shared or RedisCluster(host=host, port=int(port)))
        for index in range(THREADS)
    ]
    for writer in writers:
        writer.start()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    while not stop.wait(0.1):
        print(sum(done), flush=True)
    for writer in writers:
        writer.join(timeout=60)
    hanging = [f"thread {writer.index} hangs" for writer in writers if writer.is_alive()]
    print(
        json.dumps(
            {
                "acknowledged_sets": {k: v for w in writers for k, v in w.acknowledged_sets.items()},
                "in_doubt_sets": {k: v for w in writers for k, v in w.in_doubt_sets.items()},
                "acknowledged_incrs": sum(w.acknowledged_incrs for w in writers),
                "in_doubt_incrs": sum(w.in_doubt_incrs for w in writers),
                "sent_incrs": sent_incrs,
                "errors": [e for w in writers for e in w.errors] + hanging,
            }
        ),
        flush=True,
    )


main()
