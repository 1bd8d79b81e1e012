"""Python programs that start at once: a process that has moto, boto3 and the aws command imported forks for each.

    python3 python.py FOLDER EMULATOR.py

Starting one of them anew costs a second or two of processor time, and the tests need hundreds. Each connection to
FOLDER/socket is one program: it brings arguments, environment, folder, and its standard files and namespaces as open files; the answer
is the exit status. Closing the connection ends the program. All ends, and FOLDER is removed, when stdin does.
"""

import array
import contextlib
import ctypes
import functools
import gc
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import socket
import sys

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000


def load(path):
    """The emulator, with all it fills in and all services the tests use."""
    spec = importlib.util.spec_from_file_location("emulator", path)
    emulator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(emulator)
    emulator.prepare()
    import moto.server
    from moto.backends import get_backend

    services = "acm ebs ec2 elbv2 events iam kms logs resourcegroupstaggingapi s3 scheduler ssm sts"
    for service in services.split():
        get_backend(service)
        importlib.import_module(f"moto.{service}.urls")
    return moto.server


def load_clients():
    import awscli.clidriver
    import boto3
    import botocore.loaders

    # Descriptions of services are megabytes of JSON, and do not change.
    read = botocore.loaders.JSONFileLoader.load_file
    botocore.loaders.JSONFileLoader.load_file = functools.lru_cache(maxsize=None)(read)
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    session = boto3.Session()
    services = "ebs ec2 elbv2 iam logs resourcegroupstaggingapi s3 scheduler ssm sts".split()
    for service in services:
        session.client(service, aws_access_key_id="none", aws_secret_access_key="none")
    # Nobody's settings: what counts is the environment of whoever asks, which is read when it is needed.
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    driver = awscli.clidriver.create_clidriver()
    for command in driver.create_help_command().command_table.values():
        if command.name in services:
            command.create_help_command()
    return driver


def enter(namespaces):
    libc = ctypes.CDLL(None, use_errno=True)
    for file, kind in zip(namespaces, (CLONE_NEWNET, CLONE_NEWNS), strict=False):
        here = os.readlink("/proc/self/ns/" + ("net" if kind == CLONE_NEWNET else "mnt"))
        if os.readlink(f"/proc/self/fd/{file}") != here and libc.setns(file, kind) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def become(asked, files, server, driver):
    """In a child of its own: the program that was asked for. Returns its exit status."""
    enter(files[3:])
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    # Set by awscli as it is imported: where its own descriptions are.
    data = os.environ["AWS_DATA_PATH"]
    os.environ.clear()
    os.environ.update(asked["environment"], AWS_DATA_PATH=data)
    os.chdir(asked["folder"])
    random.seed()
    program, *arguments = asked["arguments"]
    if program == "emulator":
        from moto.moto_api._internal import mock_random

        # Else every emulator would make up the same ids.
        random.Random.seed(mock_random)
        server.main(arguments)
    elif program == "aws":
        return driver.main(arguments)
    else:
        sys.argv = ["-c", *arguments]
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    return 0


def receive(connection):
    """What is asked for, and the files that come with it; None if nobody asks."""
    data, files = b"", array.array("i")
    while not data.endswith(b"\n"):
        part, more, *_ = connection.recvmsg(65536, socket.CMSG_SPACE(8 * files.itemsize))
        if not part:
            return None, list(files)
        data += part
        for level, kind, content in more:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files.frombytes(content)
    return json.loads(data), list(files)


def main():
    folder, emulator = sys.argv[1:]
    server, driver = load(emulator), load_clients()
    gc.collect()
    # What is here now is shared with every child as long as nobody writes to it.
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    # Under another name until it listens: whoever finds it may connect.
    listener.bind(os.path.join(folder, "making"))
    listener.listen(64)
    os.rename(os.path.join(folder, "making"), os.path.join(folder, "socket"))
    children = {}
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([listener, wake, 0, *children], [], [])
        if 0 in ready:
            for pid in children.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)
            return
        if wake in ready:
            os.read(wake, 4096)
            gone = {}
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    gone[ended[0]] = os.waitstatus_to_exitcode(ended[1])
            for connection in [c for c, pid in children.items() if pid in gone]:
                with contextlib.suppress(OSError):
                    connection.sendall(f"{gone[children[connection]]}\n".encode())
                del children[connection]
                connection.close()
        for connection in [c for c in children if c in ready]:
            # Whoever asked has gone.
            with contextlib.suppress(ProcessLookupError):
                os.kill(children[connection], signal.SIGKILL)
        if listener in ready:
            connection, _ = listener.accept()
            asked, files = receive(connection)
            if asked is None:
                connection.close()
                continue
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    listener.close()
                    for other in [connection, *children]:
                        other.close()
                    os.close(wake)
                    os.close(woken)
                    status = become(asked, files, server, driver) or 0
                except SystemExit as end:
                    if isinstance(end.code, str):
                        print(end.code, file=sys.stderr)
                    status = end.code if isinstance(end.code, int) else int(end.code is not None)
                except BaseException:  # noqa: BLE001  as the interpreter itself would
                    import traceback

                    traceback.print_exc()
                finally:
                    with contextlib.suppress(Exception):
                        sys.stdout.flush()
                        sys.stderr.flush()
                    os._exit(status & 255)
            for file in files:
                os.close(file)
            children[connection] = pid


main()
