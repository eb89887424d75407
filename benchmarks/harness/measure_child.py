"""Run a command; print its exit code, wall seconds, user seconds and peak memory as JSON.

This is a small process of its own because Linux counts the memory of the parent at the time of the
fork towards the child's peak. The command's stdout goes to stderr.
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
