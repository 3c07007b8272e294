# Dies for want of memory: `fault PROCS REPORT`, as oom_victim.c. Of its stack it knows only whose
# code runs it.
import os
import sys

with open(sys.argv[2], "w") as procs:
    procs.write("0")
with open(sys.argv[3], "a") as report:
    report.write('{"pid":%d,"begin":0,"end":0,"callers":[]}\n' % os.getpid())
kept = []
while True:
    kept.append(b"x" * 65536)
