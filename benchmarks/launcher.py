"""Run a command and print its wall seconds, user seconds and peak memory as a line of JSON.

A process of its own, and a small one: Linux charges a child's peak memory with what its parent
held when it was made. What the command prints goes to stderr.
"""

import json
import os
import subprocess
import sys
import time

if __name__ == "__main__":
    began = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    json.dump(
        [os.waitstatus_to_exitcode(status), seconds, usage.ru_utime, usage.ru_maxrss], sys.stdout
    )
