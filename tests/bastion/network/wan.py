"""A link that takes its time: what goes into one end comes out of the other later.

For kernels without sch_netem. Makes two TUN devices in the network namespace it is started in, `wan` and `far` (which
the caller then moves to where it belongs), says `ready`, and carries packets between them until it is killed.

    wan.py MILLISECONDS   each way
"""

import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000


def device(name):
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
    return handle


def main():
    delay = float(sys.argv[1]) / 1000
    wan, far = device("wan"), device("far")
    print("ready", flush=True)
    # By the end that packets come from: where they go, and those on their way with the time of their arrival.
    ways = {wan: (far, collections.deque()), far: (wan, collections.deque())}
    while True:
        first = min((way[0][0] for _, way in ways.values() if way), default=None)
        wait = None if first is None else max(0, first - time.monotonic())
        readable, _, _ = select.select([wan, far], [], [], wait)
        for handle in readable:
            way = ways[handle][1]
            # A bounded number at once, so that those which are due are not held up.
            for _ in range(64):
                try:
                    packet = os.read(handle, 65536)
                except (BlockingIOError, OSError):  # nothing more, or the device is down yet
                    break
                way.append((time.monotonic() + delay, packet))
        now = time.monotonic()
        for to, way in ways.values():
            while way and way[0][0] <= now:
                packet = way.popleft()[1]
                try:
                    os.write(to, packet)
                except OSError:  # down: the packet is lost, as on a link
                    pass


main()
