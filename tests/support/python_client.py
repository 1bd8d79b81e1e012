"""One program of python.py, as if it ran here; reached as `aws`, it is the aws command."""

import array
import json
import os
import socket
import sys

arguments = sys.argv[1:]
if os.path.basename(sys.argv[0]) == "aws":
    arguments.insert(0, "aws")
server = socket.socket(socket.AF_UNIX)
server.connect(os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "socket"))
files = [0, 1, 2, *(os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("net", "mnt"))]
asked = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode() + b"\n"
sent = server.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
server.sendall(asked[sent:])
status = server.makefile().readline()
if not status:
    sys.exit("python.py has ended")
sys.exit(int(status) & 255)
