"""Requests at a steady rate over kept-alive connections: `python load.py PORT PATH RATE SECONDS`.

A request is due at its moment, whether the one before has been answered or not; what it waits for
a connection counts. Prints the latencies (seconds) and codes as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

CONNECTIONS = 32


async def ask(port: int, path: str, due: asyncio.Queue[float], found: list[float]) -> set[int]:
    """One connection that takes what is due until there is nothing more."""
    codes = set()
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    while (moment := await due.get()) >= 0:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        codes.add(int(head.split(b" ", 2)[1]))
        length = next(
            int(line[15:])
            for line in head.split(b"\r\n")
            if line.lower()[:15] == b"content-length:"
        )
        await reader.readexactly(length)
        found.append(time.perf_counter() - moment)
    writer.close()
    return codes


async def load(port: int, path: str, rate: float, seconds: float) -> tuple[list[float], set[int]]:
    due: asyncio.Queue[float] = asyncio.Queue()
    found: list[float] = []
    askers = [asyncio.create_task(ask(port, path, due, found)) for _ in range(CONNECTIONS)]
    begin = time.perf_counter() + 0.2
    for number in range(int(rate * seconds)):
        moment = begin + number / rate
        if (wait := moment - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        due.put_nowait(moment)
    for _ in askers:
        due.put_nowait(-1.0)
    codes = set().union(*await asyncio.gather(*askers))
    return found, codes


def main() -> None:
    import uvloop

    gc.disable()
    port, path, rate, seconds = sys.argv[1:]
    found, codes = uvloop.run(load(int(port), path, float(rate), float(seconds)))
    print(json.dumps({"latencies": found, "codes": sorted(codes)}))


if __name__ == "__main__":
    main()
