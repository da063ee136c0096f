"""Three clients of `qemu.qmp` at once on the shared socket: 200 commands each, and every event in order; a fourth never reads.

    shared_qmp.py SOCKET
"""

import asyncio
import socket
import sys

from qemu.qmp import QMPClient

COMMANDS = 200
PAUSES = 20


async def client(path: str, number: int) -> list[str]:
    seen: list[str] = []
    qmp = QMPClient(f"client {number}")
    with qmp.listener(("STOP", "RESUME")) as listener:
        await qmp.connect(path)
        for _ in range(COMMANDS):
            status = await qmp.execute("query-status")
            assert isinstance(status["running"], bool), status
        # the first one makes the events, all see them
        if number == 0:
            for _ in range(PAUSES):
                await qmp.execute("stop")
                await qmp.execute("cont")
        while len(seen) < 2 * PAUSES:
            event = await asyncio.wait_for(listener.get(), 60)
            seen.append(event["event"])
        try:
            await qmp.execute("no-such-command")
        except Exception as error:  # its class is of no interest, its words are
            assert "no-such-command" in str(error), error
        else:
            raise AssertionError("a command that does not exist was carried out")
        await qmp.disconnect()
    return seen


async def main(path: str) -> None:
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(path)
    silent.sendall(b'{"execute": "qmp_capabilities"}')
    results = await asyncio.gather(*(client(path, number) for number in range(3)))
    for seen in results:
        assert seen == ["STOP", "RESUME"] * PAUSES, seen
    print("ok")


asyncio.run(main(sys.argv[1]))
