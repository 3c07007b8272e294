"""A function for awslambdaric, unmodified: says what it was given, and what it is told to."""

import os
import sys
import time

print("imported")


def handler(event, context):
    order = event.get("do", "echo") if isinstance(event, dict) else "echo"
    if order == "echo":
        return {
            "echo": event,
            "request": context.aws_request_id,
            "function": context.function_name,
            "memory": context.memory_limit_in_mb,
            "left": context.get_remaining_time_in_millis() > 0,
        }
    if order == "log":
        print("to standard output")
        print("to standard error", file=sys.stderr)
        return None
    if order == "fail":
        raise ValueError("as I was told")
    if order == "exit":
        os._exit(7)
    if order == "sleep":
        time.sleep(event["seconds"])
        return "slept"
    if order == "hog":
        held = []
        while True:
            held.append(bytearray(1 << 20))
    raise ValueError("unknown order " + order)
